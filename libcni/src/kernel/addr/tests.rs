//! Against `netlink-packet-route`, captured bytes and the real kernel.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use nix::errno::Errno;
use proptest::prelude::*;
use serde_json::json;
use testkit::{Pod, in_netns, ip_json, sh};

use super::*;
use crate::kernel::link;
use crate::kernel::wire::{captured, decoded};
use crate::nl::{Batch, ROUTE};

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

#[test]
fn others_read_our_addresses() {
    let RouteNetlinkMessage::NewAddress(v4) = decoded(&add(3, net("10.1.2.3/24"), true)) else {
        panic!()
    };
    assert_eq!((v4.header.prefix_len, v4.header.index), (24, 3));
    let ip = "10.1.2.3".parse().unwrap();
    assert_eq!(
        v4.attributes,
        [
            AddressAttribute::Local(ip),
            AddressAttribute::Address(ip),
            AddressAttribute::Broadcast("10.1.2.255".parse().unwrap()),
        ]
    );
    let RouteNetlinkMessage::NewAddress(v6) = decoded(&add(3, net("fd00::3/64"), true)) else {
        panic!()
    };
    let ip = "fd00::3".parse().unwrap();
    assert_eq!(
        v6.attributes,
        [
            AddressAttribute::Local(ip),
            AddressAttribute::Address(ip),
            AddressAttribute::Flags(AddressFlags::Nodad),
        ]
    );
    let RouteNetlinkMessage::NewAddress(p2p) = decoded(&add(3, net("10.1.2.3/31"), false)) else {
        panic!()
    };
    assert_eq!(p2p.attributes.len(), 2);
}

#[test]
fn we_read_what_the_kernel_sent() {
    let got = captured(include_str!("captured/dump.hex"), Addr::from_reply);
    let want = [
        Some((
            4,
            Addr {
                net: net("10.1.2.3/24"),
                scope: 0,
                flags: 0x80,
            },
        )),
        Some((
            4,
            Addr {
                net: net("fd00::3/64"),
                scope: 0,
                flags: 0x82,
            },
        )),
        Some((
            4,
            Addr {
                net: net("fe80::ff:fe00:1/64"),
                scope: 253,
                flags: 0xc0,
            },
        )),
    ];
    assert_eq!(got, want);
}

proptest! {
    #[test]
    fn hostile_addresses_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Addr::from_reply(Reply { msg_type: RTM_NEWADDR, flags: 0, payload: &payload });
    }
}

#[test]
fn addresses_come_and_go() {
    in_netns(|| {
        sh(
            "ip link add v0 type veth peer name v1; ip link set v1 up; ip addr add 10.9.9.9/32 dev v1",
        );
        let mut sock = Socket::open(ROUTE).unwrap();
        let v0 = link::get(&mut sock, "v0").unwrap().unwrap().index;
        let nets = ["10.1.2.3/24", "10.1.2.4/31", "fd00::3/64"].map(net);
        let mut batch: Batch = nets.iter().map(|n| add(v0, *n, true)).collect();
        batch.push(link::up("v0"));
        sock.run(&batch).unwrap();
        let shown =
            ip_json(&["addr", "show", "dev", "v0", "scope", "global"])[0]["addr_info"].clone();
        assert_eq!(shown[0]["local"], "10.1.2.3");
        assert_eq!(
            (&shown[0]["broadcast"], &shown[0]["scope"]),
            (&json!("10.1.2.255"), &json!("global"))
        );
        assert_eq!(
            (&shown[1]["local"], &shown[1]["broadcast"]),
            (&json!("10.1.2.4"), &json!(null))
        );
        assert_eq!(
            (&shown[2]["local"], &shown[2]["tentative"]),
            (&json!("fd00::3"), &json!(null))
        );
        assert_eq!(shown[2]["nodad"], true);

        let listed = list(&mut sock, v0).unwrap();
        let global: Vec<IpNetwork> = listed
            .iter()
            .filter(|a| a.scope == 0)
            .map(|a| a.net)
            .collect();
        assert_eq!(global, nets, "of this link alone, IPv4 first");
        assert_eq!(list(&mut sock, 4711).unwrap_or_default(), []);

        let error = sock.request(add(v0, nets[0], true)).unwrap_err();
        assert!(error.is(Errno::EEXIST), "{error}");
        sock.run(&nets.iter().map(|n| del(v0, *n)).collect())
            .unwrap();
        let error = sock.request(del(v0, nets[0])).unwrap_err();
        assert!(error.is(Errno::EADDRNOTAVAIL), "{error}");
        assert!(list(&mut sock, v0).unwrap().iter().all(|a| a.scope != 0));
    });
}

#[test]
fn detection_is_waited_for() {
    in_netns(|| {
        let pod = Pod::new("pod");
        sh(
            "ip link add v0 address 02:00:00:00:00:01 up type veth peer name v1 address 02:00:00:00:00:02 netns pod",
        );
        let mut inside = pod.run(|| Socket::open(ROUTE)).unwrap();
        let v1 = link::get(&mut inside, "v1").unwrap().unwrap().index;
        // One probe is a second, in which a busy machine may not come to look.
        pod.sh("echo 5 > /proc/sys/net/ipv6/conf/v1/dad_transmits");
        inside
            .run(&Batch::from_iter([
                add(v1, net("fd00::3/64"), false),
                link::up(v1),
            ]))
            .unwrap();
        let tentative = |sock: &mut Socket| {
            list(sock, v1)
                .unwrap()
                .iter()
                .any(|a| a.flags & IFA_F_TENTATIVE != 0)
        };
        assert!(tentative(&mut inside), "detection takes five seconds");
        assert!(
            wait_settled(&mut inside, v1, 10)
                .unwrap_err()
                .is(Errno::ETIMEDOUT)
        );
        wait_settled(&mut inside, v1, 60_000).unwrap();
        assert!(!tentative(&mut inside));
        // Nothing to wait for.
        wait_settled(&mut inside, v1, 0).unwrap();
    });
}

#[test]
fn a_taken_address_and_a_dead_link_are_told() {
    in_netns(|| {
        let pod = Pod::new("pod");
        sh(
            "ip link add v0 up type veth peer name v1 netns pod; ip addr add fd00::3/64 dev v0 nodad",
        );
        let mut inside = pod.run(|| Socket::open(ROUTE)).unwrap();
        let v1 = link::get(&mut inside, "v1").unwrap().unwrap().index;
        inside
            .run(&Batch::from_iter([
                add(v1, net("fd00::3/64"), false),
                link::up(v1),
            ]))
            .unwrap();
        let error = wait_settled(&mut inside, v1, 20_000).unwrap_err();
        assert!(error.is(Errno::EADDRINUSE), "{error}");

        sh("ip link add w0 type veth peer name w1; ip link set w1 up");
        let mut sock = Socket::open(ROUTE).unwrap();
        let w1 = link::get(&mut sock, "w1").unwrap().unwrap().index;
        sock.request(add(w1, net("fd01::3/64"), false)).unwrap();
        let error = wait_settled(&mut sock, w1, 100).unwrap_err();
        assert!(error.is(Errno::ETIMEDOUT), "{error}");
    });
}
