//! Entries for the fuzz targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use fabric::Peer;
use fabric::lease::Subnets;

use super::entries::Entries;
use super::keys::Keys;

/// What is known of the others, fed key by key.
#[derive(Debug)]
pub struct Known(Entries, Keys);

// === impl Known ===

impl Known {
    /// Nothing yet, of the network with this prefix, for the node that has this lease.
    pub fn new(prefix: &str, own: &Subnets) -> Self {
        let keys = Keys::new(prefix);
        Self(Entries::new(keys.clone(), keys.lease(own)), keys)
    }

    /// The key of a lease.
    pub fn key_of(&self, subnets: &Subnets) -> String {
        self.1.lease(subnets)
    }

    /// A key has this value now.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        if !self.0.is_own(key) {
            self.0.put(key, value);
        }
    }

    /// A key is no more.
    pub fn delete(&mut self, key: &[u8]) {
        self.0.delete(key);
    }

    /// The peers.
    pub fn peers(&self) -> &BTreeMap<String, Arc<Peer>> {
        &self.0.peers
    }

    /// What cannot be read, and why.
    pub fn skipped(&self) -> &BTreeMap<String, String> {
        &self.0.skipped
    }

    /// Who else has, or holds the place of, one of these subnets.
    pub fn holder(&self, subnets: &Subnets) -> Option<String> {
        self.0.holder(subnets)
    }
}
