//! STATUS is true: what the kubelet holds pods back by.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use fabric::Status;
use serde_json::Value;
use testkit::{Pod, in_netns, sh};

#[path = "bed/node.rs"]
mod node;
use node::Node;

fn said(node: &Node, status: &Status) {
    status.write(&node.at("subnet.env")).unwrap();
}

fn connected() -> Status {
    Status {
        ready: true,
        devices: vec!["flannel.1".into()],
        converged: "2026-11-21T09:00:00Z".into(),
        ..Status::default()
    }
}

/// The code and the text of a STATUS that fails.
fn refused(node: &Node) -> (u64, String) {
    let error = node.call("STATUS", "", "").err();
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (
        error["code"].as_u64().unwrap(),
        format!("{} | {}", text("msg"), text("details")),
    )
}

const DEVICE: &str =
    "ip link add flannel.1 type vxlan id 1 dstport 8472 local 127.0.0.1; ip link set flannel.1 up";

/// Rule 19: not ready before the peers are programmed.
#[test]
fn rule_19_not_before_the_agent_has_converged() {
    in_netns(|| {
        let node = Node::new();
        sh(DEVICE);
        let mut status = Status {
            reason: "waits for a podCIDR".into(),
            ..Status::default()
        };
        said(&node, &status);
        let (code, text) = refused(&node);
        assert_eq!(code, 50);
        assert!(text.contains("waits for a podCIDR"), "{text}");
        // Pods there are may have lost the others.
        status.converged = "2026-11-21T09:00:00Z".into();
        said(&node, &status);
        let (code, text) = refused(&node);
        assert_eq!(code, 51);
        assert!(text.contains("last was 2026-11-21T09:00:00Z"), "{text}");
        said(&node, &connected());
        node.call("STATUS", "", "").ok();
        // Ready or not: without a lease there is no pod.
        fs::remove_file(node.at("subnet.env")).unwrap();
        assert_eq!(refused(&node).0, 50);
    });
}

#[test]
fn a_device_that_is_gone_or_down_is_named() {
    in_netns(|| {
        let node = Node::new();
        said(&node, &connected());
        let (code, text) = refused(&node);
        assert_eq!(code, 51);
        assert!(text.contains("device flannel.1 is missing"), "{text}");
        sh(DEVICE);
        node.call("STATUS", "", "").ok();
        sh("ip link set flannel.1 down");
        let (code, text) = refused(&node);
        assert_eq!(
            (code, text.contains("flannel.1 is down")),
            (51, true),
            "{text}"
        );
    });
}

/// A node of flanneld's has no word of an agent of ours: its lease and what can be seen of its devices have to do.
#[test]
fn a_node_of_flanneld() {
    in_netns(|| {
        let node = Node::new();
        node.call("STATUS", "", "").ok(); // host-gw has no device
        sh(DEVICE);
        sh("ip link add other type vxlan id 9 dstport 4789 local 127.0.0.1");
        node.call("STATUS", "", "").ok();
        sh("ip link set flannel.1 down");
        assert_eq!(refused(&node).0, 51);
        // Torn is absent.
        sh("ip link set flannel.1 up");
        fs::write(
            fabric::status::path(&node.at("subnet.env")),
            "{\"ready\":fal",
        )
        .unwrap();
        node.call("STATUS", "", "").ok();
    });
}

/// Item 1 of section 9: the message that everybody reports names what is really the matter.
#[test]
fn a_missing_lease_is_blamed_on_its_cause() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("pod");
        fs::remove_file(node.at("subnet.env")).unwrap();
        let status = Status {
            reason: "etcd does not answer".into(),
            ..Status::default()
        };
        said(&node, &status);
        let error: Value = node.call("ADD", "c1", pod.netns()).err();
        assert_eq!(error["code"], 50);
        let msg = error["msg"].as_str().unwrap();
        assert!(
            msg.starts_with("failed to load flannel 'subnet.env' file: "),
            "{msg}"
        );
        assert!(
            error["details"]
                .as_str()
                .unwrap()
                .contains("etcd does not answer"),
            "{error}"
        );
    });
}
