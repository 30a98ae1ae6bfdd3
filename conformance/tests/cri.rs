//! A real kubelet's client, in all but the kubelet: pods over CRI from Debian's containerd, on our plugins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use conformance::containerd::Node;
use conformance::cri::{CriNode, Moment, Pod, names};
use cri::CriError;
use serde_json::json;
use testkit::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
const STORE: &str = "/var/lib/cni/networks/cbr0";

/// A kubenet-like network; containerd adds `lo` by itself.
fn cbr0() -> String {
    let bridge = json!({
        "type": "bridge",
        "bridge": "cbr0",
        "isDefaultGateway": true,
        "hairpinMode": true,
        "ipMasq": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.40.1.0/24"}]]},
    });
    json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge]}).to_string()
}

fn node() -> CriNode {
    CriNode::start(&testkit::bin_dir(), &cbr0()).unwrap_or_else(|e| panic!("{e:#}"))
}

fn ids(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(|pod| pod.id.clone()).collect()
}

/// After the last pod: nothing on the node, and without the node nothing on the machine.
fn nothing_is_left(node: CriNode) {
    let left = node.node().left_over_at_last().unwrap();
    assert!(left.is_empty(), "left on the node: {left:#?}");
    assert_eq!(
        node.stop().unwrap(),
        Vec::<String>::new(),
        "left on the machine"
    );
}

/// The reservations: address to container ID.
fn reserved(node: &CriNode) -> BTreeMap<String, String> {
    let files = node.node().list(STORE).into_iter();
    let addresses = files.filter(|file| file.parse::<Ipv4Addr>().is_ok());
    addresses
        .map(|address| {
            let holder = node.node().read(&format!("{STORE}/{address}")).unwrap();
            (address, holder.lines().next().unwrap().to_owned())
        })
        .collect()
}

fn ping(node: &CriNode, pods: &[Pod]) {
    for pod in pods {
        let answered = node
            .node()
            .run(&["busybox", "ping", "-c", "1", "-W", "2", &pod.ip]);
        answered.unwrap_or_else(|e| panic!("{pod:?}: {e:#}"));
    }
}

#[test]
fn fifty_pods_at_once() {
    let node = node();
    let client = node.client().unwrap();
    let version = client.version().unwrap();
    assert_eq!((&*version.runtime, &*version.api), ("containerd", "v1"));

    let pods = node.run(&names("pod", 50)).unwrap();
    let addresses: BTreeMap<_, _> = pods
        .iter()
        .map(|pod| (pod.ip.clone(), pod.id.clone()))
        .collect();
    assert_eq!(addresses.len(), 50, "{pods:?}");
    assert_eq!(reserved(&node), addresses);
    ping(&node, &pods);
    let known: BTreeSet<_> = node
        .sandboxes()
        .unwrap()
        .into_iter()
        .map(|s| (s.id, s.name, s.ready))
        .collect();
    let wanted: BTreeSet<_> = pods
        .iter()
        .map(|pod| (pod.id.clone(), pod.name.clone(), true))
        .collect();
    assert_eq!(known, wanted);

    node.remove(&ids(&pods)).unwrap();
    assert_eq!(node.sandboxes().unwrap(), []);
    // Both are right again, and asking for it says so.
    let gone = &pods[0].id;
    client.stop_pod_sandbox(gone).unwrap();
    client.remove_pod_sandbox(gone).unwrap();
    assert!(client.pod_sandbox_status(gone).unwrap_err().is_not_found());
    nothing_is_left(node);
}

/// The runtime has a pod's second address from the plugins, too.
#[test]
fn a_dual_stack_pod_has_both_addresses() {
    let bridge = json!({
        "type": "bridge",
        "bridge": "cbr0",
        "isGateway": true,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.40.1.0/24"}], [{"subnet": "fd00:40:1::/64"}]],
        },
    });
    let conflist = json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge]});
    let node = CriNode::start(&testkit::bin_dir(), &conflist.to_string()).unwrap();
    let pods = node.run(&names("pod", 1)).unwrap();
    let status = node
        .client()
        .unwrap()
        .pod_sandbox_status(&pods[0].id)
        .unwrap();
    assert_eq!(status.ips, ["10.40.1.2", "fd00:40:1::2"]);
    for ip in &status.ips {
        node.node()
            .run(&["busybox", "ping", "-c", "1", "-W", "2", ip])
            .unwrap();
    }
    node.remove(&ids(&pods)).unwrap();
    assert_eq!(reserved(&node).len(), 0);
    nothing_is_left(node);
}

/// Killed at the two worst moments: containerd knows what it was adding, and can take it away.
#[test]
fn a_killed_containerd_takes_away_what_it_was_adding() {
    let node = node();
    let early = node
        .crash(&names("early", 10), Moment::BeforeTheCache)
        .unwrap();
    let late = node
        .crash(&names("late", 10), Moment::AfterTheCache)
        .unwrap();
    let known = node.sandboxes().unwrap();
    assert!(known.iter().all(|sandbox| !sandbox.ready), "{known:#?}");
    let known: Vec<_> = known.into_iter().map(|sandbox| sandbox.id).collect();
    assert_eq!(
        known.iter().cloned().collect::<BTreeSet<_>>(),
        &early | &late
    );
    assert_eq!(reserved(&node).len(), 20);
    node.remove(&known).unwrap();
    nothing_is_left(node);
}

/// Killed with its record lost: in the end all that is left is of the pods it forgot, which a GC has to free.
#[test]
fn a_containerd_that_forgets_leaks_what_it_was_adding_and_nothing_else() {
    let node = node();
    let kept = node.run(&names("kept", 5)).unwrap();
    let early = node
        .leak(&names("early", 10), Moment::BeforeTheCache)
        .unwrap();
    let late = node
        .leak(&names("late", 10), Moment::AfterTheCache)
        .unwrap();
    let lost = &early | &late;
    assert_eq!(lost.len(), 20);
    let known = || -> BTreeSet<String> {
        node.sandboxes()
            .unwrap()
            .into_iter()
            .map(|sandbox| sandbox.id)
            .collect()
    };
    assert_eq!(known(), ids(&kept).into_iter().collect());
    ping(&node, &kept);

    // A pod that is being added has its address, and no list of the runtime has the pod.
    let (more, (known_then, held)) = node
        .while_adding(&names("more", 3), || Ok((known(), reserved(&node).len())))
        .unwrap();
    assert_eq!(
        (known_then, held),
        (ids(&kept).into_iter().collect(), 5 + 20 + 3)
    );
    ping(&node, &more);
    node.remove(&ids(&kept)).unwrap();
    node.remove(&ids(&more)).unwrap();
    assert_eq!(known(), BTreeSet::new());

    let holders: Vec<_> = reserved(&node).into_values().collect();
    assert_eq!(holders.len(), 20);
    assert_eq!(holders.into_iter().collect::<BTreeSet<_>>(), lost);
    let left = node.node().left_over().unwrap();
    assert_eq!(left.links.len(), 20, "{left:#?}");
    assert_eq!(left.containers, BTreeSet::new());
    // A result is cached when the whole chain has run and the runtime has heard of it.
    let cached: BTreeSet<_> = left
        .files
        .iter()
        .filter(|file| file.starts_with("results/cbr0-"))
        .cloned()
        .collect();
    let wanted: BTreeSet<_> = late
        .iter()
        .map(|id| format!("results/cbr0-{id}-eth0"))
        .collect();
    assert_eq!(cached, wanted);
    // Should somebody remove the namespaces, the kernel takes the links with them, and nobody the addresses.
    node.remove_lost_netns().unwrap();
    eventually(PATIENCE, || {
        node.node().left_over().unwrap().links.is_empty()
    });
    assert_eq!(reserved(&node).len(), 20);
    assert_eq!(
        node.stop().unwrap(),
        Vec::<String>::new(),
        "left on the machine"
    );
}

/// Go's libcni, containerd's, writes its results in place: a kill can leave half of one, with which containerd then
/// refuses to stop the pod, for ever. Its administrator removes the file; ours never writes such a thing.
fn remove_torn_results(node: &CriNode) {
    for found in fs::read_dir(node.node().path("/var/lib/cni/results")).unwrap() {
        let path = found.unwrap().path();
        let whole = |text: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&text).is_ok();
        if path.is_file() && !fs::read(&path).is_ok_and(whole) {
            eprintln!("torn: {}", path.display());
            fs::remove_file(&path).unwrap();
        }
    }
}

/// Killed at any moment: a pod that it knows afterwards can be removed with all it had.
#[test]
fn what_a_killed_containerd_still_knows_can_be_removed() {
    let node = node();
    let client = node.client().unwrap();
    client.version().unwrap();
    let asked = names("pod", 30);
    thread::scope(|scope| {
        let pods = scope.spawn(|| node.run(&asked));
        eventually(PATIENCE, || node.sandboxes().unwrap().len() >= 5);
        node.kill_containerd().unwrap();
        // A fast machine may have made them all.
        drop(pods.join().unwrap());
    });
    // A client that was there before says that nobody is there, and then finds the new one.
    let gone = client.version().unwrap_err();
    assert!(
        matches!(gone, CriError::Connect { .. } | CriError::Broken { .. }),
        "{gone}"
    );
    let gone = client.version().unwrap_err();
    assert!(matches!(gone, CriError::Connect { .. }), "{gone}");
    node.start_containerd().unwrap();
    client.version().unwrap();
    let known: Vec<_> = node
        .sandboxes()
        .unwrap()
        .into_iter()
        .map(|sandbox| sandbox.id)
        .collect();
    assert!(known.len() >= 5, "{known:?}");
    remove_torn_results(&node);
    node.remove(&known).unwrap();
    assert_eq!(node.sandboxes().unwrap(), []);
    let left = node.node().left_over().unwrap();
    let forgotten = |line: &String| known.iter().all(|id| !line.contains(id.as_str()));
    assert!(left.files.iter().all(forgotten), "{known:#?} {left:#?}");
    assert!(reserved(&node).values().all(|id| !known.contains(id)));
    assert!(
        left.containers.iter().all(forgotten),
        "{known:#?} {left:#?}"
    );
    assert_eq!(
        node.stop().unwrap(),
        Vec::<String>::new(),
        "left on the machine"
    );
}

/// The containerd of the other tests serves no CRI, and the client says what may be the cause.
#[test]
fn a_containerd_without_cri_is_told_from_one_with_it() {
    let node = Node::start(&testkit::bin_dir(), &cbr0(), &[]).unwrap();
    let socket = node.path("/run/containerd/containerd.sock");
    let client = cri::Client::connect(&socket, PATIENCE).unwrap();
    let error = client.list_pod_sandboxes().unwrap_err();
    assert!(matches!(error, CriError::NoCri { .. }), "{error}");
    node.stop().unwrap();
    let error = client.version().unwrap_err();
    assert!(
        matches!(error, CriError::Connect { .. } | CriError::Broken { .. }),
        "{error}"
    );
}
