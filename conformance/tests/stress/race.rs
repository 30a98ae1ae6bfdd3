//! First pods of a node, all at once.

use std::net::IpAddr;
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use testkit::{Pod, in_netns};

use crate::in_kernel;
use crate::node::{Node, addresses};

/// The bridge, its MAC, its gateways: made once, found by 63.
#[test]
fn sixty_four_first_pods_race_for_the_bridge() {
    in_netns(|| {
        let node = Node::new("n");
        let conf = node.conf(json!({}));
        let pods: Vec<Pod> = (0..64).map(|n| Pod::new(&format!("p{n}"))).collect();
        let together = Barrier::new(pods.len());
        let results: Vec<Value> = thread::scope(|scope| {
            let adds: Vec<_> = pods
                .iter()
                .enumerate()
                .map(|(n, pod)| {
                    let (node, conf, together) = (&node, &conf, &together);
                    scope.spawn(move || {
                        let call = node.call("ADD", &format!("c{n}"), pod.netns(), conf);
                        together.wait();
                        node.ok(&call)
                    })
                })
                .collect();
            adds.into_iter().map(|add| add.join().unwrap()).collect()
        });
        let bridge = &node.host.ip_json(&["address", "show", "cbr0"])[0];
        let gateways = bridge["addr_info"].as_array().unwrap().iter();
        let mut gateways: Vec<&str> = gateways
            .filter(|a| a["scope"] == "global")
            .map(|a| a["local"].as_str().unwrap())
            .collect();
        gateways.sort_unstable();
        assert_eq!(gateways, ["10.7.0.1", "fd07::1"]);
        // All were told the MAC it has now.
        for result in &results {
            assert_eq!(result["interfaces"][0]["mac"], bridge["address"]);
        }
        let mut given: Vec<IpAddr> = results.iter().flat_map(addresses).collect();
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 128);
        for (pod, result) in pods.iter().zip(&results) {
            assert_eq!(in_kernel(pod), addresses(result).into_iter().collect());
        }
        for pod in pods.iter().step_by(9) {
            pod.sh("ping -qc1 -W1 10.7.0.1 && ping -qc1 -W1 fd07::1");
        }
        thread::scope(|scope| {
            for (n, pod) in pods.iter().enumerate() {
                let (node, conf) = (&node, &conf);
                scope
                    .spawn(move || node.ok(&node.call("DEL", &format!("c{n}"), pod.netns(), conf)));
            }
        });
        node.state().is_clean().unwrap();
    });
}
