//! What flannel has in nf_tables: its own tables, and chains of iptables-nft.

use libcni::kernel::nft::{
    Base, Expr, Family, ListedRule, Netfilter, Table, Transaction, Verdict, matching::Match, settle,
};
use libcni::nl::NlError;

use super::{NFTABLES, PLACES, Place};
use crate::firewall::{FirewallError, Rules, table};

/// Removes all of it in one transaction; returns what there was.
pub(super) fn remove(netfilter: &mut Netfilter) -> Result<Vec<String>, FirewallError> {
    settle(|attempt| {
        if look(netfilter)?.1.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = Transaction::begin(netfilter, attempt)?;
        let (doomed, names) = look(netfilter)?;
        for message in doomed {
            transaction.push(message);
        }
        transaction.commit(netfilter).map(|()| names)
    })
    .map_err(|source| FirewallError::Kernel {
        what: "flannel's rules",
        source,
    })
}

/// The deletions, and what they are of.
fn look(netfilter: &mut Netfilter) -> Result<(Vec<libcni::nl::Message>, Vec<String>), NlError> {
    let (mut doomed, mut names) = (Vec::new(), Vec::new());
    for (family, program) in [(Family::Ip, "iptables"), (Family::Ip6, "ip6tables")] {
        for place in &PLACES {
            let table = Table::new(family, place.table);
            let listed = table.rules(netfilter, place.base)?;
            let rules = listed.iter().filter(|rule| place.owns(rule));
            doomed.extend(rules.map(|rule| table.del_rule(place.base, rule.handle)));
            let chain = table.chain(netfilter, place.chain)?;
            if chain.is_some() {
                doomed.push(table.del_chain(place.chain));
            }
            if chain.is_some() || listed.iter().any(|rule| place.owns(rule)) {
                names.push(format!(
                    "{} in table {} of {program}-nft",
                    place.chain, place.table
                ));
            }
        }
    }
    for (table, name) in NFTABLES.iter().zip(["ip flannel-ipv4", "ip6 flannel-ipv6"]) {
        if table.uses(netfilter)?.is_some() {
            doomed.push(table.del());
            names.push(["table ", name].concat());
        }
    }
    Ok((doomed, names))
}

/// Makes flannel's tables, as it does with `EnableNFTables`, but with rules that do what its iptables rules do: it has
/// two prefixes exchanged, and minds other bits of the mark.
pub(super) fn make(netfilter: &mut Netfilter, rules: &Rules) -> Result<(), FirewallError> {
    settle(|attempt| {
        let mut transaction = Transaction::begin(netfilter, attempt)?;
        for (table, ipv4) in NFTABLES.iter().zip([true, false]) {
            if table.uses(netfilter)?.is_some() {
                transaction.push(table.del());
            }
            let Some(side) = rules.side(ipv4) else {
                continue;
            };
            let mut chains = Vec::new();
            if rules.forward {
                chains.push(table::Wanted {
                    name: "forward",
                    base: Base::FORWARD,
                    rules: table::forward(side, &Match::all()).into(),
                });
            }
            if rules.masquerade {
                let mut all = vec![table::left_to_kube_proxy()];
                all.extend(table::masquerade(side, &Match::all(), rules.random_fully));
                chains.push(table::Wanted {
                    name: "postrtg",
                    base: Base::POSTROUTING_NAT,
                    rules: all,
                });
            }
            for rule in chains.iter_mut().flat_map(|chain| &mut chain.rules) {
                rule.comment.clear(); // flannel has none, and it is not ours any more
            }
            if !chains.is_empty() {
                let name = if ipv4 { "flannel-ipv4" } else { "flannel-ipv6" };
                table::add(
                    &mut transaction,
                    *table,
                    &["rules for ", name].concat(),
                    &chains,
                );
            }
        }
        transaction.commit(netfilter)
    })
    .map_err(|source| FirewallError::Kernel {
        what: "flannel's tables",
        source,
    })
}

// === impl Place ===

impl Place {
    fn owns(&self, listed: &ListedRule) -> bool {
        listed.rule.exprs.iter().any(|expr| match expr {
            Expr::Verdict(Verdict::Jump(to)) => to == self.chain,
            Expr::XtComment(text) => text == self.comment,
            _ => false,
        }) || listed.rule.comment == self.comment
    }
}
