//! Our own table.

use libcni::kernel::nft::{
    Base, Family, Netfilter, Rule, Table, Transaction, Verdict,
    matching::{self, Match},
    settle,
};
use libcni::nl::NlError;

use super::{FirewallError, Prefixes, Rules};

const TABLE: &str = "podwire-overlay";
const TABLE_COMMENT: &str =
    "made by podwire for the overlay network, restored when changed: do not edit";
const WHAT: &str = "the overlay's own table";

/// kube-proxy's mark on what it is going to masquerade itself; other bits may be anybody's.
const KUBE_PROXY_MASQUERADES: u32 = 0x4000;

/// A base chain as it is to be.
pub(super) struct Wanted {
    pub(super) name: &'static str,
    pub(super) base: Base,
    pub(super) rules: Vec<Rule>,
}

pub(super) fn ensure(netfilter: &mut Netfilter, rules: &Rules) -> Result<bool, FirewallError> {
    let (name, wanted) = (rules.named(TABLE, "/"), wanted(rules));
    let table = Table::new(Family::Inet, &name);
    settle(|attempt| {
        if stands(netfilter, table, &wanted)? {
            return Ok(false);
        }
        let mut transaction = Transaction::begin(netfilter, attempt)?;
        if stands(netfilter, table, &wanted)? {
            return Ok(false);
        }
        if table.uses(netfilter)?.is_some() {
            transaction.push(table.del());
        }
        if !wanted.is_empty() {
            add(&mut transaction, table, TABLE_COMMENT, &wanted);
        }
        transaction.commit(netfilter).map(|()| true)
    })
    .map_err(|source| FirewallError::Kernel { what: WHAT, source })
}

pub(super) fn check(
    netfilter: &mut Netfilter,
    rules: &Rules,
) -> Result<Vec<String>, FirewallError> {
    let (name, wanted) = (rules.named(TABLE, "/"), wanted(rules));
    let table = Table::new(Family::Inet, &name);
    look(netfilter, table, &wanted).map_err(|source| FirewallError::Kernel { what: WHAT, source })
}

/// What is wrong, for people.
fn look(
    netfilter: &mut Netfilter,
    table: Table<'_>,
    wanted: &[Wanted],
) -> Result<Vec<String>, NlError> {
    let mut faults = Vec::new();
    for chain in wanted {
        if !chain.stands(netfilter, table)? {
            faults.push(format!(
                "chain {} of table inet {} is missing or was changed",
                chain.name,
                table.name()
            ));
        }
    }
    if faults.is_empty() && !stands(netfilter, table, wanted)? {
        faults.push(format!(
            "table inet {} is dormant, or has more in it",
            table.name()
        ));
    }
    Ok(faults)
}

/// Makes a table of chains.
pub(super) fn add(
    transaction: &mut Transaction,
    table: Table<'_>,
    comment: &str,
    chains: &[Wanted],
) {
    transaction.push(table.add(comment));
    for chain in chains {
        transaction.push(table.add_chain(chain.name, Some(chain.base), ""));
        for rule in &chain.rules {
            transaction.push(table.add_rule(chain.name, rule));
        }
    }
}

/// These chains, and nothing else? Nothing wanted is no table.
fn stands(netfilter: &mut Netfilter, table: Table<'_>, wanted: &[Wanted]) -> Result<bool, NlError> {
    let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
    match table.state(netfilter)? {
        None => return Ok(wanted.is_empty()),
        Some((uses, dormant)) if wanted.is_empty() || uses != count || dormant => return Ok(false),
        Some(_) => {}
    }
    for chain in wanted {
        if !chain.stands(netfilter, table)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn wanted(rules: &Rules) -> Vec<Wanted> {
    let mut chains = Vec::new();
    if rules.sides().next().is_none() {
        return chains;
    }
    if rules.masquerade {
        let mut all = vec![left_to_kube_proxy()];
        all.extend(
            rules
                .sides()
                .flat_map(|side| masquerade(side, &any_of(side), rules.random_fully)),
        );
        chains.push(Wanted {
            // Not "masquerade": nft cannot read its own list of a chain that is called like a keyword.
            name: "masquerading",
            base: Base::POSTROUTING_NAT,
            rules: all,
        });
    }
    if rules.forward {
        chains.push(Wanted {
            name: "forwarding",
            base: Base::FORWARD,
            rules: rules
                .sides()
                .flat_map(|side| forward(side, &any_of(side)))
                .collect(),
        });
    }
    chains
}

/// What comes first, for both families.
pub(super) fn left_to_kube_proxy() -> Rule {
    let marked = matching::marked(KUBE_PROXY_MASQUERADES).counted();
    Rule::new(
        marked.verdict(Verdict::Return),
        "overlay: kube-proxy masquerades it",
    )
}

/// What decides for one family, behind `any`: all its packets.
pub(super) fn masquerade(side: &Prefixes, any: &Match, random_fully: bool) -> [Rule; 5] {
    let Prefixes { network, subnet } = *side;
    let any = || any.clone();
    let left = |rule: Match, comment| Rule::new(rule.counted().verdict(Verdict::Return), comment);
    let masqueraded = |rule: Match, comment| {
        let rule = rule.counted();
        let exprs = if random_fully {
            rule.masquerade_fully_random()
        } else {
            rule.masquerade()
        };
        Rule::new(exprs, comment)
    };
    [
        left(
            any().from(subnet).to(network),
            "overlay: pods of this node to pods",
        ),
        left(
            any().from(network).to(subnet),
            "overlay: pods to pods of this node",
        ),
        left(
            any().not_from(network).to(subnet),
            "overlay: to pods of this node, as who it is",
        ),
        masqueraded(
            any().from(network).not_to(side.multicast()),
            "overlay: pods to the world",
        ),
        masqueraded(
            any().not_from(network).to(network),
            "overlay: to pods of other nodes",
        ),
    ]
}

/// Each packet passes here, so nothing is counted.
pub(super) fn forward(side: &Prefixes, any: &Match) -> [Rule; 2] {
    [any.clone().from(side.network), any.clone().to(side.network)]
        .map(|rule| Rule::new(rule.verdict(Verdict::Accept), "overlay: pods"))
}

/// In an inet table.
fn any_of(side: &Prefixes) -> Match {
    matching::protocol(side.network.is_ipv4())
}

// === impl Wanted ===

impl Wanted {
    fn stands(&self, netfilter: &mut Netfilter, table: Table<'_>) -> Result<bool, NlError> {
        let chain = table.chain(netfilter, self.name)?;
        if !chain.is_some_and(|chain| chain.is_base(self.base) && !chain.drops) {
            return Ok(false);
        }
        Ok(Rule::same(&self.rules, &table.rules(netfilter, self.name)?))
    }
}
