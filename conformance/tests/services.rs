//! Scenes 5 and 6: services over the overlay, with kube-proxy's own rules in both its flavours, and what pods say to the
//! world. Three nodes and somebody outside, each a network namespace; two nodes are ours, the third is as flannel makes
//! one. Masquerade and forward rules are ours on each, in nf_tables in each case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use testkit::{in_netns, in_netns_as_root};

#[path = "services/bed.rs"]
mod bed;
#[path = "services/iptables.rs"]
mod iptables;
#[path = "scenes/multicast.rs"]
mod multicast;
#[path = "bed/network.rs"]
mod network;
#[path = "services/nftables.rs"]
mod nftables;
#[path = "services/outside.rs"]
mod outside;
#[path = "bed/raw.rs"]
mod raw;

use bed::{Bed, Heard, PodOf};

/// The documents' service: in 192.168.192.0/18, six endpoints.
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 234);
const PORT: u16 = 8080;
const NODE_PORT: u16 = 32681;
/// Where the endpoints listen.
const TARGET_PORT: u16 = 8081;

/// Who is asked, and how many of the answers came from where.
type Spread = BTreeMap<Ipv4Addr, usize>;

/// Six endpoints of 240 connections get 40 each, give or take 5 standard deviations of 5.8.
const CONNECTIONS: usize = 240;
const EVENLY: std::ops::RangeInclusive<usize> = 11..=69;

/// kube-proxy's part of a node, loaded there.
type Load = fn(&bed::Service, &conformance::fleet::Node);

fn scene_5(load: Load) {
    // Without it a node does not see the answer of a pod to its neighbour on the bridge; kube-proxy asks for it, too.
    if !Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        return testkit::skip("no br_netfilter in this kernel");
    }
    let bed = Bed::new();
    let service = bed.service();
    for (number, node) in bed.fleet.nodes.iter().enumerate() {
        // Base chains of the same priority run in the order they came; both orders have to do.
        if number == 1 {
            load(&service, node);
            bed.ensure_rules(number);
        } else {
            bed.ensure_rules(number);
            load(&service, node);
        }
        assert!(!bed.ensure_rules(number), "a second time changed something");
    }
    let nodes = &bed.fleet.nodes;
    let client = PodOf::by_hand(&nodes[0], 9);
    let node_of = |endpoint: Ipv4Addr| {
        nodes
            .iter()
            .position(|n| n.pods(0).octets()[2] == endpoint.octets()[2])
            .unwrap()
    };

    // From a pod: all six, evenly, and each sees the pod itself.
    let mut spread = Spread::new();
    for _ in 0..CONNECTIONS {
        let heard = bed::ask(&client.space, CLUSTER_IP, PORT);
        assert_eq!(heard.client, client.ip, "masqueraded between pods");
        *spread.entry(heard.endpoint).or_default() += 1;
    }
    assert_eq!(spread.len(), 6, "{spread:?}");
    assert!(spread.values().all(|n| EVENLY.contains(n)), "{spread:?}");

    // From a node: an address of its own that the answer finds back to, and never its underlay address.
    let seen = |heard: &Heard, entry: usize| {
        // The device's first address: the tunnel's to other nodes, the bridge's to its own pods.
        let host = u8::from(node_of(heard.endpoint) == entry);
        assert_eq!(
            heard.client,
            nodes[entry].pods(host),
            "{heard:?} by node {entry}"
        );
    };
    for (entry, node) in nodes.iter().enumerate() {
        let asked = bed::ask_until(&node.space, CLUSTER_IP, PORT, |all| all.len() == 6);
        asked.iter().for_each(|heard| seen(heard, entry));
    }

    // From an endpoint to itself through its own service.
    for endpoint in [&bed.endpoints[0], &bed.endpoints[5]] {
        let asked = bed::ask_until(&endpoint.space, CLUSTER_IP, PORT, |all| {
            all.contains_key(&endpoint.ip)
        });
        for heard in asked {
            let home = &nodes[node_of(endpoint.ip)];
            let own = heard.endpoint == endpoint.ip;
            assert_eq!(
                heard.client,
                if own { home.pods(1) } else { endpoint.ip },
                "{heard:?}"
            );
        }
    }

    // From outside to a port of any node, endpoints on all of them.
    for (entry, node) in nodes.iter().enumerate() {
        let before = bed::masqueraded_by_us(node);
        let asked = bed::ask_until(&bed.fleet.outside, node.address(), NODE_PORT, |all| {
            all.len() == 6
        });
        asked.iter().for_each(|heard| seen(heard, entry));
        // kube-proxy has masqueraded them, once.
        assert_eq!(bed::masqueraded_by_us(node), before, "masqueraded twice");
    }

    // Pods that need no service.
    for endpoint in &bed.endpoints {
        assert_eq!(
            bed::ask(&client.space, endpoint.ip, TARGET_PORT).client,
            client.ip
        );
    }
    // What was not marked, nobody masqueraded; the client's own traffic met no rule of ours that does.
    let translated = nodes[0]
        .space
        .sh(&format!("conntrack -L -s {} 2>/dev/null", client.ip))
        .unwrap();
    let answers_to = format!(" dst={} ", client.ip);
    assert!(translated.lines().count() > CONNECTIONS / 2, "{translated}");
    assert!(
        translated.lines().all(|line| line.contains(&answers_to)),
        "{translated}"
    );
}

#[test]
fn scene_5_services_by_iptables_nft() {
    in_netns(|| scene_5(|service, node| iptables::load(service, node, "nft")));
}

#[test]
fn scene_5_services_by_iptables_legacy() {
    in_netns_as_root(|| scene_5(|service, node| iptables::load(service, node, "legacy")));
}

#[test]
fn scene_5_services_by_nftables() {
    in_netns(|| scene_5(nftables::load));
}
