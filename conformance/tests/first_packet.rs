//! What is sent at the moment ADD returns arrives: from and to the node, the other pods, at an address that was
//! another's a moment ago. And what a pod must not be able to send.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Pod, eventually, in_netns, ip_json, sh};

#[path = "bed/network.rs"]
mod network;
#[path = "bed/raw.rs"]
mod raw;

use network::{Attached, Network};

/// Of each family: `::` would be IPv4's as well.
const PORTS: [u16; 2] = [7000, 7001];
/// Less than the second after which the kernel asks again for a neighbour.
const AT_ONCE: Duration = Duration::from_millis(900);
const GATEWAY: [&str; 2] = ["10.40.1.1", "fd00:40:1::1"];

/// A network on `cbr0` whose pods get addresses from `first` to `last` (of either family).
fn range(name: &str, first: u8, last: u8) -> Network {
    let set = |subnet: &str, host: &str| {
        let (start, end) = (format!("{host}{first}"), format!("{host}{last}"));
        json!([{"subnet": subnet, "rangeStart": start, "rangeEnd": end}])
    };
    let ranges = [
        set("10.40.1.0/24", "10.40.1."),
        set("fd00:40:1::/64", "fd00:40:1::"),
    ];
    Network::bridge("cbr0", &json!({"ranges": ranges}), &json!({"ipMasq": true})).named(name)
}

/// Sockets, one of each family, that were open before there was a network: nothing but the packet is left to be done.
struct Sockets([UdpSocket; 2]);

impl Sockets {
    fn open() -> Sockets {
        let any: [IpAddr; 2] = [[0; 4].into(), [0u16; 8].into()];
        Sockets([0, 1].map(|family| {
            let socket = UdpSocket::bind((any[family], PORTS[family])).unwrap();
            socket.set_read_timeout(Some(AT_ONCE)).unwrap();
            socket
        }))
    }

    fn of(pod: &Pod) -> Sockets {
        pod.run(Sockets::open)
    }

    /// Sends a datagram, and returns what is in it.
    fn send(&self, ip: &str) -> [u8; 4] {
        static SENT: AtomicU32 = AtomicU32::new(0);
        let target: IpAddr = ip.parse().unwrap();
        let family = usize::from(target.is_ipv6());
        let text = SENT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.0[family]
            .send_to(&text, (target, PORTS[family]))
            .unwrap();
        text
    }

    /// Whether one datagram to that address arrives there at once, and one answer back.
    fn exchange(&self, peer: &Sockets, ip: &str) -> bool {
        let family = usize::from(ip.contains(':'));
        let (here, there) = (&self.0[family], &peer.0[family]);
        let text = self.send(ip);
        let Some(from) = arrives(there, text) else {
            return false;
        };
        there.send_to(&text, from).unwrap();
        arrives(here, text).is_some()
    }
}

/// Waits for this datagram, and says whom it is from. Earlier ones that waited for a neighbour may come before it.
fn arrives(at: &UdpSocket, text: [u8; 4]) -> Option<SocketAddr> {
    let mut got = [0; 4];
    loop {
        let (_, from) = at.recv_from(&mut got).ok()?;
        if got == text {
            return Some(from);
        }
    }
}

/// MAC of an IPv4 or IPv6 neighbour, as the pod remembers it.
fn remembered(pod: &Attached, ip: &str) -> Option<String> {
    let entries = pod.pod.ip_json(&["neigh", "show", "to", ip, "dev", "eth0"]);
    entries[0]["lladdr"].as_str().map(str::to_owned)
}

/// The pod that had the address spoke with the node and with another pod. Its successor, with another MAC, is reached
/// by the first packet of either, whoever speaks first, and reaches them.
#[test]
fn an_address_that_is_given_again_answers_at_once() {
    in_netns(|| {
        let node = Sockets::open();
        let bystanders = range("bystanders", 100, 110);
        let bystander = bystanders.attach("bystander");
        let at_bystander = Sockets::of(&bystander.pod);
        let network = range("cbr0", 5, 5);
        let mut last_mac = String::new();
        for round in 0..12 {
            let pod = Pod::new(&format!("pod{round}"));
            let in_pod = Sockets::of(&pod);
            let new = network.attach_pod(pod, &format!("pod{round}"));
            assert_eq!((new.ip(0), new.ip(1)), ("10.40.1.5", "fd00:40:1::5"));
            assert_ne!(new.mac(), last_mac);
            let family = round % 2;
            for family in [family, 1 - family] {
                let (own, its) = (new.ip(family), bystander.ip(family));
                let ok = match round / 2 % 3 {
                    0 => at_bystander.exchange(&in_pod, own) && node.exchange(&in_pod, own),
                    1 => node.exchange(&in_pod, own) && at_bystander.exchange(&in_pod, own),
                    _ => {
                        in_pod.exchange(&at_bystander, its)
                            && in_pod.exchange(&node, GATEWAY[family])
                    }
                };
                assert!(
                    ok,
                    "round {round}, {own}: the bystander knows {:?}, it is {}",
                    remembered(&bystander, own),
                    new.mac()
                );
                assert_eq!(
                    remembered(&bystander, own).as_deref(),
                    Some(new.mac()),
                    "round {round}"
                );
            }
            last_mac = new.mac().to_owned();
            let ips = [new.ip(0).to_owned(), new.ip(1).to_owned()];
            new.detach();
            // Nobody told the bystander, so the test is one.
            for ip in &ips {
                assert_eq!(
                    remembered(&bystander, ip).as_ref(),
                    Some(&last_mac),
                    "round {round}"
                );
            }
            // Some ask in vain before the successor comes.
            if round % 3 == 2 {
                for ip in &ips {
                    bystander.pod.sh(&format!("ip neigh del {ip} dev eth0"));
                    at_bystander.send(ip);
                }
            }
        }
        bystander.detach();
    });
}

/// Of two addresses the one that was free longest is given: the other pod of the network is not disturbed.
#[test]
fn two_pods_that_change_places_answer_at_once() {
    in_netns(|| {
        let node = Sockets::open();
        let network = range("cbr0", 5, 6);
        let start = |id: &str| {
            let pod = Pod::new(id);
            let sockets = Sockets::of(&pod);
            (network.attach_pod(pod, id), sockets)
        };
        let mut stays = start("pod0");
        for round in 1..10 {
            let comes = start(&format!("pod{round}"));
            for family in [0, 1] {
                assert!(
                    stays.1.exchange(&comes.1, comes.0.ip(family)),
                    "round {round}"
                );
                assert!(node.exchange(&comes.1, comes.0.ip(family)), "round {round}");
                assert!(
                    comes.1.exchange(&stays.1, stays.0.ip(family)),
                    "round {round}"
                );
            }
            stays.0.detach();
            stays = comes;
        }
        stays.0.detach();
    });
}

/// Connections of the address's last owner are forgotten when another pod gets it, and no others.
#[test]
fn connections_of_the_last_owner_are_forgotten() {
    /// UDP, original and reply: of the pod as client (masqueraded), as server, as server behind a service. Each family's.
    const OF_THE_POD: [(&str, &str); 6] = [
        ("-s 10.40.1.5 -d 1.1.1.1", "-r 1.1.1.1 -q 10.140.0.11"),
        ("-s 10.40.1.7 -d 10.40.1.5", "-r 10.40.1.5 -q 10.40.1.7"),
        (
            "-s 10.40.1.7 -d 192.168.199.234",
            "-r 10.40.1.5 -q 10.40.1.7",
        ),
        (
            "-s fd00:40:1::5 -d 2001:db8::1",
            "-r 2001:db8::1 -q fd00:40:1::5",
        ),
        (
            "-s fd00:40:1::7 -d fd00:40:1::5",
            "-r fd00:40:1::5 -q fd00:40:1::7",
        ),
        (
            "-s fd00:40:1::7 -d fd00:96::1",
            "-r fd00:40:1::5 -q fd00:40:1::7",
        ),
    ];
    const OF_OTHERS: [(&str, &str); 4] = [
        ("-s 10.40.1.50 -d 1.1.1.1", "-r 1.1.1.1 -q 10.140.0.11"),
        ("-s 10.40.1.7 -d 10.40.1.50", "-r 10.40.1.50 -q 10.40.1.7"),
        (
            "-s fd00:40:1::55 -d 2001:db8::1",
            "-r 2001:db8::1 -q fd00:40:1::55",
        ),
        (
            "-s 10.140.0.11 -d 10.140.0.1",
            "-r 10.140.0.1 -q 10.140.0.11",
        ),
    ];
    /// Each from a port of its own.
    fn remember(entries: &[(&str, &str)], first_port: usize) {
        for (at, (original, reply)) in entries.iter().enumerate() {
            let port = first_port + at;
            sh(&format!(
                "conntrack -I -p udp {original} --sport {port} --dport 53 {reply} --reply-port-src 53 --reply-port-dst {port} -t 600 2>&1"
            ));
        }
    }
    /// Ports of the clients.
    fn remembered() -> Vec<usize> {
        let both =
            sh("conntrack -L -p udp -f ipv4 2>/dev/null; conntrack -L -p udp -f ipv6 2>/dev/null");
        let port = |line: &str| {
            let (_, rest) = line.split_once("sport=").unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        let mut ports: Vec<usize> = both
            .lines()
            .map(port)
            .filter(|port| *port >= 1000)
            .collect();
        ports.sort_unstable();
        ports
    }
    in_netns(|| {
        let network = range("cbr0", 5, 5);
        let old = network.attach("old");
        remember(&OF_OTHERS, 1000);
        remember(&OF_THE_POD, 2000);
        assert_eq!(remembered().len(), 10);
        old.detach();
        // IPv6's stay until somebody gets the address: looking for them is dear.
        assert_eq!(remembered(), [1000, 1001, 1002, 1003, 2003, 2004, 2005]);
        // Clients that go on.
        remember(&OF_THE_POD[..3], 3000);
        let new = network.attach("new");
        assert_eq!(remembered(), [1000, 1001, 1002, 1003]);
        new.detach();
    });
}

/// The first pod of a bridge that did not exist, or had lost its last port (and with it its carrier).
#[test]
fn the_first_pod_of_a_bridge_reaches_its_gateway_at_once() {
    in_netns(|| {
        let node = Sockets::open();
        let network = range("cbr0", 5, 200);
        for round in 0..40 {
            if round % 2 == 0 {
                sh("ip link del cbr0 2>/dev/null || true");
            }
            let pod = Pod::new("pod");
            let in_pod = Sockets::of(&pod);
            let pod = network.attach_pod(pod, &format!("pod{round}"));
            let family = round / 2 % 2;
            for family in [family, 1 - family] {
                // One way round, or the other.
                let ok = if round / 4 % 2 == 0 {
                    in_pod.exchange(&node, GATEWAY[family])
                } else {
                    node.exchange(&in_pod, pod.ip(family))
                };
                assert!(ok, "round {round}: {}", pod.ip(family));
            }
            pod.detach();
        }
    });
}

/// Where the node has no IPv6 forwarding, its interfaces listen to routers. A pod is none: CVE-2020-10749.
#[test]
fn a_pod_that_poses_as_a_router_changes_no_route_of_the_node() {
    in_netns(|| {
        sh("sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv6.conf.default.accept_ra=1");
        let network = Network::bridge("cbr0", &json!({"subnet": "10.40.1.0/24"}), &json!({}));
        // A bridge that ADD makes; one that was there, made by hand, with the kernel's own settings or stubborn ones.
        let found = [
            "",
            "ip link add cbr0 type bridge; ip link set cbr0 up",
            "ip link add cbr0 type bridge; sysctl -qw net.ipv6.conf.cbr0.accept_ra=2",
        ];
        for (round, setup) in found.into_iter().enumerate() {
            sh(setup);
            let rogue = network.attach(&format!("rogue{round}"));
            // What the same advertisement does to an interface that nobody protects.
            sh(&format!(
                "ip link add control type veth peer eth1 netns {}; ip link set control up",
                rogue.pod.netns()
            ));
            rogue.pod.sh("ip link set eth1 up");
            // Not only the kernel's own addresses have to be there: IPv6 discards what comes to a tentative interface.
            eventually(Duration::from_secs(60), || {
                sh("ip -6 addr show tentative").is_empty()
                    && rogue.pod.sh("ip -6 addr show tentative").is_empty()
            });
            let before = node_routes("cbr0");
            rogue.pod.run(|| raw::advertise("eth0"));
            rogue.pod.run(|| raw::advertise("eth1"));
            let fell_for_it = |dev: &str| {
                let routes = sh(&format!(
                    "ip -6 route show dev {dev}; ip -6 addr show dev {dev}"
                ));
                routes.contains("default via fe80::") && routes.contains("2001:db8:bad:")
            };
            eventually(Duration::from_secs(60), || fell_for_it("control"));
            assert!(!fell_for_it("cbr0"), "{}", sh("ip -6 route; ip -6 addr"));
            assert_eq!(node_routes("cbr0"), before, "{setup}");
            rogue.detach();
            sh("ip link del cbr0; ip link del control 2>/dev/null || true");
        }
    });
}

/// IPv6 routes and addresses of the node by that interface.
fn node_routes(dev: &str) -> (Value, String) {
    let routes = ip_json(&["-6", "route", "show", "table", "all", "dev", dev]);
    (routes, sh(&format!("ip -6 -o addr show dev {dev}")))
}
