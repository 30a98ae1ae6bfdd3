//! The plugin over real delegates, in real namespaces.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Pod, bin_dir, in_netns, ip_json, sh};

#[path = "bed/node.rs"]
mod node;
use node::{ENV, Node};

/// A delegate that shows what it was given.
fn spy(node: &Node) -> PathBuf {
    let (file, seen) = (node.at("bin/bridge"), node.at("seen"));
    fs::remove_file(&file).unwrap();
    let answer = r#"echo '{"cniVersion":"1.1.0"}'"#;
    testkit::script(&file, &format!("cat > {}\n{answer}", seen.display()));
    seen
}

/// What flannel's own plugin hands to its delegate, to the byte.
#[test]
fn the_delegates_configuration_is_flannels() {
    in_netns(|| {
        let node = Node::new();
        let seen = spy(&node);
        let pod = Pod::new("pod");
        let stock = json!({
            "cniVersion": "0.3.1", "name": "cbr0", "type": "flannel",
            "subnetFile": node.at("subnet.env"), "dataDir": node.at("flannel"),
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
        });
        let given = |conf: &Value| {
            node.call("ADD", "c1", pod.netns())
                .stdin(conf.to_string())
                .ok();
            let given = fs::read_to_string(&seen).unwrap();
            node.call("DEL", "c1", pod.netns())
                .stdin(conf.to_string())
                .run();
            given
        };
        assert_eq!(
            given(&stock),
            r#"{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.1.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}"#
        );

        node.lease("FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\nFLANNEL_IPV6_SUBNET=2001:cafe:42:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\nFLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n");
        let mut rich = stock.clone();
        rich["delegate"] = json!({"type": "ptp", "mtu": 1400, "ipMasq": false});
        rich["ipam"] = json!({"type": "host-local", "dataDir": "/x", "routes": [{"dst": "0.0.0.0/0"}], "ranges": "replaced"});
        rich["runtimeConfig"] = json!({"portMappings": []});
        fs::rename(node.at("bin/bridge"), node.at("bin/ptp")).unwrap();
        assert_eq!(
            given(&rich),
            r#"{"cniVersion":"0.3.1","ipMasq":false,"ipam":{"dataDir":"/x","ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"2001:cafe:42:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.244.0.0/16"},{"dst":"10.245.0.0/16"},{"dst":"2001:cafe:42::/56"}],"type":"host-local"},"mtu":1400,"name":"cbr0","runtimeConfig":{"portMappings":[]},"type":"ptp"}"#
        );
    });
}

/// The manual's network, and every key it names, and no other.
#[test]
fn the_manual_is_right() {
    in_netns(|| {
        let manual =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/overlay.md"))
                .unwrap();
        let block = manual
            .split("```json\n")
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        let list: Value = serde_json::from_str(block).unwrap();
        let node = Node::new();
        let mut conf = node.conf();
        conf["delegate"] = list["plugins"][0]["delegate"].clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        let pod = Pod::new("pod");
        let call = |verb: &str| node.call(verb, "c1", pod.netns()).stdin(conf.to_string());
        call("ADD").ok();
        assert_eq!(
            pod.ip_json(&["route", "show", "default"])[0]["gateway"],
            "10.244.1.1"
        );
        call("DEL").ok();
        node.is_empty();

        let rows = manual.lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
        let source = include_str!("../src/conf.rs");
        assert_eq!(
            documented,
            [
                "subnetFile",
                "dataDir",
                "delegate",
                "ipam",
                "runtimeConfig",
                "vxlan",
                "network",
                "networks",
                "subnet",
                "peersFile",
                "iface",
                "publicIP",
                "publicIPv6",
                "macFile",
                "ipMasq"
            ]
        );
        for key in documented {
            assert!(source.contains(&format!("\"{key}\"")), "{key}");
        }
    });
}

#[test]
fn a_pod_comes_and_goes() {
    in_netns(|| {
        for delegates in [bin_dir(), PathBuf::from("/usr/lib/cni")] {
            let node = Node::new();
            node.delegates(&delegates);
            let theirs = delegates.starts_with("/usr");
            let version = if theirs { "1.0.0" } else { "1.1.0" };
            let pod = Pod::new("pod");
            let call = |verb: &str| {
                node.with(
                    node.call(verb, "c1", pod.netns()),
                    "cniVersion",
                    json!(version),
                )
            };
            let result = call("ADD").ok();
            assert_eq!(result["ips"][0]["address"], "10.244.1.2/24");
            assert_eq!(node.files("flannel"), ["c1", "c1@eth0"]);
            assert_eq!(
                fs::metadata(node.at("flannel/c1@eth0"))
                    .unwrap()
                    .permissions()
                    .mode()
                    & 0o777,
                0o600
            );
            assert_eq!(ip_json(&["link", "show", "cni0"])[0]["mtu"], 1450);
            assert_eq!(pod.ip_json(&["link", "show", "eth0"])[0]["mtu"], 1450);
            assert_eq!(
                pod.ip_json(&["route", "show", "10.244.0.0/16"])[0]["gateway"],
                "10.244.1.1"
            );

            let check = || {
                let mut conf = node.conf();
                conf["prevResult"] = result.clone();
                call("CHECK").stdin(conf.to_string()).run().status.success()
            };
            // Debian's does not find the route to the cluster, and says so of every pod.
            assert_eq!(check(), !theirs);
            pod.sh("ip address flush dev eth0");
            assert!(!check(), "CHECK is the delegate's");

            // The lease changes; what stands is deleted as it was made.
            node.lease(&ENV.replace("10.244.1.", "10.244.9."));
            call("DEL").ok();
            node.is_empty();
            call("DEL").ok();
            sh("ip link delete cni0");
        }
    });
}

#[test]
fn a_failed_del_is_tried_again_with_what_add_was_given() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("pod");
        node.call("ADD", "c1", pod.netns()).ok();
        fs::remove_file(node.at("subnet.env")).unwrap();
        let script = |text: &str| {
            let file = node.at("bin/bridge");
            fs::remove_file(&file).unwrap();
            testkit::script(&file, text);
        };
        script("exit 1");
        node.call("DEL", "c1", pod.netns()).err();
        assert_eq!(node.files("flannel"), ["c1", "c1@eth0"], "kept");
        script(&format!("exec {}/bridge", bin_dir().display()));
        node.call("DEL", "c1", pod.netns()).ok();
        node.is_empty();
    });
}

#[test]
fn item_7_a_pod_of_flannels_plugin_is_taken_over_and_back() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("pod");
        node.call("ADD", "c1", pod.netns()).ok();
        // As flannel's plugin would have left it: its name alone.
        fs::remove_file(node.at("flannel/c1@eth0")).unwrap();
        node.lease(&ENV.replace("10.244.1.", "10.244.9."));
        node.call("DEL", "c1", pod.netns()).ok();
        node.is_empty();

        node.lease(ENV);
        // Without any file, by the lease and the names.
        node.call("ADD", "c2", pod.netns()).ok();
        fs::remove_dir_all(node.at("flannel")).unwrap();
        node.call("DEL", "c2", pod.netns()).ok();
        node.is_empty();
    });
}

#[test]
fn a_failed_add_leaves_nothing_and_a_second_one_takes_nothing() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("pod");
        let error = node.call("ADD", "c1", "/run/netns/never").err();
        assert_eq!(error["code"], 8);
        node.lease(&ENV.replace("10.244.1.1/24", "10.244.1.1/31"));
        node.call("ADD", "c1", pod.netns()).err();
        node.is_empty();
        node.lease(ENV);

        node.call("ADD", "c1", pod.netns()).ok();
        node.call("ADD", "c1", pod.netns()).err();
        assert_eq!(node.files("flannel"), ["c1", "c1@eth0"]);
        assert_eq!(
            pod.ip_json(&["address", "show", "eth0"])
                .as_array()
                .unwrap()
                .len(),
            1
        );
        node.call("DEL", "c1", pod.netns()).ok();
        node.is_empty();
    });
}

#[test]
fn without_a_lease_nothing_is_ready() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("pod");
        node.call("STATUS", "", "").ok();
        fs::remove_file(node.at("subnet.env")).unwrap();
        for verb in ["STATUS", "ADD"] {
            let error = node.call(verb, "c1", pod.netns()).err();
            assert_eq!(error["code"], 50, "{error}");
            let msg = error["msg"].as_str().unwrap();
            assert!(
                msg.starts_with("failed to load flannel 'subnet.env' file: open "),
                "{msg}"
            );
            assert!(
                error["details"].as_str().unwrap().contains("flanneld"),
                "{error}"
            );
        }
        node.lease("FLANNEL_MTU=1450\n");
        let error = node.call("STATUS", "", "").err();
        assert_eq!(error["code"], 50);
        assert!(
            error["msg"]
                .as_str()
                .unwrap()
                .contains("is missing FLANNEL_NETWORK"),
            "{error}"
        );
        // The delegate's own state counts, too.
        node.lease(&ENV.replace("10.244.1.1/24", "10.244.1.1/31"));
        node.call("STATUS", "", "").err();
        node.is_empty();
    });
}

#[test]
fn gc_keeps_who_is_valid() {
    in_netns(|| {
        let node = Node::new();
        let pods = [Pod::new("a"), Pod::new("b")];
        for (pod, id) in pods.iter().zip(["a", "b"]) {
            node.call("ADD", id, pod.netns()).ok();
        }
        let gc = |valid: Value| {
            node.with(node.call("GC", "", ""), "cni.dev/valid-attachments", valid)
                .ok();
        };
        gc(json!([{"containerID": "a", "ifname": "eth0"}]));
        assert_eq!(node.files("flannel"), ["a", "a@eth0"]);
        assert_eq!(node.files("store/cbr0"), ["10.244.1.2"]);
        // A file that nobody's plugin wrote stops nothing.
        let stray = node.at("flannel/..x@eth0");
        fs::write(&stray, r#"{"name":"cbr0"}"#).unwrap();
        gc(json!([]));
        fs::remove_file(stray).unwrap();
        node.is_empty();
    });
}

/// Of pods that flannel's own plugin attached there is only the name it used.
#[test]
fn gc_frees_what_flannels_plugin_left() {
    in_netns(|| {
        let node = Node::new();
        let pods = [Pod::new("a"), Pod::new("b")];
        for (pod, id) in pods.iter().zip(["a", "b"]) {
            node.call("ADD", id, pod.netns()).ok();
            fs::remove_file(node.at(&format!("flannel/{id}@eth0"))).unwrap();
        }
        fs::write(node.at("flannel/other"), r#"{"name":"other"}"#).unwrap();
        let gc = |valid: Value| {
            node.with(node.call("GC", "", ""), "cni.dev/valid-attachments", valid)
                .ok();
        };
        gc(json!([{"containerID": "a", "ifname": "eth0"}]));
        assert_eq!(node.files("flannel"), ["a", "other"]);
        assert_eq!(node.files("store/cbr0"), ["10.244.1.2"]);
        gc(json!([]));
        assert_eq!(node.files("flannel"), ["other"], "another network's");
        fs::remove_file(node.at("flannel/other")).unwrap();
        node.is_empty();
    });
}

#[test]
fn keys_that_are_not_the_users() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("pod");
        for (key, value) in [
            ("delegate", json!({"name": "x"})),
            ("delegate", json!({"ipam": {}})),
            ("delegate", json!({"type": 7})),
            ("delegate", json!([])),
            ("ipam", json!("host-local")),
            ("subnetFile", json!(7)),
        ] {
            let error = node
                .with(node.call("ADD", "c1", pod.netns()), key, value.clone())
                .err();
            assert_eq!(error["code"], 7, "{key} {value}: {error}");
        }
        let traversal = json!({"type": "../../bin/sh"});
        node.with(node.call("ADD", "c1", pod.netns()), "delegate", traversal)
            .err();
        node.is_empty();
    });
}
