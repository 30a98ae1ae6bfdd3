//! Links: `ip link`. Source: `include/uapi/linux/if_link.h`, `net/core/rtnetlink.c`.

mod read;
mod write;

pub use read::{BridgePort, Link, get, get_index, list, query, wait_up};
pub use write::{
    VethSpec, bridge, del, down, set_alias, set_arp_notify, set_bridge_port, set_mac, set_master,
    set_mtu, set_promisc, up, up_then_arp_notify, veth, veth_echoed,
};

use crate::nl::Message;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_LINK_NETNSID: u16 = 37;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

const IFLA_BR_VLAN_FILTERING: u16 = 7;

const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFF_UP: u32 = 0x1;
const IFF_PROMISC: u32 = 0x100;

/// `sizeof(struct ifinfomsg)`
const IFINFOMSG_BYTES: usize = 16;

/// Which link a message is about, `dev` in `ip`'s words. By name costs the kernel a hash look-up and us
/// the question for the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dev<'a> {
    /// By index.
    Index(u32),
    /// By name.
    Name(&'a str),
}

/// `struct ifinfomsg` for any address family.
pub(super) fn ifinfomsg(family: u8, index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG_BYTES] {
    let mut header = [0; IFINFOMSG_BYTES];
    let words = [u32::from_ne_bytes([family, 0, 0, 0]), index, flags, change];
    for (place, word) in header.chunks_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    header
}

// === impl Dev ===

impl Dev<'_> {
    /// Opens a link message about this link: header, and the name where it goes by name.
    fn message(
        self,
        msg_type: u16,
        msg_flags: u16,
        what: &str,
        flags: u32,
        change: u32,
    ) -> Message {
        let step = format!("{what} {self}");
        match self {
            Self::Index(index) => {
                Message::new(msg_type, msg_flags, step).header(&ifinfomsg(0, index, flags, change))
            }
            Self::Name(name) => Message::new(msg_type, msg_flags, step)
                .header(&ifinfomsg(0, 0, flags, change))
                .str(IFLA_IFNAME, name),
        }
    }
}

impl From<u32> for Dev<'_> {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl<'a> From<&'a str> for Dev<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for Dev<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl std::fmt::Display for Dev<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(f, "link {index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests;
