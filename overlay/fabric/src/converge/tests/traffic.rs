//! Not one packet between others is lost, whatever happens beside it: streams of numbered datagrams between real nodes
//! (network namespaces on one underlay), counted where they arrive.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use libcni::kernel::{Mac, link};
use libcni::nl::{ROUTE, Socket};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use testkit::{Pod, eventually, in_netns, sh};

use super::fixture::{NOTHING, counts, peers};
use crate::state::PLAIN_ROUTES;
use crate::{Backend, Fabric, Kind, Others, Own, OwnSide, Parent, Peer, Peers, Site, Vtep, Vxlan};

/// A pod's address on nodes that have it, and a port.
const SERVICE: &str = "10.200.0.9:7000";
/// More peers than have plain routes.
const MANY: u16 = 900;
const _: () = assert!((MANY as usize) > PLAIN_ROUTES + 300);

/// Node `n`: 192.0.2.n, 10.200.n.0/24.
struct Place {
    n: u8,
    pod: Option<Pod>,
}

impl Place {
    fn peer(&self) -> Peer {
        self.peer_of(&format!("10.200.{}.0/24", self.n))
    }

    fn peer_of(&self, subnet: &str) -> Peer {
        Peer {
            name: format!("node-{}", self.n),
            kind: Kind::Vxlan,
            v4: Some(Site {
                subnet: subnet.parse().unwrap(),
                public_ip: format!("192.0.2.{}", self.n).parse().unwrap(),
                vtep: Some(Vtep {
                    mac: self.mac(),
                    vni: Some(1),
                }),
            }),
            v6: None,
        }
    }

    fn mac(&self) -> Mac {
        Mac([0x2a, 0xff, 0, 0, 0, self.n])
    }

    /// In the node's namespace.
    fn own(&self, backend: Backend) -> Own {
        let eth0 = link::get(&mut Socket::open(ROUTE).unwrap(), "eth0")
            .unwrap()
            .unwrap();
        Own {
            backend,
            parent: Parent {
                index: eth0.index,
                name: eth0.name,
                mtu: 1500,
                v4: None,
                v6: None,
            },
            v4: Some(OwnSide {
                network: "10.0.0.0/8".parse().unwrap(),
                subnet: format!("10.200.{}.0/24", self.n).parse().unwrap(),
                local: format!("192.0.2.{}", self.n).parse().unwrap(),
                mac: self.mac(),
            }),
            v6: None,
        }
    }

    fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        match &self.pod {
            Some(pod) => pod.run(body),
            None => body(),
        }
    }
}

/// Node 1 is the test's own namespace; the others have the service's address, and hear what comes for it.
struct Cluster {
    nodes: Vec<Place>,
    sent: AtomicU64,
    heard: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    ears: Vec<thread::JoinHandle<()>>,
}

impl Cluster {
    fn new() -> Self {
        sh("ip link add lan0 type bridge; ip link set lan0 up
            ip link add eth0 type veth peer name port1; ip link set port1 master lan0; ip link set port1 up
            ip address add 192.0.2.1/24 dev eth0; ip link set eth0 up");
        let mut nodes = vec![Place { n: 1, pod: None }];
        for n in 2..=3 {
            let pod = Pod::new(&format!("node{n}"));
            sh(&format!(
                "ip link add port{n} type veth peer name eth0 netns {}
                 ip link set port{n} master lan0; ip link set port{n} up",
                pod.netns()
            ));
            pod.sh(&format!(
                "ip address add 192.0.2.{n}/24 dev eth0; ip link set eth0 up; ip link set lo up
                 ip address add 10.200.0.9/32 dev lo
                 for dev in all default; do echo 0 > /proc/sys/net/ipv4/conf/$dev/rp_filter; done"
            ));
            nodes.push(Place { n, pod: Some(pod) });
        }
        let cluster = Self {
            nodes,
            sent: AtomicU64::new(0),
            heard: Arc::default(),
            done: Arc::default(),
            ears: Vec::new(),
        };
        for node in &cluster.nodes[1..] {
            let all = cluster.others(node.n);
            node.run(|| {
                let mut fabric = Fabric::open(node.own(Backend::Vxlan(Vxlan::default()))).unwrap();
                assert_eq!(fabric.converge(&all, Others::Remove).unwrap().failed, []);
            });
        }
        cluster.listen()
    }

    fn listen(mut self) -> Self {
        for node in &self.nodes[1..] {
            let socket = node.run(|| UdpSocket::bind("0.0.0.0:7000").unwrap());
            let _ = setsockopt(&socket, sockopt::RcvBuf, &(1 << 20));
            socket
                .set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            let (heard, done) = (Arc::clone(&self.heard), Arc::clone(&self.done));
            self.ears.push(thread::spawn(move || {
                let mut place = [0; 64];
                while !done.load(Ordering::Relaxed) {
                    if socket.recv(&mut place).is_ok() {
                        heard.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        self
    }

    /// What the directory says to node `n`.
    fn others(&self, n: u8) -> Peers {
        let others = self.nodes.iter().filter(|node| node.n != n);
        others
            .map(|node| (format!("node-{}", node.n), node.peer().into()))
            .collect()
    }

    /// Waits until something has been sent.
    fn some_more(&self) {
        let so_far = self.sent.load(Ordering::Relaxed);
        eventually(Duration::from_secs(5), || {
            self.sent.load(Ordering::Relaxed) > so_far + 5
        });
    }

    /// How many datagrams have come: heard, or to ears that were full, as those of a busy machine are.
    fn arrived(&self) -> u64 {
        let full = |pod: &Pod| -> u64 {
            let errors = pod.sh("nstat -asz UdpRcvbufErrors | awk 'END { print $2 }'");
            errors.trim().parse().unwrap()
        };
        let pods = self.nodes.iter().filter_map(|node| node.pod.as_ref());
        self.heard.load(Ordering::Relaxed) + pods.map(full).sum::<u64>()
    }

    /// Streams to the service from node 1 while `body` runs; every datagram must arrive.
    fn stream(self, body: impl FnOnce(&Self)) {
        let (stop, sent) = (AtomicBool::new(false), &self.sent);
        thread::scope(|scope| {
            scope.spawn(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    // No way is a datagram lost; a full queue is not.
                    let outcome = socket.send_to(&number.to_be_bytes(), SERVICE);
                    let errno = outcome.err().and_then(|e| e.raw_os_error());
                    if errno != Some(Errno::ENOBUFS as i32) {
                        number += 1;
                        sent.store(number, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_micros(400));
                }
            });
            eventually(Duration::from_secs(5), || {
                self.heard.load(Ordering::Relaxed) > 50
            });
            body(&self);
            self.some_more();
            stop.store(true, Ordering::Relaxed);
        });
        let sent = sent.load(Ordering::Relaxed);
        let start = std::time::Instant::now();
        while self.arrived() < sent && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.arrived(), sent, "some of {sent} datagrams were lost");
        assert!(sent > 100, "{sent}");
        self.done.store(true, Ordering::Relaxed);
        for ear in self.ears {
            ear.join().unwrap();
        }
    }
}

/// The service's subnet on a node.
fn service(node: &Place) -> (String, Arc<Peer>) {
    ("service".into(), node.peer_of("10.200.0.0/24").into())
}

fn with(peers: &Peers, more: impl IntoIterator<Item = (String, Arc<Peer>)>) -> Peers {
    let mut all = peers.clone();
    all.extend(more);
    all
}

#[test]
fn untouched_peers_lose_nothing_while_hundreds_come_move_and_go() {
    in_netns(|| {
        let cluster = Cluster::new();
        let own = cluster.nodes[0].own(Backend::Vxlan(Vxlan::default()));
        let mut fabric = Fabric::open(own.clone()).unwrap();
        let base: Peers = [service(&cluster.nodes[1])].into();
        fabric.converge(&base, Others::Remove).unwrap();
        cluster.stream(|_| {
            for round in 0..4_u8 {
                for upto in [100, MANY / 2, MANY, MANY - 100, 20] {
                    let mut others = peers(0..upto);
                    for (at, peer) in others
                        .values_mut()
                        .enumerate()
                        .filter(|(at, _)| at % 3 == 0)
                    {
                        let mut moved = Peer::clone(peer);
                        let site = moved.v4.as_mut().unwrap();
                        site.public_ip = format!("198.19.{round}.{}", at % 250).parse().unwrap();
                        site.vtep.as_mut().unwrap().mac.0[1] = 0x10 + round;
                        *peer = moved.into();
                    }
                    let report = fabric.follow(&with(&base, others), Others::Remove).unwrap();
                    assert_eq!(report.failed, []);
                }
                // Strangers' changes and their repair, and a restart.
                sh("ip route del 10.0.1.0/24; ip neigh del 10.0.2.0 dev flannel.1");
                fabric.doubt();
                fabric
                    .follow(&with(&base, peers(0..20)), Others::Remove)
                    .unwrap();
                fabric = Fabric::open(own.clone()).unwrap();
                fabric
                    .converge(&with(&base, peers(0..20)), Others::Keep)
                    .unwrap();
                fabric.converge(&base, Others::Remove).unwrap();
            }
        });
    });
}

/// The stream itself: it notices a moment without a way.
#[test]
#[should_panic(expected = "datagrams were lost")]
fn a_gap_is_noticed() {
    in_netns(|| {
        let cluster = Cluster::new();
        let own = cluster.nodes[0].own(Backend::Vxlan(Vxlan::default()));
        let mut fabric = Fabric::open(own).unwrap();
        let base: Peers = [service(&cluster.nodes[1])].into();
        fabric.converge(&base, Others::Remove).unwrap();
        cluster.stream(|cluster| {
            fabric.follow(&Peers::new(), Others::Remove).unwrap();
            cluster.some_more();
            fabric.follow(&base, Others::Remove).unwrap();
        });
    });
}

/// From node to node and back, by tunnel: one neighbour is replaced, nothing else is in between.
#[test]
fn a_subnet_that_moves_loses_nothing() {
    in_netns(|| {
        let cluster = Cluster::new();
        let mut fabric =
            Fabric::open(cluster.nodes[0].own(Backend::Vxlan(Vxlan::default()))).unwrap();
        let on = |cluster: &Cluster, at: usize| -> Peers { [service(&cluster.nodes[at])].into() };
        fabric.converge(&on(&cluster, 1), Others::Remove).unwrap();
        cluster.stream(|cluster| {
            for turn in 0..60 {
                let report = fabric
                    .follow(&on(cluster, 1 + turn % 2), Others::Remove)
                    .unwrap();
                assert_eq!(
                    (report.failed.len(), report.messages),
                    (0, if turn == 0 { 0 } else { 3 })
                );
                cluster.some_more();
            }
        });
    });
}

/// In and out of the tunnel as the node comes onto the link and leaves it.
#[test]
fn a_peer_that_changes_its_way_loses_nothing() {
    in_netns(|| {
        let cluster = Cluster::new();
        let ways = [false, true].map(|direct_routing| {
            cluster.nodes[0].own(Backend::Vxlan(Vxlan {
                direct_routing,
                ..Vxlan::default()
            }))
        });
        let mut fabric = Fabric::open(ways[0].clone()).unwrap();
        let base: Peers = [service(&cluster.nodes[1])].into();
        fabric.converge(&base, Others::Remove).unwrap();
        cluster.stream(|cluster| {
            for turn in 1..40 {
                fabric.set_own(ways[turn % 2].clone());
                let report = fabric.follow(&base, Others::Remove).unwrap();
                assert_eq!((report.failed.len(), report.messages), (0, 3));
                let route = sh("ip route get 10.200.0.9");
                assert_eq!(route.contains("dev eth0"), turn % 2 == 1, "{route}");
                cluster.some_more();
            }
        });
    });
}

/// "Done when" 5, the kernel's part of it: `flannel-wire.md` 10.3.3.
#[test]
fn take_over_and_release_lose_nothing() {
    in_netns(|| {
        let cluster = Cluster::new();
        sh("ip link add flannel.1 address 2a:ff:00:00:00:01 mtu 1450 txqueuelen 0 type vxlan id 1 dev eth0 local 192.0.2.1 dstport 8472 nolearning ttl auto
            echo 0 > /proc/sys/net/ipv6/conf/flannel.1/accept_ra
            ip address add 10.200.1.0/32 dev flannel.1; ip link set flannel.1 up
            ip neigh replace 10.200.0.0 lladdr 2a:ff:00:00:00:02 dev flannel.1 nud permanent
            bridge fdb replace 2a:ff:00:00:00:02 dev flannel.1 dst 192.0.2.2 self permanent
            ip route replace 10.200.0.0/24 via 10.200.0.0 dev flannel.1 onlink");
        let base: Peers = [service(&cluster.nodes[1])].into();
        let own = cluster.nodes[0].own(Backend::Vxlan(Vxlan::default()));
        cluster.stream(|_| {
            let mut fabric = Fabric::open(own.clone()).unwrap();
            assert_eq!(counts(&fabric.converge(&base, Others::Remove).unwrap()), NOTHING);
            for _ in 0..5 {
                // By a next hop object, too: it is a newcomer among many.
                let many = with(&base, peers(0..MANY));
                sh("ip route replace 10.200.0.0/24 via 192.0.2.2 dev eth0; ip route append 10.200.0.0/24 via 192.0.2.2 dev eth0 metric 9");
                fabric.doubt();
                assert_eq!(fabric.follow(&many, Others::Remove).unwrap().failed, []);
                assert!(sh("ip route show 10.200.0.0/24").contains("nhid"));
                assert_eq!(fabric.release().unwrap().failed, []);
                assert!(!sh("ip route show 10.200.0.0/24").contains("nhid"));
                assert_eq!(fabric.converge(&base, Others::Remove).unwrap().failed, []);
                sh("ip route del 10.200.0.0/24 metric 9");
            }
        });
    });
}
