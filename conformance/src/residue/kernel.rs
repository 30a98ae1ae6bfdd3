//! Links, addresses, routes, neighbours, forwarding entries, rules and tracked connections of one network namespace.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use super::{Moment, filter};
use crate::differential::snapshot::Place;
use crate::node;

const CONNTRACK_COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// A link's attributes that a plugin may change on a link that is not its own.
const ATTRIBUTES: [&str; 6] = [
    "mtu",
    "address",
    "master",
    "ifalias",
    "promiscuity",
    "qdisc",
];

/// Of the namespace the calling thread is in.
pub(super) fn read(prefix: &str, moment: &mut Moment) -> Result<()> {
    let place = Place::read("", false)?;
    for link in &place.links {
        tell_link(prefix, link, moment);
    }
    for route in &place.routes {
        if !follows_an_address(route) {
            moment.put(format!("{prefix}route {}", route_text(route)));
        }
    }
    for entry in &place.neighbours {
        let (dst, dev) = (text(entry, "dst"), text(entry, "dev"));
        // Without a MAC, somebody has asked for it and nobody has answered.
        if entry.get("lladdr").is_some() {
            moment.put(format!("{prefix}neigh {dst} dev {dev}"));
        }
    }
    for rule in &place.rules {
        moment.put(format!("{prefix}ip-rule {}", words(rule)));
    }
    for rule in ip(&["-6", "-j", "rule", "show"])? {
        moment.put(format!("{prefix}ip-rule -6 {}", words(&rule)));
    }
    if place.links.iter().any(forwards) {
        for entry in list(&run("bridge", &["-j", "fdb", "show"])?.stdout) {
            tell_fdb(prefix, &entry, &place.links, moment);
        }
    }
    filter::read(prefix, moment)?;
    let tracked = fs::read_to_string(CONNTRACK_COUNT).unwrap_or_default();
    if tracked.trim().parse().is_ok_and(|n: u64| n > 0) {
        for family in ["ipv4", "ipv6"] {
            let out = run("conntrack", &["-L", "-f", family])?.stdout;
            for line in String::from_utf8_lossy(&out).lines() {
                // The kernel's own, when it joins a group: nobody's connection.
                if line.contains(" dst=224.") || line.contains(" dst=ff") {
                    continue;
                }
                moment.put(format!("{prefix}conntrack {}", connection(line)));
            }
        }
    }
    Ok(())
}

fn tell_link(prefix: &str, link: &Value, moment: &mut Moment) {
    let name = text(link, "ifname");
    moment.put(format!("{prefix}link {name}"));
    let mut is = |key: &str, value: String| {
        moment
            .contents
            .insert(format!("{prefix}link {name} {key}"), value);
    };
    // A bridge takes these from its ports, as they come and go.
    let follows = |key: &str| kind(link) == "bridge" && ["mtu", "address"].contains(&key);
    for key in ATTRIBUTES.into_iter().filter(|key| !follows(key)) {
        is(key, text(link, key));
    }
    let up = items(link, "flags").any(|f| f == "UP");
    is("state", if up { "up" } else { "down" }.to_owned());
    for other in items(link, "altnames") {
        moment.put(format!("{prefix}altname {name} {}", plain(other)));
    }
    for address in items(link, "addr_info") {
        let (local, length) = (text(address, "local"), text(address, "prefixlen"));
        moment.put(format!("{prefix}addr {name} {local}/{length}"));
    }
}

/// The kernel made it for an address and takes it away with that; or it is of each link that is up.
fn follows_an_address(route: &Value) -> bool {
    let kernels = text(route, "protocol") == "kernel";
    kernels && (text(route, "table") == "local" || text(route, "type") == "multicast")
}

fn route_text(route: &Value) -> String {
    let mut line = text(route, "dst");
    for key in [
        "type", "gateway", "via", "dev", "table", "metric", "prefsrc", "encap", "nexthops",
    ] {
        let value = route.get(key).map(plain).unwrap_or_default();
        if !["", "unicast", "main"].contains(&value.as_str()) {
            line += &format!(" {key} {value}");
        }
    }
    line
}

/// Whether it may have entries of its own.
fn forwards(link: &Value) -> bool {
    let is_port = link.get("master").is_some();
    is_port || ["bridge", "vxlan", "macvlan"].contains(&kind(link).as_str())
}

fn kind(link: &Value) -> String {
    let info = link.get("linkinfo").unwrap_or(&Value::Null);
    text(info, "info_kind")
}

fn tell_fdb(prefix: &str, entry: &Value, links: &[Value], moment: &mut Moment) {
    let mac = text(entry, "mac");
    // Groups are joined by the kernel, for each address and each link that is up.
    let is_group = ["01:00:5e:", "33:33:", "01:80:c2:"];
    let dev = entry.get("ifname").unwrap_or(&Value::Null);
    let is_its_own = |l: &Value| l.get("ifname") == Some(dev) && text(l, "address") == mac;
    if is_group.iter().any(|p| mac.starts_with(p)) || links.iter().any(is_its_own) {
        return;
    }
    let mut line = format!("{prefix}fdb {mac} dev {}", plain(dev));
    for key in ["dst", "vlan", "vni", "via", "master"] {
        if let Some(value) = entry.get(key) {
            line += &format!(" {key} {}", plain(value));
        }
    }
    moment.put(line);
}

/// Without what the kernel counts: the timeout, a TCP connection's state, packets, users.
fn connection(line: &str) -> String {
    let mut words = line.split_whitespace();
    let protocol = words.next().unwrap_or_default();
    let mut told = vec![protocol];
    let counted = ["packets=", "bytes=", "use=", "id="];
    let fact = |w: &&str| w.contains('=') && !counted.iter().any(|c| w.starts_with(c));
    told.extend(words.filter(fact));
    told.join(" ")
}

fn words(rule: &Value) -> String {
    let Value::Object(map) = rule else {
        return plain(rule);
    };
    let words: Vec<String> = map
        .iter()
        .filter(|(_, v)| *v != "unspec" && !v.as_array().is_some_and(Vec::is_empty))
        .map(|(k, v)| format!("{k} {}", plain(v)))
        .collect();
    words.join(" ")
}

/// A tool's output; what it says of objects that have gone meanwhile is not wanted.
pub(super) fn run(tool: &str, args: &[&str]) -> Result<std::process::Output> {
    let mut command = Command::new(node::tool(tool));
    command.args(args);
    node::run(&mut command, &[], b"")
}

fn ip(args: &[&str]) -> Result<Vec<Value>> {
    Ok(list(&run("ip", args)?.stdout))
}

/// No output is an empty list: some versions of the tools print that for one.
fn list(output: &[u8]) -> Vec<Value> {
    serde_json::from_slice(output).unwrap_or_default()
}

fn items<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).map(plain).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_its_counters() {
        let line = "tcp      6 431999 ESTABLISHED src=10.1.0.2 dst=10.9.0.1 sport=4 dport=80 packets=3 bytes=9 \
                    src=10.9.0.1 dst=10.1.0.2 sport=80 dport=4 [ASSURED] mark=0 use=1";
        assert_eq!(
            connection(line),
            "tcp src=10.1.0.2 dst=10.9.0.1 sport=4 dport=80 src=10.9.0.1 dst=10.1.0.2 sport=80 dport=4 mark=0"
        );
    }
}
