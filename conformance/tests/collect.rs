//! `cnitool gc --from-cri`: what containerd forgot is freed, and nothing else, while pods are being added.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Duration;

use conformance::cri::{CriNode, Moment, Pod, names};
use serde_json::{Value, json};
use testkit::{bin_dir, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const SOCKET: &str = "/run/containerd/containerd.sock";
/// Longer than it takes to begin twenty pods anywhere.
const GRACE: &str = "10m";

fn node() -> CriNode {
    let bridge = json!({
        "type": "bridge",
        "bridge": "cbr0",
        "isDefaultGateway": true,
        "ipMasq": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.40.0.0/23"}]]},
    });
    let conflist = json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge]});
    CriNode::start(&bin_dir(), &conflist.to_string()).unwrap_or_else(|e| panic!("{e:#}"))
}

/// `cnitool gc --from-cri` as its timer runs it, and what it says of each attachment.
fn gc(node: &CriNode, more: &[&str]) -> Vec<Value> {
    let tool = bin_dir().join("cnitool");
    let mut argv = vec![tool.to_str().unwrap(), "--json", "gc", "--from-cri", SOCKET];
    argv.extend(more);
    let told = node.node().run(&argv).unwrap_or_else(|e| panic!("{e:#}"));
    serde_json::from_str(&told).unwrap()
}

/// Containers whose attachment to the network met this end.
fn met(told: &[Value], outcome: &str) -> BTreeSet<String> {
    let of_network = told.iter().filter(|one| one["network"] == "cbr0");
    of_network
        .filter(|one| one["outcome"] == outcome)
        .map(|one| one["containerID"].as_str().unwrap().to_owned())
        .collect()
}

/// As if they had been attached two hours ago.
fn age(node: &CriNode, lost: &BTreeSet<String>) {
    let ids: Vec<&str> = lost.iter().map(String::as_str).collect();
    let script = format!(
        "grep -rlE '{}' /var/lib/cni | xargs touch -d '2 hours ago'",
        ids.join("|")
    );
    node.node().run(&["sh", "-euc", &script]).unwrap();
}

fn ids(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(|pod| pod.id.clone()).collect()
}

fn set(pods: &[Pod]) -> BTreeSet<String> {
    ids(pods).into_iter().collect()
}

#[test]
fn leaks_of_a_killed_containerd_are_freed_while_pods_are_added() {
    let node = node();
    let kept = node.run(&names("kept", 5)).unwrap();
    let early = node
        .leak(&names("early", 50), Moment::BeforeTheCache)
        .unwrap();
    let late = node
        .leak(&names("late", 50), Moment::AfterTheCache)
        .unwrap();
    let lost = &early | &late;
    assert_eq!(lost.len(), 100);

    // Nothing goes before its time, and a look changes nothing.
    let told = gc(&node, &["--grace", "1h"]);
    assert_eq!(met(&told, "freed"), BTreeSet::new());
    age(&node, &lost);
    let told = gc(&node, &["--grace", GRACE, "--dry-run"]);
    assert_eq!(met(&told, "would free"), lost);

    let (added, (told, known)) = node
        .while_adding(&names("added", 20), || {
            let known: BTreeSet<String> = node.sandboxes()?.into_iter().map(|s| s.id).collect();
            Ok((gc(&node, &["--grace", GRACE]), known))
        })
        .unwrap();
    assert_eq!(
        known,
        set(&kept),
        "the runtime lists none of those that are being added"
    );
    assert_eq!(met(&told, "freed"), lost);
    assert_eq!(met(&told, "kept"), &set(&kept) | &set(&added));
    assert_eq!(met(&told, "not freed"), BTreeSet::new());

    let all: Vec<Pod> = kept.into_iter().chain(added).collect();
    for pod in &all {
        let ping = ["busybox", "ping", "-c", "1", "-W", "2", &pod.ip];
        node.node()
            .run(&ping)
            .unwrap_or_else(|e| panic!("{pod:?}: {e:#}"));
    }
    node.remove(&ids(&all)).unwrap();
    let left = node.node().left_over().unwrap();
    assert!(left.links.is_empty(), "{left:#?}");
    // containerd's loopback attachments of its lost pods are freed, too.
    assert!(
        left.files.iter().all(|file| !file.starts_with("results/")),
        "{left:#?}"
    );
    assert!(met(&gc(&node, &["--grace", "0s"]), "freed").is_empty());
    assert_eq!(
        node.stop().unwrap(),
        Vec::<String>::new(),
        "left on the machine"
    );
}

/// What another program attached on the same network is none of the runtime's, but stands as long as somebody is in it.
#[test]
fn what_the_runtime_does_not_know_but_is_in_use_stays() {
    let node = node();
    let script = format!(
        "ip netns add other && NETCONFPATH=/etc/cni/net.d CNI_PATH=/opt/cni/bin {} add cbr0 /run/netns/other",
        bin_dir().join("cnitool").display()
    );
    node.node().run(&["sh", "-c", &script]).unwrap();
    // A process in it, for as long as this test says.
    node.node()
        .run(&[
            "sh",
            "-c",
            "ip netns exec other sleep 1000 >/dev/null 2>&1 & echo $! > /run/other.pid",
        ])
        .unwrap();
    eventually(PATIENCE, || {
        let told = gc(&node, &["--grace", "0s", "--dry-run"]);
        told.iter().any(|one| {
            one["why"]
                .as_str()
                .unwrap()
                .contains("/run/netns/other is in use")
        })
    });
    assert_eq!(
        met(&gc(&node, &["--grace", "0s"]), "freed"),
        BTreeSet::new()
    );
    node.node()
        .run(&["sh", "-c", "kill $(cat /run/other.pid)"])
        .unwrap();
    eventually(PATIENCE, || {
        met(&gc(&node, &["--grace", "0s"]), "freed").len() == 1
    });
    node.node()
        .run(&["ip", "netns", "delete", "other"])
        .unwrap();
    assert!(node.node().left_over().unwrap().links.is_empty());
    node.stop().unwrap();
}
