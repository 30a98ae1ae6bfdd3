//! Three nodes of a flannel network, six endpoints, and clients that are told whom they reached and as whom.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use conformance::fleet::{Fleet, NETWORK, NETWORK6, Node, Space, VNI};
use fabric::firewall::{self, Prefixes, Rules};
use fabric::{Backend, Fabric, Kind, Others, Own, OwnSide, Parent, Peer, Peers, Site, Vtep, Vxlan};
use libcni::kernel::nft::Netfilter;
use libcni::kernel::{Mac, link};
use libcni::nl::{ROUTE, Socket};
use serde_json::Value;

use crate::{CLUSTER_IP, NODE_PORT, PORT, TARGET_PORT};

pub const PATIENCE: Duration = Duration::from_secs(2);

pub struct Bed {
    pub fleet: Fleet,
    /// Two on each node; each listens.
    pub endpoints: Vec<PodOf>,
}

/// A pod, and its address.
pub struct PodOf {
    pub space: Space,
    pub ip: Ipv4Addr,
}

/// What an endpoint says to whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub endpoint: Ipv4Addr,
    /// Whom it sees.
    pub client: Ipv4Addr,
}

/// What kube-proxy has to know.
pub struct Service {
    pub name: &'static str,
    pub cluster_ip: Ipv4Addr,
    pub port: u16,
    pub node_port: u16,
    pub endpoints: Vec<(Ipv4Addr, u16)>,
}

// === impl Bed ===

impl Bed {
    /// Without any packet filtering.
    pub fn new() -> Bed {
        let fleet = Fleet::new(3).unwrap();
        // As in a cluster that is moving over: two nodes are ours, the other's overlay is as flannel makes it.
        for (number, node) in fleet.nodes.iter().enumerate() {
            if number == 1 {
                node.vxlan_by_hand(&fleet.nodes).unwrap();
            } else {
                node.space.run(|| converge(node, &fleet)).unwrap();
            }
        }
        let nodes = fleet.nodes.iter();
        let endpoints = nodes
            .flat_map(|node| [2, 3].map(|host| PodOf::by_hand(node, host)))
            .collect();
        let bed = Bed { fleet, endpoints };
        bed.endpoints.iter().for_each(PodOf::listen);
        bed
    }

    pub fn service(&self) -> Service {
        Service {
            name: "shop/web",
            cluster_ip: CLUSTER_IP,
            port: PORT,
            node_port: NODE_PORT,
            endpoints: self
                .endpoints
                .iter()
                .map(|pod| (pod.ip, TARGET_PORT))
                .collect(),
        }
    }

    /// Our rules, on one node.
    pub fn ensure_rules(&self, node: usize) -> bool {
        let node = &self.fleet.nodes[node];
        let prefixes = |network: &str, subnet: String| Prefixes {
            network: network.parse().unwrap(),
            subnet: subnet.parse().unwrap(),
        };
        let rules = Rules {
            name: String::new(),
            v4: Some(prefixes(NETWORK, node.subnet())),
            v6: Some(prefixes(NETWORK6, node.subnet6())),
            masquerade: true,
            forward: true,
            random_fully: true,
        };
        let ensured = node
            .space
            .run(|| firewall::ensure(&mut Netfilter::unopened(), &rules));
        ensured.unwrap().unwrap()
    }
}

/// Our own overlay on a node; the calling thread is there.
fn converge(node: &Node, fleet: &Fleet) {
    let mut sock = Socket::open(ROUTE).unwrap();
    let eth0 = link::get(&mut sock, "eth0").unwrap().unwrap();
    let side = |network: &str, subnet: String, v6| OwnSide {
        network: network.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        local: address(node, v6),
        mac: Mac::parse(&node.mac(v6)).unwrap(),
    };
    let own = Own {
        backend: Backend::Vxlan(Vxlan::default()),
        parent: Parent {
            index: eth0.index,
            name: eth0.name,
            mtu: eth0.mtu,
            v4: Some(node.address()),
            v6: Some(node.address6()),
        },
        v4: Some(side(NETWORK, node.subnet(), false)),
        v6: Some(side(NETWORK6, node.subnet6(), true)),
    };
    let site = |node: &Node, subnet: String, v6| Site {
        subnet: subnet.parse().unwrap(),
        public_ip: address(node, v6),
        vtep: Some(Vtep {
            mac: Mac::parse(&node.mac(v6)).unwrap(),
            vni: Some(VNI),
        }),
    };
    let others = fleet.nodes.iter().filter(|other| other.name != node.name);
    let peers: Peers = others
        .map(|other| {
            let peer = Peer {
                name: other.name.clone(),
                kind: Kind::Vxlan,
                v4: Some(site(other, other.subnet(), false)),
                v6: Some(site(other, other.subnet6(), true)),
            };
            (other.name.clone(), Arc::new(peer))
        })
        .collect();
    let report = Fabric::open(own)
        .unwrap()
        .converge(&peers, Others::Remove)
        .unwrap();
    assert!(
        report.failed.is_empty() && report.refused.is_empty(),
        "{report:?}"
    );
}

fn address(node: &Node, v6: bool) -> IpAddr {
    if v6 {
        node.address6().into()
    } else {
        node.address().into()
    }
}

// === impl PodOf ===

impl PodOf {
    pub fn by_hand(node: &Node, host: u8) -> PodOf {
        PodOf {
            space: node.pod_by_hand(host).unwrap(),
            ip: node.pods(host),
        }
    }

    /// Tells everyone who connects, until the test's process ends.
    fn listen(&self) {
        let own = self.ip;
        let listener = self
            .space
            .run(|| TcpListener::bind(("0.0.0.0", TARGET_PORT)).unwrap())
            .unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let IpAddr::V4(peer) = client.peer_addr().unwrap().ip() else {
                    panic!("a listener on 0.0.0.0 met IPv6");
                };
                let said = [own.octets(), peer.octets()].concat();
                let _ = client.write_all(&said);
            }
        });
    }
}

/// One connection. That an answer comes from the address called, TCP itself sees to.
#[track_caller]
pub fn ask(from: &Space, ip: Ipv4Addr, port: u16) -> Heard {
    try_to_ask(from, ip, port, PATIENCE)
        .unwrap_or_else(|e| panic!("{} to {ip}:{port}: {e}", from.name()))
}

pub fn try_to_ask(
    from: &Space,
    ip: Ipv4Addr,
    port: u16,
    patience: Duration,
) -> std::io::Result<Heard> {
    let connect = || {
        let mut server = TcpStream::connect_timeout(&SocketAddr::from((ip, port)), patience)?;
        server.set_read_timeout(Some(patience))?;
        let mut said = [0; 8];
        server.read_exact(&mut said).map(|()| said)
    };
    let [a, b, c, d, e, f, g, h] = from.run(connect).unwrap()?;
    Ok(Heard {
        endpoint: [a, b, c, d].into(),
        client: [e, f, g, h].into(),
    })
}

/// Connections until the endpoints reached (with how often) are as wished. With each endpoint at one sixth, 200 times without some
/// one of them happens once in 10^15 runs.
#[track_caller]
pub fn ask_until(
    from: &Space,
    ip: Ipv4Addr,
    port: u16,
    mut enough: impl FnMut(&BTreeMap<Ipv4Addr, usize>) -> bool,
) -> Vec<Heard> {
    let mut spread = BTreeMap::new();
    let mut all = Vec::new();
    while !enough(&spread) {
        assert!(
            all.len() < 200,
            "{} to {ip}:{port} reached only {spread:?}",
            from.name()
        );
        let heard = ask(from, ip, port);
        *spread.entry(heard.endpoint).or_default() += 1;
        all.push(heard);
    }
    all
}

/// How many connections our own rules have masqueraded on a node.
pub fn masqueraded_by_us(node: &Node) -> u64 {
    let listed = node
        .space
        .sh("nft -j list chain inet podwire-overlay masquerading")
        .unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let rules = listed["nftables"].as_array().unwrap().iter();
    let exprs = rules.filter_map(|object| object["rule"]["expr"].as_array());
    exprs
        .filter(|exprs| exprs.iter().any(|expr| expr.get("masquerade").is_some()))
        .flatten()
        .filter_map(|expr| expr["counter"]["packets"].as_u64())
        .sum()
}
