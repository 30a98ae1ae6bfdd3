//! Sets, verdict maps and their elements.

use super::expr::Verdict;
use super::socket::attributes;
use super::{Netfilter, Table, userdata};
use crate::nl::{CREATE, EXCL, Message, NlError, Reply, attr};

const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFT_MSG_DELSET: u16 = 11;

const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFT_SET_MAP: u32 = 8;
/// `NFT_DATA_VERDICT`: the type of a verdict map's values.
const DATA_VERDICT: u32 = 0xffff_ff00;

const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_DATA_VALUE: u16 = 1;

/// What a set's keys are. The number is the `nft` tool's (`enum datatypes`), only for printing; the kernel minds the
/// length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyType {
    number: u32,
    bytes: u32,
    byte_order: ByteOrder,
}

/// How `nft` is to read a key; it prints names as empty without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteOrder {
    /// A concatenation: each part has its own.
    Mixed = 0,
    Host = 1,
    Big = 2,
}

/// A set to be made, or a verdict map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSpec<'a> {
    /// Unique in its table, apart from the chains.
    pub name: &'a str,
    /// What is looked up.
    pub key: KeyType,
    /// Does each element hold a verdict?
    pub verdicts: bool,
    /// For whoever lists it.
    pub comment: &'a str,
}

/// An element, as written and as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// As long as the set's key.
    pub key: Vec<u8>,
    /// In verdict maps.
    pub verdict: Option<Verdict>,
    /// At most [`super::COMMENT_MAX_BYTES`]; `""` for none.
    pub comment: String,
}

// === impl KeyType ===

impl KeyType {
    /// `ipv4_addr`
    pub const IPV4_ADDR: KeyType = KeyType::new(7, 4, ByteOrder::Big);
    /// `ipv6_addr`
    pub const IPV6_ADDR: KeyType = KeyType::new(8, 16, ByteOrder::Big);
    /// `ifname`: 16 bytes, filled up with NULs.
    pub const IFNAME: KeyType = KeyType::new(41, 16, ByteOrder::Host);
    /// `ifname . ether_addr`: 16 bytes and 8, the last two of them zero; concatenations are filled up to 4 bytes.
    pub const IFNAME_ETHER: KeyType = KeyType::new(41 << 6 | 9, 24, ByteOrder::Mixed);

    const fn new(number: u32, bytes: u32, byte_order: ByteOrder) -> KeyType {
        KeyType {
            number,
            bytes,
            byte_order,
        }
    }
}

// === impl Element ===

impl Element {
    pub(in crate::kernel) fn read_list(reply: Reply<'_>) -> Vec<Element> {
        let list = attributes(&reply)
            .find(NFTA_SET_ELEM_LIST_ELEMENTS)
            .unwrap_or_default();
        attr::Attrs::new(list)
            .filter(|(kind, _)| *kind == NFTA_LIST_ELEM)
            .map(|(_, e)| Element::read(e))
            .collect()
    }

    fn read(payload: &[u8]) -> Element {
        let mut element = Element {
            key: Vec::new(),
            verdict: None,
            comment: String::new(),
        };
        for (kind, payload) in attr::Attrs::new(payload) {
            match kind {
                NFTA_SET_ELEM_KEY => {
                    element.key = attr::Attrs::new(payload)
                        .find(NFTA_DATA_VALUE)
                        .unwrap_or_default()
                        .to_vec();
                }
                NFTA_SET_ELEM_DATA => element.verdict = Verdict::read(payload),
                NFTA_SET_ELEM_USERDATA => element.comment = userdata::comment(Some(payload)),
                _ => {}
            }
        }
        element
    }
}

// === impl Table ===

impl Table<'_> {
    /// `add set <table> <name> { ... }` or `add map`; nothing happens if it exists with the same key and kind.
    pub fn add_set(&self, spec: &SetSpec<'_>) -> Message {
        let mut message = self
            .request(NFT_MSG_NEWSET, CREATE, ["add set ", spec.name].concat())
            .str(NFTA_SET_NAME, spec.name)
            .be32(NFTA_SET_FLAGS, if spec.verdicts { NFT_SET_MAP } else { 0 })
            .be32(NFTA_SET_KEY_TYPE, spec.key.number)
            .be32(NFTA_SET_KEY_LEN, spec.key.bytes)
            // The kernel insists on it, but finds sets by name first.
            .be32(NFTA_SET_ID, 1);
        if spec.verdicts {
            message = message.be32(NFTA_SET_DATA_TYPE, DATA_VERDICT);
        }
        let userdata = userdata::of_set(spec.key.byte_order as u32, spec.comment);
        message.bytes(NFTA_SET_USERDATA, &userdata)
    }

    /// `delete set <table> <name>` with its elements. ENOENT if there is none, EBUSY while a rule looks it up.
    pub fn del_set(&self, name: &str) -> Message {
        self.request(NFT_MSG_DELSET, 0, ["delete set ", name].concat())
            .str(NFTA_SET_NAME, name)
    }

    /// `add element <table> <set> { ... }` that must not exist yet (EEXIST): the kernel would leave the comment of an
    /// element that is there as it is.
    pub fn add_element(&self, set: &str, element: &Element) -> Message {
        let step = ["add an element to set ", set, ": ", &element.comment].concat();
        self.elements_request(
            NFT_MSG_NEWSETELEM,
            CREATE | EXCL,
            step,
            set,
            &element.key,
            |m| {
                let m = match &element.verdict {
                    Some(verdict) => m.nest(NFTA_SET_ELEM_DATA, |m| verdict.put(m)),
                    None => m,
                };
                userdata::put_comment(m, NFTA_SET_ELEM_USERDATA, &element.comment)
            },
        )
    }

    /// `delete element <table> <set> { <key> }`. ENOENT if it is gone.
    pub fn del_element(&self, set: &str, key: &[u8]) -> Message {
        self.elements_request(
            NFT_MSG_DELSETELEM,
            0,
            ["delete an element of set ", set].concat(),
            set,
            key,
            |m| m,
        )
    }

    /// The element of this key; `None` if it, the set or the table does not exist.
    pub fn element(
        &self,
        netfilter: &mut Netfilter,
        set: &str,
        key: &[u8],
    ) -> Result<Option<Element>, NlError> {
        let step = ["look an element up in set ", set].concat();
        let message = self.elements_request(NFT_MSG_GETSETELEM, 0, step, set, key, |m| m);
        Ok(netfilter
            .find(message, Element::read_list)?
            .and_then(|list| list.into_iter().next()))
    }

    /// All elements; none if the set or the table does not exist.
    pub fn elements(&self, netfilter: &mut Netfilter, set: &str) -> Result<Vec<Element>, NlError> {
        let message = self
            .request(NFT_MSG_GETSETELEM, 0, ["list set ", set].concat())
            .str(NFTA_SET_ELEM_LIST_SET, set);
        let parts = netfilter.list(message, Element::read_list)?;
        Ok(parts.into_iter().flatten().collect())
    }

    fn elements_request(
        &self,
        kind: u16,
        flags: u16,
        step: String,
        set: &str,
        key: &[u8],
        more: impl FnOnce(Message) -> Message,
    ) -> Message {
        self.request(kind, flags, step)
            .str(NFTA_SET_ELEM_LIST_SET, set)
            .nest(NFTA_SET_ELEM_LIST_ELEMENTS, |m| {
                m.nest(NFTA_LIST_ELEM, |m| {
                    more(m.nest(NFTA_SET_ELEM_KEY, |m| m.bytes(NFTA_DATA_VALUE, key)))
                })
            })
    }
}
