//! Masquerading chains of the reference's iptables backend, where `iptables` is iptables-nft: ordinary nf_tables
//! objects, so no program is run.
//! ```text
//! -A POSTROUTING -s 10.88.0.2/32 -m comment --comment "name: \"mynet\" id: \"0123\"" -j CNI-7166596e80d917931ad582d5
//! -A CNI-7166596e80d917931ad582d5 -d 10.88.0.0/16 ... -j ACCEPT
//! -A CNI-7166596e80d917931ad582d5 ! -d 224.0.0.0/4 ... -j MASQUERADE
//! ```

use std::net::IpAddr;

use crate::firewall::sha512;
use crate::kernel::nft::{Expr, Family, Netfilter, Rule, Table, Transaction, Verdict, matching};
use crate::nl::NlError;
use crate::spec::{Attachment, NetName};

pub(super) const TABLES: [Table<'static>; 2] = [
    Table::new(Family::Ip, "nat"),
    Table::new(Family::Ip6, "nat"),
];
pub(super) const BASE: &str = "POSTROUTING";
const PREFIX: &str = "CNI-";
const HASH_DIGITS: usize = 24;

/// The container's chain on the network; all its interfaces share it.
pub(super) fn chain_name(net: &NetName, container_id: &str) -> String {
    [
        PREFIX,
        &sha512::hex(&[net.as_str(), container_id].concat(), HASH_DIGITS),
    ]
    .concat()
}

/// The comment on each of its rules.
pub(super) fn comment(net: &NetName, container_id: &str) -> String {
    ["name: \"", net.as_str(), "\" id: \"", container_id, "\""].concat()
}

/// Deletes the jumps of these addresses, and the chain unless somebody else's jump is left.
pub(super) fn remove(
    netfilter: &mut Netfilter,
    table: &Table<'_>,
    chain: &str,
    addresses: &[IpAddr],
) -> Result<(), NlError> {
    if addresses.is_empty() || table.chain(netfilter, chain)?.is_none() {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    let mut others = false;
    for listed in table.rules(netfilter, BASE)? {
        if !jumps_to(&listed.rule, chain) {
            continue;
        }
        if addresses
            .iter()
            .any(|ip| matching::source_passes(&listed.rule.exprs, *ip))
        {
            transaction.push(table.del_rule(BASE, listed.handle));
        } else {
            others = true;
        }
    }
    if !others {
        transaction.push(table.del_chain(chain));
    }
    transaction.commit(netfilter)
}

/// Deletes the chains of the network's containers that are not in the list, with all jumps to them.
pub(super) fn gc(
    netfilter: &mut Netfilter,
    table: &Table<'_>,
    net: &NetName,
    valid: &[Attachment],
) -> Result<(), NlError> {
    let wanted: Vec<String> = valid
        .iter()
        .map(|a| chain_name(net, a.container_id.as_str()))
        .collect();
    let mut stale = Vec::new();
    for chain in table
        .chains(netfilter)?
        .into_iter()
        .filter(|chain| is_masquerading(chain))
    {
        if !wanted.contains(&chain) && is_of_network(table, netfilter, &chain, net)? {
            stale.push(chain);
        }
    }
    let mut transaction = Transaction::new();
    if !stale.is_empty() {
        for listed in table.rules(netfilter, BASE)? {
            if stale.iter().any(|chain| jumps_to(&listed.rule, chain)) {
                transaction.push(table.del_rule(BASE, listed.handle));
            }
        }
        for chain in &stale {
            transaction.push(table.del_chain(chain));
        }
    }
    transaction.commit(netfilter)
}

/// Does the rule end by jumping there?
pub(super) fn jumps_to(rule: &Rule, chain: &str) -> bool {
    matches!(rule.exprs.last(), Some(Expr::Verdict(Verdict::Jump(to))) if to == chain)
}

/// `CNI-` and 24 hex digits; portmap's chains have other prefixes.
fn is_masquerading(chain: &str) -> bool {
    chain.strip_prefix(PREFIX).is_some_and(|hash| {
        hash.len() == HASH_DIGITS && hash.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// The chain's name is a one-way hash, but its rules' comments name the network.
fn is_of_network(
    table: &Table<'_>,
    netfilter: &mut Netfilter,
    chain: &str,
    net: &NetName,
) -> Result<bool, NlError> {
    let prefix = ["name: \"", net.as_str(), "\" "].concat();
    let rules = table.rules(netfilter, chain)?;
    let mut exprs = rules.iter().flat_map(|listed| &listed.rule.exprs);
    Ok(exprs.any(|expr| matches!(expr, Expr::XtComment(text) if text.starts_with(&prefix))))
}
