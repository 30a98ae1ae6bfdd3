//! Rules.

use super::expr::{self, Expr};
use super::socket::attributes;
use super::{Netfilter, Table, userdata};
use crate::nl::{APPEND, CREATE, Message, NlError, Reply, attr};

const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_DELRULE: u16 = 8;

const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_POSITION: u16 = 6;
const NFTA_RULE_USERDATA: u16 = 7;

/// What a rule does, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// In the order the kernel runs them.
    pub exprs: Vec<Expr>,
    /// At most [`super::COMMENT_MAX_BYTES`]; `""` for none.
    pub comment: String,
}

/// A rule that stands in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRule {
    /// Its number in the table, never used twice.
    pub handle: u64,
    /// The rule itself; expressions this module has no type for are [`Expr::Other`].
    pub rule: Rule,
}

// === impl Rule ===

impl Rule {
    /// A rule with a comment.
    pub fn new(exprs: impl Into<Vec<Expr>>, comment: &str) -> Rule {
        Rule {
            exprs: exprs.into(),
            comment: comment.to_owned(),
        }
    }

    /// Whether a list of rules from the kernel is exactly these, in this order.
    pub fn same(expected: &[Rule], listed: &[ListedRule]) -> bool {
        expected.iter().eq(listed.iter().map(|l| &l.rule))
    }
}

// === impl ListedRule ===

impl ListedRule {
    pub(in crate::kernel) fn read(reply: Reply<'_>) -> ListedRule {
        let mut listed = ListedRule {
            handle: 0,
            rule: Rule::new([], ""),
        };
        for (kind, payload) in attributes(&reply) {
            match kind {
                NFTA_RULE_HANDLE => listed.handle = attr::be64(payload).unwrap_or_default(),
                NFTA_RULE_EXPRESSIONS => listed.rule.exprs = expr::read_list(payload),
                NFTA_RULE_USERDATA => listed.rule.comment = userdata::comment(Some(payload)),
                _ => {}
            }
        }
        listed
    }
}

// === impl Table ===

impl Table<'_> {
    /// `add rule <table> <chain> ...`, at the end of the chain.
    pub fn add_rule(&self, chain: &str, rule: &Rule) -> Message {
        self.new_rule(CREATE | APPEND, chain, rule)
    }

    /// `insert rule <table> <chain> handle <handle> ...`, before that rule. ENOENT if it is gone.
    pub fn insert_rule(&self, chain: &str, before: u64, rule: &Rule) -> Message {
        self.new_rule(CREATE, chain, rule)
            .be64(NFTA_RULE_POSITION, before)
    }

    fn new_rule(&self, flags: u16, chain: &str, rule: &Rule) -> Message {
        let step = ["add a rule to chain ", chain].concat();
        let message = self
            .request(NFT_MSG_NEWRULE, flags, step)
            .str(NFTA_RULE_CHAIN, chain)
            .nest(NFTA_RULE_EXPRESSIONS, |m| expr::put_list(m, &rule.exprs));
        userdata::put_comment(message, NFTA_RULE_USERDATA, &rule.comment)
    }

    /// `delete rule <table> <chain> handle <handle>`. ENOENT if it is gone.
    pub fn del_rule(&self, chain: &str, handle: u64) -> Message {
        self.request(
            NFT_MSG_DELRULE,
            0,
            ["delete a rule of chain ", chain].concat(),
        )
        .str(NFTA_RULE_CHAIN, chain)
        .be64(NFTA_RULE_HANDLE, handle)
    }

    /// The rules of one chain in order; none if the chain does not exist.
    pub fn rules(
        &self,
        netfilter: &mut Netfilter,
        chain: &str,
    ) -> Result<Vec<ListedRule>, NlError> {
        let message = self
            .request(NFT_MSG_GETRULE, 0, ["list chain ", chain].concat())
            .str(NFTA_RULE_CHAIN, chain);
        netfilter.list(message, ListedRule::read)
    }
}
