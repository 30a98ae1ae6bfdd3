//! Chains.

use super::socket::attributes;
use super::{Family, Netfilter, Table, userdata};
use crate::nl::{CREATE, EXCL, Message, NlError, Reply, attr};

const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_DELCHAIN: u16 = 5;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_CHAIN_USERDATA: u16 = 12;

const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;

/// `NF_DROP`
const DROP: u32 = 0;

/// Where a base chain sits in the packet's way. Policy is accept, always: what is not ours passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    kind: &'static str,
    hook: u32,
    priority: i32,
}

/// A chain as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its comment, `""` if none. Kernels before 5.10 keep no comments on chains.
    pub comment: String,
    /// How many rules are in it plus how many rules and elements refer to it.
    pub uses: u32,
    /// A base chain whose policy is drop.
    pub drops: bool,
    kind: String,
    hook: Option<(u32, i32)>,
}

// === impl Base ===

impl Base {
    /// `type nat hook postrouting priority srcnat`: the first packet of each connection that leaves.
    pub const POSTROUTING_NAT: Base = Base {
        kind: "nat",
        hook: 4,
        priority: 100,
    };
    /// `type filter hook prerouting priority dstnat` of family bridge: each frame that enters a bridge.
    pub const BRIDGE_PREROUTING: Base = Base {
        kind: "filter",
        hook: 0,
        priority: -300,
    };
    /// `type filter hook forward priority filter`: what is neither from nor to this node itself.
    pub const FORWARD: Base = Base {
        kind: "filter",
        hook: 2,
        priority: 0,
    };
}

// === impl Chain ===

impl Chain {
    /// Does it see packets of the same hook, at whatever priority?
    pub fn is_at_hook_of(&self, base: Base) -> bool {
        self.hook.is_some_and(|(hook, _)| hook == base.hook)
    }

    /// Is it a base chain at this very place?
    pub fn is_base(&self, base: Base) -> bool {
        self.kind == base.kind && self.hook == Some((base.hook, base.priority))
    }

    pub(in crate::kernel) fn read(reply: &Reply<'_>) -> Chain {
        let mut chain = Chain {
            comment: String::new(),
            uses: 0,
            drops: false,
            kind: String::new(),
            hook: None,
        };
        for (kind, payload) in attributes(reply) {
            match kind {
                NFTA_CHAIN_POLICY => chain.drops = attr::be32(payload) == Some(DROP),
                NFTA_CHAIN_USE => chain.uses = attr::be32(payload).unwrap_or_default(),
                NFTA_CHAIN_TYPE => chain.kind = attr::str(payload).unwrap_or_default().to_owned(),
                NFTA_CHAIN_USERDATA => chain.comment = userdata::comment(Some(payload)),
                NFTA_CHAIN_HOOK => {
                    let number = |which| attr::Attrs::new(payload).find(which).and_then(attr::be32);
                    let priority = number(NFTA_HOOK_PRIORITY).map(u32::cast_signed);
                    chain.hook = number(NFTA_HOOK_HOOKNUM).zip(priority);
                }
                _ => {}
            }
        }
        chain
    }
}

/// All chains of a family's tables, each with its table's name and its own.
pub fn chains(
    netfilter: &mut Netfilter,
    family: Family,
) -> Result<Vec<(String, String, Chain)>, NlError> {
    // The table's name in a dump's request is not minded.
    let message = Table::new(family, "").request(NFT_MSG_GETCHAIN, 0, "list all chains".to_owned());
    netfilter.list(message, |reply| {
        let text = |kind| attributes(&reply).find(kind).and_then(attr::str);
        let [table, name] = [NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME]
            .map(|kind| text(kind).unwrap_or_default().to_owned());
        (table, name, Chain::read(&reply))
    })
}

// === impl Table ===

impl Table<'_> {
    /// `add chain <table> <name> { ... }` that must not exist yet (EEXIST): re-declaring a base chain costs a grace
    /// period.
    pub fn add_chain(&self, name: &str, base: Option<Base>, comment: &str) -> Message {
        let mut message = self.request(
            NFT_MSG_NEWCHAIN,
            CREATE | EXCL,
            ["add chain ", name].concat(),
        );
        message = message.str(NFTA_CHAIN_NAME, name);
        if let Some(Base {
            kind,
            hook,
            priority,
        }) = base
        {
            message = message
                .str(NFTA_CHAIN_TYPE, kind)
                .nest(NFTA_CHAIN_HOOK, |m| {
                    m.be32(NFTA_HOOK_HOOKNUM, hook)
                        .be32(NFTA_HOOK_PRIORITY, priority.cast_unsigned())
                });
        }
        userdata::put_comment(message, NFTA_CHAIN_USERDATA, comment)
    }

    /// `delete chain <table> <name>` and its rules. ENOENT if there is none, EBUSY while something jumps to it.
    pub fn del_chain(&self, name: &str) -> Message {
        self.request(NFT_MSG_DELCHAIN, 0, ["delete chain ", name].concat())
            .str(NFTA_CHAIN_NAME, name)
    }

    /// The chain, or `None`.
    pub fn chain(&self, netfilter: &mut Netfilter, name: &str) -> Result<Option<Chain>, NlError> {
        let message = self
            .request(NFT_MSG_GETCHAIN, 0, ["read chain ", name].concat())
            .str(NFTA_CHAIN_NAME, name);
        netfilter.find(message, |reply| Chain::read(&reply))
    }

    /// The names of the table's chains; none if it does not exist.
    pub fn chains(&self, netfilter: &mut Netfilter) -> Result<Vec<String>, NlError> {
        // The dump is of the whole family.
        let all = chains(netfilter, self.family())?.into_iter();
        Ok(all
            .filter(|(table, ..)| table == self.name())
            .map(|(_, name, _)| name)
            .collect())
    }
}
