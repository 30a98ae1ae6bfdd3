//! Nodes that hear of each other by Kubernetes, from the first word of the API server to packets of pods.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use conformance::deployment::{Deployment, Plan, Pod};
use conformance::fleet::OUTSIDE;
use serde_json::{Value, json};
use testkit::in_netns;

use crate::apiserver::{self, ApiServer};
use crate::probe::metrics;

const PREFIX: &str = "flannel.alpha.coreos.com";
const CONF: &str = r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}"#;
const PATIENCE: Duration = Duration::from_secs(60);
const MANY: usize = 5_000;
const RSS_KIB: u64 = 32 * 1024;

/// A Node of a machine that is elsewhere.
fn far(number: usize) -> Value {
    let [.., high, low] = number.to_be_bytes();
    let mut node = apiserver::node(&format!("far{number}"), &[&format!("10.{high}.{low}.0/24")]);
    let data = format!(r#"{{"VNI":1,"VtepMAC":"02:00:5e:77:{high:02x}:{low:02x}"}}"#);
    for (key, value) in [
        ("kube-subnet-manager", "true"),
        ("backend-type", "vxlan"),
        ("backend-data", &data),
        ("public-ip", &format!("172.20.{high}.{low}")),
    ] {
        node["metadata"]["annotations"][format!("{PREFIX}/{key}")] = value.into();
    }
    // kubelet tells of its images, and that is most of it.
    let image = |n| json!({"names": [format!("registry.example/image-{n}@sha256:{n:064}")], "sizeBytes": 123_456_789});
    node["status"]["images"] = (0..20).map(image).collect();
    node
}

/// A figure of a process's memory, KiB.
fn memory(pid: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn three_nodes_then_five_thousand_more() {
    in_netns(|| {
        let dir = Path::new("/run/overlay");
        let mut plan = Plan::new(&testkit::bin_dir(), dir);
        plan.files = false;
        plan.conf = CONF.to_owned();
        let net_conf = dir.join("peers/config");
        plan.options = vec![
            "--kube-subnet-mgr".to_owned(),
            format!("--kube-api-url=http://{OUTSIDE}:6443"),
            format!("--net-config-path={}", net_conf.display()),
        ];
        let mut all = Deployment::new(plan, 3).unwrap();
        let at = SocketAddr::new(OUTSIDE.into(), 6443);
        let api = all.outside.run(|| ApiServer::start_at(at)).unwrap();
        for (number, node) in all.nodes.iter().enumerate() {
            let mut object = apiserver::node(node.name(), &[&format!("10.250.{number}.0/24")]);
            object["status"]["addresses"][1]["address"] = node.node.address().to_string().into();
            api.put(object);
        }
        all.start().unwrap();

        let named = ["p0", "p1", "p2"].iter().zip(&all.nodes);
        let pods: Vec<Pod> = named.map(|(name, node)| node.pod(name).unwrap()).collect();
        for from in &pods {
            for to in &pods {
                assert!(from.pings(&to.ip, 3), "{} -> {}", from.ip, to.ip);
            }
        }
        for (number, node) in all.nodes.iter().enumerate() {
            let mac = node.sh("ip -br link show flannel.1").unwrap();
            let mac = mac.split_whitespace().nth(2).unwrap();
            let annotations = api.annotations(node.name());
            let told = |key: &str| annotations[&format!("{PREFIX}/{key}")].as_str();
            assert_eq!(told("kube-subnet-manager"), "true");
            assert_eq!(told("backend-type"), "vxlan");
            assert_eq!(told("public-ip"), node.node.address().to_string());
            let data = format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#);
            assert_eq!(told("backend-data"), data);
            assert!(pods[number].ip.starts_with(&format!("10.250.{number}.")));
            node.wait(PATIENCE, "the network is available", |node| {
                api.condition(node.name())["status"] == "False"
            })
            .unwrap();
        }

        // One machine is enough to see what many cost.
        all.nodes[1].kill();
        all.nodes[2].kill();
        for number in 0..MANY {
            api.put(far(number));
        }
        let node = &all.nodes[0];
        let want = format!("overlayd_peers_programmed {}\n", MANY + 2);
        node.wait(PATIENCE, &want, |node| metrics(node).contains(&want))
            .unwrap();
        let pid = node.pid().unwrap();
        let figures = ["VmRSS", "VmHWM", "RssAnon"].map(|what| memory(pid, what));
        println!("KiB resident now, at most, and not of files: {figures:?}");
        // Of an executable without optimisation only its own memory counts.
        let [now, _, anon] = figures;
        let counted = if cfg!(debug_assertions) { anon } else { now };
        assert!(counted <= RSS_KIB, "{figures:?} KiB");
        assert!(pods[0].pings(&pods[1].ip, 3) && pods[2].pings(&pods[0].ip, 3));
        drop(api);
    });
}
