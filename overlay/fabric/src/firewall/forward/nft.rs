//! Of iptables-nft: a chain like any other, in its own form, so that it lists our rules as its own:
//! `-A FORWARD -s 10.244.0.0/16 -m comment --comment "podwire overlay: ..." -j ACCEPT`

use libcni::kernel::nft::{
    Base, Expr, Family, ListedRule, Netfilter, Rule, Table, Transaction, Verdict, matching, settle,
};
use libcni::nl::NlError;

use super::{CHAIN, Plan, Seen, Wanted};
use crate::firewall::FirewallError;

const WHAT: &str = "the FORWARD chain of iptables";

pub(super) fn ensure(netfilter: &mut Netfilter, wanted: &Wanted) -> Result<bool, FirewallError> {
    let table = table(wanted.ipv4);
    settle(|attempt| {
        if look(netfilter, wanted)?.is_none() {
            return Ok(false);
        }
        let mut transaction = Transaction::begin(netfilter, attempt)?;
        let Some((listed, plan)) = look(netfilter, wanted)? else {
            return Ok(false);
        };
        let handle = |at: &usize| listed.get(*at).map(|listed| listed.handle);
        let before = plan.before.as_ref().and_then(handle);
        for rule in ours(wanted).filter(|_| plan.add).into_iter().flatten() {
            transaction.push(match before {
                Some(before) => table.insert_rule(CHAIN, before, &rule),
                None => table.add_rule(CHAIN, &rule),
            });
        }
        for doomed in plan.remove.iter().filter_map(handle) {
            transaction.push(table.del_rule(CHAIN, doomed));
        }
        transaction.commit(netfilter).map(|()| true)
    })
    .map_err(|source| FirewallError::Kernel { what: WHAT, source })
}

pub(super) fn stands(netfilter: &mut Netfilter, wanted: &Wanted) -> Result<bool, FirewallError> {
    let found = look(netfilter, wanted);
    found
        .map(|plan| plan.is_none())
        .map_err(|source| FirewallError::Kernel { what: WHAT, source })
}

const fn table(ipv4: bool) -> Table<'static> {
    Table::new(if ipv4 { Family::Ip } else { Family::Ip6 }, "filter")
}

/// The chain's rules and what is to be done with them, if anything.
fn look(
    netfilter: &mut Netfilter,
    wanted: &Wanted,
) -> Result<Option<(Vec<ListedRule>, Plan)>, NlError> {
    let table = table(wanted.ipv4);
    let Some(chain) = table
        .chain(netfilter, CHAIN)?
        .filter(|chain| chain.is_base(Base::FORWARD))
    else {
        return Ok(None);
    };
    let listed = table.rules(netfilter, CHAIN)?;
    let ours = ours(wanted);
    let seen: Vec<Seen> = listed
        .iter()
        .map(|listed| see(&listed.rule, &wanted.comment, ours.as_ref()))
        .collect();
    Ok(Plan::of(wanted.network.is_some(), chain.drops, &seen).map(|plan| (listed, plan)))
}

/// `-s C` and `-d C`.
fn ours(wanted: &Wanted) -> Option<[Rule; 2]> {
    let network = wanted.network?;
    let any = matching::Match::all;
    let rules = [any().from(network), any().to(network)];
    Some(rules.map(|rule| Rule::new(rule.counted().verdict(Verdict::Accept), &wanted.comment)))
}

fn see(rule: &Rule, comment: &str, ours: Option<&[Rule; 2]>) -> Seen {
    // iptables-restore makes its own kind of comment of ours.
    let is_comment = |expr: &Expr| matches!(expr, Expr::XtComment(text) if text == comment);
    if rule.comment == comment || rule.exprs.iter().any(is_comment) {
        return match ours {
            Some([from, _]) if says(rule).eq(says(from)) => Seen::From,
            Some([_, to]) if says(rule).eq(says(to)) => Seen::To,
            _ => Seen::Stale,
        };
    }
    let mut says = says(rule);
    match (says.next(), says.next()) {
        (Some(Expr::Verdict(Verdict::Accept)), None) => Seen::Accepts,
        (Some(Expr::Verdict(Verdict::Drop)), None) => Seen::Drops,
        (Some(Expr::XtTarget(name)), None) if name == "REJECT" => Seen::Drops,
        (Some(Expr::Other(name)), None) if name == "reject" => Seen::Drops,
        _ => Seen::Other,
    }
}

/// A rule without what decides nothing.
fn says(rule: &Rule) -> impl Iterator<Item = &Expr> {
    let decides = |expr: &&Expr| !matches!(expr, Expr::Counter | Expr::XtComment(_));
    rule.exprs.iter().filter(decides)
}
