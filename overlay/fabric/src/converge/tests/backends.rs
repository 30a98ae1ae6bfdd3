//! Without a tunnel: `host-gw`, and peers on the same link with `DirectRouting`.

use testkit::{in_netns, sh};

use super::fixture::{NOTHING, Node, converge, count, counts, follow, mac, peer, site_at, tables};
use crate::{Backend, Fabric, Kind, Peer, Peers, Vxlan};

fn near(n: u16) -> Peer {
    site_at(n, format!("192.0.2.{}", 10 + n).parse().unwrap(), mac(n))
}

/// Scene 3: `10.40.1.0/24 via 10.140.0.11`, no device, no neighbours of ours.
#[test]
fn host_gw_is_plain_routes() {
    in_netns(|| {
        let node = Node::new();
        let gateway = |n| Peer {
            kind: Kind::HostGw,
            ..near(n)
        };
        let two: Peers = [
            ("a".to_owned(), gateway(1).into()),
            ("b".to_owned(), gateway(2).into()),
        ]
        .into();
        // flannel's own, of a peer that we know: claimed by our number, in one step. An administrator's: his.
        sh(
            "ip route add 10.0.1.0/24 via 192.0.2.11 dev eth0; ip route add 10.0.9.0/24 via 192.0.2.19 dev eth0",
        );
        let own = node.own_with(Backend::HostGw);
        assert_eq!((own.device(false), own.pod_mtu()), (None, 1500));
        let mut fabric = Fabric::open(own.clone()).unwrap();
        converge(&mut fabric, &two);
        assert_eq!(count("ip link show type vxlan"), 0);
        let routes = sh("ip route show proto 112");
        assert_eq!(
            routes.replace(" \n", "\n"),
            "10.0.1.0/24 via 192.0.2.11 dev eth0\n10.0.2.0/24 via 192.0.2.12 dev eth0\n"
        );
        assert_eq!(
            counts(&converge(&mut Fabric::open(own).unwrap(), &two)),
            NOTHING
        );
        let one: Peers = [("b".to_owned(), gateway(2).into())].into();
        assert_eq!(counts(&follow(&mut fabric, &one)), [0, 0, 1, 0, 1]);
        fabric.release().unwrap();
        assert_eq!(
            sh("ip route show proto boot 10.0.0.0/16; ip route show 10.0.2.0/24").trim(),
            "10.0.2.0/24 via 192.0.2.12 dev eth0"
        );
        assert_eq!(
            count("ip route show 10.0.9.0/24; ip route show proto 112"),
            1
        );
        // A network of vxlan before: its peers speak another backend.
        let vxlan: Peers = [("b".to_owned(), peer(2).into())].into();
        assert_eq!(converge(&mut fabric, &vxlan).refused.len(), 1);
    });
}

/// Evaluated each time, not once: flannel#1070.
#[test]
fn direct_routing_follows_the_routes() {
    in_netns(|| {
        let node = Node::new();
        let vxlan = Vxlan {
            direct_routing: true,
            ..Vxlan::default()
        };
        let own = node.own_with(Backend::Vxlan(vxlan));
        let mut fabric = Fabric::open(own.clone()).unwrap();
        let two: Peers = [
            ("far".to_owned(), peer(1).into()),
            ("near".to_owned(), near(2).into()),
        ]
        .into();
        converge(&mut fabric, &two);
        let mixed = [
            "10.0.1.0/24 via 10.0.1.0 dev flannel.1 proto 112 onlink",
            "10.0.2.0/24 via 192.0.2.12 dev eth0 proto 112",
            "192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.1",
            "default via 192.0.2.254 dev eth0",
            "10.0.1.0 lladdr 2a:01:00:00:00:01 PERMANENT",
            "2a:01:00:00:00:01 dst 198.18.0.1 self permanent",
        ];
        assert_eq!(tables("flannel.1"), mixed);
        assert_eq!(
            counts(&converge(&mut Fabric::open(own).unwrap(), &two)),
            NOTHING
        );
        // The far one comes near: entries of its tunnel go after its route.
        sh("ip route add 198.18.0.0/24 dev eth0");
        assert_eq!(counts(&converge(&mut fabric, &two)), [0, 1, 2, 0, 3]);
        assert_eq!(
            sh("ip route show 10.0.1.0/24").trim(),
            "10.0.1.0/24 via 198.18.0.1 dev eth0 proto 112"
        );
        assert_eq!(
            count("ip neigh show dev flannel.1 nud permanent; bridge fdb show dev flannel.1"),
            0
        );
        // And goes again.
        sh("ip route del 198.18.0.0/24 dev eth0");
        converge(&mut fabric, &two);
        assert_eq!(tables("flannel.1"), mixed);
        // Its route is lost with its link, and comes back.
        sh(
            "ip link set eth0 down; ip link set eth0 up; ip route replace default via 192.0.2.254 dev eth0",
        );
        converge(&mut fabric, &two);
        assert_eq!(tables("flannel.1"), mixed);
    });
}
