//! Tables, and the frame of every message about what is in one.

use super::socket::attributes;
use super::{Netfilter, SUBSYS, userdata};
use crate::nl::{CREATE, Message, NlError, attr};

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;

/// The table's name in messages about chains, rules, sets and elements; `NFTA_TABLE_NAME` itself too.
const NFTA_TABLE: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_TABLE_USE: u16 = 3;
const NFTA_TABLE_USERDATA: u16 = 6;

/// `NFT_TABLE_F_DORMANT`
const DORMANT: u32 = 1;

/// `NLM_F_NONREC`, for deletions: not with what is in it. Linux 4.15.
const NONREC: u16 = 0x100;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `NFPROTO_INET`: IPv4 and IPv6 in one table; NAT in it needs Linux 5.2.
    Inet = 1,
    /// `NFPROTO_IPV4`.
    Ip = 2,
    /// `NFPROTO_BRIDGE`: frames a bridge forwards.
    Bridge = 7,
    /// `NFPROTO_IPV6`.
    Ip6 = 10,
}

/// A table by name; says nothing about whether it exists. Everything in it is reached through this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    family: Family,
    name: &'a str,
}

impl<'a> Table<'a> {
    /// The table of this family and name.
    pub const fn new(family: Family, name: &'a str) -> Table<'a> {
        Table { family, name }
    }

    /// `add table <name> { comment "..." }`; nothing happens if it exists, the old comment stays.
    pub fn add(&self, comment: &str) -> Message {
        let message = self.request(NFT_MSG_NEWTABLE, CREATE, ["add table ", self.name].concat());
        userdata::put_comment(message, NFTA_TABLE_USERDATA, comment)
    }

    /// `delete table <name>`, with all that is in it. ENOENT if there is none.
    pub fn del(&self) -> Message {
        self.request(NFT_MSG_DELTABLE, 0, ["delete table ", self.name].concat())
    }

    /// Deletes the table if nothing is in it; otherwise EBUSY.
    pub fn del_if_empty(&self) -> Message {
        self.request(
            NFT_MSG_DELTABLE,
            NONREC,
            ["delete the empty table ", self.name].concat(),
        )
    }

    /// How many chains, sets and other objects are in it; `None` if it does not exist.
    pub fn uses(&self, netfilter: &mut Netfilter) -> Result<Option<u32>, NlError> {
        Ok(self.state(netfilter)?.map(|(uses, _)| uses))
    }

    /// The same, and whether packets pass it by (`flags dormant`).
    pub fn state(&self, netfilter: &mut Netfilter) -> Result<Option<(u32, bool)>, NlError> {
        let message = self.request(NFT_MSG_GETTABLE, 0, ["read table ", self.name].concat());
        netfilter.find(message, |reply| {
            let number = |kind| {
                attributes(&reply)
                    .find(kind)
                    .and_then(attr::be32)
                    .unwrap_or_default()
            };
            (
                number(NFTA_TABLE_USE),
                number(NFTA_TABLE_FLAGS) & DORMANT != 0,
            )
        })
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// A message with `struct nfgenmsg` and the table's name.
    pub(super) fn request(&self, kind: u16, flags: u16, step: String) -> Message {
        Message::new(SUBSYS | kind, flags, step)
            .header(&[self.family as u8, 0, 0, 0])
            .str(NFTA_TABLE, self.name)
    }
}
