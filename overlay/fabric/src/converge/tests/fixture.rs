//! A node in the test's own namespace, and peers for it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use libcni::kernel::{Mac, link};
use libcni::nl::{ROUTE, Socket};
use serde_json::Value;
use testkit::{ip_json, sh};

use crate::{
    Backend, Fabric, Kind, Others, Own, OwnSide, Parent, Peer, Peers, Report, Site, Vtep, Vxlan,
};

pub(super) const OWN_MAC: Mac = Mac([0x2a, 0, 0, 0, 0, 1]);

/// An underlay `eth0` with 192.0.2.1/24 and 2001:db8::1/64, and what this node is on it.
pub(super) struct Node;

impl Node {
    pub(super) fn new() -> Self {
        sh(
            "ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up
            ip address add 192.0.2.1/24 dev eth0; ip address add 2001:db8::1/64 dev eth0 nodad
            ip route add default via 192.0.2.254 dev eth0",
        );
        Self
    }

    pub(super) fn parent(&self) -> Parent {
        let mut sock = Socket::open(ROUTE).unwrap();
        let eth0 = link::get(&mut sock, "eth0").unwrap().unwrap();
        Parent {
            index: eth0.index,
            name: eth0.name,
            mtu: eth0.mtu,
            v4: Some("192.0.2.1".parse().unwrap()),
            v6: Some("2001:db8::1".parse().unwrap()),
        }
    }

    pub(super) fn own(&self) -> Own {
        self.own_with(Backend::Vxlan(Vxlan::default()))
    }

    pub(super) fn own_with(&self, backend: Backend) -> Own {
        Own {
            backend,
            parent: self.parent(),
            v4: Some(OwnSide {
                network: "10.0.0.0/8".parse().unwrap(),
                subnet: "10.255.255.0/24".parse().unwrap(),
                local: "192.0.2.1".parse().unwrap(),
                mac: OWN_MAC,
            }),
            v6: None,
        }
    }

    pub(super) fn dual(&self) -> Own {
        Own {
            v6: Some(OwnSide {
                network: "fd00::/32".parse().unwrap(),
                subnet: "fd00:0:ffff::/64".parse().unwrap(),
                local: "2001:db8::1".parse().unwrap(),
                mac: Mac([0x2a, 0, 0, 0, 6, 1]),
            }),
            ..self.own()
        }
    }

    pub(super) fn fabric(&self) -> Fabric {
        Fabric::open(self.own()).unwrap()
    }
}

/// Peer `n`: `10.x.y.0/24`, MAC `2a:01:...`, at `198.18.x.y`, where `x.y` is `n`.
pub(super) fn peer(n: u16) -> Peer {
    let [x, y] = n.to_be_bytes();
    site_at(n, IpAddr::V4(Ipv4Addr::new(198, 18, x, y)), mac(n))
}

pub(super) fn mac(n: u16) -> Mac {
    let [x, y] = n.to_be_bytes();
    Mac([0x2a, 1, 0, 0, x, y])
}

pub(super) fn site_at(n: u16, public_ip: IpAddr, mac: Mac) -> Peer {
    let [x, y] = n.to_be_bytes();
    let subnet = format!("10.{x}.{y}.0/24").parse().unwrap();
    Peer {
        name: format!("node-{n}"),
        kind: Kind::Vxlan,
        v4: Some(Site {
            subnet,
            public_ip,
            vtep: Some(Vtep { mac, vni: Some(1) }),
        }),
        v6: None,
    }
}

/// The same with IPv6.
pub(super) fn dual_peer(n: u16) -> Peer {
    let v6 = Site {
        subnet: format!("fd00:0:{n:x}::/64").parse().unwrap(),
        public_ip: format!("2001:db8::1:{n:x}").parse().unwrap(),
        vtep: Some(Vtep {
            mac: mac(n),
            vni: Some(1),
        }),
    };
    Peer {
        v6: Some(v6),
        ..peer(n)
    }
}

pub(super) fn peers(numbers: impl IntoIterator<Item = u16>) -> Peers {
    let named = |n| (format!("peer-{n:05}"), Arc::new(peer(n)));
    numbers.into_iter().map(named).collect()
}

/// Converges and wants no failure.
#[track_caller]
pub(super) fn converge(fabric: &mut Fabric, peers: &Peers) -> Report {
    clean(fabric.converge(peers, Others::Remove).unwrap())
}

/// Follows and wants no failure.
#[track_caller]
pub(super) fn follow(fabric: &mut Fabric, peers: &Peers) -> Report {
    clean(fabric.follow(peers, Others::Remove).unwrap())
}

#[track_caller]
pub(super) fn clean(report: Report) -> Report {
    assert_eq!(report.failed, [], "{report:?}");
    report
}

/// Added, changed, removed, repaired, messages.
pub(super) fn counts(report: &Report) -> [usize; 5] {
    let Report {
        added,
        changed,
        removed,
        repaired,
        messages,
        ..
    } = report;
    [*added, *changed, *removed, *repaired, *messages]
}

pub(super) const NOTHING: [usize; 5] = [0; 5];

/// Routes, neighbours and forwarding entries of a device, as the tools print them, sorted; the routes of all devices.
pub(super) fn tables(device: &str) -> Vec<String> {
    let family = if device.contains("v6") { "-6" } else { "-4" };
    let mut all = Vec::new();
    for script in [
        format!("ip {family} route show"),
        format!("ip {family} neigh show dev {device} nud permanent"),
        format!("bridge fdb show dev {device}"),
    ] {
        let shown = sh(&script);
        let mut lines: Vec<String> = shown.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        all.extend(lines);
    }
    all
}

pub(super) fn device(name: &str) -> Value {
    ip_json(&["-d", "link", "show", name])[0].clone()
}

pub(super) fn count(script: &str) -> usize {
    sh(script).lines().count()
}
