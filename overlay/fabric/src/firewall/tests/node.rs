//! A node with a pod, another node's pod behind its tunnel, and the world; both families.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{Pod, eventually, sh};

pub const PATIENCE: Duration = Duration::from_secs(2);

/// The calling test's own namespace is the node.
pub struct Node {
    /// 192.168.132.2, fd00:128:0:132::2
    pub pod: Pod,
    /// 192.168.128.2, fd00:128:0:128::2. The tunnel is a plain link here: rules see no difference.
    pub remote: Pod,
    /// 192.168.64.9, fd00:64::9; it knows the way to this node's pods.
    pub world: Pod,
}

/// Addresses of both families.
pub type Pair = [&'static str; 2];
pub const POD: Pair = ["192.168.132.2", "fd00:128:0:132::2"];
pub const REMOTE: Pair = ["192.168.128.2", "fd00:128:0:128::2"];
pub const WORLD: Pair = ["192.168.64.9", "fd00:64::9"];
/// The node's, in the underlay.
pub const NODE: Pair = ["192.168.64.4", "fd00:64::4"];
/// The node's, at its tunnel.
pub const VTEP: Pair = ["192.168.132.0", "fd00:128:0:132::"];

// === impl Node ===

impl Node {
    pub fn new() -> Self {
        let node = Self {
            pod: Pod::new("pod"),
            remote: Pod::new("remote"),
            world: Pod::new("world"),
        };
        sh(&format!(
            "ip link add cni0 type veth peer eth0 netns {pod}
             ip link add flannel.1 type veth peer eth0 netns {remote}
             ip link add eth0 type veth peer eth0 netns {world}
             ip addr add 192.168.132.1/24 dev cni0; ip addr add fd00:128:0:132::1/64 dev cni0 nodad
             ip addr add 192.168.132.0/32 dev flannel.1; ip addr add fd00:128:0:132::/128 dev flannel.1 nodad
             ip addr add 192.168.64.4/24 dev eth0; ip addr add fd00:64::4/64 dev eth0 nodad
             for l in cni0 flannel.1 eth0; do ip link set $l up; done
             ip route add 192.168.128.0/24 dev flannel.1; ip route add fd00:128:0:128::/64 dev flannel.1
             ip route add 239.0.0.0/8 dev eth0; ip -6 route add multicast ff05::/16 dev eth0 table local
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            pod = node.pod.netns(),
            remote = node.remote.netns(),
            world = node.world.netns()
        ));
        for (pod, [v4, v6], [gateway4, gateway6]) in [
            (&node.pod, POD, ["192.168.132.1", "fd00:128:0:132::1"]),
            (&node.remote, REMOTE, VTEP),
            (&node.world, WORLD, NODE),
        ] {
            pod.sh(&format!(
                "ip link set lo up; ip link set eth0 up
                 ip addr add {v4}/24 dev eth0; ip addr add {v6}/64 dev eth0 nodad
                 ip route replace {gateway4} dev eth0; ip route add 192.168.128.0/18 via {gateway4}
                 ip -6 route replace {gateway6} dev eth0; ip -6 route add fd00:128::/48 via {gateway6}"
            ));
        }
        // To the world, and to what it sees of the node.
        node.pod.sh(
            "ip route add default via 192.168.132.1; ip -6 route add default via fd00:128:0:132::1",
        );
        node.remote.sh(
            "ip route add default via 192.168.132.0; ip -6 route add default via fd00:128:0:132::",
        );
        // The links' own addresses are tentative for a while, and neighbours are asked from them.
        for ip in POD.iter().chain(&REMOTE).chain(&WORLD) {
            eventually(Duration::from_secs(10), || {
                let ping = Command::new("ping")
                    .args(["-c1", "-W1", ip])
                    .stdout(Stdio::null())
                    .status();
                ping.unwrap().success()
            });
        }
        node
    }

    /// Which source address `to` sees of a packet that `send` sends to it at this address.
    pub fn source(&self, to: &Pod, ip: &str, send: impl FnOnce(SocketAddr) + Send) -> String {
        let (any, target) = (any(ip), SocketAddr::new(ip.parse().unwrap(), 7000));
        let socket = to.run(|| UdpSocket::bind((any, target.port())).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        send(target);
        let (_, from) = socket
            .recv_from(&mut [0; 8])
            .unwrap_or_else(|e| panic!("{ip}: {e}"));
        from.ip().to_string()
    }
}

/// Sends a datagram, from this address if there is one.
pub fn send(from: Option<&str>, to: SocketAddr) {
    let from = from.map_or(any(&to.ip().to_string()), |ip| ip.parse().unwrap());
    UdpSocket::bind((from, 0))
        .unwrap()
        .send_to(b"x", to)
        .unwrap();
}

/// 0.0.0.0 or ::
fn any(ip: &str) -> IpAddr {
    match ip.parse().unwrap() {
        IpAddr::V4(_) => [0; 4].into(),
        IpAddr::V6(_) => [0u16; 8].into(),
    }
}
