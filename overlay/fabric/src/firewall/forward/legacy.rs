//! Of iptables-legacy: read by a system call, changed by its own program, in one transaction.

use libcni::kernel::xtables::{self, FORWARD, Family, Rule, Target};
use libcni::spec::IpNetwork;

use super::{CHAIN, Plan, Seen, Wanted};
use crate::firewall::FirewallError;
use crate::firewall::program;

const TABLE: &str = "filter";

pub(super) fn ensure(wanted: &Wanted) -> Result<bool, FirewallError> {
    let family = family(wanted.ipv4);
    let Some((rules, plan)) = look(family, wanted)? else {
        return Ok(false);
    };
    let mut changes = Vec::new();
    // By what they say, not by number: the chain may have changed meanwhile.
    for rule in plan.remove.iter().filter_map(|at| rules.get(*at)) {
        changes.push(format!(
            "-D {CHAIN}{}",
            spec(rule.from, rule.to, &wanted.comment)
        ));
    }
    if let Some(network) = wanted.network.filter(|_| plan.add) {
        let place = plan.before.map(|end| {
            let ours = plan.remove.iter().filter(|at| **at < end).count();
            // Numbers are from 1, and those of ours before it are gone by then.
            end + 1 - ours
        });
        for (from, to) in [(Some(network), None), (None, Some(network))] {
            let spec = spec(from, to, &wanted.comment);
            changes.push(match place {
                Some(place) => format!("-I {CHAIN} {place}{spec}"),
                None => format!("-A {CHAIN}{spec}"),
            });
        }
    }
    let failed = |reason| FirewallError::Legacy {
        table: TABLE,
        reason,
    };
    let restore = family.program("-restore").ok_or_else(|| {
        failed(format!(
            "{CHAIN} drops what pods forward, and no iptables-legacy is installed to change that"
        ))
    })?;
    let tables = [(TABLE, changes)];
    program::restore(&restore, &tables).map_err(failed)?;
    match look(family, wanted)? {
        None => Ok(true),
        Some(_) => Err(failed(format!("{restore} did not change it"))),
    }
}

pub(super) fn stands(wanted: &Wanted) -> Result<bool, FirewallError> {
    look(family(wanted.ipv4), wanted).map(|plan| plan.is_none())
}

const fn family(ipv4: bool) -> Family {
    if ipv4 { Family::V4 } else { Family::V6 }
}

/// The chain's rules and what is to be done with them, if anything.
fn look(family: Family, wanted: &Wanted) -> Result<Option<(Vec<Rule>, Plan)>, FirewallError> {
    let table = family.table(TABLE).map_err(|errno| FirewallError::Legacy {
        table: TABLE,
        reason: errno.to_string(),
    })?;
    let Some(chain) = table
        .as_ref()
        .and_then(|table: &xtables::Table| table.base_chain(FORWARD))
    else {
        return Ok(None);
    };
    let seen: Vec<Seen> = chain.rules.iter().map(|rule| see(rule, wanted)).collect();
    Ok(Plan::of(wanted.network.is_some(), chain.drops, &seen).map(|plan| (chain.rules, plan)))
}

fn see(rule: &Rule, wanted: &Wanted) -> Seen {
    let anything = rule.plain && rule.from.is_none() && rule.to.is_none();
    // One of ours that looks at more could not be deleted by what is known of it.
    if rule.comment == wanted.comment && rule.plain && rule.target == Target::Accept {
        return match (rule.from, rule.to) {
            (Some(from), None) if Some(from) == wanted.network => Seen::From,
            (None, Some(to)) if Some(to) == wanted.network => Seen::To,
            _ => Seen::Stale,
        };
    }
    match &rule.target {
        Target::Accept if anything => Seen::Accepts,
        Target::Drop if anything => Seen::Drops,
        Target::Module(name) if anything && name == "REJECT" => Seen::Drops,
        _ => Seen::Other,
    }
}

/// One of ours, as `iptables` takes it.
fn spec(from: Option<IpNetwork>, to: Option<IpNetwork>, comment: &str) -> String {
    let from = from.map(|from| format!(" -s {from}")).unwrap_or_default();
    let to = to.map(|to| format!(" -d {to}")).unwrap_or_default();
    format!("{from}{to} -m comment --comment \"{comment}\" -j ACCEPT")
}
