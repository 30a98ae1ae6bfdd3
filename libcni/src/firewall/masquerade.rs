//! Masquerading: what leaves a pod's subnet gets the node's address, for every protocol alike.
//!
//! A packet of a pod is left alone towards the pod's own subnet and towards multicast; everything else is
//! masqueraded, as the reference does it per pod with two iptables rules. Here the rules depend on where the pods'
//! addresses come from:
//!
//! - **Our own host-local**: the network's ranges are known, so the network has one base chain with one rule for each
//!   range ([`ensure_network`]). ADD finds it standing and DEL does not touch it; the last pod's DEL removes it.
//! ```text
//! table inet podwire {
//!     chain net/cbr0 {
//!         comment "network cbr0, rules 1, ranges 5d0c8c9a6d1e"
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr 10.88.0.2-10.88.255.254 ip daddr != 10.88.0.0/16 ip daddr != 224.0.0.0/4 masquerade
//!     }
//! }
//! ```
//! - **Another IPAM**: the network has one base chain with a verdict map per family, and each pod's address is an
//!   element ([`ensure_pod`]): one lookup, however many pods.
//! ```text
//!     chain pods/dhcp0 {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr vmap @pods/dhcp0/4
//!         ip6 saddr vmap @pods/dhcp0/6
//!     }
//!     map pods/dhcp0/4 { type ipv4_addr : verdict; elements = {
//!         192.168.7.20 comment "dhcp0 <container ID> eth0" : goto pods/dhcp0/192.168.7.0/24 } }
//!     chain pods/dhcp0/192.168.7.0/24 {
//!         ip daddr 192.168.7.0/24 return
//!         ip daddr 224.0.0.0/4 return
//!         masquerade
//!     }
//! ```
//!
//! **Why a base chain for each network** and not one for all: networks may share ranges, overlap or split a subnet, and
//! nothing of one must stand or fall with another. Their elements in one interval map would have to be merged and split
//! again; chains of their own need neither. NAT is decided once per connection, at the first chain that masquerades, so a
//! packet that two networks claim is masqueraded if either says so. (The price is one short chain per network for each
//! *new connection* of the node, some tens of nanoseconds.)
//!
//! IPv4 and IPv6, Linux 5.2 or later (NAT in family inet). Measured with opening the socket: a network that stands
//! 10 µs, a network's first pod 0.2 to 0.5 ms, its removal 40 µs and 12 ms when the socket closes; a pod of another IPAM
//! 0.2 ms, its removal 0.1 ms (1 ms among 1,000) and 12 ms at the close.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::{FirewallError, OBJECT_NET_BYTES, TABLE, TABLE_COMMENT, settle, sha512, shortened};
use crate::kernel::nft::{
    Base, Chain, Family, ListedRule, Netfilter, Rule, Table, Transaction, matching, tidy,
};
use crate::nl::NlError;
use crate::spec::NetName;
use crate::store::Range;

mod pods;
#[cfg(test)]
mod tests;

pub use pods::{check_pod, ensure_pod, gc, remove_pod};

const INET: Table<'static> = Table::new(Family::Inet, TABLE);

/// Changes with the rules' shape, so that another version of this suite rewrites the chain.
const SHAPE: &str = "1";

/// Makes the network's pods masquerade, and returns at once if they do: one read, nothing written.
///
/// `ranges` are those of the current configuration; a range's gateway address is the node's, not a pod's, and is left
/// out. If the ranges changed, the chain is replaced in one transaction. A range that is no longer configured keeps its
/// rule while one of the addresses `in_use` gives is in it and in no other range, for the pods from before the change;
/// `in_use` (all addresses reserved in this network) is asked only then.
///
/// # Errors
/// [`FirewallError::Kernel`]; nothing has changed then.
pub fn ensure_network(
    netfilter: &mut Netfilter,
    net: &NetName,
    ranges: &[Range],
    in_use: &dyn Fn() -> Vec<IpAddr>,
) -> Result<(), FirewallError> {
    let network = Network::new(net, ranges);
    settle(&network.what(), |attempt| {
        network.ensure(netfilter, in_use, attempt)
    })
}

/// Whether [`ensure_network`]'s chain stands, rule by rule.
///
/// # Errors
/// [`FirewallError::Tampered`] if not.
pub fn check_network(
    netfilter: &mut Netfilter,
    net: &NetName,
    ranges: &[Range],
) -> Result<(), FirewallError> {
    let network = Network::new(net, ranges);
    let tampered = || FirewallError::Tampered {
        what: network.what(),
        family: Family::Inet,
        object: ["chain ", &network.chain].concat(),
    };
    let chain = INET
        .chain(netfilter, &network.chain)
        .map_err(|e| FirewallError::kernel(&network.what(), e))?;
    let chain = chain
        .filter(|c| c.is_base(Base::POSTROUTING_NAT))
        .ok_or_else(tampered)?;
    let listed = INET
        .rules(netfilter, &network.chain)
        .map_err(|e| FirewallError::kernel(&network.what(), e))?;
    let complete = chain.comment.is_empty() || chain.comment == network.comment(chain.uses);
    if complete && network.begins(&listed) {
        Ok(())
    } else {
        Err(tampered())
    }
}

/// Removes the network's chain, and the table if nothing else is in it. Success if it is not there.
///
/// Call it while no ADD can reserve an address of the network, that is under the reservations' lock: an ADD behind it
/// makes the chain again. Deletes, so closing `netfilter` waits.
///
/// # Errors
/// [`FirewallError::Kernel`]
pub fn remove_network(netfilter: &mut Netfilter, net: &NetName) -> Result<(), FirewallError> {
    let network = Network::new(net, &[]);
    settle(&network.what(), |_| {
        // Not just tried: a refused transaction costs a grace period.
        if INET.chain(netfilter, &network.chain)?.is_some() {
            let mut transaction = Transaction::new();
            transaction.push(INET.del_chain(&network.chain));
            transaction.commit(netfilter)?;
        }
        // Also one that a killed DEL left.
        remove_empty_table(netfilter)
    })
}

/// Deletes the table unless something is in it.
fn remove_empty_table(netfilter: &mut Netfilter) -> Result<(), NlError> {
    tidy(|| {
        if INET.uses(netfilter)? != Some(0) {
            return Ok(());
        }
        // Somebody may just be adding: delete only if nothing changes meanwhile.
        let generation = netfilter.generation()?;
        if INET.uses(netfilter)? != Some(0) {
            return Ok(());
        }
        let mut transaction = Transaction::at_generation(generation);
        transaction.push(INET.del_if_empty());
        transaction.commit(netfilter)
    })
}

/// What one network's chain is to be.
struct Network<'a> {
    net: &'a NetName,
    chain: String,
    rules: Vec<Rule>,
    /// Of the configured ranges.
    fingerprint: String,
    /// Consecutive pod addresses.
    stretches: Vec<(IpAddr, IpAddr)>,
}

// === impl Network ===

impl<'a> Network<'a> {
    fn new(net: &'a NetName, ranges: &[Range]) -> Network<'a> {
        let chain = ["net/", &shortened(net.as_str(), OBJECT_NET_BYTES)].concat();
        let mut network = Network {
            net,
            chain,
            rules: Vec::new(),
            fingerprint: String::new(),
            stretches: Vec::new(),
        };
        let comment = network.what_for();
        let mut all = SHAPE.to_owned();
        for range in ranges {
            for (first, last) in without_gateway(range) {
                // ip saddr <first>-<last> ip daddr != <subnet> ip daddr != 224.0.0.0/4 masquerade
                let rule = matching::source_range(first, last)
                    .not_to(range.subnet)
                    .not_to(multicast(range.subnet));
                network.rules.push(Rule::new(rule.masquerade(), &comment));
                network.stretches.push((first, last));
                all.push_str(
                    &[
                        " ",
                        &first.to_string(),
                        "-",
                        &last.to_string(),
                        " ",
                        &range.subnet.to_string(),
                    ]
                    .concat(),
                );
            }
        }
        network.fingerprint = sha512::hex(&all, 12);
        network
    }

    fn what(&self) -> String {
        ["masquerade ", &self.what_for()].concat()
    }

    fn what_for(&self) -> String {
        ["network ", &shortened(self.net.as_str(), OBJECT_NET_BYTES)].concat()
    }

    /// The chain's comment: enough to see with one read whether it is complete and of these ranges.
    fn comment(&self, rules: u32) -> String {
        [
            &self.what_for(),
            ", rules ",
            &rules.to_string(),
            ", ranges ",
            &self.fingerprint,
        ]
        .concat()
    }

    fn ensure(
        &self,
        netfilter: &mut Netfilter,
        in_use: &dyn Fn() -> Vec<IpAddr>,
        attempt: u32,
    ) -> Result<(), NlError> {
        if self.stands(INET.chain(netfilter, &self.chain)?.as_ref()) {
            return Ok(());
        }
        let mut transaction = Transaction::begin(netfilter, attempt)?;
        let Some(chain) = INET.chain(netfilter, &self.chain)? else {
            return self.write(transaction, &[], netfilter);
        };
        if self.stands(Some(&chain)) {
            return Ok(());
        }
        let base = chain.is_base(Base::POSTROUTING_NAT);
        let listed = INET.rules(netfilter, &self.chain)?;
        // Linux before 5.10 keeps no comment on a chain: there the rules themselves tell.
        if base && chain.comment.is_empty() && self.begins(&listed) {
            return Ok(());
        }
        let in_use = in_use();
        let kept: Vec<Rule> = listed
            .into_iter()
            .map(|l| l.rule)
            .filter(|rule| self.still_needs(rule, &in_use))
            .collect();
        transaction.push(INET.del_chain(&self.chain));
        self.write(transaction, &kept, netfilter)
    }

    /// Is it complete, and of these ranges?
    fn stands(&self, chain: Option<&Chain>) -> bool {
        chain.is_some_and(|chain| {
            chain.is_base(Base::POSTROUTING_NAT) && chain.comment == self.comment(chain.uses)
        })
    }

    fn write(
        &self,
        mut transaction: Transaction,
        kept: &[Rule],
        netfilter: &mut Netfilter,
    ) -> Result<(), NlError> {
        let count = u32::try_from(self.rules.len() + kept.len()).unwrap_or(u32::MAX);
        transaction.push(INET.add(TABLE_COMMENT));
        transaction.push(INET.add_chain(
            &self.chain,
            Some(Base::POSTROUTING_NAT),
            &self.comment(count),
        ));
        for rule in self.rules.iter().chain(kept) {
            transaction.push(INET.add_rule(&self.chain, rule));
        }
        transaction.commit(netfilter)
    }

    /// Do the rules from the kernel begin with ours? Behind them there may be some of former ranges.
    fn begins(&self, listed: &[ListedRule]) -> bool {
        listed
            .get(..self.rules.len())
            .is_some_and(|head| Rule::same(&self.rules, head))
    }

    /// Is it the rule of a former range with a pod left in it?
    fn still_needs(&self, rule: &Rule, in_use: &[IpAddr]) -> bool {
        let within = |(first, last): (IpAddr, IpAddr), ip: IpAddr| first <= ip && ip <= last;
        let Some(bounds) = matching::source_bounds(&rule.exprs) else {
            return false;
        };
        in_use
            .iter()
            .any(|ip| within(bounds, *ip) && !self.stretches.iter().any(|s| within(*s, *ip)))
    }
}

/// 224.0.0.0/4 or ff00::/8, of the subnet's family.
fn multicast(subnet: IpNetwork) -> IpNetwork {
    const V4: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(224, 0, 0, 0), 4) {
        Some(prefix) => prefix,
        None => unreachable!(),
    };
    const V6: Ipv6Network =
        match Ipv6Network::new_checked(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8) {
            Some(prefix) => prefix,
            None => unreachable!(),
        };
    if subnet.is_ipv4() {
        V4.into()
    } else {
        V6.into()
    }
}

/// The range as one or two stretches that leave the gateway out; none if it is the only address.
fn without_gateway(range: &Range) -> Vec<(IpAddr, IpAddr)> {
    let (first, last, gateway) = (range.first, range.last, range.gateway);
    if gateway < first || gateway > last {
        return vec![(first, last)];
    }
    let below = step(gateway, -1)
        .filter(|end| *end >= first)
        .map(|end| (first, end));
    let above = step(gateway, 1)
        .filter(|start| *start <= last)
        .map(|start| (start, last));
    below.into_iter().chain(above).collect()
}

/// The next address in a direction; `None` beyond the family's ends.
fn step(ip: IpAddr, by: i8) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add_signed(by.into())
            .map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add_signed(by.into())
            .map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}
