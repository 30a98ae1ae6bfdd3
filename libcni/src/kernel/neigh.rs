//! Neighbours: `ip neigh`. Source: `include/uapi/linux/neighbour.h`, `net/core/neighbour.c`.

use std::net::IpAddr;

use nix::errno::Errno;

use super::mac::Mac;
use super::{family, ip_attr};
use crate::nl::attr::{self, Attrs};
use crate::nl::{CREATE, Message, NlError, REPLACE, Reply, Socket};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;

/// `sizeof(struct ndmsg)`: u8 family, pad, u16 pad, i32 index, u16 state, u8 flags, type.
const NDMSG_BYTES: usize = 12;

/// What is known about a neighbour, `NUD_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Confirmed just now; goes stale by itself.
    Reachable,
    /// Used, and confirmed on the way.
    Stale,
    /// An administrator's: never asked about, never forgotten.
    Permanent,
    /// Any other, `NUD_*` as it is.
    Other(u16),
}

/// An entry of a link's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neigh {
    /// Whose.
    pub ip: IpAddr,
    /// Its MAC; `None` while it is being asked for.
    pub mac: Option<Mac>,
    /// How well that is known.
    pub state: State,
}

/// `ip neigh replace IP dev INDEX lladdr MAC nud STATE`
pub fn replace(index: u32, ip: IpAddr, mac: Mac, state: State) -> Message {
    let words = |payload: &[u8]| words("set neighbour", " to ", payload);
    let message =
        Message::readable(RTM_NEWNEIGH, CREATE | REPLACE, words).header(&ndmsg(ip, index, state));
    ip_attr(message, NDA_DST, ip).bytes(NDA_LLADDR, &mac.0)
}

/// `ip neigh del IP dev INDEX`; ENOENT when there is no entry.
pub fn del(index: u32, ip: IpAddr) -> Message {
    let words = |payload: &[u8]| words("delete neighbour", "", payload);
    ip_attr(
        Message::readable(RTM_DELNEIGH, 0, words).header(&ndmsg(ip, index, State::Other(0))),
        NDA_DST,
        ip,
    )
}

/// The entry of an address, `None` when there is none.
pub fn get(sock: &mut Socket, index: u32, ip: IpAddr) -> Result<Option<Neigh>, NlError> {
    let step = format!("look up neighbour {ip} of link {index}");
    let message = Message::new(RTM_GETNEIGH, 0, step).header(&ndmsg(ip, index, State::Other(0)));
    match sock.get(ip_attr(message, NDA_DST, ip)) {
        Ok(reply) => Ok(Neigh::from_reply(reply).map(|(_, neigh)| neigh)),
        Err(e) if e.is(Errno::ENOENT) => Ok(None),
        // Before 5.0 a neighbour could only be listed.
        Err(e) if e.is(Errno::EOPNOTSUPP) => {
            Ok(list(sock, index)?.into_iter().find(|n| n.ip == ip))
        }
        Err(e) => Err(e),
    }
}

/// All entries of a link.
pub fn list(sock: &mut Socket, index: u32) -> Result<Vec<Neigh>, NlError> {
    // The strict check wants the link as an attribute and the header empty.
    let message = Message::new(RTM_GETNEIGH, 0, format!("list neighbours of link {index}"))
        .header(&[0; NDMSG_BYTES])
        .u32(NDA_IFINDEX, index);
    sock.dump(message, |reply| {
        Neigh::from_reply(reply).filter(|(of, _)| *of == index)
    })
    .map(|found| found.into_iter().map(|(_, neigh)| neigh).collect())
}

/// What a message of ours does, for people.
fn words(what: &str, to: &str, payload: &[u8]) -> String {
    let index = payload.get(4..).and_then(attr::u32).unwrap_or_default();
    let attrs = Attrs::after(payload, NDMSG_BYTES);
    let ip = attrs.clone().find(NDA_DST).and_then(attr::ip);
    let ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
    let mac = attrs.clone().find(NDA_LLADDR).and_then(Mac::from_bytes);
    let mac = mac.map(|mac| mac.to_string()).unwrap_or_default();
    format!("{what} {ip} of link {index}{to}{mac}")
}

fn ndmsg(ip: IpAddr, index: u32, state: State) -> [u8; NDMSG_BYTES] {
    let [a, b, c, d] = index.to_ne_bytes();
    let [low, high] = state.bits().to_ne_bytes();
    [family(ip), 0, 0, 0, a, b, c, d, low, high, 0, 0]
}

// === impl State ===

impl State {
    fn bits(self) -> u16 {
        match self {
            Self::Reachable => 0x02,
            Self::Stale => 0x04,
            Self::Permanent => 0x80,
            Self::Other(bits) => bits,
        }
    }

    fn from_bits(bits: u16) -> Self {
        match bits {
            0x02 => Self::Reachable,
            0x04 => Self::Stale,
            0x80 => Self::Permanent,
            other => Self::Other(other),
        }
    }
}

// === impl Neigh ===

impl Neigh {
    /// With the index of its link.
    pub(super) fn from_reply(reply: Reply<'_>) -> Option<(u32, Self)> {
        if reply.msg_type != RTM_NEWNEIGH {
            return None;
        }
        let index = attr::u32(reply.payload.get(4..)?)?;
        let state = State::from_bits(attr::u16(reply.payload.get(8..)?)?);
        let attrs = Attrs::after(reply.payload, NDMSG_BYTES);
        // Bridge FDB entries come in the same dump and have no address.
        let ip = attrs.clone().find(NDA_DST).and_then(attr::ip)?;
        let mac = attrs.clone().find(NDA_LLADDR).and_then(Mac::from_bytes);
        Some((index, Self { ip, mac, state }))
    }
}

#[cfg(test)]
mod tests;
