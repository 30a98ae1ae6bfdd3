//! What the documents about pod networks describe, with their own addresses: nodes, pods and the world outside are
//! network namespaces.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Pod, eventually, in_netns, ip_json, sh};

#[path = "scenes/multicast.rs"]
mod multicast;
#[path = "bed/network.rs"]
mod network;
#[path = "bed/raw.rs"]
mod raw;

use network::{Attached, Network, PATIENCE, node_reaches, store};

fn cbr0(more: &Value) -> Network {
    Network::bridge(
        "cbr0",
        &json!({"ranges": [[{"subnet": "10.40.1.0/24"}]]}),
        more,
    )
}

/// A process of a pod that says its name to everyone who connects, until it is dropped.
struct Server {
    listener: TcpListener,
    name: &'static str,
}

impl Server {
    fn start(pod: &Pod, name: &'static str, port: u16) -> Result<Server, std::io::Error> {
        let listener = pod.run(|| TcpListener::bind((IpAddr::from([0; 4]), port)))?;
        Ok(Server { listener, name })
    }

    /// What is said to a client that connects from where it is.
    fn answers(&self, connect: impl FnOnce() -> TcpStream) -> String {
        let mut client = connect();
        let (mut accepted, _) = self.listener.accept().unwrap();
        accepted.write_all(self.name.as_bytes()).unwrap();
        drop(accepted);
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        said
    }
}

fn connect(ip: &str, port: u16) -> TcpStream {
    TcpStream::connect_timeout(&SocketAddr::new(ip.parse().unwrap(), port), PATIENCE).unwrap()
}

#[test]
fn scene_1_the_pod_is_a_shared_network_stack() {
    in_netns(|| {
        let network = cbr0(&json!({}));
        let pause = network.attach("pause");
        let outside = network.attach("outside");
        let one = Server::start(&pause.pod, "one", 8001).unwrap();
        let two = Server::start(&pause.pod, "two", 8002).unwrap();

        // On localhost, and under the pod's one address from another pod and from the node.
        for (server, port) in [(&one, 8001), (&two, 8002)] {
            let from_pod = |ip| server.answers(|| pause.pod.run(|| connect(ip, port)));
            assert_eq!(from_pod("127.0.0.1"), server.name);
            assert_eq!(from_pod(pause.ip(0)), server.name);
            let from_outside = server.answers(|| outside.pod.run(|| connect(pause.ip(0), port)));
            assert_eq!(from_outside, server.name);
            assert_eq!(server.answers(|| connect(pause.ip(0), port)), server.name);
        }

        // One port, one owner: within the pod, not across pods.
        let third = Server::start(&pause.pod, "three", 8001).err().unwrap();
        assert_eq!(third.kind(), ErrorKind::AddrInUse);
        Server::start(&outside.pod, "elsewhere", 8001).unwrap();

        eventually(Duration::from_secs(60), || {
            stack(&pause).contains("local fe80:")
                && pause.pod.sh("ip -6 -o addr show tentative").is_empty()
        });
        let before = stack(&pause);
        drop(two);
        let two = Server::start(&pause.pod, "two again", 8002).unwrap();
        assert_eq!(stack(&pause), before);
        let said = two.answers(|| outside.pod.run(|| connect(pause.ip(0), 8002)));
        assert_eq!(said, "two again");
        drop((one, two));
        pause.detach();
        outside.detach();
    });
}

/// What a pod has, but for IPv6's own link-local addresses, which come in their own time.
fn stack(pod: &Attached) -> String {
    pod.pod
        .sh("ip -o link; ip -4 -o addr; ip route show table all")
}

#[test]
fn scene_2_same_node() {
    in_netns(|| {
        let network = cbr0(&json!({}));
        let web = network.attach("web");
        let client = network.attach("client");
        assert_eq!((web.ip(0), client.ip(0)), ("10.40.1.2", "10.40.1.3"));

        // cbr0 holds the first address of the node's subnet.
        let bridge = sh("ip -4 -br addr show dev cbr0");
        let bridge: Vec<&str> = bridge.split_whitespace().collect();
        assert_eq!(bridge, ["cbr0", "UP", "10.40.1.1/24"]);

        // eth0 is one end of a veth pair, the other one a port of cbr0, hairpin on.
        for pod in [&web, &client] {
            let end = &pod.pod.ip_json(&["-d", "link", "show", "dev", "eth0"])[0];
            let port = &ip_json(&["-d", "link", "show", "dev", pod.host_end()])[0];
            assert_eq!(end["linkinfo"]["info_kind"], "veth");
            assert_eq!(port["linkinfo"]["info_kind"], "veth");
            assert_eq!(
                (&end["link_index"], &port["link_index"]),
                (&port["ifindex"], &end["ifindex"])
            );
            assert_eq!(
                (&port["master"], &end["address"]),
                (&json!("cbr0"), &json!(pod.mac()))
            );
            let settings = &port["linkinfo"]["info_slave_data"];
            assert_eq!(
                (&settings["hairpin"], &settings["state"]),
                (&json!(true), &json!("forwarding"))
            );
        }

        // Routes: these and no others.
        assert_eq!(
            web.pod.sh("ip route"),
            "default via 10.40.1.1 dev eth0 \n10.40.1.0/24 dev eth0 proto kernel scope link src 10.40.1.2 \n"
        );

        // Pod to pod is one hop of layer 2: a packet that may not be forwarded arrives, and ARP asked for the peer only.
        web.pod.exec(&["ping", "-c1", "-W1", "-t1", "10.40.1.3"]);
        assert_eq!(
            neighbours(&web),
            BTreeMap::from([("10.40.1.3".into(), client.mac().into())])
        );

        // The node pings the pod, and the pod its gateway.
        assert!(node_reaches("10.40.1.2") && web.reaches("10.40.1.1"));

        // A second bridge on the node: two hops, the first is the gateway.
        let docker0 = Network::bridge("docker0", &json!({"subnet": "172.17.0.0/16"}), &json!({}));
        let container = docker0.attach("container");
        assert_eq!(container.ip(0), "172.17.0.2");
        let first = web
            .pod
            .command("ping")
            .args(["-n", "-c1", "-W1", "-t1", "172.17.0.2"])
            .output()
            .unwrap();
        let first = String::from_utf8(first.stdout).unwrap();
        assert!(
            first.contains("From 10.40.1.1 icmp_seq=1 Time to live exceeded"),
            "{first}"
        );
        let second = web
            .pod
            .exec(&["ping", "-n", "-c1", "-W1", "-t2", "172.17.0.2"]);
        assert!(
            second.contains("64 bytes from 172.17.0.2: icmp_seq=1 ttl=63"),
            "{second}"
        );
        let hops = web.pod.exec(&[
            "busybox",
            "traceroute",
            "-n",
            "-q1",
            "-w1",
            "-m3",
            "172.17.0.2",
        ]);
        let hops: Vec<&str> = hops
            .lines()
            .skip(1)
            .filter_map(|hop| hop.split_whitespace().nth(1))
            .collect();
        assert_eq!(hops, ["10.40.1.1", "172.17.0.2"]);

        for pod in [web, client, container] {
            pod.detach();
        }
        assert_eq!(sh("ip -o link show type veth"), "");
    });
}

/// As flannel writes it: the bridge `cni0`, and a route to the whole cluster besides the default one.
#[test]
fn scene_2_under_flannel() {
    in_netns(|| {
        let ipam = json!({"subnet": "192.168.132.0/24", "routes": [{"dst": "192.168.128.0/18"}]});
        let network = Network::bridge("cni0", &ipam, &json!({"mtu": 1450}));
        let pod = network.attach("pod");
        assert_eq!(
            pod.pod.sh("ip route"),
            "default via 192.168.132.1 dev eth0 \n\
             192.168.128.0/18 via 192.168.132.1 dev eth0 \n\
             192.168.132.0/24 dev eth0 proto kernel scope link src 192.168.132.2 \n"
        );
        let bridge = sh("ip -4 -br addr show dev cni0");
        let bridge: Vec<&str> = bridge.split_whitespace().collect();
        assert_eq!(bridge, ["cni0", "UP", "192.168.132.1/24"]);
        for link in [
            sh("ip -o link show cni0"),
            sh(&format!("ip -o link show {}", pod.host_end())),
            pod.pod.sh("ip -o link show eth0"),
        ] {
            assert!(link.contains(" mtu 1450 "), "{link}");
        }
        assert!(pod.reaches("192.168.132.1") && node_reaches("192.168.132.2"));
        pod.detach();
    });
}

/// IPv4 neighbours that the pod found.
fn neighbours(pod: &Attached) -> BTreeMap<String, String> {
    let found = pod.pod.ip_json(&["-4", "neigh", "show", "dev", "eth0"]);
    let pair = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        (text("dst"), text("lladdr"))
    };
    found.as_array().unwrap().iter().map(pair).collect()
}

/// The node 10.140.0.11 and what is beyond it, which knows no way to the pods.
struct World {
    netns: Pod,
}

const NODE: [&str; 2] = ["10.140.0.11", "2001:db8:140::11"];
const WORLD: [&str; 2] = ["10.140.0.1", "2001:db8:140::1"];

impl World {
    fn new() -> World {
        let netns = Pod::new("world");
        sh(&format!(
            "ip link add uplink type veth peer eth0 netns {world}; ip link set uplink up
             ip addr add 10.140.0.11/24 dev uplink; ip -6 addr add 2001:db8:140::11/64 dev uplink nodad
             ip route add default via 10.140.0.1; ip -6 route add default via 2001:db8:140::1",
            world = netns.netns()
        ));
        netns.sh("ip link set lo up; ip link set eth0 up
             ip addr add 10.140.0.1/24 dev eth0; ip -6 addr add 2001:db8:140::1/64 dev eth0 nodad");
        World { netns }
    }
}

/// The source addresses that `to` sees of TCP, UDP and ICMP packets to its address `ip`, sent by `from`.
fn sources(from: &Pod, to: &Pod, ip: &str) -> [IpAddr; 3] {
    let target = SocketAddr::new(ip.parse().unwrap(), 7000);
    let any: IpAddr = if target.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    let udp = to.run(|| UdpSocket::bind((any, 7000)).unwrap());
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    from.run(|| {
        UdpSocket::bind((any, 0))
            .unwrap()
            .send_to(b"x", target)
            .unwrap()
    });
    let (_, of_udp) = udp.recv_from(&mut [0; 8]).expect(ip);

    let tcp = to.run(|| TcpListener::bind((any, 7000)).unwrap());
    let connected = from.run(|| TcpStream::connect_timeout(&target, PATIENCE).expect(ip));
    let (_, of_tcp) = tcp.accept().unwrap();
    drop(connected);

    // Only to a source that it knows a way to can it send the answer.
    let heard = to.run(|| multicast::Echoes::listen(target.is_ipv4()));
    from.exec(&["ping", "-n", "-c1", "-W2", ip]);
    [of_tcp.ip(), of_udp.ip(), heard.next_source()]
}

fn masqueraded() -> Network {
    let ipam = json!({"ranges": [[{"subnet": "10.40.1.0/24"}], [{"subnet": "fd00:40:1::/64"}]]});
    Network::bridge("cbr0", &ipam, &json!({"ipMasq": true}))
}

#[test]
fn scene_6_to_the_outside_the_source_is_the_node() {
    in_netns(|| {
        let world = World::new();
        let network = masqueraded();
        let (web, client) = (network.attach("web"), network.attach("client"));
        for family in [0, 1] {
            let node: IpAddr = NODE[family].parse().unwrap();
            assert_eq!(sources(&web.pod, &world.netns, WORLD[family]), [node; 3]);
        }
        // Within the subnet it stays, whether or not the node's rules see bridged packets (Kubernetes wants them to).
        for bridged in ["1", "0"] {
            sh(&format!(
                "for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do [ ! -e $f ] || echo {bridged} >$f; done"
            ));
            for family in [0, 1] {
                let own: IpAddr = web.ip(family).parse().unwrap();
                assert_eq!(sources(&web.pod, &client.pod, client.ip(family)), [own; 3]);
            }
        }
        // What comes in from outside keeps its source, too.
        world.netns.sh("ip route add 10.40.1.0/24 via 10.140.0.11; ip -6 route add fd00:40:1::/64 via 2001:db8:140::11");
        for family in [0, 1] {
            let own: IpAddr = WORLD[family].parse().unwrap();
            assert_eq!(sources(&world.netns, &web.pod, web.ip(family)), [own; 3]);
        }
        web.detach();
        client.detach();
        assert_eq!(sh("nft list ruleset"), "");
    });
}

/// Through a multicast router on the node, without which nothing gets out.
#[test]
fn scene_6_to_multicast_the_source_is_unchanged() {
    in_netns(|| {
        let world = World::new();
        let network = masqueraded();
        let web = network.attach("web");
        for (family, group) in [(0, "239.1.2.3"), (1, "ff05::1:3")] {
            let (own, group): (IpAddr, IpAddr) =
                (web.ip(family).parse().unwrap(), group.parse().unwrap());
            let heard = world.netns.run(|| multicast::join(group, "eth0"));
            let _router = multicast::Router::start(own, group, "cbr0", "uplink");
            let send = || web.pod.run(|| multicast::send(own, group));
            assert_eq!(multicast::source(&heard, send), own);
        }
        web.detach();
    });
}

#[test]
fn scene_7_what_an_admin_finds_on_disk() {
    in_netns(|| {
        let read = |name: &str| fs::read(format!("/var/lib/cni/networks/cbr0/{name}")).unwrap();
        let network = cbr0(&json!({}));
        let first = "d2a1fd1d2bd2f3b3e06e42ab5bbc0d1f0f2d7e0e2c9c0b7f2c1a5f3f8a9d4e61";
        let (web, client) = (network.attach(first), network.attach("client"));
        assert_eq!(
            store("cbr0"),
            ["10.40.1.2", "10.40.1.3", "last_reserved_ip.0", "lock"]
        );
        assert_eq!(read("10.40.1.2"), format!("{first}\r\neth0").as_bytes());
        assert_eq!(read("10.40.1.3"), b"client\r\neth0");
        assert_eq!(read("last_reserved_ip.0"), b"10.40.1.3");
        assert_eq!(read("lock"), b"");
        for (name, mode) in [
            ("10.40.1.2", 0o600),
            ("last_reserved_ip.0", 0o600),
            ("lock", 0o750),
            ("", 0o755),
        ] {
            let found = fs::metadata(format!("/var/lib/cni/networks/cbr0/{name}")).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, mode, "{name:?}");
        }
        // As scripts read them: who has which address; and free one by hand.
        let who = sh(
            "cd /var/lib/cni/networks/cbr0; for ip in 10.*; do echo $ip $(head -n1 $ip | tr -d '\\r' | cut -c1-6); done",
        );
        assert_eq!(who, "10.40.1.2 d2a1fd\n10.40.1.3 client\n");

        web.detach();
        assert_eq!(store("cbr0"), ["10.40.1.3", "last_reserved_ip.0", "lock"]);
        assert_eq!(read("last_reserved_ip.0"), b"10.40.1.3");
        client.detach();
        assert_eq!(store("cbr0"), ["last_reserved_ip.0", "lock"]);

        // Two families: two sets, each with its own last address.
        let network = masqueraded();
        let web = network.attach("web");
        assert_eq!(
            store("cbr0"),
            [
                "10.40.1.4",
                "fd00:40:1::2",
                "last_reserved_ip.0",
                "last_reserved_ip.1",
                "lock"
            ]
        );
        assert_eq!(
            (read("10.40.1.4"), read("fd00:40:1::2")),
            (b"web\r\neth0".to_vec(), b"web\r\neth0".to_vec())
        );
        assert_eq!(
            (read("last_reserved_ip.0"), read("last_reserved_ip.1")),
            (b"10.40.1.4".to_vec(), b"fd00:40:1::2".to_vec())
        );
        web.detach();
    });
}
