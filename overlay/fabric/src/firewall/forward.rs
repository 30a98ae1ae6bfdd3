//! The `FORWARD` chains of iptables, of both kinds, where they drop.

use libcni::kernel::nft::Netfilter;
use libcni::spec::IpNetwork;

use super::{FirewallError, Rules, gather};

mod legacy;
mod nft;
#[cfg(test)]
mod tests;

/// The chain's name, in table `filter`.
pub(super) const CHAIN: &str = "FORWARD";
/// What is to be accepted in the chains of one family, if anything, and what our rules there say.
struct Wanted {
    ipv4: bool,
    network: Option<IpNetwork>,
    /// On each of our rules, as `iptables -S` shows it.
    comment: String,
}

/// A rule, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// `-s C`, by our comment.
    From,
    /// `-d C`
    To,
    /// Ours by the comment, but of another network, or changed.
    Stale,
    /// Takes every packet: DROP or REJECT without a condition.
    Drops,
    /// Takes every packet: ACCEPT without a condition.
    Accepts,
    /// Looks at something first.
    Other,
}

/// What is to be done with a chain; rules are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    /// These go.
    remove: Vec<usize>,
    /// Ours come.
    add: bool,
    /// Before this one; at the end, if `None`.
    before: Option<usize>,
}

/// Whether anything changed.
pub(super) fn ensure(netfilter: &mut Netfilter, rules: &Rules) -> Result<bool, FirewallError> {
    gather([true, false].map(|ipv4| {
        let wanted = Wanted::new(rules, ipv4);
        let of_nft = nft::ensure(netfilter, &wanted);
        let of_legacy = legacy::ensure(&wanted);
        gather([of_nft, of_legacy])
    }))
}

/// The chains that drop and lack our rules.
pub(super) fn check(
    netfilter: &mut Netfilter,
    rules: &Rules,
) -> Result<Vec<String>, FirewallError> {
    let mut faults = Vec::new();
    for (ipv4, program) in [(true, "iptables"), (false, "ip6tables")] {
        let wanted = Wanted::new(rules, ipv4);
        let stand = [
            ("nft", nft::stands(netfilter, &wanted)?),
            ("legacy", legacy::stands(&wanted)?),
        ];
        for (kind, _) in stand.into_iter().filter(|(_, stands)| !stands) {
            faults.push(format!(
                "chain {CHAIN} of {program}-{kind} drops and does not accept for pods"
            ));
        }
    }
    Ok(faults)
}

// === impl Wanted ===

impl Wanted {
    fn new(rules: &Rules, ipv4: bool) -> Wanted {
        let side = rules.side(ipv4).filter(|_| rules.forward);
        Wanted {
            ipv4,
            network: side.map(|side| side.network),
            comment: rules.named("podwire overlay", " ") + ": pods are forwarded",
        }
    }
}

// === impl Plan ===

impl Plan {
    /// `None` if the chain is as it should be: with our two rules if something is to be accepted and would be dropped
    /// otherwise, without them if not.
    ///
    /// They belong before the rule that drops everything, and not before any that looks at something: those are
    /// somebody's decision about some packets, and wins.
    fn of(wanted: bool, policy_drops: bool, seen: &[Seen]) -> Option<Plan> {
        let is_ours = |seen: &Seen| matches!(seen, Seen::From | Seen::To | Seen::Stale);
        let end = seen
            .iter()
            .position(|s| matches!(s, Seen::Drops | Seen::Accepts));
        let drops = match end.and_then(|at| seen.get(at)) {
            Some(last) => *last == Seen::Drops,
            None => policy_drops,
        };
        let ours: Vec<usize> = (0..seen.len())
            .filter(|at| seen.get(*at).is_some_and(is_ours))
            .collect();
        let reached: Vec<Seen> = seen
            .iter()
            .take(end.unwrap_or(seen.len()))
            .copied()
            .collect();
        let stand = ours.len() == 2 && reached.contains(&Seen::From) && reached.contains(&Seen::To);
        let add = wanted && drops;
        if (add && stand) || (!add && ours.is_empty()) {
            return None;
        }
        Some(Plan {
            remove: ours,
            add,
            before: end,
        })
    }
}
