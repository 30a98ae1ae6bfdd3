//! What `docs/` says is so: its examples run, its keys and codes exist, and what the sources read is in it.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testkit::{Call, Output, Pod, eventually, in_netns, sh, waits_for_a_lock};

#[path = "bed/network.rs"]
mod network;

use network::{Network, store};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The configurations of plugins in a page.
fn examples(page: &str) -> Vec<Value> {
    let blocks = page
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let all = blocks
        .map(|text| serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}: {text}")));
    all.filter(|conf| conf.get("type").is_some()).collect()
}

/// The rows of the table under that heading, as cells; without its head.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = page
        .split_once(&format!("\n## {heading}\n"))
        .expect(heading);
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    // `\|` is a bar that separates nothing.
    let cells = |row: &str| {
        row.trim_matches('|')
            .split(" |")
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

/// What is between backticks.
fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// How to call the plugin of a configuration. The verb is still to be said.
fn call(conf: &Value, pod: &Pod, id: &str) -> Call {
    let plugins = testkit::bin_dir();
    Call::new(plugins.join(conf["type"].as_str().unwrap()))
        .container(id)
        .netns(pod.netns())
        .ifname("eth0")
        .cni_path(&plugins)
        .stdin(conf.to_string())
}

#[test]
fn every_example_runs_and_leaves_nothing() {
    in_netns(|| {
        let mut pages = Vec::new();
        for entry in fs::read_dir(root().join("docs")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            for (at, conf) in examples(&page(&name)).into_iter().enumerate() {
                runs_and_leaves_nothing(&conf, &format!("{at}-{name}"));
                pages.push(name.clone());
            }
        }
        for wanted in ["bridge.md", "host-local.md", "loopback.md"] {
            assert!(
                pages.iter().any(|page| page == wanted),
                "{wanted} has no example"
            );
        }
    });
}

fn runs_and_leaves_nothing(conf: &Value, id: &str) {
    let name = conf["name"].as_str().expect("an example has a name");
    let network = Network::new(name, std::slice::from_ref(conf)).of_its_own_version();
    let attached = network.attach(id);
    let version = conf["cniVersion"].as_str().unwrap();
    assert_eq!(attached.result["cniVersion"], version, "{id}");
    if version >= "0.4.0" {
        let check = attached.check();
        assert!(check.status.success(), "{id}: {check:?}");
    }
    attached.detach();
    assert_eq!(sh("ip -o link show type veth"), "", "{id}");
    assert_eq!(sh("nft list ruleset"), "", "{id}");
    let held: Vec<_> = store(name)
        .into_iter()
        .filter(|file| file != "lock" && !file.starts_with("last_"))
        .collect();
    assert!(held.is_empty(), "{id}: {held:?}");
    if let Some(bridge) = conf["bridge"].as_str() {
        sh(&format!("ip link del {bridge}"));
    }
}

/// A place in a configuration, as pages write it: `vlan`, `ranges[][].subnet`.
struct Place {
    steps: Vec<String>,
}

impl Place {
    fn new(text: &str) -> Place {
        let spaced = text.replace("[]", ".0");
        let steps = spaced.split('.').map(str::to_owned).collect();
        Place { steps }
    }

    /// Puts a value there.
    fn set(&self, conf: &mut Value, value: Value) {
        let mut at = conf;
        for step in &self.steps {
            if step == "0" {
                if !at.is_array() {
                    *at = json!([]);
                }
                let items = at.as_array_mut().unwrap();
                if items.is_empty() {
                    items.push(Value::Null);
                }
                at = &mut items[0];
            } else {
                at = &mut at[step.as_str()];
            }
        }
        *at = value;
    }

    /// As a message names it.
    fn name(&self) -> String {
        let mut name = String::new();
        for step in &self.steps {
            match (step.as_str(), name.is_empty()) {
                ("0", _) => name.push_str("[0]"),
                (_, true) => name.push_str(step),
                (_, false) => name.push_str(&format!(".{step}")),
            }
        }
        name
    }
}

/// Each key of the page's table, of the wrong type, is refused by its name: so the plugin reads it.
fn every_key_is_read(page_name: &str, below: &str) {
    let page = page(page_name);
    let conf = examples(&page).into_iter().next().unwrap();
    let pod = Pod::new("pod");
    let mut keys = 0;
    for row in table(&page, "Keys") {
        for item in row[0].split(", ") {
            let spans = code_spans(item);
            let (call, wanted) = if let ["CNI_ARGS", key] = spans[..] {
                let call = call(&conf, &pod, "c1").args(&format!("{key}=nonsense"));
                (call, "nonsense".to_owned())
            } else {
                let elsewhere = ["args.", "runtimeConfig."]
                    .iter()
                    .any(|start| spans[0].starts_with(start));
                let place = Place::new(&if elsewhere || below.is_empty() {
                    spans[0].to_owned()
                } else {
                    format!("{below}.{}", spans[0])
                });
                let mut conf = conf.clone();
                let wrong = if row[1].starts_with("object") {
                    json!(5)
                } else {
                    json!({"wrong": 1})
                };
                place.set(&mut conf, wrong);
                (call(&conf, &pod, "c1"), place.name())
            };
            let output = call.verb("ADD").run();
            assert!(!output.status.success(), "{item}: {output:?}");
            let error = output.json();
            let text = format!("{} {}", error["msg"], error["details"]);
            assert!(text.contains(&wanted), "{item}: {error}");
            if !item.contains("CNI_ARGS") {
                assert_eq!(error["code"], 7, "{item}: {error}");
            }
            keys += 1;
        }
    }
    assert!(keys > 10, "{page_name} has a table of {keys} keys");
}

#[test]
fn every_key_of_bridge_is_read() {
    in_netns(|| every_key_is_read("bridge.md", ""));
}

#[test]
fn every_key_of_host_local_is_read() {
    in_netns(|| every_key_is_read("host-local.md", "ipam"));
}

/// The other way round: the keys that the sources read by name.
#[test]
fn every_key_that_is_read_is_documented() {
    for (source, page_name) in [
        ("plugins/bridge/src/conf.rs", "bridge.md"),
        ("libcni/src/store/conf.rs", "host-local.md"),
    ] {
        let source = fs::read_to_string(root().join(source)).unwrap();
        // Without its tests.
        let source = source.split("#[cfg(test)]").next().unwrap();
        let page = page(page_name);
        let spans: String = code_spans(&page.replace("```", "")).join(" ");
        let words: BTreeSet<&str> = spans.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let readers = [
            "flag",
            "str",
            "bool",
            "i64",
            "id",
            "node",
            "array",
            "strings",
            "fields",
            "cidr",
            "ip",
            "array_of_fields",
        ];
        let read = source.match_indices("(\"").filter_map(|(at, _)| {
            let reader = source[..at]
                .rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .next()?;
            readers
                .contains(&reader)
                .then(|| source[at + 2..].split('"').next().unwrap())
        });
        let read: BTreeSet<&str> = read.collect();
        assert!(read.len() > 5, "{page_name}: only {read:?}");
        let undocumented: Vec<_> = read.difference(&words).collect();
        assert!(undocumented.is_empty(), "{page_name}: {undocumented:?}");
    }
}

/// Codes of the page's table.
fn documented(page_name: &str) -> BTreeSet<u64> {
    let rows = table(&page(page_name), "Errors");
    let codes = rows.iter().flat_map(|row| row[0].split(", "));
    codes.map(|code| code.parse().unwrap()).collect()
}

fn code(output: &Output) -> u64 {
    assert!(!output.status.success(), "{output:?}");
    output.json()["code"].as_u64().unwrap()
}

#[test]
fn every_error_code_of_bridge_occurs() {
    in_netns(|| {
        let conf = examples(&page("bridge.md")).remove(0);
        let with = |key: &str, value: Value| {
            let mut conf = conf.clone();
            conf[key] = value;
            conf
        };
        let pod = Pod::new("pod");
        let good = call(&conf, &pod, "c1");
        let mut seen = BTreeSet::new();
        let mut fails = |what: &str, wanted: u64, call: Call| {
            let output = call.run();
            assert_eq!(code(&output), wanted, "{what}: {output:?}");
            seen.insert(wanted);
        };
        let add = |conf: &Value| call(conf, &pod, "c1").verb("ADD");
        fails(
            "no container ID",
            4,
            good.clone().verb("ADD").without("CNI_CONTAINERID"),
        );
        fails("not JSON", 6, good.clone().verb("ADD").stdin("{"));
        fails(
            "a version of tomorrow",
            1,
            add(&with("cniVersion", json!("9.0.0"))),
        );
        fails("a wrong type", 7, add(&with("hairpinMode", json!("yes"))));
        fails("no prevResult", 7, good.clone().verb("CHECK"));
        fails(
            "no IPAM in CNI_PATH",
            7,
            good.clone().verb("ADD").cni_path("/run"),
        );
        // Nothing is mapped at its beginning.
        fs::create_dir("/run/broken-disk").unwrap();
        symlink("/proc/self/mem", "/run/broken-disk/host-local").unwrap();
        fails(
            "an IPAM that cannot be read",
            5,
            good.clone().verb("ADD").cni_path("/run/broken-disk"),
        );
        fails(
            "no namespace",
            8,
            good.clone().verb("ADD").netns("/run/netns/none"),
        );
        fails(
            "no namespace",
            8,
            good.clone().verb("ADD").netns("/etc/hostname"),
        );
        let mut unreachable = conf.clone();
        unreachable["ipam"]["routes"] = json!([{"dst": "10.99.0.0/16", "gw": "192.0.2.1"}]);
        fails("the kernel refuses this route", 999, add(&unreachable));

        let result = good.clone().verb("ADD").ok();
        fails("a second time", 101, call(&conf, &pod, "c2").verb("ADD"));
        let mut changed = conf.clone();
        changed["prevResult"] = result;
        pod.sh("ip link set eth0 down");
        fails(
            "the pod end is down",
            103,
            call(&changed, &pod, "c1").verb("CHECK"),
        );
        good.clone().verb("DEL").ok();
        sh("ip link del cbr0; ip link add cbr0 type veth peer cbr0-peer");
        fails(
            "the name of the bridge is another device's",
            102,
            add(&conf),
        );
        fails(
            "the same, asked before",
            50,
            call(&with("cniVersion", json!("1.1.0")), &pod, "c1").verb("STATUS"),
        );
        sh("ip link del cbr0");

        // Stopped while it waits for its turn in the store.
        let lock = File::open("/var/lib/cni/networks/cbr0/lock").unwrap();
        lock.lock().unwrap();
        let waiting = good.clone().verb("ADD");
        let mut child = waiting.command().spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(conf.to_string().as_bytes())
            .unwrap();
        let pid = child.id();
        eventually(Duration::from_secs(60), || waits_for_a_lock(pid));
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM).unwrap();
        let output = child.wait_with_output().unwrap();
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(error["code"], 11, "{error}");
        seen.insert(11);
        assert_eq!(seen, documented("bridge.md"));
        lock.unlock().unwrap();
    });
}

#[test]
fn every_error_code_of_host_local_occurs() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let conf = |ipam: Value| {
            let mut ipam = ipam;
            ipam["type"] = "host-local".into();
            json!({"cniVersion": "1.1.0", "name": "n", "type": "host-local", "ipam": ipam})
        };
        let small = conf(json!({"subnet": "10.40.1.0/30"}));
        let mut seen = BTreeSet::new();
        let mut fails = |what: &str, wanted: u64, call: Call| {
            let output = call.run();
            assert_eq!(code(&output), wanted, "{what}: {output:?}");
            seen.insert(wanted);
        };
        let add = |conf: &Value, id: &str| call(conf, &pod, id).verb("ADD");
        fails("malformed CNI_ARGS", 4, add(&small, "c1").args("IP"));
        fails(
            "no directory",
            5,
            add(
                &conf(json!({"subnet": "10.40.1.0/30", "dataDir": "/proc"})),
                "c1",
            ),
        );
        fails(
            "host bits",
            7,
            add(&conf(json!({"subnet": "10.40.1.1/30"})), "c1"),
        );
        fails("the gateway's", 7, add(&small, "c1").args("IP=10.40.1.1"));
        fails("in no set", 7, add(&small, "c1").args("IP=10.40.2.1"));
        fails("holds none", 103, call(&small, &pod, "c1").verb("CHECK"));
        add(&small, "c1").ok();
        fails("a second time", 104, add(&small, "c1"));
        fails("exhausted", 11, add(&small, "c2"));
        fails("taken", 11, add(&small, "c2").args("IP=10.40.1.2"));
        fails(
            "exhausted, asked before",
            50,
            call(&small, &pod, "c2").verb("STATUS"),
        );
        assert_eq!(seen, documented("host-local.md"));
    });
}
