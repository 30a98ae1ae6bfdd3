//! Scene 6: to and from the outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use conformance::fleet::{Node, OUTSIDE, OUTSIDE6, Space};
use testkit::{in_netns, in_netns_as_root};

use crate::bed::{Bed, PATIENCE, PodOf, ask, try_to_ask};
use crate::multicast::{self, Echoes};
use crate::{TARGET_PORT, iptables, nftables};

/// The pod that is looked at.
const HOST: u8 = 9;
/// A packet that is to be dropped is waited for this long.
const A_MOMENT: Duration = Duration::from_millis(200);

fn pings(space: &Space, ip: &str, patience: &str) -> bool {
    let mut ping = space.command("ping");
    ping.args(["-n", "-c1", "-W", patience, ip])
        .output()
        .unwrap()
        .status
        .success()
}

/// Whom somebody outside sees when a pod sends a datagram and opens a connection; both are answered, too.
fn source(outside: &Space, pod: &Space, ip: IpAddr) -> [IpAddr; 2] {
    let any: IpAddr = if ip.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    let target = SocketAddr::new(ip, 7000);
    let (udp, tcp) = outside
        .run(|| {
            (
                UdpSocket::bind((any, 7000)).unwrap(),
                TcpListener::bind((any, 7000)).unwrap(),
            )
        })
        .unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = pod.run(|| UdpSocket::bind((any, 0)).unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"x", target).unwrap();
    let (_, by_udp) = udp.recv_from(&mut [0; 8]).unwrap();
    udp.send_to(b"y", by_udp).unwrap();
    let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from, target, "the answer comes from the address called");

    let _connected = pod
        .run(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap())
        .unwrap();
    let (_, by_tcp) = tcp.accept().unwrap();
    [by_udp.ip(), by_tcp.ip()]
}

/// To the world, with every protocol and in both families; between pods; from the world to a pod of the node that the
/// world's packet came to.
fn everything_passes(bed: &Bed, local: &PodOf, node: &Node) {
    let outside = &bed.fleet.outside;
    for (ip, seen) in [
        (IpAddr::from(OUTSIDE), IpAddr::from(node.address())),
        (OUTSIDE6.into(), node.address6().into()),
    ] {
        assert_eq!(
            source(outside, &local.space, ip),
            [seen; 2],
            "the node's address"
        );
        let echoes = outside.run(|| Echoes::listen(ip.is_ipv4())).unwrap();
        assert!(pings(&local.space, &ip.to_string(), "2"), "ICMP to {ip}");
        assert_eq!(echoes.next_source(), seen, "of an echo request");
    }
    for endpoint in &bed.endpoints {
        assert_eq!(ask(&local.space, endpoint.ip, TARGET_PORT).client, local.ip);
    }
    // To a group outside, by a multicast router on the node: unchanged.
    for (own, group) in [
        (IpAddr::from(local.ip), "239.1.2.3"),
        (node.pods6(HOST).into(), "ff05::1:3"),
    ] {
        let group: IpAddr = group.parse().unwrap();
        let heard = outside.run(|| multicast::join(group, "eth0")).unwrap();
        let _router = node
            .space
            .run(|| multicast::Router::start(own, group, "cni0", "eth0"))
            .unwrap();
        let send = || local.space.run(|| multicast::send(own, group)).unwrap();
        assert_eq!(multicast::source(&heard, send), own, "to a group");
    }
    let v6_of_another = bed.fleet.nodes[2].pods6(2).to_string();
    assert!(pings(&local.space, &v6_of_another, "2"));
    let route = format!("ip route replace {} via {}", node.subnet(), node.address());
    outside.sh(&route).unwrap();
    // Whoever has a route to it reaches a pod, and keeps its address.
    let heard = ask(outside, node.pods(2), TARGET_PORT);
    assert_eq!((heard.endpoint, heard.client), (node.pods(2), OUTSIDE));
}

fn nothing_passes(bed: &Bed, local: &PodOf) {
    assert!(!pings(&local.space, &OUTSIDE.to_string(), "0.2"));
    let far: Ipv4Addr = bed.endpoints[5].ip;
    assert!(try_to_ask(&local.space, far, TARGET_PORT, A_MOMENT).is_err());
}

/// `forbid` is run on each node before ours and, once more, behind them.
fn scene_6(forbid: &[&str]) {
    let bed = Bed::new();
    let node = &bed.fleet.nodes[0];
    let local = PodOf::by_hand(node, HOST);
    for forbidden in forbid {
        for node in &bed.fleet.nodes {
            node.space.sh(forbidden).unwrap();
        }
        nothing_passes(&bed, &local);
        for number in 0..3 {
            assert!(bed.ensure_rules(number));
            assert!(!bed.ensure_rules(number), "a second time changed something");
        }
        everything_passes(&bed, &local, node);
    }
    if forbid.is_empty() {
        assert!(
            !pings(&local.space, &OUTSIDE.to_string(), "0.2"),
            "it knows a way back to pods"
        );
        for number in 0..3 {
            assert!(bed.ensure_rules(number));
        }
        everything_passes(&bed, &local, node);
    }
}

#[test]
fn scene_6_the_outside() {
    in_netns(|| scene_6(&[]));
}

/// The policy of iptables' FORWARD chain, as docker sets it, and a last rule that rejects, as RHEL's.
const POLICY: &str = "iptables-KIND -P FORWARD DROP; ip6tables-KIND -P FORWARD DROP";
const LAST_RULE: &str = "iptables-KIND -P FORWARD ACCEPT; ip6tables-KIND -P FORWARD ACCEPT
    iptables-KIND -F FORWARD; ip6tables-KIND -F FORWARD
    iptables-KIND -A FORWARD -j REJECT --reject-with icmp-host-prohibited; ip6tables-KIND -A FORWARD -j REJECT";

fn both(kind: &str) {
    let forbid = [POLICY, LAST_RULE].map(|script| script.replace("KIND", kind));
    scene_6(&[&forbid[0], &forbid[1]]);
}

#[test]
fn scene_6_where_iptables_nft_drops() {
    in_netns(|| both("nft"));
}

#[test]
fn scene_6_where_iptables_legacy_drops() {
    in_netns_as_root(|| both("legacy"));
}

/// Services on such a node, in both flavours of kube-proxy.
#[test]
fn scene_6_services_where_iptables_drops() {
    in_netns(|| {
        let bed = Bed::new();
        let service = bed.service();
        for (number, node) in bed.fleet.nodes.iter().enumerate() {
            node.space.sh(&POLICY.replace("KIND", "nft")).unwrap();
            bed.ensure_rules(number);
            match number {
                0 => nftables::load(&service, node),
                _ => iptables::load(&service, node, "nft"),
            }
        }
        for node in &bed.fleet.nodes {
            crate::bed::ask_until(
                &bed.fleet.outside,
                node.address(),
                crate::NODE_PORT,
                |all| all.len() == 6,
            );
        }
        for endpoint in &bed.endpoints {
            crate::bed::ask_until(&endpoint.space, crate::CLUSTER_IP, crate::PORT, |all| {
                all.contains_key(&endpoint.ip)
            });
        }
    });
}
