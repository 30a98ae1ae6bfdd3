//! The result cache is one with the reference's: containerd's go-cni (Go's libcni) and ours on the same node.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use conformance::containerd::Node;
use libcni::runtime::{Attach, CacheEntry, NetworkList, Runtime};
use serde_json::{Value, json};
use testkit::bin_dir;

const NETWORK: &str = "cbr0";
const CONF_DIR: &str = "/etc/cni/net.d";
const SLEEP: [&str; 2] = ["sleep", "1000000"];
/// Makes this test binary do one thing on the node, where it is started by the test.
const TASK: &str = "INTEROP_TASK";

/// `firewall` is the reference's, and can only remove its rules on DEL if it is given the cached result.
fn conflist() -> String {
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.41.0.0/24"}]]});
    let bridge = json!({
        "type": "bridge", "bridge": "cbr0", "isDefaultGateway": true, "ipMasq": true, "ipam": ipam,
        "html": "<&>", "mtu": 1450.0,
    });
    let firewall = json!({"type": "firewall", "backend": "iptables"});
    json!({"cniVersion": "1.0.0", "name": NETWORK, "plugins": [bridge, firewall]}).to_string()
}

fn plugins() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for plugin in ["bridge", "host-local", "loopback"] {
        symlink(bin_dir().join(plugin), dir.path().join(plugin)).unwrap();
    }
    symlink("/usr/lib/cni/firewall", dir.path().join("firewall")).unwrap();
    dir
}

/// On the node: what a runtime in Rust would do there.
fn on_the_node(task: &str) {
    let runtime = Runtime::new(["/opt/cni/bin".into()]);
    let list = NetworkList::load(Path::new(CONF_DIR), NETWORK).unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["del", id] => {
            let entry = entry_of(&runtime, id);
            runtime.del(&list, &entry.attach()).unwrap();
        }
        ["check", id] => {
            let mut at = entry_of(&runtime, id).attach();
            at.netns = words_netns();
            runtime.check(&list, &at).unwrap();
        }
        ["add", id] => {
            let mut at = Attach::new(id, words_netns(), "eth0");
            at.args = vec![
                ("IgnoreUnknown".into(), "1".into()),
                ("K8S".into(), "<x>".into()),
            ];
            runtime.add(&list, &at).unwrap();
        }
        _ => panic!("{task}"),
    }
}

fn words_netns() -> String {
    env::var("INTEROP_NETNS").unwrap()
}

fn entry_of(runtime: &Runtime, id: &str) -> CacheEntry {
    let entries = runtime.attachments().unwrap();
    let mut entries = entries.into_iter();
    entries
        .find(|entry| entry.network == NETWORK && entry.container_id == id)
        .expect("an entry")
}

fn node(plugins: &Path) -> Node {
    Node::start(plugins, &conflist(), &[]).unwrap_or_else(|e| panic!("{e:#}"))
}

fn on(node: &Node, task: &str, netns: &str) {
    let exe = node.install(&env::current_exe().unwrap()).unwrap();
    let task = format!("{TASK}={task}");
    let netns = format!("INTEROP_NETNS={netns}");
    let test = [
        "--exact",
        "interop::one_cache_for_both_libraries",
        "--nocapture",
    ];
    let argv: Vec<&str> = ["env", &task, &netns, &exe]
        .into_iter()
        .chain(test)
        .collect();
    let said = node.run(&argv).unwrap_or_else(|e| panic!("{task}: {e:#}"));
    assert!(said.contains("1 passed"), "{task}: {said}");
}

fn cached(node: &Node, id: &str) -> String {
    node.read(&format!("/var/lib/cni/results/{NETWORK}-{id}-eth0"))
        .unwrap()
}

fn firewall_rules(node: &Node) -> String {
    let rules = node.run(&["iptables-save", "-t", "filter"]).unwrap();
    rules
        .lines()
        .filter(|line| line.contains("10.41."))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn one_cache_for_both_libraries() {
    if let Ok(task) = env::var(TASK) {
        return on_the_node(&task);
    }
    let plugins = plugins();
    let node = node(plugins.path());

    // Theirs, read and checked and deleted by ours. containerd does not notice, and finds nothing to delete at the end.
    let pod = node.pod("theirs", &SLEEP).unwrap();
    let theirs = cached(&node, &pod.id());
    assert!(!firewall_rules(&node).is_empty());
    on(&node, &format!("check {}", pod.id()), &pod.netns_path());
    on(&node, &format!("del {}", pod.id()), "");
    assert_eq!(firewall_rules(&node), "");
    assert_eq!(node.list("/var/lib/cni/results"), Vec::<String>::new());
    pod.remove().unwrap();

    // Ours, deleted by theirs with the result from our entry.
    let pod = node.pod("ours", &SLEEP).unwrap();
    let before = cached(&node, &pod.id());
    on(&node, &format!("del {}", pod.id()), "");
    on(&node, &format!("add {}", pod.id()), &pod.netns_path());
    let ours = cached(&node, &pod.id());
    assert!(!firewall_rules(&node).is_empty());
    pod.remove().unwrap();
    assert_eq!(firewall_rules(&node), "");
    assert_eq!(node.list("/var/lib/cni/results"), Vec::<String>::new());

    same_layout(&before, &ours);
    written_again_it_is_the_same(&theirs);
    // What the reference's firewall sets up once and for all.
    let stays = ["CNI-FORWARD: jump CNI-ADMIN", "FORWARD: jump CNI-FORWARD"];
    let still = node.left_over_at_last().unwrap();
    let left = still.kinds().map(|(_, things)| things.iter());
    let left: Vec<&String> = left
        .into_iter()
        .flatten()
        .filter(|l| !stays.contains(&l.as_str()))
        .collect();
    assert_eq!(left, Vec::<&String>::new(), "left on the node");
    assert_eq!(
        node.stop().unwrap(),
        Vec::<String>::new(),
        "left on the machine"
    );
}

/// Keys of our file, in their order, are those of theirs; we add the arguments we gave, and the namespace, which libcni
/// 1.2 began to keep. All values but the attachment's own are equal, the configuration to the byte.
fn same_layout(theirs: &str, ours: &str) {
    let keys = |text: &str| -> Vec<String> {
        let order = [
            "kind",
            "containerId",
            "config",
            "ifName",
            "networkName",
            "netns",
            "cniArgs",
            "capabilityArgs",
            "result",
        ];
        let mut at: Vec<(usize, &str)> = order
            .into_iter()
            .filter_map(|key| Some((text.find(&format!("\"{key}\":"))?, key)))
            .collect();
        at.sort_unstable();
        let found: Vec<&str> = at.iter().map(|(_, key)| *key).collect();
        let expected: Vec<&str> = order
            .into_iter()
            .filter(|key| found.contains(key))
            .collect();
        assert_eq!(found, expected, "{text}");
        found.into_iter().map(str::to_owned).collect()
    };
    let only_ours = ["netns", "cniArgs"];
    let common: Vec<String> = keys(ours)
        .into_iter()
        .filter(|k| !only_ours.contains(&&**k))
        .collect();
    let also: Vec<String> = keys(theirs)
        .into_iter()
        .filter(|k| k != "cniArgs" && k != "capabilityArgs")
        .collect();
    assert_eq!(common, also);
    let (theirs, ours): (Value, Value) = (
        serde_json::from_str(theirs).unwrap(),
        serde_json::from_str(ours).unwrap(),
    );
    for key in ["kind", "containerId", "config", "ifName", "networkName"] {
        assert_eq!(theirs[key], ours[key], "{key}");
    }
    assert_eq!(ours["cniArgs"][1], json!(["K8S", "<x>"]));
    assert_eq!(theirs["result"]["cniVersion"], ours["result"]["cniVersion"]);
}

/// Every byte of a file of theirs, escapes and order included, is what we would have written.
fn written_again_it_is_the_same(theirs: &str) {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results");
    fs::create_dir(&results).unwrap();
    fs::write(results.join("theirs"), theirs).unwrap();
    let runtime = Runtime::new([]).cache_dir(dir.path());
    let entry = runtime.attachments().unwrap().remove(0);
    assert_eq!(String::from_utf8_lossy(&entry.to_bytes()), theirs);
}
