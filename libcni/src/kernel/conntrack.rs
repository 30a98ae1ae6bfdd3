//! Conntrack entries of addresses that change hands.
//!
//! An address given to a new pod still has the old pod's connections in the table: packets would be translated by
//! decisions that were made for somebody else, for UDP as long as they keep coming. So the entries go with the pod.
//! Source: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, `net/netfilter/nf_conntrack_netlink.c`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use nix::errno::Errno;

use super::nft::Netfilter;
use crate::nl::{Batch, Message, NlError, Reply, attr};

/// `NFNL_SUBSYS_CTNETLINK`, the upper byte of a message type.
const SUBSYS: u16 = 1 << 8;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;

const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;

const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_FLAG(CTA_IP_SRC)`
const FILTER_IP_SRC: u32 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The number of entries in the reader's network namespace; absent while conntrack is not loaded.
const COUNT_FILE: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Deletes the entries of connections from and to the addresses, translated or not, and no others: those with an
/// address as source in the original or in the reply direction. (The destination of a direction is the source of the
/// other, unless something translates traffic *towards* a pod's own address; looking for that would double the cost.)
///
/// Nothing happens, and no socket is opened, while the namespace has no entries (6 µs). Otherwise the kernel walks its
/// whole table, of all namespaces: twice per IPv4 address, measured 0.2 ms for few entries in 262,144 buckets, 3.5 ms
/// for 10,000 and 50 ms for 100,000; **once for IPv6, 10 ms for few entries**, 12 ms for 10,000 and 28 ms for 100,000
/// of IPv4, plus what IPv6 entries there are. Closing the socket does not wait for it.
///
/// # Errors
/// What the kernel refused. Without conntrack in the kernel there is nothing to delete.
pub fn forget(netfilter: &mut Netfilter, addresses: &[IpAddr]) -> Result<(), NlError> {
    if addresses.is_empty() || is_empty() {
        return Ok(());
    }
    let v4 = addresses.iter().filter_map(|ip| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let by_filter = v4.flat_map(delete_by_filter).collect::<Batch>();
    match netfilter.socket()?.run(&by_filter) {
        // Kernels before 6.8 take the tuple for one whole entry's and miss its ports. (They ignore the filter; but with
        // a tuple in the request none of them empties the table.)
        Err(error) if error.is(Errno::EINVAL) || error.is(Errno::EOPNOTSUPP) => {
            delete_one_by_one(netfilter, AF_INET, addresses)?;
        }
        outcome => outcome?,
    }
    // Not by filter: the kernel's compares IPv6 addresses the wrong way round and takes every entry *but* those of the
    // address (ctnetlink_filter_match_tuple() has `!ipv6_addr_cmp()`, since 5.8 and still in 6.18).
    if addresses.iter().any(IpAddr::is_ipv6) {
        delete_one_by_one(netfilter, AF_INET6, addresses)?;
    }
    Ok(())
}

fn is_empty() -> bool {
    match fs::read(COUNT_FILE) {
        Ok(count) => count.starts_with(b"0"),
        Err(_) => true,
    }
}

/// Both directions an address can be the source of.
fn delete_by_filter(ip: Ipv4Addr) -> [Message; 2] {
    let message = |tuple, flags| {
        request(
            IPCTNL_MSG_CT_DELETE,
            AF_INET,
            "delete the conntrack entries of an address",
        )
        .nest(tuple, |m| {
            m.nest(CTA_TUPLE_IP, |m| m.bytes(CTA_IP_V4_SRC, &ip.octets()))
        })
        .nest(CTA_FILTER, |m| m.u32(flags, FILTER_IP_SRC))
    };
    [
        message(CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS),
        message(CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS),
    ]
}

/// Lists all entries of the family and deletes those that have one of the addresses.
fn delete_one_by_one(
    netfilter: &mut Netfilter,
    family: u8,
    addresses: &[IpAddr],
) -> Result<(), NlError> {
    let list = request(IPCTNL_MSG_CT_GET, family, "list the conntrack entries");
    let doomed = match netfilter
        .socket()?
        .dump(list, |reply| delete_listed(reply, addresses))
    {
        // Sockets for nf_tables, but no conntrack to talk to.
        Err(error) if error.is(Errno::EINVAL) => return Ok(()),
        listed => listed?,
    };
    let batch = Batch::from_iter(doomed);
    for outcome in netfilter.socket()?.run_all(&batch)? {
        match outcome {
            // It ended by itself meanwhile.
            Err(error) if error.is(Errno::ENOENT) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// The request that deletes a listed entry, if it has one of the addresses.
pub(super) fn delete_listed(reply: Reply<'_>, addresses: &[IpAddr]) -> Option<Message> {
    let entry = attr::Attrs::after(reply.payload, 4);
    let tuples =
        [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY].map(|kind| entry.clone().find(kind).unwrap_or_default());
    let mut ips = tuples.into_iter().flat_map(|tuple| {
        let ip = attr::Attrs::new(tuple)
            .find(CTA_TUPLE_IP)
            .unwrap_or_default();
        let sources =
            attr::Attrs::new(ip).filter(|(kind, _)| [CTA_IP_V4_SRC, CTA_IP_V6_SRC].contains(kind));
        sources.filter_map(|(_, address)| attr::ip(address))
    });
    if !ips.any(|ip| addresses.contains(&ip)) {
        return None;
    }
    let [original, _] = tuples;
    // With its ID, lest a new connection with the same ports is hit.
    let mut message = request(
        IPCTNL_MSG_CT_DELETE,
        attr::u8(reply.payload)?,
        "delete a conntrack entry",
    )
    .bytes(NESTED | CTA_TUPLE_ORIG, original);
    for kind in [CTA_ZONE, CTA_ID] {
        if let Some(value) = entry.clone().find(kind) {
            message = message.bytes(kind, value);
        }
    }
    Some(message)
}

/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;

/// A message with `struct nfgenmsg`.
fn request(kind: u16, family: u8, step: &'static str) -> Message {
    Message::new(SUBSYS | kind, 0, step).header(&[family, 0, 0, 0])
}

#[cfg(test)]
mod tests;
