//! A node in a network namespace of its own, and everything of it that a fault must leave alone.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};
use testkit::{Call, Output, Pod, bin_dir};

/// The interface in the pod.
pub const IFNAME: &str = "eth0";

/// One node: its namespace, its store.
pub struct Node {
    /// Where the plugins run.
    pub host: Pod,
    /// A directory of its own, on a tmpfs.
    pub dir: PathBuf,
}

/// What of a node belongs to pods. The bridge and its addresses stay when pods go, so they are not of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// All but bridges, with flags, master and alias.
    pub links: BTreeSet<String>,
    /// The lines of `nft list ruleset`, each with the chain or set it is in.
    pub rules: BTreeSet<String>,
    /// Neighbours that are addresses of pods.
    pub neighbours: BTreeSet<String>,
    /// Every file of the store that is not bookkeeping, with its content.
    pub files: BTreeMap<String, String>,
}

// === impl Node ===

impl Node {
    /// `name` tells the nodes of a test apart.
    pub fn new(name: &str) -> Self {
        let host = Pod::new(name);
        host.sh("ip link set lo up");
        let dir = Path::new("/run/nodes").join(name);
        fs::create_dir_all(&dir).unwrap();
        Self { host, dir }
    }

    /// The `dataDir`.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// A dual-stack network with everything that leaves something behind, and these keys over it; null takes one away.
    pub fn conf(&self, over: Value) -> Value {
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "cbr0", "type": "bridge", "bridge": "cbr0",
            "isDefaultGateway": true, "ipMasq": true, "macspoofchk": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": self.store(),
                "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd07::/64"}]],
            },
        });
        merge(&mut conf, over);
        conf
    }

    /// `bridge` for that pod.
    pub fn call(&self, verb: &str, id: &str, netns: &str, conf: &Value) -> Call {
        Call::new(bin_dir().join("bridge"))
            .verb(verb)
            .container(id)
            .netns(netns)
            .ifname(IFNAME)
            .cni_path(bin_dir())
            .stdin(conf.to_string())
    }

    /// Runs it here.
    pub fn run(&self, call: &Call) -> Output {
        self.host.run(|| call.run())
    }

    /// Runs it here; panics if it fails.
    #[track_caller]
    pub fn ok(&self, call: &Call) -> Value {
        let out = self.run(call);
        assert!(out.status.success(), "{call:?}\n{out:?}");
        if out.stdout.is_empty() {
            Value::Null
        } else {
            out.json()
        }
    }

    /// Starts any program here and feeds it.
    pub fn spawn(&self, mut command: Command, stdin: &str) -> Child {
        let mut child = self.host.run(|| command.spawn()).unwrap();
        // It may refuse its environment, or be killed, before it reads.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child
    }

    /// What belongs to pods now.
    pub fn state(&self) -> State {
        let links = self.host.ip_json(&["-d", "link"]);
        let links = links.as_array().unwrap().iter().filter(|link| {
            link["linkinfo"]["info_kind"] != "bridge" && link["linkinfo"]["info_kind"] != "vlan"
        });
        let neighbours = self.host.ip_json(&["neigh", "show", "nud", "all"]);
        let neighbours = neighbours.as_array().unwrap().iter();
        State {
            links: links.map(describe).collect(),
            rules: rules(&self.host.exec(&["nft", "--stateless", "list", "ruleset"])),
            neighbours: neighbours
                .filter(|n| n["dst"].as_str().is_some_and(is_of_pods))
                .map(|n| format!("{} {} {}", n["dst"], n["dev"], n["lladdr"]))
                .collect(),
            files: files(&self.store()),
        }
    }

    /// ADD, CHECK and DEL of a pod of its own, as if nothing had ever happened.
    pub fn works(&self, conf: &Value) -> Result<(), String> {
        let before = self.state();
        let name = self.dir.file_name().unwrap().to_str().unwrap();
        let pod = Pod::new(&format!("{name}-after"));
        let call =
            |verb: &str, conf: &Value| self.run(&self.call(verb, "after", pod.netns(), conf));
        let told = |verb: &str, out: &Output| {
            if out.status.success() {
                Ok(())
            } else {
                Err(format!("the next {verb}: {}", out.stdout))
            }
        };
        let added = call("ADD", conf);
        told("ADD", &added)?;
        let mut checked = conf.clone();
        checked["prevResult"] = added.json();
        told("CHECK", &call("CHECK", &checked))?;
        told("DEL", &call("DEL", &checked))?;
        before.same(&self.state())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

// === impl State ===

impl State {
    /// Nothing of any pod.
    pub fn is_clean(&self) -> Result<(), String> {
        let clean = Self {
            links: self
                .links
                .iter()
                .filter(|l| l.starts_with("lo "))
                .cloned()
                .collect(),
            rules: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            files: BTreeMap::new(),
        };
        clean.same(self)
    }

    /// Or what differs. Of neighbours only what is there now: the kernel forgets some by itself.
    pub fn same(&self, now: &Self) -> Result<(), String> {
        let files = |state: &Self| {
            let all = state.files.iter();
            all.map(|(name, content)| format!("{name}: {content:?}"))
                .collect()
        };
        let mut differs = Vec::new();
        let mut sets = |what: &str, was: &BTreeSet<String>, is: &BTreeSet<String>| {
            differs.extend(is.difference(was).map(|x| format!("{what} left: {x}")));
            differs.extend(was.difference(is).map(|x| format!("{what} lost: {x}")));
        };
        sets("link", &self.links, &now.links);
        sets("rule", &self.rules, &now.rules);
        sets("file", &files(self), &files(now));
        let left = now.neighbours.difference(&self.neighbours);
        differs.extend(left.map(|x| format!("neighbour left: {x}")));
        if differs.is_empty() {
            Ok(())
        } else {
            Err(differs.join("\n      "))
        }
    }
}

impl State {
    /// What one failing system call may keep a DEL from doing: entries that the address's next ADD corrects, and an empty
    /// table of ours.
    pub fn without_trifles(mut self) -> Self {
        self.neighbours.clear();
        self.rules.retain(|line| line.contains("cbr0"));
        self
    }
}

/// The addresses of a Result, without length.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let plain = ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap());
    plain.map(|ip| ip.parse().unwrap()).collect()
}

/// Keys over keys; null takes one away.
pub fn merge(into: &mut Value, over: Value) {
    let Value::Object(over) = over else {
        *into = over;
        return;
    };
    for (key, value) in over {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(&key);
        } else if value.is_object() && into[&key].is_object() {
            merge(&mut into[&key], value);
        } else {
            into[&key] = value;
        }
    }
}

fn describe(link: &Value) -> String {
    format!(
        "{} {} master {} alias {}",
        link["ifname"].as_str().unwrap(),
        link["flags"],
        link["master"],
        link["ifalias"]
    )
}

/// Of 10.0.0.0/8 or fd00::/8, where the tests' subnets lie.
fn is_of_pods(ip: &str) -> bool {
    ip.starts_with("10.") || ip.starts_with("fd")
}

/// Lines with what they are in. A comma-separated list of elements is one line of nft's for each.
fn rules(listed: &str) -> BTreeSet<String> {
    let mut within: Vec<&str> = Vec::new();
    let mut lines = BTreeSet::new();
    for line in listed
        .lines()
        .map(|l| l.trim().trim_end_matches(','))
        .filter(|l| !l.is_empty())
    {
        if line == "}" {
            within.pop();
        } else if let Some(opened) = line.strip_suffix(" {") {
            within.push(opened);
            lines.insert(within.join(" / "));
        } else {
            let element = line
                .trim_start_matches("elements = { ")
                .trim_end_matches(" }");
            lines.insert(format!("{} / {element}", within.join(" / ")));
        }
    }
    lines
}

/// Below the store, but for what outlives pods: cursors, the lock, the index.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut below = vec![dir.to_owned()];
    while let Some(dir) = below.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let parent_is_ours = dir.ends_with(".podwire");
            if path.is_dir() {
                below.push(path);
            } else if !(parent_is_ours && ["index", "cursor"].contains(&name.as_str())
                || name == "lock"
                || name.starts_with("last_reserved_ip."))
            {
                let content = fs::read_to_string(&path).unwrap_or_default();
                found.insert(path.display().to_string(), content);
            }
        }
    }
    found
}
