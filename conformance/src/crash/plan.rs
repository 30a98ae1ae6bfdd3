//! What is called: each plugin with a configuration that has it do all its work.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::trace::{self, At, Ended};
use crate::node::{self, Node, TOOLS};

const POD: &str = "a";
const CONTAINER: &str = "c1";
/// Of the node's network, so that its routes and rules are what they are on a real node.
const UPLINK: &str = "ip link add uplink type veth peer name wire; ip link set uplink up; ip link set wire up; \
                      ip addr add 192.0.2.11/24 dev uplink; ip route add default via 192.0.2.1";
const SUBNET_ENV: &str = "mkdir -p /run/flannel; printf 'FLANNEL_NETWORK=10.1.0.0/16\\nFLANNEL_SUBNET=10.1.2.1/24\\n\
                          FLANNEL_IPV6_NETWORK=fd00:1::/48\\nFLANNEL_IPV6_SUBNET=fd00:1:0:2::1/64\\nFLANNEL_MTU=1450\\n\
                          FLANNEL_IPMASQ=false\\n' > /run/flannel/subnet.env";

/// What can be asked of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Verb {
    /// Connect a pod.
    Add,
    /// Disconnect it.
    Del,
    /// See whether it is connected.
    Check,
    /// Remove what is of no valid attachment.
    Gc,
}

/// One plugin of a directory, with its configuration.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) plugin: String,
    pub(super) version: String,
    pub(super) setup: String,
    config: Value,
}

// === impl Verb ===

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 4] = [Verb::Add, Verb::Del, Verb::Check, Verb::Gc];

    /// As `CNI_COMMAND` says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
        }
    }
}

// === impl Plan ===

impl Plan {
    /// The configurations there are, by plugin and what else it needs.
    fn known() -> [(&'static str, &'static [&'static str], String, Value); 5] {
        let ranges = json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:0:2::/64"}]]);
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let ipam = json!({"type": "host-local", "ranges": ranges, "routes": routes});
        let delegate = json!({"isDefaultGateway": true, "ipMasq": true});
        let lease = format!("{UPLINK}; {SUBNET_ENV}");
        [
            (
                "bridge",
                &["host-local"],
                UPLINK.to_owned(),
                json!({"isGateway": true, "ipMasq": true, "ipam": ipam}),
            ),
            ("host-local", &[], String::new(), json!({"ipam": ipam})),
            ("loopback", &[], String::new(), json!({})),
            (
                "overlay",
                &["bridge", "host-local"],
                lease.clone(),
                json!({"delegate": delegate}),
            ),
            (
                "flannel",
                &["bridge", "host-local"],
                lease,
                json!({"delegate": delegate}),
            ),
        ]
    }

    /// Those that a directory has the executables for; of the `wanted` ones only, unless that is empty.
    pub(super) fn of(directory: &Path, wanted: &[String]) -> Result<Vec<Plan>> {
        let known = Plan::known();
        let has = |name: &str| directory.join(name).is_file();
        for name in wanted {
            ensure!(
                known.iter().any(|(plugin, ..)| plugin == name),
                "crash has no configuration for {name}; it has for bridge, host-local, loopback, overlay and flannel"
            );
            ensure!(has(name), "{} has no {name}", directory.display());
        }
        let mut plans = Vec::new();
        for (plugin, needs, setup, config) in known {
            let chosen = match wanted {
                // Of two names for one thing the first is enough.
                [] => !(plugin == "flannel" && has("overlay")),
                wanted => wanted.iter().any(|w| w == plugin),
            };
            if chosen && has(plugin) && needs.iter().all(|n| has(n)) {
                plans.push(Plan {
                    plugin: plugin.to_owned(),
                    version: version(&directory.join(plugin))?,
                    setup,
                    config,
                });
            }
        }
        ensure!(
            !plans.is_empty(),
            "{} has none of bridge with host-local, loopback and overlay",
            directory.display()
        );
        Ok(plans)
    }

    pub(super) fn knows_gc(&self) -> bool {
        self.version == "1.1.0"
    }

    /// The verbs it has.
    pub(super) fn verbs(&self) -> impl Iterator<Item = Verb> {
        let gc = self.knows_gc();
        Verb::ALL.into_iter().filter(move |v| gc || *v != Verb::Gc)
    }

    /// A node for it, and its pod. The calling thread is of no other use afterwards.
    pub(super) fn node(&self, directory: &Path) -> Result<Node> {
        let node = Node::enter(directory, &[POD.to_owned()], false)?;
        node.sh(&self.setup)?;
        Ok(node)
    }

    /// Calls it there.
    pub(super) fn call(&self, verb: Verb, prev: Option<&Value>, at: At) -> Result<Ended> {
        let mut command = Command::new(node::plugin(&self.plugin));
        command
            .env_clear()
            .env("PATH", TOOLS)
            .env("CNI_COMMAND", verb.name())
            .env("CNI_PATH", node::PLUGINS);
        if verb != Verb::Gc {
            let ifname = if self.plugin == "loopback" {
                "lo"
            } else {
                "eth0"
            };
            command
                .env("CNI_CONTAINERID", CONTAINER)
                .env("CNI_NETNS", format!("/run/netns/{POD}"))
                .env("CNI_IFNAME", ifname);
        }
        let stdin = self.stdin(verb, prev).to_string();
        trace::run(&mut command, stdin.as_bytes(), at)
    }

    fn stdin(&self, verb: Verb, prev: Option<&Value>) -> Value {
        let mut stdin = self.config.clone();
        if let Value::Object(keys) = &mut stdin {
            keys.insert("cniVersion".to_owned(), json!(self.version));
            keys.insert("name".to_owned(), json!("testnet"));
            keys.insert("type".to_owned(), json!(self.plugin));
            match (verb, prev) {
                (Verb::Gc, _) => {
                    keys.insert("cni.dev/valid-attachments".to_owned(), json!([]));
                }
                (Verb::Del | Verb::Check, Some(prev)) => {
                    keys.insert("prevResult".to_owned(), prev.clone());
                }
                _ => {}
            }
        }
        stdin
    }
}

/// The newest it speaks, of those this program does.
fn version(plugin: &Path) -> Result<String> {
    let mut command = Command::new(plugin);
    command
        .env_clear()
        .env("PATH", TOOLS)
        .env("CNI_COMMAND", "VERSION");
    let ended = trace::run(&mut command, br#"{"cniVersion":"1.0.0"}"#, At::Never)?;
    let said = || format!("VERSION of {}: {}", plugin.display(), ended.stdout);
    let reply: Value = serde_json::from_str(&ended.stdout).with_context(said)?;
    let supported = reply.get("supportedVersions").and_then(Value::as_array);
    let knows = |v: &&str| supported.is_some_and(|all| all.iter().any(|s| s == *v));
    let version = ["1.1.0", "1.0.0", "0.4.0"].into_iter().find(knows);
    Ok(version.with_context(said)?.to_owned())
}
