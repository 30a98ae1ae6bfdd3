//! Our `bridge` as the delegate, in the plugin's own process, and the same executed.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libcni::record::{self, Record};
use serde_json::{Value, json};
use testkit::{Call, Pod, bin_dir, in_netns};

#[path = "bed/node.rs"]
mod node;
use node::Node;

/// Ours, but nobody may execute it: whoever tries fails.
fn not_executable(node: &Node) {
    let file = node.at("bin/bridge");
    fs::remove_file(&file).unwrap();
    fs::copy(bin_dir().join("bridge"), &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Ours behind a script, which is not ours.
fn executed(node: &Node) {
    let file = node.at("bin/bridge");
    fs::remove_file(&file).unwrap();
    testkit::script(&file, &format!("exec {}/bridge", bin_dir().display()));
}

/// Every verb once, and what each answered; MACs are the kernel's choice.
fn life(node: &Node, pod: &Pod) -> Vec<Value> {
    let call = |verb: &str| node.call(verb, "c1", pod.netns());
    let mut answers = Vec::new();
    let mut take = |call: Call| {
        let output = call.run();
        let mut text = output.stdout.clone();
        if let Ok(Value::Object(result)) = serde_json::from_str(&text) {
            for interface in result
                .get("interfaces")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                text = text.replace(interface["mac"].as_str().unwrap_or("-"), "MAC");
            }
        }
        answers.push(json!([output.status.code(), text, output.stderr]));
        serde_json::from_str::<Value>(&output.stdout).unwrap_or_default()
    };
    take(call("STATUS"));
    let result = take(call("ADD"));
    take(node.with(call("CHECK"), "prevResult", result));
    pod.sh("ip route del default");
    take(node.with(call("CHECK"), "prevResult", json!({"cniVersion": "1.1.0"})));
    take(call("ADD"));
    take(node.with(
        call("GC"),
        "cni.dev/valid-attachments",
        json!([{"containerID": "c1", "ifname": "eth0"}]),
    ));
    take(call("DEL"));
    take(call("DEL"));
    take(node.with(call("GC"), "cni.dev/valid-attachments", json!([])));
    // One that fails half-way.
    node.lease(&node::ENV.replace("10.244.1.1/24", "10.244.1.1/31"));
    take(call("ADD"));
    node.lease(node::ENV);
    node.is_empty();
    answers
}

#[test]
fn in_process_and_executed_are_the_same() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("pod");
        not_executable(&node);
        let in_process = life(&node, &pod);
        assert_eq!(in_process[1][0], 0, "{in_process:#?}");
        testkit::sh("ip link delete cni0");
        // Another node, whose addresses begin anew.
        let node = Node::new();
        executed(&node);
        assert_eq!(life(&node, &pod), in_process);
    });
}

#[test]
fn the_phases_of_one_in_process_are_bridges() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("pod");
        let file = node.at("operations");
        let recorded = |verb: &str| {
            let call = node.call(verb, "c1", pod.netns());
            call.env("PODWIRE_RECORD", &file).ok();
            let records: Vec<Record> = record::read(&file).collect();
            fs::remove_file(&file).unwrap();
            records
        };
        let phases = |op: &Record| -> Vec<String> {
            op.phases
                .iter()
                .map(|phase| phase.name.to_string())
                .collect()
        };
        not_executable(&node);
        let add = recorded("ADD");
        assert_eq!(add.len(), 1, "{add:?}");
        assert_eq!(add[0].plugin, "overlay");
        let known = phases(&add[0]);
        assert!(known.contains(&"veth".into()), "{known:?}");
        assert!(!known.contains(&"delegate".into()), "{known:?}");
        assert_eq!(recorded("DEL").len(), 1);

        executed(&node);
        let add = recorded("ADD");
        let plugins: Vec<&str> = add.iter().map(|op| op.plugin.as_str()).collect();
        assert_eq!(plugins, ["bridge", "overlay"]);
        assert_eq!(phases(&add[1]), ["config", "delegate"]);
        recorded("DEL");
        node.is_empty();
    });
}

/// An executable that is gone keeps nothing from being freed.
#[test]
fn what_bridge_made_is_freed_without_its_executable() {
    in_netns(|| {
        let node = Node::new();
        let pods = [Pod::new("a"), Pod::new("b")];
        for (pod, id) in pods.iter().zip(["a", "b"]) {
            node.call("ADD", id, pod.netns()).ok();
        }
        for name in ["bridge", "host-local"] {
            fs::remove_file(node.at("bin").join(name)).unwrap();
        }
        node.call("DEL", "a", pods[0].netns()).ok();
        assert_eq!(node.files("flannel"), ["b", "b@eth0"]);
        node.with(
            node.call("GC", "", ""),
            "cni.dev/valid-attachments",
            json!([]),
        )
        .ok();
        node.is_empty();
        assert_eq!(node.call("ADD", "a", pods[0].netns()).err()["code"], 7);
    });
}
