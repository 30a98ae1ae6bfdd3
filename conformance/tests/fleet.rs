//! The bed of the overlay's scenes: what is made by hand works as the documents say, and a node can be lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use conformance::fleet::{Fleet, OUTSIDE, Space};
use testkit::{eventually, in_netns, sh};

fn ping(space: &Space, ip: &str, patience: &str) -> bool {
    let mut ping = space.command("ping");
    let output = ping.args(["-n", "-c1", "-W", patience, ip]).output();
    output.unwrap().status.success()
}

fn pings(space: &Space, ip: &str) -> bool {
    ping(space, ip, "5")
}

fn pings_in_vain(space: &Space, ip: &str) -> bool {
    !ping(space, ip, "0.3")
}

#[test]
fn a_node_is_lost_and_replaced() {
    in_netns(|| {
        let mut fleet = Fleet::new(2).unwrap();
        let make = |fleet: &Fleet, at: usize| {
            let node = &fleet.nodes[at];
            node.vxlan_by_hand(&fleet.nodes).unwrap();
            node.pod_by_hand(2).unwrap()
        };
        let (one, two) = (make(&fleet, 0), make(&fleet, 1));
        let node = &fleet.nodes[1];
        assert_eq!(node.subnet(), "192.168.132.0/24");
        let far = [node.pods(2).to_string(), node.pods6(2).to_string()];
        for ip in &far {
            assert!(pings(&one, ip), "{ip}");
        }
        // The nodes are on the underlay, with the outsider, who knows of no pods.
        assert!(pings(&fleet.outside, &node.address().to_string()));
        assert!(pings_in_vain(&two, &OUTSIDE.to_string()));

        drop(two);
        fleet.replace(1).unwrap();
        assert!(pings_in_vain(&one, &far[0]));
        let two = make(&fleet, 1);
        for ip in &far {
            assert!(pings(&one, ip), "{ip}");
        }
        fleet.underlay.sh("ip link set node1 down").unwrap();
        assert!(pings_in_vain(&one, &far[0]));

        // Nothing is left: with a namespace go its ends of cables, and with them the others'.
        let watched = Space::new("watched").unwrap();
        sh(&format!(
            "ip link add end type veth peer eth0 netns {}",
            watched.path()
        ));
        drop((one, two, fleet, watched));
        eventually(Duration::from_secs(60), || {
            !sh("ip -br link").contains("end@")
        });
    });
}
