//! What this node does with packets from and to pods: whose address they leave with, and that they may be forwarded.
//!
//! The rules are flannel's (P: the pods of this node, C: the pods of all nodes), in a table of our own that is written
//! whole, in one transaction, and only if it is not as it should be:
//! ```text
//! table inet podwire-overlay {
//!     chain masquerading {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         meta mark & 0x4000 == 0x4000 counter return      # kube-proxy masquerades it
//!         ip saddr P ip daddr C counter return             # our pods to pods,
//!         ip saddr C ip daddr P counter return             # pods to our pods,
//!         ip saddr != C ip daddr P counter return          # the world to our pods: the client's address is kept
//!         ip saddr C ip daddr != 224.0.0.0/4 counter masquerade fully-random   # pods to the world
//!         ip saddr != C ip daddr C counter masquerade fully-random             # the world to pods of other nodes,
//!     }                                                                        # whose answer must come back this way
//!     chain forwarding {
//!         type filter hook forward priority filter; policy accept;
//!         ip saddr C accept
//!         ip daddr C accept
//!     }
//! }
//! ```
//! **An accept here is no accept elsewhere**: in nf_tables a packet has to pass every base chain. Where the `FORWARD`
//! chain of iptables drops (its policy, or a last rule without a condition), accepting has to happen in that very chain,
//! and there [`ensure`] adds two rules more: behind all rules that look at something, so that nobody's policy is
//! bypassed, and before the end that drops. Chains of iptables-nft are changed by netlink like any others; those of
//! iptables-legacy only by the program of that name, which is run only where such a chain drops and lacks the rules.
//! Other tables' base chains that drop are not ours to change: [`obstacles`] names them.
//!
//! [`take_over`] and [`give_back`] are the ways from a real flannel's rules to these and back. Connections keep their
//! translation through both, because at each moment one of the two sets stands.
//!
//! A node may have several such networks, the agent's and those of plugins without an agent: each has a [`Rules::name`],
//! a table (`podwire-overlay/NAME`) and rules in iptables of its own.
//!
//! Everything takes the caller's [`Netfilter`] and its network namespace. Kernel: Linux 5.2, for NAT in family inet
//! (fully random ports are older).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libcni::firewall::shortened;
use libcni::kernel::nft::{Base, Family, Netfilter, chains};
use libcni::nl::NlError;
use libcni::spec::IpNetwork;
use thiserror::Error;

use crate::own::{Own, OwnSide};

mod flannel;
mod forward;
mod program;
mod table;
#[cfg(test)]
mod tests;

pub use flannel::{Given, Style, TakenOver, give_back, take_over};

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Tells several networks of one node apart, in the alphabet of network names; `""` for the node's own, the agent's.
    pub name: String,
    /// The IPv4 side, if there is one.
    pub v4: Option<Prefixes>,
    /// The IPv6 side, if there is one.
    pub v6: Option<Prefixes>,
    /// Masquerade (flannel's `--ip-masq`).
    pub masquerade: bool,
    /// Accept forwarded packets (flannel's `--iptables-forward-rules`).
    pub forward: bool,
    /// Masquerade with random source ports (unless flannel's `--ip-masq-fully-random-disable`).
    pub random_fully: bool,
}

/// The two prefixes of a family that the rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// C, all pods of all nodes.
    pub network: IpNetwork,
    /// P, the pods of this node.
    pub subnet: IpNetwork,
}

/// Why the rules are not as wanted.
#[derive(Debug, Error)]
pub enum FirewallError {
    /// nf_tables refused.
    #[error("{what}: {source}")]
    Kernel {
        /// What for: "the overlay's own table".
        what: &'static str,
        /// The step and the errno.
        source: NlError,
    },
    /// A table of iptables-legacy could neither be read nor changed.
    #[error("table {table} of iptables-legacy: {reason}")]
    Legacy {
        /// `filter`, `nat`
        table: &'static str,
        /// What was tried, and what came of it.
        reason: String,
    },
}

/// Makes the rules stand; returns whether anything had to be changed. Where nothing has to, it reads (some 25
/// system calls, 0.1 ms) and leaves everything as it is.
///
/// Call it again whenever somebody changed rules (nf_tables notifies of each transaction), and now and then for the
/// chains of iptables-legacy, which nobody notifies of.
///
/// # Errors
/// The first of what could not be done, after all else was.
pub fn ensure(netfilter: &mut Netfilter, rules: &Rules) -> Result<bool, FirewallError> {
    gather([
        table::ensure(netfilter, rules),
        forward::ensure(netfilter, rules),
    ])
}

/// Takes all rules of this name away; success if there are none. Returns whether there were some.
///
/// # Errors
/// The first of what could not be done, after all else was.
pub fn remove(netfilter: &mut Netfilter, name: &str) -> Result<bool, FirewallError> {
    let nothing = Rules {
        name: name.to_owned(),
        ..Rules::NONE
    };
    ensure(netfilter, &nothing)
}

/// What of the rules is missing or was changed, a line each; nothing if they stand. Changes nothing.
///
/// # Errors
/// The kernel's rules could not be read.
pub fn check(netfilter: &mut Netfilter, rules: &Rules) -> Result<Vec<String>, FirewallError> {
    let mut faults = table::check(netfilter, rules)?;
    faults.extend(forward::check(netfilter, rules)?);
    Ok(faults)
}

/// Base chains of others that drop what they do not accept themselves, and where nothing of ours accepts: if packets
/// between pods get lost on a node with such a chain, it is where to look first.
///
/// # Errors
/// The kernel's rules could not be read.
pub fn obstacles(netfilter: &mut Netfilter) -> Result<Vec<String>, FirewallError> {
    let mut found = Vec::new();
    for (family, name) in [
        (Family::Inet, "inet"),
        (Family::Ip, "ip"),
        (Family::Ip6, "ip6"),
    ] {
        let all = chains(netfilter, family).map_err(|source| FirewallError::Kernel {
            what: "look for chains that drop",
            source,
        })?;
        for (table, chain, found_chain) in all {
            let of_iptables =
                family != Family::Inet && table == "filter" && chain == forward::CHAIN;
            if found_chain.drops && found_chain.is_at_hook_of(Base::FORWARD) && !of_iptables {
                found.push(format!(
                    "chain {chain} of table {name} {table} drops what it does not accept itself"
                ));
            }
        }
    }
    Ok(found)
}

/// Whether anything changed, or the first error.
fn gather<const N: usize>(
    outcomes: [Result<bool, FirewallError>; N],
) -> Result<bool, FirewallError> {
    let mut changed = false;
    for outcome in outcomes {
        changed |= outcome?;
    }
    Ok(changed)
}

// === impl Rules ===

impl Rules {
    /// Nothing at all.
    pub const NONE: Rules = Rules {
        name: String::new(),
        v4: None,
        v6: None,
        masquerade: false,
        forward: false,
        random_fully: false,
    };

    /// What flannel would do on this node with these settings. Of the node's own network: another has to be given a name.
    pub fn of(own: &Own, masquerade: bool, forward: bool, random_fully: bool) -> Rules {
        Rules {
            name: String::new(),
            v4: own.v4.as_ref().map(Prefixes::of),
            v6: own.v6.as_ref().map(Prefixes::of),
            masquerade,
            forward,
            random_fully,
        }
    }

    /// The name behind a word, for what nf_tables and iptables call ours: `podwire-overlay`, `podwire-overlay/blue`.
    fn named(&self, word: &str, separator: &str) -> String {
        /// Beside the words it has to fit a comment (127).
        const NAME_BYTES: usize = 60;
        match self.name.as_str() {
            "" => word.to_owned(),
            name => [word, separator, &shortened(name, NAME_BYTES)].concat(),
        }
    }

    /// A family of it.
    fn side(&self, ipv4: bool) -> Option<&Prefixes> {
        if ipv4 {
            self.v4.as_ref()
        } else {
            self.v6.as_ref()
        }
    }

    /// The families there are.
    fn sides(&self) -> impl Iterator<Item = &Prefixes> {
        [true, false].into_iter().filter_map(|ipv4| self.side(ipv4))
    }
}

// === impl Prefixes ===

impl Prefixes {
    fn of(side: &OwnSide) -> Prefixes {
        let OwnSide {
            network, subnet, ..
        } = *side;
        Prefixes { network, subnet }
    }

    /// 224.0.0.0/4 or ff00::/8.
    fn multicast(&self) -> IpNetwork {
        let (address, bits) = if self.network.is_ipv4() {
            (IpAddr::from(Ipv4Addr::new(224, 0, 0, 0)), 4)
        } else {
            (IpAddr::from(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8)
        };
        // Both fit their families, so this is never the other one.
        IpNetwork::new(address, bits).unwrap_or(self.network)
    }
}
