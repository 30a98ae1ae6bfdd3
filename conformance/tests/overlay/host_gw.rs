//! Scene 3: plain routes, on each node or on the gateway between them; and direct routes beside the tunnel.

use std::fs;
use std::time::Duration;

use conformance::deployment::{Agent, Deployment, Pod};
use conformance::fleet::{Fleet, Node, OUTSIDE, Space};
use testkit::in_netns;

use crate::deployment;
use crate::witness::Stream;

const PATIENCE: Duration = Duration::from_secs(60);

fn pods(all: &Deployment) -> Vec<Pod> {
    let named = ["p0", "p1", "p2"].iter().zip(&all.nodes);
    named.map(|(name, node)| node.pod(name).unwrap()).collect()
}

/// Every pod reaches every pod, which sees it under its own address.
fn all_meet(pods: &[(&Space, String)]) {
    for (from, source) in pods {
        for (to, ip) in pods.iter().filter(|(_, ip)| ip != source) {
            let stream = Stream::open(from, to, ip, 7000);
            assert_eq!(&stream.source.to_string(), source);
            stream.goes_on();
            stream.close();
        }
    }
}

fn routes(node: &Agent) -> String {
    node.sh("ip route").unwrap()
}

#[test]
fn scene_3_plain_routes_on_each_node() {
    in_netns(|| {
        let all = deployment(|plan| {
            plan.conf = plan.conf.replace("vxlan", "host-gw");
            plan.options.push("--ip-masq".to_owned());
        });
        let pods = pods(&all);
        all_meet(
            &pods
                .iter()
                .map(|pod| (&pod.space, pod.ip.clone()))
                .collect::<Vec<_>>(),
        );
        for here in &all.nodes {
            let routes = routes(here);
            for there in all.nodes.iter().filter(|there| there.name() != here.name()) {
                let want = format!(
                    "{} via {} dev eth0",
                    there.node.subnet(),
                    there.node.address()
                );
                assert!(routes.contains(&want), "{want}: {routes}");
            }
            assert!(!here.sh("ip -br link").unwrap().contains("flannel"));
            // Nothing is wrapped, so nothing is taken off.
            assert!(here.sh("ip link show cni0").unwrap().contains("mtu 1500"));
        }

        // A node that leaves takes its route along; what somebody flushes comes back.
        let gone = all.nodes[2].node.subnet();
        let flushed = all.nodes[1].node.subnet();
        all.nodes[0].sh(&format!("ip route del {flushed}")).unwrap();
        fs::remove_file(all.peers().join("subnets").join(gone.replace('/', "-"))).unwrap();
        all.nodes[0]
            .wait(PATIENCE, "the route is back", |node| {
                routes(node).contains(&flushed)
            })
            .unwrap();
        assert!(pods[0].pings(&pods[1].ip, 3));
    });
}

/// The nodes know nothing of each other's pods: their gateway does.
#[test]
fn scene_3_plain_routes_on_the_gateway_alone() {
    in_netns(|| {
        let fleet = Fleet::new(3).unwrap();
        let add = |node: &Node| format!("ip route add {} via {}\n", node.subnet(), node.address());
        let script: String = fleet.nodes.iter().map(add).collect();
        fleet
            .outside
            .sh(&format!("sysctl -qw net.ipv4.ip_forward=1\n{script}"))
            .unwrap();
        let pods: Vec<Space> = fleet
            .nodes
            .iter()
            .map(|node| node.pod_by_hand(2).unwrap())
            .collect();
        for node in &fleet.nodes {
            let routes = node.space.sh("ip route").unwrap();
            assert!(
                routes.contains(&format!("default via {OUTSIDE}")),
                "{routes}"
            );
            let own = node.subnet();
            let others = fleet
                .nodes
                .iter()
                .map(Node::subnet)
                .filter(|subnet| *subnet != own);
            assert!(
                !others.into_iter().any(|subnet| routes.contains(&subnet)),
                "{routes}"
            );
        }
        let addresses = fleet.nodes.iter().map(|node| node.pods(2).to_string());
        all_meet(&pods.iter().zip(addresses).collect::<Vec<_>>());
    });
}

/// Nodes on one link need no tunnel; when one is behind a router all of a sudden, they do.
#[test]
fn direct_routes_on_one_link_and_the_tunnel_when_there_is_none() {
    in_netns(|| {
        let all = deployment(|plan| {
            plan.options.push("--ip-masq".to_owned());
            let direct = r#""Type":"vxlan","DirectRouting":true"#;
            plan.conf = plan.conf.replace(r#""Type":"vxlan""#, direct);
        });
        let pods = pods(&all);
        let far = &all.nodes[1].node;
        let (subnet, address) = (far.subnet(), far.address());
        let here = &all.nodes[0];
        let goes = |node: &Agent, subnet: &str, way: &str| {
            let want = format!("{subnet} via {way}");
            node.wait(PATIENCE, &want, |node| routes(node).contains(&want))
                .unwrap();
        };
        let has = |way: &str| goes(here, &subnet, way);
        let back = |way: &str| goes(&all.nodes[1], &here.node.subnet(), way);
        has(&format!("{address} dev eth0"));
        let all_talk = || {
            all_meet(
                &pods
                    .iter()
                    .map(|pod| (&pod.space, pod.ip.clone()))
                    .collect::<Vec<_>>(),
            );
        };
        all_talk();
        // Both can be reached by the gateway only: were it one, the other would drop by its strict filter of sources.
        all.outside
            .sh("cd /proc/sys/net/ipv4; echo 1 > ip_forward; echo 0 | tee conf/all/send_redirects > conf/eth0/send_redirects")
            .unwrap();
        let detour = |verb: &str| {
            for (node, to) in [(here, address), (&all.nodes[1], here.node.address())] {
                node.sh(&format!("ip route {verb} {to}/32 via {OUTSIDE}"))
                    .unwrap();
            }
        };
        detour("add");
        has("192.168.132.0 dev flannel.1 ");
        back("192.168.128.0 dev flannel.1 ");
        all_talk();
        detour("del");
        has(&format!("{address} dev eth0"));
        back(&format!("{} dev eth0", here.node.address()));
        all_talk();
    });
}
