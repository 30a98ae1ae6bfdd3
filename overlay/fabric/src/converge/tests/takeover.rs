//! From flanneld, and back to it.

use std::fs;

use testkit::{in_netns, sh};

use super::fixture::{
    NOTHING, Node, converge, count, counts, device, dual_peer, follow, peers, tables,
};
use crate::{Fabric, Others, Peers};

/// What flanneld leaves: `flannel-wire.md` 3.1 and 3.4.
fn flannel(numbers: std::ops::Range<u16>) {
    sh("ip link add flannel.1 address 2a:00:00:00:00:01 mtu 1450 txqueuelen 0 type vxlan id 1 dev eth0 local 192.0.2.1 dstport 8472 nolearning ttl auto
        echo 0 > /proc/sys/net/ipv6/conf/flannel.1/accept_ra
        ip address add 10.255.255.0/32 dev flannel.1; ip link set flannel.1 up");
    let (mut ip, mut bridge) = (String::new(), String::new());
    for n in numbers {
        let [x, y] = n.to_be_bytes();
        let (subnet, mac) = (
            format!("10.{x}.{y}.0"),
            format!("2a:01:00:00:{x:02x}:{y:02x}"),
        );
        ip += &format!("neigh replace {subnet} lladdr {mac} dev flannel.1 nud permanent\n");
        bridge += &format!("fdb replace {mac} dev flannel.1 dst 198.18.{x}.{y} self permanent\n");
        ip += &format!("route replace {subnet}/24 via {subnet} dev flannel.1 onlink\n");
    }
    fs::write("/run/ip", ip).unwrap();
    fs::write("/run/bridge", bridge).unwrap();
    sh("ip -batch /run/ip; bridge -batch /run/bridge");
}

#[test]
fn item_2_a_device_of_flanneld_is_adopted_as_it_is() {
    in_netns(|| {
        let node = Node::new();
        flannel(0..30);
        let before = (tables("flannel.1"), device("flannel.1"));
        let mut fabric = node.fabric();
        assert_eq!(counts(&converge(&mut fabric, &peers(0..30))), NOTHING);
        assert_eq!((tables("flannel.1"), device("flannel.1")), before);
        // What it left of nodes that are gone (flannel#2554).
        assert_eq!(
            counts(&converge(&mut fabric, &peers(0..29))),
            [0, 0, 3, 0, 3]
        );
        // One that moved while nobody looked: the FDB entry that flanneld would have left for ever.
        sh("bridge fdb add 02:00:00:00:00:99 dev flannel.1 dst 198.18.9.9");
        assert_eq!(
            counts(&converge(&mut node.fabric(), &peers(0..29))),
            [0, 0, 1, 0, 1]
        );
    });
}

/// The nodes that flanneld knew are incumbents, though nobody here remembers them.
#[test]
fn what_stood_before_us_stands() {
    in_netns(|| {
        let node = Node::new();
        flannel(1..2);
        let honest = super::fixture::peer(1);
        let mut hostile = super::fixture::peer(1);
        hostile.v4.as_mut().unwrap().public_ip = "198.18.66.66".parse().unwrap();
        let two: Peers = [
            ("a-hostile".to_owned(), hostile.into()),
            ("b-honest".to_owned(), honest.into()),
        ]
        .into();
        let report = converge(&mut node.fabric(), &two);
        assert_eq!(counts(&report), NOTHING);
        assert_eq!(report.refused[0].key, "a-hostile");
    });
}

/// flanneld deletes a route by gateway and device, a neighbour by address, an entry by MAC and place: with what we leave
/// it must not meet an error, each of which costs it 51 s.
#[test]
fn what_release_leaves_flanneld_can_take_over() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = node.fabric();
        let many = peers(0..600);
        converge(&mut fabric, &many);
        assert_eq!(count("ip route show dev flannel.1 | grep nhid"), 600);
        let index = device("flannel.1")["ifindex"].clone();
        let report = fabric.release().unwrap();
        assert_eq!((report.failed.len(), report.messages), (0, 1200));
        assert_eq!(count("ip nexthop show; ip route show proto 112"), 0);
        let released = tables("flannel.1");
        sh("ip link del flannel.1");
        flannel(0..600);
        assert_eq!(tables("flannel.1"), released);
        // By its own words.
        sh("ip route del 10.0.7.0/24 via 10.0.7.0 dev flannel.1; ip neigh del 10.0.7.0 dev flannel.1
            bridge fdb del 2a:01:00:00:00:07 dev flannel.1 dst 198.18.0.7 self");
        assert_ne!(device("flannel.1")["ifindex"], index);
        // And once more ours, without a word to the kernel but for the one that is gone.
        assert_eq!(counts(&converge(&mut fabric, &many)), [3 + 1, 0, 0, 0, 4]);
        let below = peers(0..10);
        follow(&mut fabric, &below);
        fabric.release().unwrap();
        assert_eq!(count("ip route show dev flannel.1 proto boot"), 10);
        fabric.remove().unwrap();
        assert_eq!(count("ip link show type vxlan; ip nexthop show"), 0);
    });
}

#[test]
fn release_of_both_families() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = Fabric::open(node.dual()).unwrap();
        let dual: Peers = [("a".to_owned(), dual_peer(1).into())].into();
        converge(&mut fabric, &dual);
        fabric.release().unwrap();
        assert_eq!(
            sh("ip -6 route show dev flannel-v6.1 proto boot")
                .lines()
                .next()
                .unwrap()
                .trim(),
            "fd00:0:1::/64 via fd00:0:1:: metric 1024 onlink pref medium"
        );
        assert_eq!(
            count("ip route show proto 112; ip -6 route show proto 112"),
            0
        );
        assert_eq!(
            counts(&fabric.converge(&dual, Others::Remove).unwrap()),
            NOTHING
        );
        // Of what never was there is nothing to release.
        fabric.remove().unwrap();
        assert_eq!(fabric.release().unwrap().messages, 0);
    });
}
