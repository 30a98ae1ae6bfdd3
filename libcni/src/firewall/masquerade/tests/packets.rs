//! Packets really flow: pods behind the node, an outside that has no route back to them.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{Pod, eventually};

use super::*;

/// Two pods of one subnet, each routed to by the node, which is `inet` to them and 192.0.2.1 to the outside.
struct Topology {
    one: Pod,
    two: Pod,
    outside: Pod,
}

impl Topology {
    fn new() -> Topology {
        let topology = Topology {
            one: Pod::new("one"),
            two: Pod::new("two"),
            outside: Pod::new("outside"),
        };
        for (pod, name, n) in [(&topology.one, "one", 2), (&topology.two, "two", 3)] {
            sh(&format!(
                "ip link add {name} type veth peer eth0 netns {pod}; ip link set {name} up
                 ip addr add 10.88.0.1/32 dev {name}; ip -6 addr add fd00:88::1/128 dev {name} nodad
                 ip route add 10.88.0.{n}/32 dev {name}; ip -6 route add fd00:88::{n}/128 dev {name}",
                pod = pod.netns()
            ));
            pod.sh(&format!(
                "ip link set lo up; ip link set eth0 up
                 ip addr add 10.88.0.{n}/32 dev eth0; ip -6 addr add fd00:88::{n}/128 dev eth0 nodad
                 ip route add 10.88.0.1 dev eth0; ip -6 route add fd00:88::1 dev eth0
                 ip route add default via 10.88.0.1; ip -6 route add default via fd00:88::1"
            ));
        }
        sh(&format!(
            "ip link add out type veth peer eth0 netns {outside}; ip link set out up
             ip addr add 192.0.2.1/24 dev out; ip -6 addr add 2001:db8::1/64 dev out nodad
             ip route add 239.0.0.0/8 dev out; ip -6 route add multicast ff05::/16 dev out table local
             ip addr add 10.88.0.9/32 dev out; ip -6 addr add fd00:88::9/128 dev out nodad
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            outside = topology.outside.netns()
        ));
        topology.outside.sh("ip link set lo up; ip link set eth0 up
             sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
             ip addr add 192.0.2.2/24 dev eth0; ip -6 addr add 2001:db8::2/64 dev eth0 nodad");
        // The links' own addresses are tentative for a while, and neighbours are asked from them.
        for ip in [
            "10.88.0.2",
            "10.88.0.3",
            "192.0.2.2",
            "fd00:88::2",
            "fd00:88::3",
            "2001:db8::2",
        ] {
            eventually(Duration::from_secs(10), || {
                let ping = Command::new("ping")
                    .args(["-c1", "-W1", ip])
                    .stdout(Stdio::null())
                    .status();
                ping.unwrap().success()
            });
        }
        topology
    }

    /// The source address `to` sees of a packet that `from` sends, for each protocol.
    fn sources(&self, from: &Pod, to: &Pod, ip: &str) -> Vec<IpAddr> {
        let target = SocketAddr::new(ip.parse().unwrap(), 7000);
        let any: IpAddr = if target.is_ipv4() {
            [0; 4].into()
        } else {
            [0u16; 8].into()
        };
        let patience = Some(Duration::from_secs(2));
        let udp = to.run(|| UdpSocket::bind((any, target.port())).unwrap());
        udp.set_read_timeout(patience).unwrap();
        from.run(|| {
            UdpSocket::bind((any, 0))
                .unwrap()
                .send_to(b"x", target)
                .unwrap()
        });
        let (_, seen_udp) = udp.recv_from(&mut [0; 8]).expect(ip);

        let listener = to.run(|| TcpListener::bind((any, target.port())).unwrap());
        let _connected =
            from.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(2)).unwrap());
        let (_, seen_tcp) = listener.accept().unwrap();

        // The answer comes back only if the source was one that `to` knows a way to.
        from.exec(&["ping", "-c1", "-W2", ip]);
        vec![seen_udp.ip(), seen_tcp.ip()]
    }

    /// What the outside sees of a packet from a pod address of the node's own to a group.
    fn multicast_source(&self, from: &str, group: &str) -> IpAddr {
        let target = SocketAddr::new(group.parse().unwrap(), 7001);
        let heard = self.outside.run(|| {
            let index = sh("ip -o link show eth0")
                .split(':')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            let any: IpAddr = if target.is_ipv4() {
                [0; 4].into()
            } else {
                [0u16; 8].into()
            };
            let socket = UdpSocket::bind((any, target.port())).unwrap();
            match target {
                SocketAddr::V4(group) => socket
                    .join_multicast_v4(group.ip(), &[192, 0, 2, 2].into())
                    .unwrap(),
                SocketAddr::V6(group) => socket.join_multicast_v6(group.ip(), index).unwrap(),
            }
            socket
        });
        heard
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        UdpSocket::bind((from, 0))
            .unwrap()
            .send_to(b"x", target)
            .unwrap();
        heard.recv_from(&mut [0; 8]).expect(group).1.ip()
    }

    /// The whole promise, for both families and all protocols.
    fn assert_masquerades(&self) {
        for (outside, seen) in [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")] {
            let seen: IpAddr = seen.parse().unwrap();
            assert_eq!(
                self.sources(&self.one, &self.outside, outside),
                [seen; 2],
                "to the outside"
            );
        }
        for (two, one) in [("10.88.0.3", "10.88.0.2"), ("fd00:88::3", "fd00:88::2")] {
            let one: IpAddr = one.parse().unwrap();
            assert_eq!(
                self.sources(&self.one, &self.two, two),
                [one; 2],
                "to a pod of the subnet"
            );
        }
        for (from, group) in [("10.88.0.9", "239.1.2.3"), ("fd00:88::9", "ff05::1:3")] {
            assert_eq!(
                self.multicast_source(from, group),
                from.parse::<IpAddr>().unwrap(),
                "to a group"
            );
        }
    }

    /// Without a route back a connection to the outside cannot work unless it is masqueraded.
    fn assert_unmasqueraded(&self) {
        let ping = |ip| {
            self.one
                .command("ping")
                .args(["-c1", "-W1", ip])
                .stdout(Stdio::null())
                .status()
                .unwrap()
        };
        assert!(
            !ping("192.0.2.2").success() && !ping("2001:db8::2").success(),
            "masqueraded without a rule"
        );
    }
}

const SUBNETS: &[&str] = &["10.88.0.0/16", "fd00:88::/64"];

#[test]
fn of_a_network() {
    in_netns(|| {
        let topology = Topology::new();
        topology.assert_unmasqueraded();
        ensure("n", SUBNETS);
        // Another network on the same addresses changes nothing, neither coming nor going.
        ensure("m", SUBNETS);
        topology.assert_masquerades();
        remove("m");
        topology.assert_masquerades();
        remove("n");
        topology.assert_unmasqueraded();
    });
}

#[test]
fn of_a_pod() {
    in_netns(|| {
        let topology = Topology::new();
        let mut netfilter = Netfilter::unopened();
        let pods = [("one", 2), ("two", 3), ("node", 9)];
        for (id, n) in pods {
            let ips = [format!("10.88.0.{n}/16"), format!("fd00:88::{n}/64")];
            let ips: Vec<IpNetwork> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            ensure_pod(&mut netfilter, &net("n"), &attachment(id, "eth0"), &ips).unwrap();
        }
        topology.assert_masquerades();
        for (id, _) in pods {
            remove_pod(&mut netfilter, &net("n"), &attachment(id, "eth0")).unwrap();
        }
        topology.assert_unmasqueraded();
    });
}
