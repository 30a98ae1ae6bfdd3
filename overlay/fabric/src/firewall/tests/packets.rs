//! Item 8 of the compatibility list: which rule each kind of packet meets, by its counter, and which source its receiver
//! sees. Both families.

use std::net::{SocketAddr, UdpSocket};

use serde_json::Value;
use testkit::{Pod, in_netns, sh};

use super::node::{NODE, Node, PATIENCE, POD, REMOTE, VTEP, WORLD, send};
use super::*;

/// The place of a rule among those of its family, from 1; 0 is kube-proxy's, which is for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    KubeProxys = 0,
    PodsToPods = 1,
    PodsToOurs = 2,
    ToOurs = 3,
    PodsToTheWorld = 4,
    ToPodsOfOthers = 5,
    Nothing,
}

/// What each rule of the chain has counted.
fn counters() -> Vec<u64> {
    let listed: Value =
        serde_json::from_str(&sh("nft -j list chain inet podwire-overlay masquerading")).unwrap();
    let all = listed["nftables"].as_array().unwrap().iter();
    let exprs = all.filter_map(|object| object["rule"]["expr"].as_array());
    exprs
        .flatten()
        .filter_map(|expr| expr["counter"]["packets"].as_u64())
        .collect()
}

/// What `to` sees of what `send` sends, and the one rule that counted.
fn case(
    node: &Node,
    family: usize,
    to: (&Pod, &str),
    send: impl FnOnce(SocketAddr) + Send,
) -> (String, Met) {
    let before = counters();
    let source = node.source(to.0, to.1, send);
    (source, met(&before, family))
}

fn met(before: &[u64], family: usize) -> Met {
    let after = counters();
    assert_eq!(after.len(), 11);
    let hits: Vec<usize> = (0..after.len())
        .filter(|at| after[*at] > before[*at])
        .collect();
    match hits[..] {
        [] => Met::Nothing,
        [0] => Met::KubeProxys,
        [at] if (at - 1) / 5 == family => [
            Met::PodsToPods,
            Met::PodsToOurs,
            Met::ToOurs,
            Met::PodsToTheWorld,
            Met::ToPodsOfOthers,
        ][(at - 1) % 5],
        ref hits => panic!("one packet met the rules {hits:?}"),
    }
}

#[test]
fn item_8_each_packet_meets_its_rule() {
    in_netns(|| {
        let node = Node::new();
        ensure(&mut Netfilter::unopened(), &rules()).unwrap();
        for f in [0, 1] {
            let from = |pod: &'static str, to: SocketAddr| send(Some(pod), to);
            let (pod, remote, world) = (&node.pod, &node.remote, &node.world);
            let seen = |to, send: &(dyn Fn(SocketAddr) + Sync)| case(&node, f, to, send);
            let of = |source: [&str; 2], met| (source[f].to_owned(), met);

            let got = seen((remote, REMOTE[f]), &|to| pod.run(|| send(None, to)));
            assert_eq!(
                got,
                of(POD, Met::PodsToPods),
                "pod to a pod of another node"
            );
            let got = seen((pod, POD[f]), &|to| remote.run(|| send(None, to)));
            assert_eq!(got, of(REMOTE, Met::PodsToOurs), "and back");
            let got = seen((world, WORLD[f]), &|to| pod.run(|| send(None, to)));
            assert_eq!(got, of(NODE, Met::PodsToTheWorld), "pod to the world");
            let got = seen((pod, POD[f]), &|to| world.run(|| send(None, to)));
            assert_eq!(
                got,
                of(WORLD, Met::ToOurs),
                "the world to a pod of this node"
            );
            let got = seen((remote, REMOTE[f]), &|to| world.run(|| send(None, to)));
            assert_eq!(
                got,
                of(VTEP, Met::ToPodsOfOthers),
                "the world to a pod of another node"
            );
            let got = seen((remote, REMOTE[f]), &|to| from(NODE[f], to));
            assert_eq!(
                got,
                of(VTEP, Met::ToPodsOfOthers),
                "this node to a pod of another, by its other address"
            );
            let got = seen((remote, REMOTE[f]), &|to| from(VTEP[f], to));
            assert_eq!(
                got,
                of(VTEP, Met::PodsToPods),
                "this node to a pod of another"
            );
            let got = seen((pod, POD[f]), &|to| from(NODE[f], to));
            assert_eq!(got, of(NODE, Met::ToOurs), "this node to its pod");
            let got = seen((world, WORLD[f]), &|to| from(NODE[f], to));
            assert_eq!(got, of(NODE, Met::Nothing), "this node to the world");
        }
    });
}

/// A NodePort without a mark (an external load balancer's DNAT, say): the answer must come back through this node.
#[test]
fn item_8_a_redirected_packet_of_the_world_is_masqueraded() {
    in_netns(|| {
        let node = Node::new();
        ensure(&mut Netfilter::unopened(), &rules()).unwrap();
        sh(&format!(
            "nft add table inet t; nft add chain inet t c '{{ type nat hook prerouting priority dstnat; }}'
             nft add rule inet t c ip daddr {} udp dport 7000 dnat ip to {}
             nft add rule inet t c ip6 daddr {} udp dport 7000 dnat ip6 to {}",
            NODE[0], REMOTE[0], NODE[1], REMOTE[1]
        ));
        for f in [0, 1] {
            let to = SocketAddr::new(NODE[f].parse().unwrap(), 7000);
            let client = node.world.run(|| UdpSocket::bind((WORLD[f], 0)).unwrap());
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let server = node
                .remote
                .run(|| UdpSocket::bind((REMOTE[f], 7000)).unwrap());
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let before = counters();
            client.send_to(b"x", to).unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from.ip().to_string(), VTEP[f]);
            assert_eq!(met(&before, f), Met::ToPodsOfOthers);
            server.send_to(b"y", from).unwrap();
            let (_, from) = client.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from, to, "the answer comes from the address called");
        }
    });
}

/// What kube-proxy marks it masquerades itself, in a chain of its own; other tools have other bits of the mark.
#[test]
fn item_8_what_kube_proxy_marked_is_left_to_it() {
    in_netns(|| {
        let node = Node::new();
        ensure(&mut Netfilter::unopened(), &rules()).unwrap();
        sh(
            "nft add table inet t; nft add chain inet t c '{ type filter hook prerouting priority mangle; }'",
        );
        for mark in ["0x4000", "0x80034001", "0xffffffff"] {
            sh(&format!(
                "nft 'flush chain inet t c; add rule inet t c meta mark set {mark}'"
            ));
            for f in [0, 1] {
                let got = case(&node, f, (&node.remote, REMOTE[f]), |to| {
                    node.world.run(|| send(None, to))
                });
                assert_eq!(got, (WORLD[f].to_owned(), Met::KubeProxys), "marked {mark}");
            }
        }
        sh("nft 'flush chain inet t c; add rule inet t c meta mark set 0xffffbfff'");
        for f in [0, 1] {
            let got = case(&node, f, (&node.remote, REMOTE[f]), |to| {
                node.world.run(|| send(None, to))
            });
            assert_eq!(
                got,
                (VTEP[f].to_owned(), Met::ToPodsOfOthers),
                "marked by others"
            );
        }
    });
}

/// From a pod's address to a group: unchanged. A packet to a group leaves by the interface that has its source address.
#[test]
fn item_8_multicast_keeps_its_source() {
    in_netns(|| {
        let node = Node::new();
        sh(
            "ip addr add 192.168.132.9/32 dev eth0; ip addr add fd00:128:0:132::9/128 dev eth0 nodad",
        );
        ensure(&mut Netfilter::unopened(), &rules()).unwrap();
        let index = node.world.ip_json(&["link", "show", "eth0"])[0]["ifindex"]
            .as_u64()
            .unwrap();
        for (f, (group, from)) in [
            ("239.1.2.3", "192.168.132.9"),
            ("ff05::1:3", "fd00:128:0:132::9"),
        ]
        .into_iter()
        .enumerate()
        {
            let heard = node.world.run(|| {
                let any = if f == 0 { "0.0.0.0" } else { "::" };
                let socket = UdpSocket::bind((any, 7001)).unwrap();
                match group.parse().unwrap() {
                    IpAddr::V4(group) => socket
                        .join_multicast_v4(&group, &[192, 168, 64, 9].into())
                        .unwrap(),
                    IpAddr::V6(group) => socket
                        .join_multicast_v6(&group, index.try_into().unwrap())
                        .unwrap(),
                }
                socket
            });
            heard.set_read_timeout(Some(PATIENCE)).unwrap();
            let before = counters();
            send(Some(from), SocketAddr::new(group.parse().unwrap(), 7001));
            assert_eq!(
                heard
                    .recv_from(&mut [0; 8])
                    .expect(group)
                    .1
                    .ip()
                    .to_string(),
                from
            );
            assert_eq!(met(&before, f), Met::Nothing);
        }
    });
}
