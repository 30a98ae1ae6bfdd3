//! What an admin would collect from `ip`, `bridge`, `nft` and `/var/lib/cni`, put together.

use anyhow::{Context, Result};
use conformance::containerd::{Container, Node, each, text};
use serde_json::Value;

/// One pod's attachment, every value as the tools print it.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) container: String,
    pub(crate) netns: String,
    pub(crate) address: String,
    pub(crate) mac: String,
    pub(crate) mtu: String,
    /// `eth0 (2) <-> veth4c157099 (4)`, interface indices in brackets.
    pub(crate) veth: String,
    pub(crate) host_mac: String,
    /// State of the bridge port.
    pub(crate) port: String,
    pub(crate) hairpin: String,
    /// What is in the link's alias, if anything.
    pub(crate) alias: String,
    pub(crate) routes: Vec<String>,
    pub(crate) fdb: Vec<String>,
    pub(crate) neighbour: String,
    /// nf_tables rules and elements that name the pod's address, without it.
    pub(crate) rules: Vec<String>,
    pub(crate) reservation: String,
    pub(crate) content: String,
    pub(crate) cache: String,
}

/// The bridge and what concerns the whole network.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) mac: String,
    pub(crate) mtu: String,
    pub(crate) ports: usize,
    pub(crate) state: String,
    /// nf_tables rules and elements that name no pod.
    pub(crate) rules: Vec<String>,
}

// === impl Pod ===

impl Pod {
    pub(crate) fn look(node: &Node, pod: &Container<'_>) -> Result<Pod> {
        let inside = pod.json(&["ip", "-j", "addr", "show", "dev", "eth0"])?;
        let eth0 = each(&inside)
            .next()
            .with_context(|| format!("pod {} has no eth0", pod.name()))?;
        let address = address_of(eth0, "inet")
            .with_context(|| format!("pod {} has no IPv4 address", pod.name()))?;
        let mac = text(eth0, "/address");

        let links = node.json(&["ip", "-j", "-d", "link"])?;
        let peer = number(eth0, "/link_index");
        let host = each(&links)
            .find(|link| number(link, "/ifindex") == peer)
            .with_context(|| format!("pod {}: no link {peer} on the node", pod.name()))?;
        let host_name = text(host, "/ifname");
        let bridge = text(host, "/master");

        let routes = pod.json(&["ip", "-j", "route"])?;
        let fdb = node.json(&["bridge", "-j", "fdb", "show", "dev", host_name])?;
        let bare = address.split('/').next().unwrap_or_default();
        let neighbours = node.json(&["ip", "-j", "neigh", "show", "to", bare])?;

        let reservation = format!("/var/lib/cni/networks/cbr0/{bare}");
        let content = node.read(&reservation)?;
        let cache = format!("cbr0-{}-eth0", pod.id());
        Ok(Pod {
            name: pod.name().to_owned(),
            container: format!("{}, process {}", pod.id(), pod.pid()),
            netns: pod.netns()?,
            mtu: number(eth0, "/mtu"),
            veth: format!(
                "eth0 ({}) <-> {host_name} ({peer})",
                number(eth0, "/ifindex")
            ),
            host_mac: text(host, "/address").to_owned(),
            port: format!(
                "{bridge}, {}",
                text(host, "/linkinfo/info_slave_data/state")
            ),
            hairpin: on_off(host, "/linkinfo/info_slave_data/hairpin"),
            alias: text(host, "/ifalias").to_owned(),
            routes: each(&routes).map(route).collect(),
            fdb: each(&fdb)
                .filter(|entry| text(entry, "/mac") == mac)
                .map(fdb_entry)
                .collect(),
            neighbour: each(&neighbours)
                .map(|entry| {
                    format!(
                        "{} on {}, {}",
                        text(entry, "/lladdr"),
                        text(entry, "/dev"),
                        words(entry, "/state")
                    )
                })
                .collect::<Vec<_>>()
                .join("; "),
            rules: rules_of(node, bare)?,
            content: format!("{content:?}"),
            cache: if node.path(&format!("/var/lib/cni/results/{cache}")).exists() {
                cache
            } else {
                String::new()
            },
            mac: mac.to_owned(),
            reservation: bare.to_owned(),
            address,
        })
    }
}

// === impl Bridge ===

impl Bridge {
    /// `pods` are the addresses of the pods on it.
    pub(crate) fn look(node: &Node, name: &str, pods: &[&str]) -> Result<Bridge> {
        let shown = node.json(&["ip", "-j", "-d", "addr", "show", "dev", name])?;
        let link = each(&shown)
            .next()
            .with_context(|| format!("no link {name}"))?;
        let ports = node.json(&["ip", "-j", "link", "show", "master", name])?;
        Ok(Bridge {
            name: name.to_owned(),
            address: address_of(link, "inet")
                .with_context(|| format!("{name} has no IPv4 address"))?,
            mac: text(link, "/address").to_owned(),
            mtu: number(link, "/mtu"),
            ports: each(&ports).count(),
            state: text(link, "/operstate").to_owned(),
            rules: node
                .rules()?
                .into_iter()
                .filter(|rule| {
                    !rule
                        .text
                        .split_whitespace()
                        .any(|word| pods.contains(&word))
                })
                .map(|rule| format!("{}: {}", rule.place, rule.text))
                .collect(),
        })
    }
}

/// What stays on purpose when the last pod is gone.
pub(crate) fn kept(node: &Node, bridge: &str) -> Result<Vec<String>> {
    let still = Bridge::look(node, bridge, &[])?;
    let mut kept = vec![format!("bridge {bridge} {}", still.address)];
    let store = format!("/var/lib/cni/networks/{bridge}");
    for name in node.list(&store) {
        let path = format!("{store}/{name}");
        if node.path(&path).is_dir() {
            kept.push(format!("{name}/ ({})", node.list(&path).join(", ")));
            continue;
        }
        let content = node.read(&path)?;
        kept.push(if content.is_empty() {
            name
        } else {
            format!("{name}: {content}")
        });
    }
    Ok(kept)
}

/// A line for the chain or set, and one for each part of the rule.
fn rules_of(node: &Node, address: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for rule in node.rules()? {
        if rule.text.split_whitespace().any(|word| word == address) {
            lines.push(rule.place);
            let text = rule.text.replace(&format!("{address} "), "");
            lines.extend(text.split(" : ").map(str::to_owned));
        }
    }
    Ok(lines)
}

fn address_of(link: &Value, family: &str) -> Option<String> {
    let list = link.pointer("/addr_info")?;
    let entry = each(list).find(|entry| text(entry, "/family") == family)?;
    Some(format!(
        "{}/{}",
        text(entry, "/local"),
        number(entry, "/prefixlen")
    ))
}

fn route(route: &Value) -> String {
    let via = match text(route, "/gateway") {
        "" => String::new(),
        gateway => format!(" via {gateway}"),
    };
    let source = match text(route, "/prefsrc") {
        "" => String::new(),
        source => format!(" src {source}"),
    };
    format!(
        "{}{via} dev {}{source}",
        text(route, "/dst"),
        text(route, "/dev")
    )
}

fn fdb_entry(entry: &Value) -> String {
    let kind = match text(entry, "/state") {
        "" => "learned",
        state => state,
    };
    match number(entry, "/vlan").as_str() {
        "" => format!("{}, {kind}", text(entry, "/mac")),
        vlan => format!("{}, vlan {vlan}, {kind}", text(entry, "/mac")),
    }
}

fn on_off(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer).and_then(Value::as_bool) {
        Some(true) => "on".to_owned(),
        Some(false) => "off".to_owned(),
        None => "?".to_owned(),
    }
}

fn number(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .map(|n| n.to_string())
        .unwrap_or_default()
}

fn words(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .map(|list| {
            each(list)
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .unwrap_or_default()
}
