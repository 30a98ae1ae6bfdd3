//! Nodes without agents: namespaces on one underlay, which is a bridge in the test's own. Not every test file uses all
//! of it.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::{Call, Output, Pod, bin_dir, sh};

/// Node `n` is at 192.0.2.n and 2001:db8::n, with 10.244.n.0/24 and fd00:244:0:n::/64.
pub struct Fleet {
    dir: tempfile::TempDir,
    nodes: Vec<Pod>,
    dual: bool,
}

/// The MAC of a node's VTEP, as the file has it.
pub fn mac(n: usize) -> String {
    format!("2a:00:00:00:00:{n:02x}")
}

// === impl Fleet ===

impl Fleet {
    pub fn new(count: usize, dual: bool) -> Self {
        sh("ip link add underlay type bridge; ip link set underlay up");
        let nodes = (1..=count).map(|n| {
            let node = Pod::new(&format!("node{n}"));
            sh(&format!("ip link add u{n} type veth peer name eth0 netns node{n}; ip link set u{n} master underlay up"));
            node.sh(&format!(
                "ip link set lo up; ip link set eth0 up; ip address add 192.0.2.{n}/24 dev eth0
                ip address add 2001:db8::{n}/64 dev eth0 nodad; ip route add default via 192.0.2.254 dev eth0
                sysctl -qw net.ipv6.conf.all.forwarding=1"
            ));
            node
        });
        let fleet = Self {
            nodes: nodes.collect(),
            dir: tempfile::tempdir().unwrap(),
            dual,
        };
        fleet.peers(&fleet.listed(1..=count));
        fleet
    }

    pub fn node(&self, n: usize) -> &Pod {
        &self.nodes[n - 1]
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn entry(&self, n: usize) -> (String, Value) {
        let data = json!({"VNI": 1, "VtepMAC": mac(n)});
        let mut value = json!({"PublicIP": format!("192.0.2.{n}"), "PublicIPv6": null, "BackendType": "vxlan", "BackendData": data});
        if !self.dual {
            return (format!("10.244.{n}.0-24"), value);
        }
        value["PublicIPv6"] = format!("2001:db8::{n:x}").into();
        value["BackendV6Data"] = data;
        (format!("10.244.{n}.0-24&fd00:244:0:{n:x}::-64"), value)
    }

    pub fn listed(&self, nodes: impl IntoIterator<Item = usize>) -> Value {
        Value::Object(nodes.into_iter().map(|n| self.entry(n)).collect())
    }

    /// What the peers file says from now on.
    pub fn peers(&self, peers: &Value) {
        fs::write(self.at("peers.json"), peers.to_string()).unwrap();
    }

    pub fn conf(&self, n: usize) -> Value {
        let networks = ["10.244.0.0/16", "fd00:244::/48"];
        let networks = &networks[..1 + usize::from(self.dual)];
        json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "overlay",
            "vxlan": {"VNI": 1}, "networks": networks, "peersFile": self.at("peers.json"),
            "macFile": self.at(&format!("mac{n}")), "dataDir": self.at(&format!("data{n}")),
            "ipam": {"dataDir": self.at(&format!("store{n}"))},
            "delegate": {"isDefaultGateway": true},
        })
    }

    /// A verb on a node.
    pub fn call(&self, n: usize, verb: &str, pod: &Pod) -> Call {
        Call::new(env!("CARGO_BIN_EXE_overlay"))
            .verb(verb)
            .container("c1")
            .netns(pod.netns())
            .ifname("eth0")
            .cni_path(bin_dir())
            .stdin(self.conf(n).to_string())
    }

    pub fn run(&self, n: usize, call: &Call) -> Output {
        self.node(n).run(|| call.run())
    }

    #[track_caller]
    pub fn ok(&self, n: usize, call: &Call) -> Value {
        self.node(n).run(|| call.ok())
    }

    #[track_caller]
    pub fn err(&self, n: usize, call: &Call) -> Value {
        self.node(n).run(|| call.err())
    }

    /// A pod on a node, attached.
    #[track_caller]
    pub fn attach(&self, n: usize) -> (Pod, Value) {
        let pod = Pod::new(&format!("pod{n}"));
        let result = self.ok(n, &self.call(n, "ADD", &pod));
        (pod, result)
    }

    /// What a node's kernel has of the overlay, as its tools print it.
    pub fn tables(&self, n: usize) -> String {
        self.node(n).sh(
            "ip -d link show type vxlan | sed 's/ numtxqueues.*//'; ip address show dev flannel.1 | grep 'inet '
            ip route show | grep flannel; ip -6 route show | grep flannel || :; ip neigh show nud permanent
            bridge fdb show | grep flannel || :; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'",
        )
    }
}
