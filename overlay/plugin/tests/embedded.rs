//! Nodes without agents: the plugin makes the overlay itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Pod, in_netns, sh};

#[path = "bed/fleet.rs"]
mod fleet;
use fleet::{Fleet, mac};

#[track_caller]
fn ping(from: &Pod, to: &str) {
    from.sh(&format!("ping -n -c1 -W2 {to}"));
}

fn address(result: &Value, at: usize) -> &str {
    result["ips"][at]["address"]
        .as_str()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
}

/// Sections 3.1 and 3.4 to the letter, and traffic both ways.
#[test]
fn item_3_two_nodes_with_nothing_but_the_plugin() {
    in_netns(|| {
        let fleet = Fleet::new(2, false);
        let (one, _) = fleet.attach(1);
        let (two, result) = fleet.attach(2);
        assert_eq!(address(&result, 0), "10.244.2.2");
        ping(&one, "10.244.2.2");
        ping(&two, "10.244.1.2");
        ping(fleet.node(1), "10.244.2.2");

        let tables = fleet.tables(1);
        for line in [
            "vxlan id 1 local 192.0.2.1 dev eth0 srcport 0 0 dstport 8472 nolearning",
            "inet 10.244.1.0/32 scope global flannel.1",
            "10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 112 onlink",
            &format!("10.244.2.0 dev flannel.1 lladdr {} PERMANENT", mac(2)),
            &format!("{} dev flannel.1 dst 192.0.2.2 self permanent", mac(2)),
            "mtu 1450",
        ] {
            assert!(tables.contains(line), "{line}\n{tables}");
        }
        assert!(fleet.node(1).sh("ip link show flannel.1").contains(&mac(1)));
        let mtu = |pod: &Pod, name: &str| pod.ip_json(&["link", "show", name])[0]["mtu"].clone();
        assert_eq!(
            (mtu(&one, "eth0"), mtu(fleet.node(1), "cni0")),
            (1450.into(), 1450.into())
        );
        assert_eq!(
            one.ip_json(&["route", "show", "10.244.0.0/16"])[0]["gateway"],
            "10.244.1.1"
        );

        // The overlay is the node's, not the pod's.
        fleet.ok(1, &fleet.call(1, "DEL", &one));
        ping(fleet.node(1), "10.244.2.2");
    });
}

/// Rule 20: one MTU for both families, the smaller tunnel's.
#[test]
fn rule_20_dual_stack() {
    in_netns(|| {
        let fleet = Fleet::new(2, true);
        let (one, result) = fleet.attach(1);
        let (_two, other) = fleet.attach(2);
        assert_eq!(address(&result, 1), "fd00:244:0:1::2");
        ping(&one, address(&other, 0));
        ping(&one, address(&other, 1));
        assert_eq!(one.ip_json(&["link", "show", "eth0"])[0]["mtu"], 1430);
        one.sh("ping -n -c1 -W2 -M do -s 1382 fd00:244:0:2::2");
        assert_eq!(
            fleet.node(1).ip_json(&["link", "show", "flannel-v6.1"])[0]["mtu"],
            1430
        );
    });
}

/// What stands is not touched: not a message that changes anything, and not a byte of the tables.
#[test]
fn a_second_add_sends_no_change() {
    in_netns(|| {
        let fleet = Fleet::new(2, false);
        let (one, _) = fleet.attach(1);
        fleet.ok(1, &fleet.call(1, "DEL", &one));
        let before = fleet.tables(1);
        let index = fleet.node(1).ip_json(&["link", "show", "flannel.1"])[0]["ifindex"].clone();
        fleet.ok(1, &fleet.call(1, "ADD", &one));
        assert_eq!(fleet.tables(1), before);
        assert_eq!(
            fleet.node(1).ip_json(&["link", "show", "flannel.1"])[0]["ifindex"],
            index
        );

        // So many requests to the kernel would change something of it.
        let changes = |call: &testkit::Call| -> usize {
            let trace = fleet.at("trace");
            let mut command = Command::new("strace");
            command
                .args(["-f", "-e", "trace=sendto,sendmsg", "-s", "65536", "-o"])
                .arg(&trace);
            command.arg(env!("CARGO_BIN_EXE_overlay")).env_clear();
            for (key, value) in call.command().get_envs() {
                command.env(key, value.unwrap());
            }
            let stdin = fleet.at("stdin");
            fs::write(&stdin, fleet.conf(1).to_string()).unwrap();
            command.stdin(fs::File::open(stdin).unwrap());
            let output = fleet.node(1).run(|| command.output().unwrap());
            assert!(output.status.success(), "{output:?}");
            let trace = fs::read_to_string(trace).unwrap();
            let of_overlay = |line: &&str| {
                let changes = [
                    "RTM_NEWLINK",
                    "RTM_SETLINK",
                    "RTM_NEWROUTE",
                    "RTM_NEWNEIGH",
                    "RTM_NEWADDR",
                    "RTM_NEWNEXTHOP",
                ];
                let of_device =
                    changes.iter().any(|kind| line.contains(kind)) && line.contains("flannel.1");
                of_device || line.contains("NFT_MSG_NEW")
            };
            trace.lines().filter(of_overlay).count()
        };
        fleet.ok(1, &fleet.call(1, "DEL", &one));
        assert_eq!(changes(&fleet.call(1, "ADD", &one)), 0);
        fleet.ok(1, &fleet.call(1, "DEL", &one));
        fleet.node(1).sh("ip route del 10.244.2.0/24");
        assert!(
            changes(&fleet.call(1, "ADD", &one)) > 0,
            "the measure measures"
        );
        assert!(fleet.tables(1).contains("10.244.2.0/24 via"));
    });
}

/// The others are as if the wrong ones were not there, and each of these is named.
#[test]
fn a_hostile_peers_file_changes_nothing_for_honest_peers() {
    in_netns(|| {
        let fleet = Fleet::new(2, false);
        let mut peers = fleet.listed([1, 2]);
        let of = |ip: &str, mac: &str| json!({"PublicIP": ip, "BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": mac}});
        for (key, value) in [
            ("10.244.1.0-25", of("192.0.2.66", "2a:66:00:00:00:01")),
            ("10.244.2.128-25", of("192.0.2.67", "2a:66:00:00:00:02")),
            ("0.0.0.0-0", of("192.0.2.68", "2a:66:00:00:00:03")),
            ("192.0.2.0-24", of("192.0.2.69", "2a:66:00:00:00:04")),
            ("10.244.70.0-24", of("192.0.2.70", &mac(2))),
            ("10.244.71.0-24", of("0.0.0.0", "2a:66:00:00:00:05")),
            ("10.244.72.0-24", of("224.0.0.1", "2a:66:00:00:00:06")),
            ("10.244.73.0-24", of("192.0.2.73", "01:00:5e:00:00:01")),
            ("10.244.74.0-24", json!("x".repeat(100_000))),
            ("../../etc/passwd", json!({})),
        ] {
            peers[key] = value;
        }
        fleet.peers(&peers);
        let pod = Pod::new("pod1");
        let output = fleet.run(1, &fleet.call(1, "ADD", &pod));
        assert!(output.status.success(), "{output:?}");
        assert!(
            output.stderr.contains("8 peers are not believed: "),
            "{}",
            output.stderr
        );
        assert!(
            output.stderr.contains("2 entries are no peers: "),
            "{}",
            output.stderr
        );
        let _two = fleet.attach(2);
        ping(&pod, "10.244.2.2");
        let tables = fleet.tables(1);
        assert!(!tables.contains("2a:66:"), "{tables}");
        assert_eq!(
            tables.matches("dev flannel.1 proto 112").count(),
            1,
            "{tables}"
        );

        fleet.peers(&json!([]));
        let other = Pod::new("other");
        let call = fleet.call(1, "ADD", &other).container("c2");
        assert_eq!(fleet.err(1, &call)["code"], 7);
        assert_eq!(fleet.tables(1), tables, "what stands stays");
    });
}

/// A peer that leaves the file goes with the next ADD; one whose way was damaged is repaired by it.
#[test]
fn the_next_add_makes_it_as_the_file_says() {
    in_netns(|| {
        let fleet = Fleet::new(3, false);
        let (one, result) = fleet.attach(1);
        let check = || {
            let mut conf = fleet.conf(1);
            conf["prevResult"] = result.clone();
            fleet.call(1, "CHECK", &one).stdin(conf.to_string())
        };
        fleet.ok(1, &check());
        for (damage, word) in [
            ("ip route del 10.244.3.0/24", "10.244.3.0-24"),
            ("ip neigh del 10.244.2.0 dev flannel.1", "10.244.2.0-24"),
            (
                "bridge fdb del 2a:00:00:00:00:02 dev flannel.1 dst 192.0.2.2",
                "10.244.2.0-24",
            ),
            ("ip link set flannel.1 down", "is down"),
            (
                "ip link set flannel.1 address 2a:77:00:00:00:01",
                "another MAC",
            ),
            ("ip link del flannel.1", "is missing"),
            ("nft delete table inet podwire-overlay", "podwire-overlay"),
        ] {
            fleet.node(1).sh(damage);
            let error = fleet.err(1, &check());
            assert_eq!(error["code"], 120, "{damage}: {error}");
            assert!(
                error["msg"].as_str().unwrap().contains(word),
                "{damage}: {error}"
            );
            let other = Pod::new("other");
            fleet.ok(1, &fleet.call(1, "ADD", &other).container("c2"));
            fleet.ok(1, &check());
            fleet.ok(1, &fleet.call(1, "DEL", &other).container("c2"));
        }
        fleet.peers(&fleet.listed([1, 2]));
        let other = Pod::new("other");
        fleet.ok(1, &fleet.call(1, "ADD", &other).container("c2"));
        assert!(
            !fleet.tables(1).contains("10.244.3.0"),
            "{}",
            fleet.tables(1)
        );
    });
}

/// All make one device, at the same moment.
#[test]
fn thirty_at_once() {
    in_netns(|| {
        let fleet = Fleet::new(2, false);
        let pods: Vec<Pod> = (0..30).map(|n| Pod::new(&format!("p{n}"))).collect();
        std::thread::scope(|scope| {
            for (n, pod) in pods.iter().enumerate() {
                let fleet = &fleet;
                scope.spawn(move || {
                    fleet.ok(1, &fleet.call(1, "ADD", pod).container(&format!("c{n}")));
                });
            }
        });
        let _two = fleet.attach(2);
        for pod in [&pods[0], &pods[29]] {
            ping(pod, "10.244.2.2");
        }
    });
}

/// Rule 3: without an entry the MAC is kept in a file, whatever becomes of the device.
#[test]
fn rule_3_a_node_without_an_entry_keeps_its_mac() {
    in_netns(|| {
        let fleet = Fleet::new(2, false);
        fleet.peers(&fleet.listed([2]));
        let one = Pod::new("pod1");
        let error = fleet.err(1, &fleet.call(1, "ADD", &one));
        assert_eq!(error["code"], 50);
        assert!(
            error["msg"].as_str().unwrap().contains("192.0.2.1"),
            "{error}"
        );
        let mut conf = fleet.conf(1);
        conf["subnet"] = "10.244.1.0/24".into();
        let call = |verb: &str| fleet.call(1, verb, &one).stdin(conf.to_string());
        fleet.ok(1, &call("ADD"));
        let device = || fleet.node(1).ip_json(&["link", "show", "flannel.1"])[0]["address"].clone();
        let kept = device();
        fleet.ok(1, &call("DEL"));
        fleet.node(1).sh("ip link del flannel.1");
        fleet.ok(1, &call("ADD"));
        assert_eq!(device(), kept);
    });
}

#[test]
fn status_tells_what_an_add_would_lack() {
    in_netns(|| {
        let fleet = Fleet::new(1, false);
        let status = |conf: &Value| {
            let pod = fleet.node(1);
            fleet.call(1, "STATUS", pod).stdin(conf.to_string())
        };
        // Nothing stands before the first ADD.
        fleet.ok(1, &status(&fleet.conf(1)));
        assert_eq!(fleet.node(1).sh("ip link show type vxlan"), "");
        for (key, value, word) in [
            ("peersFile", json!("/nowhere/peers"), "/nowhere/peers"),
            ("publicIP", json!("192.0.2.9"), "192.0.2.9"),
            ("iface", json!("eth9"), "eth9"),
            ("network", json!("10.9.0.0"), "network"),
            ("vxlan", json!({"VNI": "x"}), "VNI"),
        ] {
            let mut conf = fleet.conf(1);
            conf[key] = value;
            let error = fleet.err(1, &status(&conf));
            assert_eq!(error["code"], 50, "{key}: {error}");
            assert!(
                error["msg"].as_str().unwrap().contains(word),
                "{key}: {error}"
            );
        }
        fleet.node(1).sh("ip link del eth0");
        assert_eq!(fleet.err(1, &status(&fleet.conf(1)))["code"], 50);
    });
}

/// Scene 6: pods leave the cluster with the node's address, and stay themselves within it.
#[test]
fn item_8_masquerading_spares_the_cluster() {
    in_netns(|| {
        let fleet = Fleet::new(2, false);
        sh("ip address add 192.0.2.254/24 dev underlay");
        let (one, _) = fleet.attach(1);
        let _two = fleet.attach(2);
        // The world has no route to pods: an answer shows the node's address.
        ping(&one, "192.0.2.254");
        ping(&one, "10.244.2.2");
        let rules = fleet.node(1).sh("nft list table inet podwire-overlay");
        assert!(
            rules.contains("ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16"),
            "{rules}"
        );
        // No rule of bridge's own, which would masquerade within the cluster.
        let all = fleet.node(1).sh("nft list tables");
        assert_eq!(
            all.lines().filter(|line| line.contains("podwire")).count(),
            1,
            "{all}"
        );
    });
}
