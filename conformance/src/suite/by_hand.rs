//! A run as a shell script: nothing of this program is in it, so that anybody can see what a plugin does.

use std::fmt::Write;
use std::path::Path;

use super::input::Stdin;
use super::plan::Run;
use super::play::closing;
use super::steps::{Call, Hold, Prev, Steps};
use crate::node;

/// Where the script keeps what an ADD printed, by attachment. `/run` is its own by then.
const RESULTS: &str = "/run/.results";

/// The command that repeats a run with this program.
pub fn command(run: &Run<'_>, bin_dir: &Path, more: &[String]) -> String {
    let mut words = vec!["conformance".to_owned(), "run".to_owned()];
    let dir = bin_dir.display().to_string();
    let fixed = [
        ("--bin-dir", dir.as_str()),
        ("--filter", &run.case.id),
        ("--spec", run.version),
        ("--plugin", &run.plugin),
    ];
    for (option, value) in fixed {
        words.extend([option.to_owned(), quoted(value)]);
    }
    words.extend(more.iter().map(|word| quoted(word)));
    words.join(" ")
}

/// The whole of a run, in namespaces the script makes for itself.
pub fn script(run: &Run<'_>, steps: &Steps, bin_dir: &Path) -> String {
    let mut out = String::new();
    let case = run.case;
    let _ = write!(
        out,
        "#!/bin/sh\n# {}: {}\n# {} ({}), {}, cniVersion {}\n\
        # Nothing of it reaches the machine's network: it makes its own namespaces. Root or not.\n",
        case.id,
        case.about,
        case.level.name(),
        case.spec,
        run.plugin,
        run.version
    );
    out += "[ \"$(id -u)\" = 0 ] || map=--map-root-user\n";
    out += "unshare ${map-} --net --mount --propagation private /bin/sh -u <<'NODE'\n";
    let _ = writeln!(out, "export PATH={}", node::TOOLS);
    // A directory that is not there would have to be made for real.
    out += "mount -t tmpfs tmpfs /run\n\
        [ -d /var/lib/cni ] || { mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/cni; }\n\
        mount -t tmpfs tmpfs /var/lib/cni\n";
    let _ = writeln!(
        out,
        "mkdir /run/netns {} {RESULTS} && mount --bind {} {}",
        node::PLUGINS,
        quoted(&bin_dir.display().to_string()),
        node::PLUGINS
    );
    if !steps.dad {
        out += "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad\n";
    }
    out += "ip link set lo up\n";
    for pod in &steps.pods {
        let path = quoted(&format!("/run/netns/{pod}"));
        let _ = writeln!(out, "touch {path} && unshare --net={path} true");
        if !steps.dad {
            let quick = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad";
            let _ = writeln!(out, "nsenter --net={path} sh -c {}", quoted(quick));
        }
    }
    // What a script finds in RESULT.
    out += "RESULT=; export RESULT\n";
    shell(&mut out, "", &steps.setup);
    let mut writer = Writer {
        out,
        version: run.version,
        attached: Vec::new(),
    };
    let mut calls = steps.calls.as_slice();
    while let Some((_, rest)) = calls.split_first() {
        let beside = rest.iter().take_while(|c| c.beside).count();
        let (batch, rest) = calls.split_at(beside + 1);
        calls = rest;
        writer.batch(batch);
    }
    writer.out += "\n# Detach what is attached; what is there then is residue.\n";
    for call in std::mem::take(&mut writer.attached).into_iter().rev() {
        writer.call(&closing(call), false);
    }
    writer.out += "ip addr; ip route; ip rule; nft list ruleset; find /run /var/lib/cni -type f \\\n    \
        ! -path '/run/plugins/*' ! -path '/run/netns/*' ! -path '/run/.results/*'\nNODE\n";
    writer.out
}

struct Writer<'a> {
    out: String,
    version: &'a str,
    /// Those an ADD was called for, and no DEL.
    attached: Vec<Call>,
}

impl Writer<'_> {
    fn batch(&mut self, batch: &[Call]) {
        let mut at_once = batch.len() > 1;
        let mut all = Vec::new();
        for call in batch {
            shell(&mut self.out, "", &call.before);
            at_once |= call.at_once;
            all.extend((0..call.times).map(|n| call.numbered(n)));
        }
        for call in batch.iter().filter(|c| !c.in_pod.is_empty()) {
            let mut pods: Vec<&str> = all.iter().map(|c| c.pod.as_str()).collect();
            pods.sort_unstable();
            pods.dedup();
            for pod in pods {
                shell(&mut self.out, pod, &call.in_pod);
            }
        }
        for call in &all {
            let told = call.expect.told();
            let _ = writeln!(
                self.out,
                "\necho {}",
                quoted(&format!("== {} (expected: {told})", call.title()))
            );
            self.call(call, at_once);
        }
        if at_once {
            self.out += "wait\n";
        }
        for call in &all {
            for hold in &call.holds {
                self.hold(hold);
            }
        }
    }

    fn call(&mut self, call: &Call, at_once: bool) {
        let is_same = |other: &Call| {
            (&other.plugin, &other.container, &other.ifname)
                == (&call.plugin, &call.container, &call.ifname)
        };
        if ["ADD", "DEL"].contains(&call.verb.as_str()) {
            self.attached.retain(|other| !is_same(other));
        }
        if call.verb == "ADD" {
            self.attached.push(call.clone());
        }
        // The name of a file, whatever the container is called.
        let key = format!("{}@{}", call.container, call.ifname);
        let safe: String = key
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(100)
            .collect();
        let file = format!("{RESULTS}/{safe}");
        let mut line = format!("{{ {} | timeout -s KILL 20 env -i", self.input(call, &file));
        for (key, value) in call.environment() {
            line += &format!(" {}", quoted(&format!("{key}={value}")));
        }
        let plugin = quoted(&node::plugin(&call.plugin).display().to_string());
        line += &format!(
            " {plugin} >{file}.now; status=$?; cat {file}.now; echo \" (exit status $status)\""
        );
        if call.verb == "ADD" {
            line += &format!("; [ $status != 0 ] || cp {file}.now {file}");
        }
        line += "; }";
        self.out += &line;
        self.out += if at_once { " &\n" } else { "\n" };
        if call.verb == "ADD" && !at_once {
            let _ = writeln!(self.out, "[ ! -f {file} ] || RESULT=$(cat {file})");
        }
    }

    /// What prints the call's stdin.
    fn input(&self, call: &Call, file: &str) -> String {
        let has_own = match &call.prev {
            Prev::Given(_) => false,
            Prev::Chain => true,
            Prev::Usual => {
                ["CHECK", "DEL"].contains(&call.verb.as_str())
                    && call.version(self.version) >= "0.4.0"
            }
        };
        let given = match &call.prev {
            Prev::Given(value) if !value.is_null() => Some(value),
            _ => None,
        };
        let text = call.input(given);
        let open = text.trim_end().strip_suffix('}');
        let printed = match (&call.stdin, open) {
            (Stdin::Object(map) | Stdin::Script(map, _), Some(_)) if has_own => {
                // Its own result comes instead of one in the configuration.
                let mut map = map.clone();
                map.remove("prevResult");
                let text = serde_json::Value::Object(map).to_string();
                with_result(text.strip_suffix('}').unwrap_or(&text), &text, file)
            }
            (Stdin::Raw(_), Some(open)) if has_own => with_result(open, &text, file),
            _ => format!("printf %s {}", quoted(&text)),
        };
        match &call.stdin {
            Stdin::Script(_, script) => format!(
                "CONFIG=\"$({printed})\" VERSION={} sh -euc {}",
                quoted(self.version),
                quoted(script)
            ),
            _ => printed,
        }
    }

    fn hold(&mut self, hold: &Hold) {
        let mut wanted = vec![if hold.ok { "success" } else { "failure" }.to_owned()];
        if let Some(says) = &hold.says {
            wanted.push(says.clone());
        }
        for (pointer, value) in &hold.json {
            wanted.push(format!("{value} at {pointer}"));
        }
        let title = format!("== {} (expected: {})", hold.sh, wanted.join(", "));
        let _ = writeln!(self.out, "\necho {}", quoted(&title));
        shell(&mut self.out, &hold.place, &hold.sh);
    }
}

fn with_result(open: &str, whole: &str, file: &str) -> String {
    format!(
        "{{ if [ -f {file} ]; then printf '%s, \"prevResult\": %s}}' {} \"$(cat {file})\"; else printf %s {}; fi; }}",
        quoted(open),
        quoted(whole)
    )
}

/// Shell of the case in the node or in a pod; it must not read the script that it is called from.
fn shell(out: &mut String, pod: &str, script: &str) {
    if script.is_empty() {
        return;
    }
    let enter = match pod {
        "" => String::new(),
        pod => format!("nsenter --net={} ", quoted(&format!("/run/netns/{pod}"))),
    };
    let _ = writeln!(
        out,
        "{enter}sh -euc {} </dev/null; echo \" (exit status $?)\"",
        quoted(script)
    );
}

/// One word of shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_of_shell() {
        for text in ["", "a b", "it's", "$(id)", "\n", "/run/x", "a'\\''b"] {
            let mut command = std::process::Command::new("/bin/sh");
            let output = command.args(["-c", &format!("printf %s {}", quoted(text))]);
            assert_eq!(output.output().unwrap().stdout, text.as_bytes());
        }
    }
}
