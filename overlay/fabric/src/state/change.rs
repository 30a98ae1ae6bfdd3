//! One thing to set or to delete, and its message.

use std::net::IpAddr;

use libcni::kernel::neigh::State;
use libcni::kernel::{Mac, fdb, neigh, nexthop, route};
use libcni::nl::Message;
use libcni::spec::IpNetwork;

use super::{Leg, PROTOCOL, Path};

/// `RT_SCOPE_NOWHERE`: with a deletion, any scope.
const ANY_SCOPE: u8 = 255;

/// One thing to set or to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Fdb {
        mac: Mac,
        dst: IpAddr,
    },
    Neigh {
        ip: IpAddr,
        mac: Mac,
    },
    Hop {
        id: u32,
        gw: IpAddr,
    },
    Route {
        dst: IpNetwork,
        path: Path,
    },
    DelRoute {
        dst: IpNetwork,
        path: Path,
        metric: u32,
    },
    DelHop {
        id: u32,
    },
    DelNeigh {
        ip: IpAddr,
    },
    DelFdb {
        mac: Mac,
        dst: IpAddr,
    },
}

/// What a family's tunnel has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Links {
    /// Its device; 0, which no link is, where there is none.
    pub(crate) device: u32,
    /// May its routes go by next hop objects?
    pub(crate) objects: bool,
}

// === impl Change ===

impl Change {
    /// Changes are made in this order. A route comes when all it needs is there, and goes before that goes; a MAC is
    /// known before anything is sent to it, and forgotten when nothing is any more.
    pub(crate) fn phase(&self) -> u8 {
        match self {
            Self::Fdb { .. } => 0,
            Self::Neigh { .. } => 1,
            Self::Hop { .. } => 2,
            Self::Route { .. } => 3,
            Self::DelRoute { .. } => 4,
            Self::DelHop { .. } => 5,
            Self::DelNeigh { .. } => 6,
            Self::DelFdb { .. } => 7,
        }
    }

    pub(crate) fn is_removal(&self) -> bool {
        self.phase() >= 4
    }

    pub(crate) fn message(&self, links: Links) -> Message {
        let device = links.device;
        match *self {
            Self::Fdb { mac, dst } => fdb::replace(device, mac, dst),
            Self::Neigh { ip, mac } => neigh::replace(device, ip, mac, State::Permanent),
            Self::Hop { id, gw } => nexthop::replace(&nexthop::Nexthop {
                id,
                gw,
                oif: device,
                onlink: true,
                protocol: PROTOCOL,
            }),
            Self::Route { dst, path } => route::replace(&spec(dst, path, device)),
            Self::DelRoute { dst, path, metric } => route::del(&route::Spec {
                priority: Some(metric),
                scope: ANY_SCOPE,
                onlink: false,
                ..spec(dst, path, device)
            }),
            Self::DelHop { id } => nexthop::del(id),
            Self::DelNeigh { ip } => neigh::del(device, ip),
            Self::DelFdb { mac, dst } => fdb::del(device, mac, dst),
        }
    }
}

fn spec(dst: IpNetwork, path: Path, device: u32) -> route::Spec {
    let base = route::Spec {
        protocol: path.protocol,
        ..route::Spec::new(dst, device)
    };
    match path.leg {
        Leg::Tunnel => route::Spec {
            gw: Some(dst.network()),
            onlink: true,
            ..base
        },
        Leg::Object(id) => route::Spec {
            nexthop: Some(id),
            ..base
        },
        Leg::Link { gw, oif } => route::Spec {
            gw: Some(gw),
            oif,
            ..base
        },
        Leg::Wrong { gw, oif, nexthop } => route::Spec {
            gw,
            oif,
            nexthop,
            ..base
        },
    }
}
