//! nf_tables over netlink: tables, chains, rules, sets and their elements, written in transactions.
//!
//! An encoder for what this suite keeps in the kernel, not a firewall language: no `nft` text is read or written,
//! and an expression nobody here uses does not exist. Sources: `include/uapi/linux/netfilter/nf_tables.h`,
//! `net/netfilter/nf_tables_api.c`; the bytes follow what `nft --debug=netlink` sends, so that `nft list ruleset`
//! prints a rule as an administrator would have written it.
//!
//! What it costs (Linux 6.18): a get about 5 µs, a transaction about 20 µs. **A transaction that deletes anything, or
//! declares a base chain that is there already, makes the close of every netfilter socket of this network namespace
//! wait for an RCU grace period, about 15 ms.** So look before writing, and drop the [`Netfilter`] last.
//!
//! ```no_run
//! use libcni::kernel::nft::{Base, Family, Netfilter, Rule, Table, Transaction, matching};
//! # fn demo() -> Result<(), libcni::nl::NlError> {
//! let table = Table::new(Family::Inet, "podwire");
//! // chain leave { type nat hook postrouting priority srcnat; ip saddr 10.88.0.0/16 masquerade }
//! let rule = Rule::new(matching::source("10.88.0.0/16".parse().unwrap()).masquerade(), "network cbr0");
//! let mut transaction = Transaction::new();
//! transaction.push(table.add("podwire"));
//! transaction.push(table.add_chain("leave", Some(Base::POSTROUTING_NAT), ""));
//! transaction.push(table.add_rule("leave", &rule));
//! transaction.commit(&mut Netfilter::unopened())
//! # }
//! ```

mod chain;
mod expr;
pub mod matching;
mod rule;
mod set;
mod socket;
mod table;
mod transaction;
mod userdata;

pub use chain::{Base, Chain, chains};
pub use expr::{Compare, Expr, Verdict};
pub use rule::{ListedRule, Rule};
pub use set::{Element, KeyType, SetSpec};
pub use socket::Netfilter;
pub use table::{Family, Table};
pub(crate) use transaction::lost_a_race;
pub use transaction::{Transaction, settle, tidy};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message type.
const SUBSYS: u16 = 10 << 8;

/// The longest comment `nft` prints and reads back (`NFTNL_UDATA_COMMENT_MAXLEN` less the NUL).
pub const COMMENT_MAX_BYTES: usize = 127;

#[cfg(test)]
mod tests;
