//! flannel's own rules: taken over from it, given back to it.
//!
//! | where | chains | since |
//! |---|---|---|
//! | iptables `nat` | `POSTROUTING` jumps to `FLANNEL-POSTRTG` | 0.20 |
//! | iptables `filter` | `FORWARD` jumps to `FLANNEL-FWD` | 0.20 |
//! | the same two tables | rules in `POSTROUTING` and `FORWARD` themselves, commented `flanneld masq`, `flanneld forward` | before |
//! | nf_tables | `ip flannel-ipv4`, `ip6 flannel-ipv6` | 0.25, with `EnableNFTables` |
//!
//! A real flanneld clears these at its start, whichever of the two modes it is in, apart from `FLANNEL-FWD`.

use libcni::kernel::nft::{Family, Netfilter, Table};

use super::{FirewallError, Rules, ensure, remove};

mod iptables;
mod legacy;
mod nftables;
#[cfg(test)]
mod tests;

/// Where flannel keeps things of one table of iptables.
struct Place {
    table: &'static str,
    /// The base chain, and the number of its hook.
    base: &'static str,
    hook: usize,
    chain: &'static str,
    comment: &'static str,
}

const MASQUERADE: Place = Place {
    table: "nat",
    base: "POSTROUTING",
    hook: 4,
    chain: "FLANNEL-POSTRTG",
    comment: "flanneld masq",
};
const FORWARD: Place = Place {
    table: "filter",
    base: "FORWARD",
    hook: libcni::kernel::xtables::FORWARD,
    chain: "FLANNEL-FWD",
    comment: "flanneld forward",
};
const PLACES: [Place; 2] = [MASQUERADE, FORWARD];

/// flannel's tables of its `EnableNFTables` mode.
const NFTABLES: [Table<'static>; 2] = [
    Table::new(Family::Ip, "flannel-ipv4"),
    Table::new(Family::Ip6, "flannel-ipv6"),
];

/// In which form flannel is to find its rules again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Chains of iptables; of whichever kind this node's `iptables` is.
    Iptables,
    /// Tables of its own (`EnableNFTables`).
    Nftables,
}

/// What [`take_over`] found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// What was flannel's and is gone.
    pub removed: Vec<String>,
    /// What is left, and why: a line each, for the log.
    pub left: Vec<String>,
}

/// What [`give_back`] left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// In this form, which is not the one asked for if that could not be.
    pub style: Style,
    /// Why not.
    pub because: Option<String>,
}

/// Makes our rules stand, then removes what a flannel that ran here left. Nothing found is nothing changed.
///
/// # Errors
/// Our rules could not be made (then nothing of flannel's was touched), or nf_tables refused. Leftovers in
/// iptables-legacy that cannot be removed are no error: they say the same as our rules.
pub fn take_over(netfilter: &mut Netfilter, rules: &Rules) -> Result<TakenOver, FirewallError> {
    ensure(netfilter, rules)?;
    let mut taken = TakenOver {
        removed: nftables::remove(netfilter)?,
        left: Vec::new(),
    };
    legacy::remove(&mut taken);
    Ok(taken)
}

/// Makes flannel's rules of ours, then removes ours. Where the iptables programs are missing or fail, flannel's nf_tables
/// form is made instead: a flanneld in either mode removes it when its own rules are in place.
///
/// # Errors
/// Neither form could be made; then ours still stand.
pub fn give_back(
    netfilter: &mut Netfilter,
    rules: &Rules,
    style: Style,
) -> Result<Given, FirewallError> {
    let mut given = Given {
        style,
        because: None,
    };
    if style == Style::Iptables
        && let Err(reason) = iptables::make(rules)
    {
        given = Given {
            style: Style::Nftables,
            because: Some(reason),
        };
    }
    if given.style == Style::Nftables {
        nftables::make(netfilter, rules)?;
    }
    remove(netfilter, &rules.name)?;
    Ok(given)
}
