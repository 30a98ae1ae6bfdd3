//! The interface to the other nodes changes, and the agent goes along.

use std::fs;
use std::time::{Duration, Instant};

use conformance::deployment::{Agent, Deployment, Pod};
use testkit::in_netns;

use crate::deployment;
use crate::pace::stretched;
use crate::probe::get;

/// How long until all pods talk again.
const HEALED_WITHIN: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

pub fn two_pods(all: &Deployment) -> [Pod; 2] {
    [("p0", 0), ("p1", 1)].map(|(name, at)| all.nodes[at].pod(name).unwrap())
}

/// Until packets go both ways; asked in short steps, from when it is called.
#[track_caller]
pub fn healed(pods: &[Pod; 2], node: &Agent) {
    let begun = Instant::now();
    let reaches = |from: &Pod, to: &Pod| {
        let mut ping = from.space.command("ping");
        ping.args(["-n", "-q", "-c1", "-W0.1", &to.ip]);
        ping.output().unwrap().status.success()
    };
    while !(reaches(&pods[0], &pods[1]) && reaches(&pods[1], &pods[0])) {
        let late = begun.elapsed() > HEALED_WITHIN && begun.elapsed() > stretched(HEALED_WITHIN);
        assert!(!late, "{}", node.log());
    }
}

pub fn ready(node: &Agent) -> Option<u16> {
    get(node, "/readyz").map(|(status, _)| status)
}

#[test]
fn a_parent_with_another_address() {
    in_netns(|| {
        let all = deployment(|_| ());
        let pods = two_pods(&all);
        healed(&pods, &all.nodes[0]);
        let node = &all.nodes[0];
        let mac = |node: &Agent| node.sh("ip -br link show flannel.1").unwrap();
        let before = mac(node);
        node.sh("ip addr flush dev eth0; ip addr add 192.168.64.33/24 dev eth0; ip route add default via 192.168.64.100")
            .unwrap();
        healed(&pods, node);
        assert!(
            node.sh("ip -d link show flannel.1")
                .unwrap()
                .contains("local 192.168.64.33 ")
        );
        assert_eq!(mac(node), before);
        let lease = all.peers().join("subnets/192.168.128.0-24");
        node.wait(PATIENCE, "the others are told", |_| {
            fs::read_to_string(&lease)
                .unwrap()
                .contains(r#""PublicIP":"192.168.64.33""#)
        })
        .unwrap();
        all.nodes[1]
            .wait(PATIENCE, "knows where", |far| far.shown_ok() == Some(2))
            .unwrap();
    });
}

#[test]
fn item_6_a_parent_that_goes_down_and_comes_up() {
    in_netns(|| {
        let all = deployment(|_| ());
        let pods = two_pods(&all);
        let node = &all.nodes[0];
        // With the link its default route goes, by which it is known.
        node.sh("ip link set eth0 down").unwrap();
        node.wait(PATIENCE, "not ready", |node| ready(node) == Some(503))
            .unwrap();
        node.sh("ip link set eth0 up; ip route add default via 192.168.64.100")
            .unwrap();
        healed(&pods, node);
        node.wait(PATIENCE, "ready", |node| ready(node) == Some(200))
            .unwrap();
    });
}

#[test]
fn item_6_a_parent_that_is_deleted_and_made_again() {
    in_netns(|| {
        let all = deployment(|_| ());
        let pods = two_pods(&all);
        let node = &all.nodes[0];
        all.underlay.sh("ip link del node0").unwrap();
        node.wait(PATIENCE, "not ready", |node| ready(node) == Some(503))
            .unwrap();
        all.underlay
            .sh(&format!(
                "ip link add node0 type veth peer eth0 address 02:00:5e:64:00:03 netns {}; ip link set node0 master underlay up",
                node.node.space.path()
            ))
            .unwrap();
        node.sh("ip link set eth0 up; ip addr add 192.168.64.3/24 dev eth0; ip route add default via 192.168.64.100")
            .unwrap();
        healed(&pods, node);
        node.wait(PATIENCE, "ready", |node| {
            ready(node) == Some(200) && node.shown_ok() == Some(2)
        })
        .unwrap();
    });
}

#[test]
fn item_6_a_parent_with_another_mtu() {
    in_netns(|| {
        let all = deployment(|_| ());
        let pods = two_pods(&all);
        let node = &all.nodes[0];
        for mtu in [1400, 1500] {
            all.underlay
                .sh(&format!("ip link set node0 mtu {mtu}"))
                .unwrap();
            node.sh(&format!("ip link set eth0 mtu {mtu}")).unwrap();
            let inner = mtu - 50;
            node.wait(
                stretched(HEALED_WITHIN),
                "the device follows, and pods are told",
                |node| {
                    let env = fs::read_to_string(node.path("subnet.env")).unwrap();
                    env.contains(&format!("FLANNEL_MTU={inner}\n"))
                        && node
                            .sh("ip link show flannel.1")
                            .unwrap()
                            .contains(&format!("mtu {inner} "))
                },
            )
            .unwrap();
            healed(&pods, node);
        }
    });
}
