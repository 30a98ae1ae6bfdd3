//! Against `netlink-packet-route`, captured bytes and the real kernel.

mod bytes;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use nix::errno::Errno;
use proptest::prelude::*;
use serde_json::json;
use testkit::{Pod, in_netns, ip_json, sh};

use super::*;
use crate::kernel::mac::Mac;
use crate::kernel::wire::{captured, decoded, read_back};
use crate::nl::{Batch, ROUTE, Reply, Socket};

const HOST_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const POD_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn spec<'a>(netns: &'a impl AsFd, master: Option<u32>) -> VethSpec<'a> {
    VethSpec {
        host_name: "veth0",
        host_mac: HOST_MAC,
        mtu: Some(1450),
        master,
        host_up: true,
        pod_name: "eth0",
        pod_mac: POD_MAC,
        pod_netns: netns.as_fd(),
    }
}

fn socket() -> Socket {
    Socket::open(ROUTE).unwrap()
}

fn pod_socket(pod: &Pod) -> Socket {
    pod.run(socket)
}

fn link(sock: &mut Socket, name: &str) -> Link {
    get(sock, name).unwrap().unwrap()
}

fn bridge_up(sock: &mut Socket, name: &str) -> Link {
    sock.run(&Batch::from_iter([
        bridge(name, Mac([2, 0, 0, 0, 0, 9]), None, false),
        up(name),
    ]))
    .unwrap();
    link(sock, name)
}

#[test]
fn a_veth_is_complete_in_one_message() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let bridge = bridge_up(&mut host, "br0");
        let netns = File::open(pod.path()).unwrap();
        host.request(veth(&spec(&netns, Some(bridge.index))))
            .unwrap();

        let shown = ip_json(&["-d", "link", "show", "veth0"])[0].clone();
        assert_eq!(shown["address"], "02:00:00:00:00:01");
        assert_eq!(shown["mtu"], 1450);
        assert_eq!(shown["master"], "br0");
        assert!(shown["flags"].as_array().unwrap().contains(&json!("UP")));
        // Up, and waiting for its peer: a port without carrier is "disabled".
        assert_eq!(shown["linkinfo"]["info_slave_data"]["state"], "disabled");
        assert_eq!(
            sh("cat /sys/class/net/veth0/addr_assign_type"),
            "3\n",
            "NET_ADDR_SET: udev leaves it alone"
        );
        let inside = pod.ip_json(&["-d", "link", "show", "eth0"])[0].clone();
        assert_eq!(
            (&inside["address"], &inside["mtu"]),
            (&json!("02:00:00:00:00:02"), &json!(1450))
        );
        assert!(!inside["flags"].as_array().unwrap().contains(&json!("UP")));

        let ours = link(&mut host, "veth0");
        assert_eq!(ours.kind.as_deref(), Some("veth"));
        assert_eq!(
            (ours.master, ours.mac),
            (Some(bridge.index), Some(HOST_MAC))
        );
        assert!(ours.link_netnsid.is_some());
        let peer = link(&mut pod_socket(&pod), "eth0");
        assert_eq!(
            (ours.peer_index, peer.peer_index),
            (Some(peer.index), Some(ours.index))
        );
    });
}

#[test]
fn names_in_use_are_eexist_and_leave_nothing() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let netns = File::open(pod.path()).unwrap();
        pod.sh("ip link add eth0 type bridge");
        assert!(
            host.request(veth(&spec(&netns, None)))
                .unwrap_err()
                .is(Errno::EEXIST)
        );
        assert_eq!(get(&mut host, "veth0").unwrap(), None);
        pod.sh("ip link del eth0");
        sh("ip link add veth0 type bridge");
        assert!(
            host.request(veth(&spec(&netns, None)))
                .unwrap_err()
                .is(Errno::EEXIST)
        );
        assert_eq!(get(&mut pod_socket(&pod), "eth0").unwrap(), None);
    });
}

#[test]
fn an_echo_tells_both_indices() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let bridge = bridge_up(&mut host, "br0");
        let netns = File::open(pod.path()).unwrap();
        let batch = Batch::from_iter([
            veth_echoed(&spec(&netns, Some(bridge.index))),
            set_alias("veth0", "x"),
        ]);
        let mut made = None;
        host.exchange(&batch, |index, reply| {
            if index == 0 && made.is_none() {
                made = Link::from_reply(reply);
            }
        })
        .unwrap();
        if testkit::kernel() < (6, 2) {
            return testkit::skip("RTM_NEWLINK answers no NLM_F_ECHO before Linux 6.2");
        }
        let made = made.unwrap();
        let host_end = link(&mut host, "veth0");
        let pod_end = link(&mut pod_socket(&pod), "eth0");
        assert_eq!(
            (made.index, made.peer_index),
            (host_end.index, Some(pod_end.index))
        );
    });
}

#[test]
fn every_setting_arrives() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let bridge = bridge_up(&mut host, "br0");
        let netns = File::open(pod.path()).unwrap();
        host.request(veth(&spec(&netns, None))).unwrap();
        let veth0 = link(&mut host, "veth0");
        let alias = "podwire:\u{e9} ".to_owned() + &"x".repeat(240);
        host.run(&Batch::from_iter([
            set_alias("veth0", &alias),
            set_master("veth0", bridge.index),
            set_bridge_port("veth0", true, true),
            set_mtu(veth0.index, 1400),
            set_mac(veth0.index, Mac([2, 0, 0, 0, 0, 3])),
            set_promisc("br0", true),
            down("veth0"),
        ]))
        .unwrap();
        let shown = ip_json(&["-d", "link", "show", "veth0"])[0].clone();
        assert_eq!(shown["ifalias"], alias);
        assert_eq!(
            (&shown["master"], &shown["mtu"]),
            (&json!("br0"), &json!(1400))
        );
        assert_eq!(shown["address"], "02:00:00:00:00:03");
        let port = &shown["linkinfo"]["info_slave_data"];
        assert_eq!(
            (&port["hairpin"], &port["isolated"]),
            (&json!(true), &json!(true))
        );
        assert!(!shown["flags"].as_array().unwrap().contains(&json!("UP")));
        let now = link(&mut host, "veth0");
        assert_eq!(now.alias.as_deref(), Some(&*alias));
        assert_eq!(
            now.port,
            Some(BridgePort {
                state: 0,
                hairpin: true,
                isolated: true
            })
        );
        assert!(link(&mut host, "br0").is_promisc());

        host.run(&Batch::from_iter([
            set_bridge_port(now.index, false, false),
            set_promisc(bridge.index, false),
            set_master(now.index, 0),
        ]))
        .unwrap();
        assert_eq!(link(&mut host, "veth0").port, None);
        assert!(!link(&mut host, "br0").is_promisc());
        let error = host
            .request(set_alias("veth0", &"x".repeat(256)))
            .unwrap_err();
        assert!(
            error.is(Errno::ERANGE) || error.is(Errno::EINVAL),
            "{error}"
        );
    });
}

#[test]
fn absent_is_none_for_gets_and_enodev_for_changes() {
    in_netns(|| {
        let mut sock = socket();
        assert_eq!(get(&mut sock, "nosuch").unwrap(), None);
        assert_eq!(get_index(&mut sock, 4711).unwrap(), None);
        let changes = [
            up("nosuch"),
            down(4711),
            set_alias("nosuch", "x"),
            set_bridge_port("nosuch", true, true),
            del("nosuch"),
        ];
        for outcome in sock.run_all(&Batch::from_iter(changes)).unwrap() {
            let error = outcome.unwrap_err();
            assert!(error.is(Errno::ENODEV), "{error}");
        }
        assert_eq!(
            sock.request(down(4711)).unwrap_err().step,
            "set down link 4711"
        );
    });
}

#[test]
fn deleting_either_end_deletes_both() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let netns = File::open(pod.path()).unwrap();
        host.request(veth(&spec(&netns, None))).unwrap();
        let mut inside = pod_socket(&pod);
        inside.request(del("eth0")).unwrap();
        assert_eq!(get(&mut host, "veth0").unwrap(), None);
        host.request(veth(&spec(&netns, None))).unwrap();
        let index = link(&mut host, "veth0").index;
        host.request(del(index)).unwrap();
        assert_eq!(get(&mut inside, "eth0").unwrap(), None);
    });
}

#[test]
fn lists_all_or_one_kind() {
    in_netns(|| {
        sh("ip link add br0 type bridge; ip link add v0 type veth peer name v1");
        let mut sock = socket();
        let names = |links: Vec<Link>| links.into_iter().map(|l| l.name).collect::<Vec<_>>();
        assert_eq!(
            names(list(&mut sock, "").unwrap()),
            ["lo", "br0", "v1", "v0"]
        );
        assert_eq!(names(list(&mut sock, "bridge").unwrap()), ["br0"]);
        assert_eq!(names(list(&mut sock, "veth").unwrap()).len(), 2);
    });
}

#[test]
fn a_port_forwards_as_soon_as_it_is_asked_for() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let bridge = bridge_up(&mut host, "br0");
        let netns = File::open(pod.path()).unwrap();
        host.request(veth(&spec(&netns, Some(bridge.index))))
            .unwrap();
        pod_socket(&pod).request(up("eth0")).unwrap();
        let started = Instant::now();
        let link = wait_up(&mut host, "veth0", 3000).unwrap();
        assert_eq!(link.operstate, 6);
        assert_eq!(link.port.unwrap().state, 3, "forwarding");
        println!("waited {:?}", started.elapsed());
    });
}

#[test]
fn a_late_peer_is_waited_for() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let netns = File::open(pod.path()).unwrap();
        host.request(veth(&spec(&netns, None))).unwrap();
        let mut inside = pod_socket(&pod);
        std::thread::scope(|scope| {
            let started = Instant::now();
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                // News about other links wakes the wait up, and must not end it.
                sh("ip link add other type bridge; ip link set other up");
                std::thread::sleep(Duration::from_millis(100));
                inside.request(up("eth0")).unwrap();
            });
            assert_eq!(wait_up(&mut host, "veth0", 60_000).unwrap().operstate, 6);
            let waited = started.elapsed();
            // Not only looked at again when time was up.
            assert!(
                waited >= Duration::from_millis(200) && waited < Duration::from_secs(40),
                "{waited:?}"
            );
        });
    });
}

#[test]
fn a_peer_that_never_comes_is_an_error_with_the_reason() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let bridge = bridge_up(&mut host, "br0");
        let netns = File::open(pod.path()).unwrap();
        host.request(veth(&spec(&netns, Some(bridge.index))))
            .unwrap();
        let started = Instant::now();
        let error = wait_up(&mut host, "veth0", 150).unwrap_err();
        assert!(started.elapsed() >= Duration::from_millis(150));
        assert!(error.is(Errno::ETIMEDOUT));
        let text = error.to_string();
        assert!(
            text.contains("wait for veth0") && text.contains("bridge port disabled"),
            "{text}"
        );
        assert!(
            wait_up(&mut host, "nosuch", 150)
                .unwrap_err()
                .is(Errno::ENODEV)
        );
        // The socket is as good as before.
        assert!(get(&mut host, "veth0").unwrap().is_some());
    });
}

/// Counts gratuitous ARP seen by the host end.
#[test]
fn setting_the_same_mac_announces_the_addresses() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut host = socket();
        let netns = File::open(pod.path()).unwrap();
        host.request(veth(&spec(&netns, None))).unwrap();
        sh("ip addr add 10.1.0.1/24 dev veth0; echo 1 > /proc/sys/net/ipv4/conf/veth0/arp_accept");
        let mut inside = pod_socket(&pod);
        let index = link(&mut inside, "eth0").index;
        inside
            .run(&Batch::from_iter([set_arp_notify(index, true), up(index)]))
            .unwrap();
        assert_eq!(pod.sh("cat /proc/sys/net/ipv4/conf/eth0/arp_notify"), "1\n");
        wait_up(&mut host, "veth0", 3000).unwrap();
        pod.sh("ip addr add 10.1.0.2/24 dev eth0");
        assert_eq!(ip_json(&["neigh", "show", "dev", "veth0"]), json!([]));
        inside.request(set_mac(index, POD_MAC)).unwrap();
        // arp_accept turns the announcement into an entry.
        testkit::eventually(Duration::from_secs(3), || {
            ip_json(&["neigh", "show", "dev", "veth0"])[0]["lladdr"] == "02:00:00:00:00:02"
        });
        assert_eq!(link(&mut inside, "eth0").mac, Some(POD_MAC));
    });
}
