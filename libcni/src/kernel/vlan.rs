//! VLANs of a bridge port: `bridge vlan`. Source: `include/uapi/linux/if_bridge.h`, `net/bridge/br_vlan.c`.

use nix::errno::Errno;

use super::AF_BRIDGE;
use super::link::ifinfomsg;
use crate::nl::attr::{self, Attrs};
use crate::nl::{Message, NlError, Reply, Socket};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWVLAN: u16 = 112;
const RTM_GETVLAN: u16 = 114;

const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_BRIDGE_FLAGS: u16 = 0;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_FLAGS_SELF: u16 = 2;
/// `RTEXT_FILTER_BRVLAN_COMPRESSED`: neighbouring VLANs with equal flags as a range.
const FILTER_BRVLAN_COMPRESSED: u32 = 4;

const BRIDGE_VLANDB_ENTRY: u16 = 1;
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;

const INFO_PVID: u16 = 1 << 1;
const INFO_UNTAGGED: u16 = 1 << 2;
const INFO_RANGE_BEGIN: u16 = 1 << 3;
const INFO_RANGE_END: u16 = 1 << 4;

const IFINFOMSG_BYTES: usize = 16;
/// `sizeof(struct br_vlan_msg)`: u8 family, u8, u16, u32 index.
const BR_VLAN_MSG_BYTES: usize = 8;

/// VLANs `first..=last` (1..=4094) of a port, all with the same treatment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlans {
    /// The lowest ID.
    pub first: u16,
    /// The highest ID; the same for a single one.
    pub last: u16,
    /// Do untagged frames that come in belong to it? Of one VLAN only.
    pub pvid: bool,
    /// Do its frames leave without a tag?
    pub untagged: bool,
}

/// `bridge vlan add dev INDEX vid FIRST-LAST [pvid] [untagged]`, all of them in one message. The link must
/// be a bridge port.
pub fn add(index: u32, vlans: &[Vlans]) -> Message {
    about(RTM_SETLINK, "add VLANs to", index, false, vlans)
}

/// `bridge vlan del dev INDEX vid FIRST-LAST`, all of them in one message. A VLAN that is not there is
/// no error.
pub fn del(index: u32, vlans: &[Vlans]) -> Message {
    about(RTM_DELLINK, "delete VLANs of", index, false, vlans)
}

/// `bridge vlan add dev INDEX vid FIRST-LAST self`: of the bridge itself, which then takes part.
pub fn add_self(index: u32, vlans: &[Vlans]) -> Message {
    about(RTM_SETLINK, "add VLANs to bridge", index, true, vlans)
}

/// `bridge vlan show dev INDEX`: the VLANs of one port (or of a bridge itself), lowest first.
pub fn list(sock: &mut Socket, index: u32) -> Result<Vec<Vlans>, NlError> {
    let step = format!("list VLANs of link {index}");
    let [a, b, c, d] = index.to_ne_bytes();
    let header = [AF_BRIDGE, 0, 0, 0, a, b, c, d];
    let message = Message::new(RTM_GETVLAN, 0, step.clone()).header(&header);
    match sock.dump(message, |reply| Some(from_vlan_reply(reply, index))) {
        Ok(found) => Ok(found.into_iter().flatten().collect()),
        // Before 5.6 VLANs came only with the ports, all of them.
        Err(e) if e.is(Errno::EOPNOTSUPP) || e.is(Errno::EINVAL) => {
            list_with_ports(sock, index, step)
        }
        Err(e) => Err(e),
    }
}

fn list_with_ports(sock: &mut Socket, index: u32, step: String) -> Result<Vec<Vlans>, NlError> {
    let message = Message::new(RTM_GETLINK, 0, step)
        .header(&ifinfomsg(AF_BRIDGE, 0, 0, 0))
        .u32(IFLA_EXT_MASK, FILTER_BRVLAN_COMPRESSED);
    let found = sock.dump(message, |reply| Some(from_link_reply(reply, index)))?;
    Ok(found.into_iter().flatten().collect())
}

fn about(msg_type: u16, what: &str, index: u32, of_itself: bool, vlans: &[Vlans]) -> Message {
    Message::new(msg_type, 0, format!("{what} link {index}"))
        .header(&ifinfomsg(AF_BRIDGE, index, 0, 0))
        .nest(IFLA_AF_SPEC, |mut m| {
            if of_itself {
                m = m.u16(IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF);
            }
            vlans.iter().fold(m, put)
        })
}

/// A range is two entries, its begin and its end; PVID is refused in one (EINVAL).
fn put(message: Message, vlans: &Vlans) -> Message {
    let mut flags = 0;
    if vlans.pvid {
        flags |= INFO_PVID;
    }
    if vlans.untagged {
        flags |= INFO_UNTAGGED;
    }
    let info = |m: Message, flags: u16, id: u16| {
        let ([a, b], [c, d]) = (flags.to_ne_bytes(), id.to_ne_bytes());
        m.bytes(IFLA_BRIDGE_VLAN_INFO, &[a, b, c, d])
    };
    if vlans.first == vlans.last {
        return info(message, flags, vlans.first);
    }
    let message = info(message, flags | INFO_RANGE_BEGIN, vlans.first);
    info(message, flags | INFO_RANGE_END, vlans.last)
}

pub(super) fn from_vlan_reply(reply: Reply<'_>, index: u32) -> Vec<Vlans> {
    let of = reply.payload.get(4..).and_then(attr::u32);
    if reply.msg_type != RTM_NEWVLAN || of != Some(index) {
        return Vec::new();
    }
    let entry = |payload| {
        let attrs = Attrs::new(payload);
        let (flags, first) = info(attrs.clone().find(BRIDGE_VLANDB_ENTRY_INFO)?)?;
        let last = attrs
            .clone()
            .find(BRIDGE_VLANDB_ENTRY_RANGE)
            .and_then(attr::u16)
            .unwrap_or(first);
        Some(Vlans::new(flags, first, last))
    };
    Attrs::after(reply.payload, BR_VLAN_MSG_BYTES)
        .filter(|(kind, _)| *kind == BRIDGE_VLANDB_ENTRY)
        .filter_map(|(_, payload)| entry(payload))
        .collect()
}

pub(super) fn from_link_reply(reply: Reply<'_>, index: u32) -> Vec<Vlans> {
    let of = reply.payload.get(4..).and_then(attr::u32);
    if reply.msg_type != RTM_NEWLINK || of != Some(index) {
        return Vec::new();
    }
    let spec = Attrs::after(reply.payload, IFINFOMSG_BYTES).find(IFLA_AF_SPEC);
    let mut all = Vec::new();
    let mut begin = None;
    for (kind, payload) in Attrs::new(spec.unwrap_or_default()) {
        let Some((flags, id)) = info(payload).filter(|_| kind == IFLA_BRIDGE_VLAN_INFO) else {
            continue;
        };
        if flags & INFO_RANGE_BEGIN != 0 {
            begin = Some(id);
            continue;
        }
        let first = begin
            .take()
            .filter(|_| flags & INFO_RANGE_END != 0)
            .unwrap_or(id);
        all.push(Vlans::new(flags, first, id));
    }
    all
}

/// `struct bridge_vlan_info`: u16 flags, u16 id.
fn info(payload: &[u8]) -> Option<(u16, u16)> {
    Some((attr::u16(payload)?, attr::u16(payload.get(2..)?)?))
}

// === impl Vlans ===

impl Vlans {
    /// One VLAN, tagged.
    pub fn tagged(id: u16) -> Self {
        Self {
            first: id,
            last: id,
            pvid: false,
            untagged: false,
        }
    }

    /// The port's own VLAN: untagged frames, both ways.
    pub fn access(id: u16) -> Self {
        Self {
            first: id,
            last: id,
            pvid: true,
            untagged: true,
        }
    }

    fn new(flags: u16, first: u16, last: u16) -> Self {
        Self {
            first,
            last,
            pvid: flags & INFO_PVID != 0,
            untagged: flags & INFO_UNTAGGED != 0,
        }
    }
}

#[cfg(test)]
mod tests;
