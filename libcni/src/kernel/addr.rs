//! Addresses: `ip address`. Source: `include/uapi/linux/if_addr.h`, `net/ipv4/devinet.c`, `net/ipv6/addrconf.c`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::{family, ip_attr, route};
use crate::nl::attr::{self, Attrs};
use crate::nl::{CREATE, EXCL, Event, Message, NlError, Reply, Socket};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;

/// `IFA_F_TEMPORARY` of IPv6 (RFC 8981), `IFA_F_SECONDARY` of IPv4.
const IFA_F_TEMPORARY: u32 = 0x01;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;

/// `RTNLGRP_IPV6_IFADDR`
const GROUP_IPV6_ADDR: u32 = 9;
/// `RTNLGRP_IPV6_ROUTE`
const GROUP_IPV6_ROUTE: u32 = 11;
/// `sizeof(struct ifaddrmsg)`: u8 family, prefix length, flags, scope, u32 index.
const IFADDRMSG_BYTES: usize = 8;

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addr {
    /// Address and prefix length.
    pub net: IpNetwork,
    /// `RT_SCOPE_*`: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// `IFA_F_*`
    pub flags: u32,
}

/// `ip address add NET dev INDEX` with scope global, and `broadcast +` for IPv4 prefixes below 31; EEXIST
/// when it is there. `nodad` (IPv6 only): usable at once, without a second of duplicate address detection.
pub fn add(index: u32, net: IpNetwork, nodad: bool) -> Message {
    let mut message = about(RTM_NEWADDR, CREATE | EXCL, "add address", index, net);
    match net {
        IpNetwork::V4(v4) if v4.prefix() < 31 => {
            message = message.bytes(IFA_BROADCAST, &v4.broadcast().octets());
        }
        IpNetwork::V6(_) if nodad => message = message.u32(IFA_FLAGS, IFA_F_NODAD),
        _ => {}
    }
    message
}

/// `ip address del NET dev INDEX`; EADDRNOTAVAIL when it is not there.
pub fn del(index: u32, net: IpNetwork) -> Message {
    about(RTM_DELADDR, 0, "delete address", index, net)
}

/// The addresses of one link, IPv4 first.
pub fn list(sock: &mut Socket, index: u32) -> Result<Vec<Addr>, NlError> {
    let message = Message::new(RTM_GETADDR, 0, format!("list addresses of link {index}"))
        .header(&ifaddrmsg(0, 0, index));
    // Kernels before 4.20 ignore the index and list everything.
    sock.dump(message, |reply| {
        Addr::from_reply(reply).filter(|(of, _)| *of == index)
    })
    .map(|found| found.into_iter().map(|(_, addr)| addr).collect())
}

/// The addresses of all links, with the index of each one's link.
pub fn list_all(sock: &mut Socket) -> Result<Vec<(u32, Addr)>, NlError> {
    let message = Message::new(RTM_GETADDR, 0, "list addresses").header(&ifaddrmsg(0, 0, 0));
    sock.dump(message, Addr::from_reply)
}

/// Waits until no IPv6 address of the link (link-local ones included) is tentative; EADDRINUSE when another
/// node has one of them, ETIMEDOUT after the deadline.
pub fn wait_settled(sock: &mut Socket, index: u32, deadline_ms: u32) -> Result<(), NlError> {
    let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
    if settled(sock, index)? {
        return Ok(());
    }
    sock.subscribe(GROUP_IPV6_ADDR)?;
    let outcome = loop {
        match settled(sock, index) {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(e) => break Err(e),
        }
        match sock.next_event(deadline, |_| {}) {
            Ok(Event::Seen | Event::Overrun) => {}
            Ok(Event::Timeout) => {
                let step = format!("wait for duplicate address detection on link {index}");
                let why =
                    format!("still tentative after {deadline_ms} ms (is the link's other end up?)");
                break Err(NlError::because(step, Errno::ETIMEDOUT as i32, why));
            }
            Err(e) => break Err(e),
        }
    };
    sock.unsubscribe(GROUP_IPV6_ADDR)?;
    outcome
}

/// Waits until the kernel delivers to these addresses. It makes the local route of an IPv6 address in a work
/// queue, also without duplicate address detection: normally done by now, else a matter of microseconds.
/// ETIMEDOUT after the deadline.
pub fn wait_local(sock: &mut Socket, ips: &[IpAddr], deadline_ms: u32) -> Result<(), NlError> {
    let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
    let mut subscribed = false;
    for &ip in ips {
        while !route::is_local(sock, ip)? {
            if !subscribed {
                sock.subscribe(GROUP_IPV6_ROUTE)?;
                subscribed = true;
                continue; // it may have come in between
            }
            if sock.next_event(deadline, |_| {})? == Event::Timeout {
                let step = format!("wait for the local route of {ip}");
                return Err(NlError::new(step, Errno::ETIMEDOUT as i32));
            }
        }
    }
    if subscribed {
        sock.unsubscribe(GROUP_IPV6_ROUTE)?;
    }
    Ok(())
}

fn settled(sock: &mut Socket, index: u32) -> Result<bool, NlError> {
    let held = list(sock, index)?;
    if let Some(taken) = held.iter().find(|a| a.flags & IFA_F_DADFAILED != 0) {
        let step = format!("duplicate address detection of {}", taken.net.ip());
        return Err(NlError::because(
            step,
            Errno::EADDRINUSE as i32,
            "another node of this segment has it",
        ));
    }
    Ok(held.iter().all(|a| a.flags & IFA_F_TENTATIVE == 0))
}

fn about(msg_type: u16, flags: u16, what: &str, index: u32, net: IpNetwork) -> Message {
    let message = Message::new(msg_type, flags, format!("{what} {net} on link {index}"))
        .header(&ifaddrmsg(family(net.ip()), net.prefix(), index));
    ip_attr(ip_attr(message, IFA_LOCAL, net.ip()), IFA_ADDRESS, net.ip())
}

fn ifaddrmsg(family: u8, prefix: u8, index: u32) -> [u8; IFADDRMSG_BYTES] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, prefix, 0, 0, a, b, c, d]
}

// === impl Addr ===

impl Addr {
    /// Has it no end (not from DHCP, not from router advertisements)?
    pub fn is_permanent(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0
    }

    /// Is it a privacy address of IPv6, which will be replaced within days?
    pub fn is_temporary(&self) -> bool {
        self.net.is_ipv6() && self.flags & IFA_F_TEMPORARY != 0
    }

    /// Can it be used for new connections: neither deprecated nor a duplicate?
    pub fn is_usable(&self) -> bool {
        self.flags & (IFA_F_DEPRECATED | IFA_F_DADFAILED) == 0
    }

    /// With the index of its link.
    pub(super) fn from_reply(reply: Reply<'_>) -> Option<(u32, Self)> {
        let &[_, prefix, flags, scope, ..] = reply.payload else {
            return None;
        };
        if reply.msg_type != RTM_NEWADDR {
            return None;
        }
        let index = attr::u32(reply.payload.get(4..)?)?;
        let attrs = Attrs::after(reply.payload, IFADDRMSG_BYTES);
        // Of a point-to-point address IFA_ADDRESS is the other side; IPv6 otherwise has no IFA_LOCAL.
        let ours = attrs
            .clone()
            .find(IFA_LOCAL)
            .or_else(|| attrs.clone().find(IFA_ADDRESS))?;
        let net = IpNetwork::new(attr::ip(ours)?, prefix).ok()?;
        // The header has room for the eight oldest flags only.
        let flags = attrs
            .clone()
            .find(IFA_FLAGS)
            .and_then(attr::u32)
            .unwrap_or(flags.into());
        Some((index, Self { net, scope, flags }))
    }
}

#[cfg(test)]
mod tests;
