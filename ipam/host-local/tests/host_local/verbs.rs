//! The protocol around the store.
use std::fs;

use serde_json::json;

use crate::bed::{Bed, OURS, addresses};

const V4: &str = "10.1.2.0/24";

#[test]
fn result_bytes() {
    let bed = Bed::new(
        json!({"subnet": V4, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.2.9"}]}),
    );
    let out = bed.call(OURS, "ADD", "c1").run();
    assert_eq!(
        out.stdout,
        r#"{
    "cniVersion": "1.0.0",
    "ips": [
        {
            "address": "10.1.2.2/24",
            "gateway": "10.1.2.1"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "10.0.0.0/8",
            "gw": "10.1.2.9"
        }
    ]
}"#
    );
    assert_eq!(out.stderr, "");
}

#[test]
fn every_version() {
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let bed = Bed::new(json!({"ranges": [[{"subnet": V4}], [{"subnet": "fd00::/64"}]]}))
            .version(version);
        let result = bed.call(OURS, "ADD", "c1").ok();
        assert_eq!(result["cniVersion"], version);
        if version < "0.3.0" {
            assert_eq!(result["ip4"]["ip"], "10.1.2.2/24");
            assert_eq!(result["ip6"]["ip"], "fd00::2/64");
        } else {
            assert_eq!(addresses(&result), ["10.1.2.2", "fd00::2"]);
        }
        bed.del(OURS, "c1");
        bed.del(OURS, "c1");
        assert!(bed.reservations().is_empty());
    }
}

#[test]
fn check_gc_status() {
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]});
    let bed = Bed::new(json!({"subnet": "10.1.2.0/29"}))
        .version("1.1.0")
        .with(valid);
    let status = || bed.call(OURS, "STATUS", "").run();
    assert_eq!(
        (status().status.success(), status().stdout.as_str()),
        (true, "")
    );
    for id in ["a", "b", "c", "d", "e"] {
        bed.add(OURS, id);
    }
    bed.call(OURS, "CHECK", "a").ok();
    let full = bed.call(OURS, "STATUS", "").err();
    assert_eq!(full["code"], 50);
    assert_eq!(
        full["msg"],
        "host-local: no IP addresses available in range set: 10.1.2.1-10.1.2.6"
    );
    bed.call(OURS, "GC", "").ok();
    assert_eq!(
        bed.reservations().into_values().collect::<Vec<_>>(),
        ["b\r\neth0"]
    );
    bed.call(OURS, "STATUS", "").ok();
    let gone = bed.call(OURS, "CHECK", "a").err();
    assert_eq!(
        gone["msg"],
        "host-local: Failed to find address added by container a"
    );
}

#[test]
fn status_of_a_bad_config() {
    let bed = Bed::new(json!({"subnet": "10.1.2.3/24"})).version("1.1.0");
    let error = bed.call(OURS, "STATUS", "").err();
    assert_eq!(error["code"], 50);
    assert!(
        error["msg"]
            .as_str()
            .unwrap()
            .contains("Network has host bits set"),
        "{error}"
    );
    assert_eq!(bed.call(OURS, "ADD", "a").err()["code"], 7);
    assert!(!bed.dir().exists());
    // What was given under an earlier, valid config is still taken back.
    bed.del(OURS, "a");
}

#[test]
fn requested_by_args_and_capability() {
    let bed = Bed::new(json!({"ranges": [[{"subnet": V4}], [{"subnet": "fd00::/64"}]]}))
        .with(json!({"runtimeConfig": {"ips": ["fd00::99/64"]}}));
    let result = bed
        .call(OURS, "ADD", "a")
        .args("IP=10.1.2.99;IgnoreUnknown=true;K8S_POD_NAME=x")
        .ok();
    assert_eq!(addresses(&result), ["10.1.2.99", "fd00::99"]);
    let error = bed.call(OURS, "ADD", "b").args("IP=10.1.2.98").err();
    assert_eq!(
        error["msg"],
        "failed to allocate for range 1: requested IP address fd00::99 is not available in range set \
         fd00::1-fd00::ffff:ffff:ffff:ffff"
    );
    assert_eq!(bed.reservations().len(), 2);
    // DEL does not care.
    bed.call(OURS, "DEL", "a").args("nonsense").ok();
    assert!(bed.reservations().is_empty());
}

/// rkt/rkt#3019 and others: the name goes into a path.
#[test]
fn names_cannot_leave_the_data_directory() {
    for (name, code) in [("../n", 7), ("n/..", 7), ("", 7), (".", 7)] {
        let bed = Bed::new(json!({"subnet": V4})).with(json!({"name": name}));
        assert_eq!(bed.call(OURS, "ADD", "a").err()["code"], code, "{name:?}");
    }
    let bed = Bed::new(json!({"subnet": V4}));
    assert_eq!(bed.call(OURS, "ADD", "../a").err()["code"], 4);
    assert!(!bed.dir().exists());
}

#[test]
fn dns_of_a_file() {
    let bed = Bed::new(json!({"subnet": V4}));
    let file = bed.dir().with_file_name("resolv.conf");
    fs::write(
        &file,
        "search a.example b.example\nnameserver 192.0.2.1\noptions ndots:5\n",
    )
    .unwrap();
    let mut config = bed.config();
    config["ipam"]["resolvConf"] = json!(file);
    let result = bed.call(OURS, "ADD", "a").stdin(config.to_string()).ok();
    assert_eq!(
        result["dns"],
        json!({"nameservers": ["192.0.2.1"], "search": ["a.example", "b.example"], "options": ["ndots:5"]})
    );
}
