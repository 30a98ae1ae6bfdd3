//! The rules of nftables and of iptables, either kind.

use std::fs;

use anyhow::{Result, ensure};

use super::Moment;
use super::kernel::run;

/// Which tables the older kind of iptables has made, by family.
const LEGACY: [(&str, &str); 2] = [
    (
        "/proc/thread-self/net/ip_tables_names",
        "iptables-legacy-save",
    ),
    (
        "/proc/thread-self/net/ip6_tables_names",
        "ip6tables-legacy-save",
    ),
];

/// Of the namespace the calling thread is in.
pub(super) fn read(prefix: &str, moment: &mut Moment) -> Result<()> {
    // Without counters and other state.
    let output = run("nft", &["-s", "list", "ruleset"])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft -s list ruleset: {errors}");
    let ruleset = String::from_utf8_lossy(&output.stdout);
    // Such tables hold matches nft cannot show, comments above all.
    let managed: Vec<&str> = errors
        .lines()
        .filter_map(|line| line.split_once("table ")?.1.split_once(" is managed by"))
        .map(|(table, _)| table)
        .collect();
    for line in lines(&ruleset, &managed) {
        moment.put(format!("{prefix}{line}"));
    }
    if !managed.is_empty() {
        for tool in ["iptables-nft-save", "ip6tables-nft-save"] {
            saved(prefix, tool, moment)?;
        }
    }
    for (tables, tool) in LEGACY {
        if fs::read_to_string(tables).is_ok_and(|names| !names.is_empty()) {
            saved(prefix, tool, moment)?;
        }
    }
    Ok(())
}

/// Each rule with its table.
fn saved(prefix: &str, tool: &str, moment: &mut Moment) -> Result<()> {
    let family = if tool.starts_with("ip6") { "ip6" } else { "ip" };
    let output = run(tool, &[])?.stdout;
    let mut table = "";
    for line in String::from_utf8_lossy(&output).lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(rule) = line.strip_prefix("-A ") {
            moment.put(format!("{prefix}rule {family} {table} {rule}"));
        }
    }
    Ok(())
}

/// One line per table, chain, rule, set and element of what `nft list ruleset` prints.
fn lines(ruleset: &str, managed: &[&str]) -> Vec<String> {
    let mut told = Vec::new();
    let (mut table, mut block) = (String::new(), String::new());
    let mut elements: Option<String> = None;
    for line in ruleset.lines() {
        let depth = line.chars().take_while(|c| *c == '\t').count();
        let line = line.trim();
        if let Some(mut open) = elements.take() {
            open += " ";
            open += line;
            elements = Some(open);
        } else if let Some(first) = line.strip_prefix("elements = {") {
            elements = Some(first.to_owned());
        }
        if let Some(all) = elements.take() {
            match all.trim_end().strip_suffix('}') {
                Some(all) => {
                    let of = block.split_once(' ').map_or("", |(_, name)| name);
                    let each = split(all);
                    told.extend(each.map(|e| format!("element {table} {of} {e}")));
                }
                None => elements = Some(all),
            }
            continue;
        }
        match (depth, line.strip_suffix(" {")) {
            (_, None) if line.is_empty() || line == "}" || line.starts_with('#') => {}
            (0, Some(name)) => {
                table = name.trim_start_matches("table ").to_owned();
                told.push(format!("table {table}"));
            }
            (1, Some(name)) => {
                block = name.to_owned();
                let (kind, name) = name.split_once(' ').unwrap_or((name, ""));
                told.push(format!("{kind} {table} {name}"));
            }
            (2, _) => {
                let (kind, name) = block.split_once(' ').unwrap_or((&block, ""));
                if kind == "chain" && !managed.contains(&table.as_str()) {
                    told.push(format!("rule {table} {name} {line}"));
                }
            }
            _ => {}
        }
    }
    told
}

/// At commas that are not within quotes; without the time an element still has.
fn split(elements: &str) -> impl Iterator<Item = String> {
    let mut quoted = false;
    let parts = elements.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    parts
        .map(|part| {
            let mut told: Vec<&str> = Vec::new();
            let mut words = part.split_whitespace();
            while let Some(word) = words.next() {
                match word {
                    "expires" => drop(words.next()),
                    word => told.push(word),
                }
            }
            told.join(" ")
        })
        .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ruleset_in_lines() {
        let ruleset = "table inet t {\n\tset s {\n\t\ttype ipv4_addr . inet_service\n\t\telements = { 10.1.0.1 . 80,\n\
            \t\t\t     10.1.0.2 timeout 1h expires 3s comment \"a, b\" }\n\t}\n\n\tchain c {\n\t\ttype filter hook forward \
            priority filter; policy accept;\n\t\tip saddr 10.1.0.1 counter accept\n\t}\n}\ntable ip nat {\n\tchain \
            POSTROUTING {\n\t\tmasquerade\n\t}\n}\n";
        assert_eq!(
            lines(ruleset, &["ip nat"]),
            [
                "table inet t",
                "set inet t s",
                "element inet t s 10.1.0.1 . 80",
                "element inet t s 10.1.0.2 timeout 1h comment \"a, b\"",
                "chain inet t c",
                "rule inet t c type filter hook forward priority filter; policy accept;",
                "rule inet t c ip saddr 10.1.0.1 counter accept",
                "table ip nat",
                "chain ip nat POSTROUTING",
            ]
        );
    }
}
