//! Three nodes with `overlayd`, pods on each: scenes 3, 4 and 6, and what an agent must survive.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../../overlay/agent/tests/apiserver/apiserver.rs"]
#[allow(dead_code, unused_imports)]
mod apiserver;
#[path = "overlay/chaos.rs"]
mod chaos;
#[path = "overlay/etcd.rs"]
mod etcd;
#[path = "overlay/host_gw.rs"]
mod host_gw;
#[path = "overlay/hostile.rs"]
mod hostile;
#[path = "overlay/kubernetes.rs"]
mod kubernetes;
#[path = "overlay/pace.rs"]
mod pace;
#[path = "overlay/parent.rs"]
mod parent;
#[path = "overlay/probe.rs"]
mod probe;
#[path = "overlay/ready.rs"]
mod ready;
#[path = "overlay/takeover.rs"]
mod takeover;
#[path = "overlay/witness.rs"]
mod witness;

use std::path::Path;
use std::time::Duration;

use conformance::deployment::{Deployment, Plan};
use testkit::in_netns;

fn plan() -> Plan {
    Plan::new(&testkit::bin_dir(), Path::new("/run/overlay"))
}

fn deployment(change: impl FnOnce(&mut Plan)) -> Deployment {
    let mut plan = plan();
    change(&mut plan);
    let mut all = Deployment::new(plan, 3).unwrap();
    all.start().unwrap();
    all
}

/// Scene 4, line by line, at the second node: 192.168.132.0/24.
#[test]
fn scene_4_across_nodes_by_vxlan() {
    in_netns(|| {
        let all = deployment(|plan| plan.options.push("--ip-masq".to_owned()));
        let here = &all.nodes[1];
        assert_eq!(
            std::fs::read_to_string(here.path("subnet.env")).unwrap(),
            "FLANNEL_NETWORK=192.168.128.0/18\nFLANNEL_SUBNET=192.168.132.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        );
        let pods = ["p0", "p1", "p2"]
            .iter()
            .zip(&all.nodes)
            .map(|(name, node)| node.pod(name).unwrap());
        let pods: Vec<_> = pods.collect();
        for from in &pods {
            for to in &pods {
                assert!(
                    from.pings(&to.ip, 3),
                    "{} -> {}\n{}",
                    from.ip,
                    to.ip,
                    here.log()
                );
            }
        }
        let device = here.sh("ip -d link show flannel.1").unwrap();
        for part in [
            "vxlan id 1 local 192.168.64.4 dev eth0",
            "dstport 8472 nolearning",
            "mtu 1450",
        ] {
            assert!(device.contains(part), "{part}: {device}");
        }
        assert!(
            here.sh("ip -4 addr show flannel.1")
                .unwrap()
                .contains("inet 192.168.132.0/32 scope global flannel.1")
        );
        let mac = all.nodes[0].sh("ip -br link show flannel.1").unwrap();
        let mac = mac.split_whitespace().nth(2).unwrap();
        let routes = here.sh("ip route").unwrap();
        let route = routes
            .lines()
            .find(|line| line.starts_with("192.168.128.0/24"))
            .unwrap();
        assert!(
            route.contains("via 192.168.128.0 dev flannel.1") && route.contains("onlink"),
            "{routes}"
        );
        let neighbours = here.sh("ip neigh show dev flannel.1").unwrap();
        assert!(
            neighbours.contains(&format!("192.168.128.0 lladdr {mac} PERMANENT")),
            "{neighbours} {mac}"
        );
        let fdb = here.sh("bridge fdb show dev flannel.1").unwrap();
        assert!(
            fdb.contains(&format!("{mac} dst 192.168.64.3 self permanent")),
            "{fdb}"
        );
        assert!(
            here.sh("ip -d link show cni0")
                .unwrap()
                .contains("mtu 1450")
        );

        let way = here
            .overlayd()
            .args(["path", &pods[1].ip, &pods[0].ip])
            .output()
            .unwrap();
        let way = String::from_utf8(way.stdout).unwrap();
        let parts = [
            "default via 192.168.132.1",
            "cni0",
            "192.168.128.0/24 via 192.168.128.0 dev flannel.1 onlink",
            "PERMANENT",
            &format!("{mac} dev flannel.1 dst 192.168.64.3"),
            "dev eth0 src 192.168.64.4, UDP 8472",
            "far node",
            "far pod",
        ];
        let mut rest = way.as_str();
        for part in parts {
            let at = rest
                .find(part)
                .unwrap_or_else(|| panic!("{part}, in its place:\n{way}"));
            rest = &rest[at..];
        }
    });
}

/// What is wrong is named, the first thing first; and the agent heals all of it.
#[test]
fn path_names_the_first_step_that_is_wrong() {
    in_netns(|| {
        let mut all = deployment(|_| ());
        all.nodes[0].kill();
        let here = &all.nodes[0];
        let (from, to) = (here.pod("p0").unwrap(), all.nodes[1].pod("p1").unwrap());
        let way = |to: &str| {
            let output = here
                .overlayd()
                .args(["path", &from.ip, to])
                .output()
                .unwrap();
            (
                output.status.code(),
                String::from_utf8(output.stdout).unwrap(),
            )
        };
        assert_eq!(way(&to.ip).0, Some(0));
        let fdb_del = "mac=$(bridge fdb show dev flannel.1 | grep 'dst 192.168.64.4 ' | cut -d' ' -f1); \
            bridge fdb del $mac dev flannel.1 dst 192.168.64.4 self";
        for (harm, word) in [
            (fdb_del, "no forwarding entry"),
            ("ip neigh flush dev flannel.1 nud permanent", "no neighbour"),
            ("ip route flush dev flannel.1", "no route to"),
            ("ip link set flannel.1 down", "flannel.1 is down"),
            ("ip link del flannel.1", "flannel.1 is not there"),
        ] {
            here.sh(harm).unwrap();
            let (status, text) = way(&to.ip);
            assert!(
                status == Some(1) && text.contains(word),
                "{harm}: {status:?} {text}"
            );
        }
        let (status, text) = way("192.168.191.9");
        assert!(
            status == Some(1) && text.contains("no node leases"),
            "{text}"
        );
        let shown =
            String::from_utf8(here.overlayd().arg("show").output().unwrap().stdout).unwrap();
        assert!(
            shown.contains("2 peers, 2 not as they should be"),
            "{shown}"
        );

        all.nodes[0].start().unwrap();
        let healed =
            |node: &conformance::deployment::Agent| node.ready() && node.shown_ok() == Some(2);
        all.nodes[0]
            .wait(Duration::from_secs(60), "healed", healed)
            .unwrap();
        assert!(from.pings(&to.ip, 3), "{}", all.nodes[0].log());
    });
}
