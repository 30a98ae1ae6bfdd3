//! The other nodes, as a directory tells of them. Nothing here is trusted yet.

use std::net::IpAddr;

use libcni::kernel::Mac;
use libcni::spec::IpNetwork;

/// A node of the network: which pods it has, and how they are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What the directory calls it, for people: a node's name, a key, a file.
    pub name: String,
    /// How its packets travel.
    pub kind: Kind,
    /// Its IPv4 side.
    pub v4: Option<Site>,
    /// Its IPv6 side.
    pub v6: Option<Site>,
}

/// A backend's name, flannel's `BackendType`; told apart by case, as flannel does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `vxlan`
    Vxlan,
    /// `host-gw`
    HostGw,
    /// One that we do not speak. The empty name is that of `udp`.
    Other(String),
}

/// One family of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Its pods' subnet, host bits off.
    pub subnet: IpNetwork,
    /// Its address in the underlay.
    pub public_ip: IpAddr,
    /// Its tunnel's end; none with backends that have no tunnel, and with data that cannot be used.
    pub vtep: Option<Vtep>,
}

/// The end of a VXLAN tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep {
    /// What frames to it are addressed to.
    pub mac: Mac,
    /// Its network identifier. Old agents and appliances do not tell it.
    pub vni: Option<u32>,
}

// === impl Peer ===

impl Peer {
    /// Its side of a family.
    pub fn site(&self, v6: bool) -> Option<&Site> {
        if v6 {
            self.v6.as_ref()
        } else {
            self.v4.as_ref()
        }
    }
}

// === impl Kind ===

impl Kind {
    /// From flannel's `BackendType`.
    pub fn parse(text: &str) -> Self {
        match text {
            "vxlan" => Self::Vxlan,
            "host-gw" => Self::HostGw,
            other => Self::Other(other.to_owned()),
        }
    }

    /// As flannel's `BackendType`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::Other(other) => other,
        }
    }
}
