//! Routes: `ip route`. Source: `include/uapi/linux/rtnetlink.h`, `net/ipv4/fib_*.c`, `net/ipv6/route.c`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::{family, ip_attr, link};
use crate::nl::attr::{self, Attrs};
use crate::nl::{CREATE, Message, NlError, Reply, Socket};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;

const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
/// Offset of `rtm_type` in `struct rtmsg`.
const RTM_TYPE_AT: usize = 7;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;
const RTM_F_FIB_MATCH: u32 = 0x2000;

/// `RT_TABLE_MAIN`
pub const TABLE_MAIN: u32 = 254;

/// `sizeof(struct rtmsg)`: u8 family, dst length, src length, tos, table, protocol, scope, type, u32 flags.
const RTMSG_BYTES: usize = 12;
/// `sizeof(struct rtnexthop)`: u16 length, u8 flags, u8 hops, i32 index.
const RTNEXTHOP_BYTES: usize = 8;

/// A route to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Destination; bits beyond the prefix make the kernel refuse it (EINVAL).
    pub dst: IpNetwork,
    /// Next hop; none is a route to the link itself.
    pub gw: Option<IpAddr>,
    /// Index of the link it leaves by.
    pub oif: u32,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// `RT_SCOPE_*`: 0 universe, 253 link. IPv6 has none.
    pub scope: u8,
    /// Table; main if not given.
    pub table: Option<u32>,
    /// Metric, lower is preferred.
    pub priority: Option<u32>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// TCP maximum segment size in bytes.
    pub advmss: Option<u32>,
    /// Take the gateway to be on the link though no address says so.
    pub onlink: bool,
}

/// A route found: one of these per next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop, also one of the other family (`via inet6 ...`).
    pub gw: Option<IpAddr>,
    /// Index of the link it leaves by; 0 for routes without one (blackhole).
    pub oif: u32,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// `RT_SCOPE_*`
    pub scope: u8,
    /// Table.
    pub table: u32,
    /// Metric; 0 when it has none.
    pub priority: u32,
    /// `RTPROT_*`
    pub protocol: u8,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// TCP maximum segment size in bytes.
    pub advmss: Option<u32>,
}

/// `ip route add DST via GW dev OIF ...`, protocol boot. EEXIST when the very same route is there; one
/// that differs in its gateway joins the one that is there.
pub fn add(spec: &Spec) -> Message {
    about(RTM_NEWROUTE, CREATE, "add", spec)
}

/// `ip route del DST via GW dev OIF ...`; ESRCH when there is none.
pub fn del(spec: &Spec) -> Message {
    about(RTM_DELROUTE, 0, "delete", spec)
}

/// The unicast routes that leave by a link, of every table, IPv4 first.
pub fn list(sock: &mut Socket, oif: u32) -> Result<Vec<Route>, NlError> {
    let mut routes = dump(sock, Ipv4Addr::UNSPECIFIED.into(), Some(oif), None)?;
    routes.extend(dump(sock, Ipv6Addr::UNSPECIFIED.into(), Some(oif), None)?);
    Ok(routes)
}

/// The route a packet to this address would take, as it stands in its table (`ip route get fibmatch IP`);
/// `None` when there is none. Kernel 4.13 and later.
pub fn get(sock: &mut Socket, ip: IpAddr) -> Result<Option<Route>, NlError> {
    let route = look_up(sock, ip, |reply| from_reply(reply).into_iter().next())?;
    Ok(route.flatten())
}

/// Would a packet to this address be delivered here?
pub fn is_local(sock: &mut Socket, ip: IpAddr) -> Result<bool, NlError> {
    let kind = look_up(sock, ip, |reply| reply.payload.get(RTM_TYPE_AT).copied())?;
    Ok(kind.flatten() == Some(RTN_LOCAL))
}

fn look_up<T>(
    sock: &mut Socket,
    ip: IpAddr,
    read: impl FnOnce(Reply<'_>) -> T,
) -> Result<Option<T>, NlError> {
    let length = if ip.is_ipv4() { 32 } else { 128 };
    let header = rtmsg(family(ip), length, 0, 0, 0, RTM_F_FIB_MATCH);
    let message =
        Message::new(RTM_GETROUTE, 0, format!("look up the route to {ip}")).header(&header);
    match sock.get(ip_attr(message, RTA_DST, ip)) {
        Ok(reply) => Ok(Some(read(reply))),
        Err(e)
            if [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::ESRCH]
                .iter()
                .any(|no| e.is(*no)) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The MTU in bytes of the default route: its own, or that of the link it leaves by. IPv4's if there is one,
/// else IPv6's; `None` without a default route.
pub fn default_route_mtu(sock: &mut Socket) -> Result<Option<u32>, NlError> {
    for probe in [IpAddr::V4(DOCUMENTATION_V4), IpAddr::V6(DOCUMENTATION_V6)] {
        let Some(route) = default_route(sock, probe)? else {
            continue;
        };
        if route.mtu.is_some() {
            return Ok(route.mtu);
        }
        return Ok(link::get_index(sock, route.oif)?.map(|l| l.mtu));
    }
    Ok(None)
}

/// 192.0.2.1 and 2001:db8::1, which nobody routes (RFC 5737, RFC 3849): the way there is the default route.
const DOCUMENTATION_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DOCUMENTATION_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

fn default_route(sock: &mut Socket, probe: IpAddr) -> Result<Option<Route>, NlError> {
    match get(sock, probe)? {
        Some(route) if route.dst.prefix() == 0 => return Ok(Some(route)),
        // No route there is no default route either.
        None => return Ok(None),
        // A node that routes them after all: look through the table.
        Some(_) => {}
    }
    let mut routes = dump(sock, probe, None, Some(TABLE_MAIN))?;
    routes.retain(|r| r.dst.prefix() == 0);
    Ok(routes.into_iter().min_by_key(|r| r.priority))
}

fn dump(
    sock: &mut Socket,
    like: IpAddr,
    oif: Option<u32>,
    table: Option<u32>,
) -> Result<Vec<Route>, NlError> {
    let step = match oif {
        Some(oif) => format!("list routes by link {oif}"),
        None => "list routes".to_owned(),
    };
    let mut message =
        Message::new(RTM_GETROUTE, 0, step).header(&rtmsg(family(like), 0, 0, 0, 0, 0));
    if let Some(oif) = oif {
        message = message.u32(RTA_OIF, oif);
    }
    if let Some(table) = table {
        message = message.u32(RTA_TABLE, table);
    }
    let found = sock.dump(message, |reply| Some(from_reply(reply)))?;
    // Before 4.20 the filter is ignored.
    let wanted = |r: &Route| oif.is_none_or(|o| o == r.oif) && table.is_none_or(|t| t == r.table);
    Ok(found.into_iter().flatten().filter(wanted).collect())
}

fn about(msg_type: u16, flags: u16, what: &str, spec: &Spec) -> Message {
    let via = spec.gw.map(|gw| format!(" via {gw}")).unwrap_or_default();
    let step = format!("{what} route {}{via} on link {}", spec.dst, spec.oif);
    let table = spec.table.unwrap_or(TABLE_MAIN);
    let hop_flags = if spec.onlink { RTNH_F_ONLINK } else { 0 };
    let ip = spec.dst.ip();
    let header = rtmsg(
        family(ip),
        spec.dst.prefix(),
        table,
        RTPROT_BOOT,
        spec.scope,
        hop_flags,
    );
    let mut message = Message::new(msg_type, flags, step)
        .header(&header)
        .u32(RTA_OIF, spec.oif);
    if spec.dst.prefix() > 0 {
        message = ip_attr(message, RTA_DST, ip);
    }
    if let Some(gw) = spec.gw {
        message = gateway_attr(message, gw, gw.is_ipv4() == ip.is_ipv4());
    }
    if let Some(src) = spec.src {
        message = ip_attr(message, RTA_PREFSRC, src);
    }
    if table > u8::MAX.into() {
        message = message.u32(RTA_TABLE, table);
    }
    if let Some(priority) = spec.priority {
        message = message.u32(RTA_PRIORITY, priority);
    }
    if spec.mtu.is_none() && spec.advmss.is_none() {
        return message;
    }
    message.nest(RTA_METRICS, |mut m| {
        if let Some(mtu) = spec.mtu {
            m = m.u32(RTAX_MTU, mtu);
        }
        if let Some(advmss) = spec.advmss {
            m = m.u32(RTAX_ADVMSS, advmss);
        }
        m
    })
}

/// `struct rtvia` carries its own family; RTA_GATEWAY is always of the route's.
fn gateway_attr(message: Message, gw: IpAddr, same_family: bool) -> Message {
    if same_family {
        return ip_attr(message, RTA_GATEWAY, gw);
    }
    let mut via = u16::from(family(gw)).to_ne_bytes().to_vec();
    match gw {
        IpAddr::V4(ip) => via.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => via.extend_from_slice(&ip.octets()),
    }
    message.bytes(RTA_VIA, &via)
}

fn rtmsg(
    family: u8,
    dst_length: u8,
    table: u32,
    protocol: u8,
    scope: u8,
    flags: u32,
) -> [u8; RTMSG_BYTES] {
    // Tables beyond 255 are in an attribute and 0 (unspecified) here.
    let table = u8::try_from(table).unwrap_or_default();
    let kind = if protocol == 0 { 0 } else { RTN_UNICAST };
    let [a, b, c, d] = flags.to_ne_bytes();
    [
        family, dst_length, 0, 0, table, protocol, scope, kind, a, b, c, d,
    ]
}

/// A reply's routes: one, or as many as it has next hops; none when it is not about a unicast route.
fn from_reply(reply: Reply<'_>) -> Vec<Route> {
    parse(reply).unwrap_or_default()
}

fn parse(reply: Reply<'_>) -> Option<Vec<Route>> {
    let &[family, prefix, _, _, table, protocol, scope, kind, ..] = reply.payload else {
        return None;
    };
    let flags = attr::u32(reply.payload.get(8..)?)?;
    if reply.msg_type != RTM_NEWROUTE || kind != RTN_UNICAST || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let any: IpAddr = match family {
        super::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        super::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
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
    };
    let mut hops = None;
    for (kind, payload) in Attrs::after(reply.payload, RTMSG_BYTES) {
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
            _ => route.read_hop(kind, payload),
        }
    }
    let Some(hops) = hops else {
        return Some(vec![route]);
    };
    Some(next_hops(route, hops))
}

fn next_hops(route: Route, mut hops: &[u8]) -> Vec<Route> {
    let mut all = Vec::new();
    while let (Some(length), Some(oif)) = (attr::u16(hops), hops.get(4..).and_then(attr::u32)) {
        let length = usize::from(length);
        let Some(inside) = hops.get(RTNEXTHOP_BYTES..length) else {
            break;
        };
        let mut one = Route { oif, ..route };
        for (kind, payload) in Attrs::new(inside) {
            one.read_hop(kind, payload);
        }
        all.push(one);
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
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

// === impl Spec ===

impl Spec {
    /// To `dst` by the link `oif`, nothing else said.
    pub fn new(dst: IpNetwork, oif: u32) -> Self {
        Self {
            dst,
            gw: None,
            oif,
            src: None,
            scope: 0,
            table: None,
            priority: None,
            mtu: None,
            advmss: None,
            onlink: false,
        }
    }

    /// A Result's route by the link `oif`. A zero means "not set", as the spec's Go types have it.
    pub fn from_result(route: &crate::spec::result::Route, oif: u32) -> Self {
        let set = |value: Option<u32>| value.filter(|v| *v != 0);
        Self {
            gw: route.gw,
            scope: route.scope.unwrap_or_default(),
            table: set(route.table),
            priority: set(route.priority),
            mtu: set(route.mtu),
            advmss: set(route.advmss),
            ..Self::new(route.dst, oif)
        }
    }
}

#[cfg(test)]
mod tests;
