//! Routes: `ip route`. Source: `include/uapi/linux/rtnetlink.h`, `net/ipv4/fib_*.c`, `net/ipv6/route.c`.

mod read;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use nix::errno::Errno;

pub use read::from_reply;

use super::{family, ip_attr, link};
use crate::nl::{CREATE, Message, NlError, REPLACE, Reply, Socket};

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
const RTA_NH_ID: u16 = 30;

const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

/// `RTPROT_BOOT`: what `ip route add` says without a word about it, and flannel.
pub const PROTOCOL_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
/// Offset of `rtm_protocol` in `struct rtmsg`.
const RTM_PROTOCOL_AT: usize = 5;
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
    /// `RTPROT_*`: who made it.
    pub protocol: u8,
    /// A next hop ([`super::nexthop`]), in place of gateway and link.
    pub nexthop: Option<u32>,
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
    /// The next hop object it goes by; gateway and link are that one's then, unless
    /// `net.ipv4.nexthop_compat_mode` is off.
    pub nexthop: Option<u32>,
}

/// Which routes a dump is to bring; the default is all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those that leave by this link.
    pub oif: Option<u32>,
    /// Those in this table.
    pub table: Option<u32>,
    /// Those of this `RTPROT_*`.
    pub protocol: Option<u8>,
}

/// `ip route add DST via GW dev OIF ...`, protocol boot. EEXIST when the very same route is there; one
/// that differs in its gateway joins the one that is there.
pub fn add(spec: &Spec) -> Message {
    about(RTM_NEWROUTE, CREATE, |m| read::words("add", m), spec)
}

/// `ip route replace DST via GW dev OIF ...`: in place of the route that has the same destination and metric, whoever
/// made it and wherever it leads; no packet falls in between.
pub fn replace(spec: &Spec) -> Message {
    let words = |m: &[u8]| read::words("set", m);
    about(RTM_NEWROUTE, CREATE | REPLACE, words, spec)
}

/// `ip route del DST via GW dev OIF ...`; ESRCH when there is none.
pub fn del(spec: &Spec) -> Message {
    about(RTM_DELROUTE, 0, |m| read::words("delete", m), spec)
}

/// The unicast routes that leave by a link, of every table, IPv4 first.
pub fn list(sock: &mut Socket, oif: u32) -> Result<Vec<Route>, NlError> {
    let filter = Filter {
        oif: Some(oif),
        ..Filter::default()
    };
    let mut routes = dump(sock, false, filter)?;
    routes.extend(dump(sock, true, filter)?);
    Ok(routes)
}

/// The default route of a family in the main table, the one of the lowest metric; `None` without one.
pub fn default_route(sock: &mut Socket, v6: bool) -> Result<Option<Route>, NlError> {
    let probe: IpAddr = if v6 {
        DOCUMENTATION_V6.into()
    } else {
        DOCUMENTATION_V4.into()
    };
    match look_up(sock, probe, from_reply)? {
        Some(Some(route)) if route.dst.prefix() == 0 && route.table == TABLE_MAIN => {
            return Ok(Some(route));
        }
        // No route there is no default route either.
        None => return Ok(None),
        // A node that routes them after all, or has such an address: look through the table.
        Some(_) => {}
    }
    let filter = Filter {
        table: Some(TABLE_MAIN),
        ..Filter::default()
    };
    let mut routes = dump(sock, v6, filter)?;
    routes.retain(|r| r.dst.prefix() == 0);
    Ok(routes.into_iter().min_by_key(|r| r.priority))
}

/// Asks within a batch for the route that a packet to this address would take, as [`get`]; [`from_reply`] reads the
/// answer.
pub fn query(ip: IpAddr) -> Message {
    let length = if ip.is_ipv4() { 32 } else { 128 };
    let header = rtmsg(family(ip), length, 0, 0, 0, RTM_F_FIB_MATCH);
    let message =
        Message::new(RTM_GETROUTE, 0, format!("look up the route to {ip}")).header(&header);
    ip_attr(message, RTA_DST, ip)
}

/// The route a packet to this address would take, as it stands in its table (`ip route get fibmatch IP`);
/// `None` when there is none. Kernel 4.13 and later.
pub fn get(sock: &mut Socket, ip: IpAddr) -> Result<Option<Route>, NlError> {
    let route = look_up(sock, ip, from_reply)?;
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
    match sock.get(query(ip)) {
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
    for v6 in [false, true] {
        let Some(route) = default_route(sock, v6)? else {
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

/// The unicast routes of a family that a filter lets through.
pub fn dump(sock: &mut Socket, v6: bool, filter: Filter) -> Result<Vec<Route>, NlError> {
    let step = match filter.oif {
        Some(oif) => format!("list routes by link {oif}"),
        None => "list routes".to_owned(),
    };
    let family = if v6 { super::AF_INET6 } else { super::AF_INET };
    let mut header = rtmsg(family, 0, 0, 0, 0, 0);
    if let (Some(place), Some(protocol)) = (header.get_mut(RTM_PROTOCOL_AT), filter.protocol) {
        *place = protocol;
    }
    let mut message = Message::new(RTM_GETROUTE, 0, step).header(&header);
    if let Some(oif) = filter.oif {
        message = message.u32(RTA_OIF, oif);
    }
    if let Some(table) = filter.table {
        message = message.u32(RTA_TABLE, table);
    }
    let mut routes = Vec::new();
    let outcome = sock.dump_into(message, &mut routes, |routes, reply| {
        read::each(reply, |route| {
            // Before 4.20 the kernel ignores the filter.
            if filter.wants(&route) {
                routes.push(route);
            }
        });
    });
    match outcome {
        // A table that nobody has put anything into is not there.
        Err(e) if e.is(Errno::ENOENT) && filter.table.is_some() => Ok(Vec::new()),
        other => other.map(|()| routes),
    }
}

fn about(msg_type: u16, flags: u16, words: fn(&[u8]) -> String, spec: &Spec) -> Message {
    let table = spec.table.unwrap_or(TABLE_MAIN);
    let hop_flags = if spec.onlink { RTNH_F_ONLINK } else { 0 };
    let ip = spec.dst.ip();
    let header = rtmsg(
        family(ip),
        spec.dst.prefix(),
        table,
        spec.protocol,
        spec.scope,
        hop_flags,
    );
    let mut message = Message::readable(msg_type, flags, words).header(&header);
    // The kernel wants one or the other.
    message = match spec.nexthop {
        Some(id) => message.u32(RTA_NH_ID, id),
        None => message.u32(RTA_OIF, spec.oif),
    };
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

// === impl Filter ===

impl Filter {
    fn wants(&self, route: &Route) -> bool {
        // The link of a next hop object may not be told.
        let by_link = |oif| oif == route.oif || (route.oif == 0 && route.nexthop.is_some());
        self.oif.is_none_or(by_link)
            && self.table.is_none_or(|table| table == route.table)
            && self.protocol.is_none_or(|p| p == route.protocol)
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
            protocol: PROTOCOL_BOOT,
            nexthop: None,
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
