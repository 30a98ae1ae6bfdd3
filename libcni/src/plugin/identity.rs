//! Names of kernel objects that follow from the attachment alone.
//!
//! The host end of a veth pair is named by a hash of (network, container ID, interface name), and its alias
//! spells the three out. So DEL needs neither the network namespace nor prevResult to find it, GC sees whose
//! a forgotten link is, and `ip link` explains itself.

use crate::spec::{Attachment, ContainerId, IfName, NetName};

/// `IFALIASZ` of `include/uapi/linux/if.h` is 256 with the closing NUL.
const ALIAS_MAX_BYTES: usize = 255;
/// How many names an attachment may fall back to when a hash is taken by another attachment.
pub const HOST_NAME_TRIES: u32 = 4;

/// Name of the host end: `veth` and eight hex digits, as the reference's, but not random. `attempt` counts
/// from 0 and moves on only when the name before is another attachment's.
#[must_use]
pub fn host_ifname(net: &NetName, attachment: &Attachment, attempt: u32) -> IfName {
    let hash = hash(&[
        net.as_str(),
        attachment.container_id.as_str(),
        attachment.ifname.as_str(),
        if attempt == 0 { "" } else { "again" },
    ])
    .wrapping_add(u64::from(attempt));
    IfName::new_unchecked(format!("veth{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff)))
}

/// Alias of the host end: `podwire:<network>/<container ID>/<interface>`; too long a one is hashed.
#[must_use]
pub fn alias(net: &NetName, attachment: &Attachment) -> String {
    let (id, ifname) = (&attachment.container_id, &attachment.ifname);
    let plain = format!("podwire:{net}/{id}/{ifname}");
    if plain.len() <= ALIAS_MAX_BYTES {
        return plain;
    }
    format!(
        "podwire#{:016x}/{:016x}",
        hash(&[net.as_str()]),
        hash(&[net.as_str(), id.as_str(), ifname.as_str()])
    )
}

/// Whether an alias is of this network, whichever attachment it names.
#[must_use]
pub fn is_of_network(alias: &str, net: &NetName) -> bool {
    match alias.strip_prefix("podwire") {
        Some(rest) => match rest.strip_prefix(':') {
            Some(plain) => plain.split('/').next() == Some(net.as_str()),
            None => rest
                .strip_prefix('#')
                .is_some_and(|h| h.starts_with(&format!("{:016x}/", hash(&[net.as_str()])))),
        },
        None => false,
    }
}

/// The network and attachment an alias names; none if it is not ours, or hashed.
#[must_use]
pub fn of_alias(alias: &str) -> Option<(NetName, Attachment)> {
    let mut parts = alias.strip_prefix("podwire:")?.splitn(3, '/');
    let net = NetName::parse(parts.next()?).ok()?;
    let container_id = ContainerId::parse(parts.next()?).ok()?;
    let ifname = IfName::parse(parts.next()?).ok()?;
    Some((
        net,
        Attachment {
            container_id,
            ifname,
        },
    ))
}

/// FNV-1a over the parts, each closed by a NUL so that ("ab","c") and ("a","bc") differ; then mixed, for
/// FNV's upper bits are weak on short input. Stable for ever: names on a running node depend on it.
fn hash(parts: &[&str]) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}
