//! Routes as the kernel tells them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::{
    RTA_DST, RTA_GATEWAY, RTA_METRICS, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PREFSRC,
    RTA_PRIORITY, RTA_TABLE, RTA_VIA, RTAX_ADVMSS, RTAX_MTU, RTM_F_CLONED, RTM_NEWROUTE,
    RTMSG_BYTES, RTN_UNICAST, RTNEXTHOP_BYTES, Route,
};
use crate::kernel::{AF_INET, AF_INET6};
use crate::nl::Reply;
use crate::nl::attr::{self, Attrs};

/// The route in an answer to [`super::query`], the first of its next hops; `None` when it is not a unicast one.
pub fn from_reply(reply: Reply<'_>) -> Option<Route> {
    let mut first = None;
    each(reply, |route| {
        first.get_or_insert(route);
    });
    first
}

/// A reply's routes: one, or as many as it has next hops; none when it is not about a unicast route.
pub(super) fn each(reply: Reply<'_>, mut found: impl FnMut(Route)) {
    if reply.msg_type == RTM_NEWROUTE
        && let Some((route, hops)) = parse(reply.payload)
    {
        match hops {
            None => found(route),
            Some(hops) => next_hops(route, hops, found),
        }
    }
}

/// What a message of ours does, for people.
pub(super) fn words(what: &str, payload: &[u8]) -> String {
    let Some((route, _)) = parse(payload) else {
        return format!("{what} a route");
    };
    let dst = route.dst;
    match (route.nexthop, route.gw) {
        (Some(id), _) => format!("{what} route {dst} by next hop {id}"),
        (None, Some(gw)) => format!("{what} route {dst} via {gw} on link {}", route.oif),
        (None, None) => format!("{what} route {dst} on link {}", route.oif),
    }
}

/// A route, and its next hops if it has several.
fn parse(payload: &[u8]) -> Option<(Route, Option<&[u8]>)> {
    let &[family, prefix, _, _, table, protocol, scope, kind, ..] = payload else {
        return None;
    };
    let flags = attr::u32(payload.get(8..)?)?;
    if kind != RTN_UNICAST || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let any: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route {
        dst: IpNetwork::new(any, prefix).ok()?,
        gw: None,
        oif: 0,
        src: None,
        scope,
        table: table.into(),
        priority: 0,
        protocol,
        mtu: None,
        advmss: None,
        nexthop: None,
    };
    let mut hops = None;
    for (kind, payload) in Attrs::after(payload, RTMSG_BYTES) {
        match kind {
            RTA_DST => route.dst = IpNetwork::new(attr::ip(payload)?, prefix).ok()?,
            RTA_TABLE => route.table = attr::u32(payload)?,
            RTA_PRIORITY => route.priority = attr::u32(payload)?,
            RTA_PREFSRC => route.src = attr::ip(payload),
            RTA_METRICS => {
                let metrics = Attrs::new(payload);
                route.mtu = metrics.clone().find(RTAX_MTU).and_then(attr::u32);
                route.advmss = metrics.clone().find(RTAX_ADVMSS).and_then(attr::u32);
            }
            RTA_MULTIPATH => hops = Some(payload),
            RTA_NH_ID => route.nexthop = attr::u32(payload),
            _ => route.read_hop(kind, payload),
        }
    }
    Some((route, hops))
}

fn next_hops(route: Route, mut hops: &[u8], mut found: impl FnMut(Route)) {
    while let (Some(length), Some(oif)) = (attr::u16(hops), hops.get(4..).and_then(attr::u32)) {
        let length = usize::from(length);
        let Some(inside) = hops.get(RTNEXTHOP_BYTES..length) else {
            break;
        };
        let mut one = Route { oif, ..route };
        for (kind, payload) in Attrs::new(inside) {
            one.read_hop(kind, payload);
        }
        found(one);
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

// === impl Route ===

impl Route {
    /// What stands in the message, or in one of several next hops.
    fn read_hop(&mut self, kind: u16, payload: &[u8]) {
        match kind {
            RTA_OIF => self.oif = attr::u32(payload).unwrap_or_default(),
            RTA_GATEWAY => self.gw = attr::ip(payload),
            RTA_VIA => self.gw = payload.get(2..).and_then(attr::ip),
            _ => {}
        }
    }
}
