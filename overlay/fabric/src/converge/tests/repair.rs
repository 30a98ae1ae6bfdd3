//! Somebody else changes the kernel.

use std::time::Duration;

use libcni::kernel::Mac;
use testkit::{eventually, in_netns, sh};

use super::fixture::{
    NOTHING, Node, OWN_MAC, clean, converge, count, counts, device, follow, mac, peers, tables,
};
use crate::{Backend, Fabric, FabricError, Kind, Others, Own, OwnSide, Peer, Peers, Vxlan};

/// Converges, spoils, and wants `tables` back; returns what it was counted as.
#[track_caller]
fn spoil(fabric: &mut Fabric, peers: &Peers, script: &str) -> [usize; 5] {
    converge(fabric, peers);
    let before = tables("flannel.1");
    sh(script);
    assert_eq!(
        counts(&follow(fabric, peers)),
        NOTHING,
        "nobody has told yet"
    );
    fabric.doubt();
    let report = follow(fabric, peers);
    assert_eq!(tables("flannel.1"), before, "{script}");
    assert_eq!(counts(&converge(fabric, peers)), NOTHING);
    counts(&report)
}

#[test]
fn what_others_take_away_comes_back() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = node.fabric();
        let three = peers(1..4);
        let repaired = |n| [0, 0, 0, n, n];
        let mut spoil = |script: &str| spoil(&mut fabric, &three, script);
        assert_eq!(spoil("ip route flush dev flannel.1"), repaired(3));
        assert_eq!(spoil("ip route del 10.0.2.0/24"), repaired(1));
        assert_eq!(
            spoil("ip route replace 10.0.2.0/24 via 192.0.2.9 dev eth0 proto 112"),
            repaired(1)
        );
        assert_eq!(spoil("ip neigh del 10.0.3.0 dev flannel.1"), repaired(1));
        assert_eq!(
            spoil("ip neigh replace 10.0.3.0 lladdr 2:0:0:0:0:9 dev flannel.1"),
            repaired(1)
        );
        assert_eq!(
            spoil("bridge fdb del 2a:1:0:0:0:1 dev flannel.1 dst 198.18.0.1"),
            repaired(1)
        );
        assert_eq!(
            spoil("bridge fdb replace 2a:1:0:0:0:1 dev flannel.1 dst 198.18.9.9"),
            repaired(1)
        );
        // What is there too much goes, too.
        let removed = [0, 0, 1, 0, 1];
        assert_eq!(
            spoil("bridge fdb add 2:0:0:0:0:7 dev flannel.1 dst 198.18.9.9"),
            removed
        );
        assert_eq!(
            spoil(
                "for n in 8 9; do bridge fdb append 0:0:0:0:0:0 dev flannel.1 dst 198.18.9.$n; done"
            ),
            [0, 0, 2, 0, 2]
        );
        assert_eq!(
            spoil("ip neigh add 10.0.9.0 lladdr 2:0:0:0:0:7 dev flannel.1"),
            removed
        );
        assert_eq!(
            spoil("ip route add 10.0.9.0/24 via 10.0.9.0 dev flannel.1 onlink"),
            removed
        );
        assert_eq!(
            spoil("ip route add 10.0.2.0/24 via 10.0.2.0 dev flannel.1 onlink metric 7"),
            removed
        );
    });
}

#[test]
fn item_6_the_device_is_set_right_while_it_lives() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = node.fabric();
        let two = peers(1..3);
        converge(&mut fabric, &two);
        let index = device("flannel.1")["ifindex"].clone();
        // Down: the kernel forgets routes and neighbours. MAC: neighbours.
        for (script, messages) in [
            ("ip link set flannel.1 down", 5),
            ("ip link set flannel.1 address 02:00:00:00:00:77", 3),
            ("ip link set flannel.1 mtu 1300", 1),
            ("ip link set flannel.1 type vxlan learning", 1),
            ("ip link set flannel.1 type vxlan local 192.0.2.7", 1),
            ("ip address add 10.1.2.3/16 dev flannel.1", 1),
            // Without any address of a family the kernel forgets that family's routes and neighbours.
            ("ip -4 address flush dev flannel.1", 5),
        ] {
            assert_eq!(
                spoil(&mut fabric, &two, script),
                [0, 0, 0, messages, messages],
                "{script}"
            );
        }
        let shown = device("flannel.1");
        assert_eq!(
            (&shown["mtu"], &shown["address"]),
            (&1450.into(), &OWN_MAC.to_string().into())
        );
        assert_eq!(shown["linkinfo"]["info_data"]["local"], "192.0.2.1");
        assert_eq!(shown["linkinfo"]["info_data"]["learning"], false);
        assert_eq!(shown["ifindex"], index, "never made anew");
    });
}

#[test]
fn item_6_a_device_that_is_gone_or_of_another_make() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = node.fabric();
        let two = peers(1..3);
        for script in [
            "ip link del flannel.1",
            "ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dev eth0 dstport 4789 local 192.0.2.1 nolearning; ip link set flannel.1 up",
            "ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 local 192.0.2.1 nolearning l2miss l3miss",
            "ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 group 239.1.1.1 nolearning",
            "ip link del flannel.1; ip link add flannel.1 type bridge",
        ] {
            assert_eq!(
                spoil(&mut fabric, &two, script),
                [0, 0, 0, 7, 7],
                "{script}"
            );
            assert_eq!(device("flannel.1")["linkinfo"]["info_data"]["port"], 8472);
            assert_eq!(device("flannel.1")["address"], OWN_MAC.to_string());
        }
        // With the parent goes the device; with its return, all returns.
        sh("ip link del eth0");
        fabric.doubt();
        let error = fabric.follow(&two, Others::Remove).unwrap_err();
        assert!(matches!(error, FabricError::NoParent { .. }), "{error}");
        let node = Node::new();
        fabric.set_own(node.own());
        assert_eq!(follow(&mut fabric, &two).failed, []);
        assert_eq!(tables("flannel.1").len(), 8);
    });
}

/// Of a network that changes: another MTU, address or MAC of its own.
#[test]
fn another_self_is_told_to_the_living_device() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = node.fabric();
        let two = peers(1..3);
        converge(&mut fabric, &two);
        let index = device("flannel.1")["ifindex"].clone();
        sh("ip address add 192.0.2.5/24 dev eth0");
        let side = OwnSide {
            local: "192.0.2.5".parse().unwrap(),
            mac: Mac([0x2a, 0, 0, 0, 0, 2]),
            ..node.own().v4.unwrap()
        };
        let vxlan = Vxlan {
            mtu: Some(1400),
            learning: true,
            ..Vxlan::default()
        };
        let own = Own {
            v4: Some(side),
            ..node.own_with(Backend::Vxlan(vxlan))
        };
        fabric.set_own(own);
        follow(&mut fabric, &two);
        let shown = device("flannel.1");
        assert_eq!((&shown["mtu"], &shown["ifindex"]), (&1350.into(), &index));
        assert_eq!(shown["address"], "2a:00:00:00:00:02");
        assert_eq!(shown["linkinfo"]["info_data"]["local"], "192.0.2.5");
        assert_eq!(counts(&converge(&mut fabric, &two)), NOTHING);
    });
}

#[test]
fn what_is_not_ours_is_not_touched() {
    in_netns(|| {
        let node = Node::new();
        sh(
            "ip link add br0 type bridge; ip link set br0 up; ip address add 10.7.0.1/24 dev br0
            ip route add 10.99.0.0/24 via 192.0.2.9 dev eth0
            ip route add 10.98.0.0/24 via 192.0.2.9 dev eth0 proto static
            ip route add 10.97.0.0/24 via 192.0.2.9 dev eth0 table 100 proto 112
            ip route add blackhole 10.96.0.0/24 proto static
            ip neigh add 192.0.2.9 lladdr 2:0:0:0:0:9 dev eth0 nud permanent
            ip nexthop add id 7 via 192.0.2.9 dev eth0
            ip route add 10.95.0.0/24 nhid 7",
        );
        let all = "ip route show table all | grep -v flannel; ip neigh show dev eth0; ip nexthop show | grep -v flannel; bridge fdb show dev eth0; ip -4 address";
        let before = sh(all);
        let mut fabric = node.fabric();
        converge(&mut fabric, &peers(0..600));
        converge(&mut fabric, &peers(0..2));
        // On our own device, too, what an administrator made and said so.
        sh("ip route add 10.94.0.0/24 dev flannel.1 proto static");
        assert_eq!(counts(&converge(&mut fabric, &peers(0..2))), NOTHING);
        assert_eq!(count("ip route show dev flannel.1 proto static"), 1);
        fabric.release().unwrap();
        fabric.remove().unwrap();
        assert_eq!(sh(all), before);
    });
}

/// Peers that the kernel refuses are named, all of them, also when there are more than the socket has room for.
#[test]
fn every_refusal_is_told_of_its_peer() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = Fabric::open(node.own_with(Backend::HostGw)).unwrap();
        let mut many = peers(0..2000);
        for (n, peer) in many.values_mut().enumerate() {
            let mut gateway = Peer {
                kind: Kind::HostGw,
                ..Peer::clone(peer)
            };
            if n % 1000 == 7 {
                // These two are on the link; 198.18.0.0/16 is not.
                gateway.v4.as_mut().unwrap().public_ip =
                    format!("192.0.2.{}", 10 + n / 1000).parse().unwrap();
            }
            *peer = gateway.into();
        }
        for _ in 0..2 {
            let report = fabric.converge(&many, Others::Remove).unwrap();
            assert_eq!(report.failed.len(), 1998);
            let (key, error) = &report.failed[0];
            assert_eq!(key, "peer-00000");
            assert_eq!(
                error.to_string(),
                "set route 10.0.0.0/24 via 198.18.0.0 on link 2: ENETUNREACH (Network is unreachable): Nexthop has invalid gateway"
                    .replace("link 2", &format!("link {}", node.parent().index))
            );
            assert_eq!(count("ip route show proto 112"), 2);
        }
        // It is not forgotten: once they can be reached, they are.
        sh("ip address add 198.18.255.255/16 dev eth0");
        assert_eq!(
            clean(fabric.follow(&many, Others::Remove).unwrap()).added,
            1998
        );
        eventually(Duration::from_secs(5), || {
            count("ip route show proto 112") == 2000
        });
    });
}

/// `flannel-wire.md` 10.3: a MAC that changes leaves no entry behind, as flannel's do.
#[test]
fn a_new_mac_leaves_none_of_the_old() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = node.fabric();
        let mut two = peers(1..3);
        converge(&mut fabric, &two);
        let mut moved = super::fixture::peer(2);
        let site = moved.v4.as_mut().unwrap();
        site.vtep.as_mut().unwrap().mac = mac(77);
        site.public_ip = "198.18.7.7".parse().unwrap();
        two.insert("peer-00002".into(), moved.into());
        assert_eq!(counts(&follow(&mut fabric, &two)), [1, 1, 1, 0, 3]);
        let shown = sh("bridge fdb show dev flannel.1; ip neigh show dev flannel.1");
        assert!(
            shown.contains("2a:01:00:00:00:4d dst 198.18.7.7 self permanent"),
            "{shown}"
        );
        assert!(!shown.contains("2a:01:00:00:00:02"), "{shown}");
    });
}
