//! Which packet filtering this node has.

use fabric::firewall::{self, Style, give_back, take_over};
use fabric::own::Own;
use libcni::kernel::nft::Netfilter;
use tracing::{info, warn};

use crate::cache::Known;
use crate::options::NodeOptions;

/// As the operator wishes.
#[derive(Debug, Clone)]
pub struct Rules {
    masquerade: bool,
    forward: bool,
    random_fully: bool,
    /// Whether what flannel left here was looked for.
    taken_over: bool,
}

// === impl Rules ===

impl Rules {
    /// From the options.
    pub fn of(options: &NodeOptions) -> Self {
        Self {
            masquerade: options.ip_masq,
            forward: options.iptables_forward_rules,
            random_fully: !options.ip_masq_fully_random_disable,
            taken_over: false,
        }
    }

    /// Makes the rules stand; the first time, also removes those of a flannel that ran here, once ours do.
    ///
    /// # Errors
    /// What could not be made, for people.
    pub fn ensure(&mut self, own: &Own) -> Result<(), String> {
        let (rules, mut netfilter) = (self.wanted(own), Netfilter::unopened());
        if self.taken_over {
            return match firewall::ensure(&mut netfilter, &rules) {
                Ok(changed) => {
                    if changed {
                        warn!(
                            "packet filtering was changed by somebody else, and is as it has to be again"
                        );
                    }
                    Ok(())
                }
                Err(e) => Err(e.to_string()),
            };
        }
        let taken = take_over(&mut netfilter, &rules).map_err(|e| e.to_string())?;
        self.taken_over = true;
        for what in taken.removed {
            info!(%what, "taken over from flannel");
        }
        for what in taken.left {
            warn!(%what, "left by flannel");
        }
        for obstacle in firewall::obstacles(&mut netfilter).unwrap_or_default() {
            warn!(%obstacle, "packets between pods may get lost there");
        }
        Ok(())
    }

    /// Makes flannel's in their place; says in which form, if not in the one it would itself choose.
    ///
    /// # Errors
    /// What could not be made, for people; ours stand then.
    pub fn give_back(&self, known: &Known) -> Result<Option<String>, String> {
        let style = if known.conf.nftables {
            Style::Nftables
        } else {
            Style::Iptables
        };
        let given = give_back(&mut Netfilter::unopened(), &self.wanted(&known.own), style);
        given.map(|given| given.because).map_err(|e| e.to_string())
    }

    /// Takes them away.
    ///
    /// # Errors
    /// What could not be removed, for people.
    pub fn remove(&self) -> Result<(), String> {
        firewall::remove(&mut Netfilter::unopened(), "")
            .map(drop)
            .map_err(|e| e.to_string())
    }

    fn wanted(&self, own: &Own) -> firewall::Rules {
        firewall::Rules::of(own, self.masquerade, self.forward, self.random_fully)
    }
}
