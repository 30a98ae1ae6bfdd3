//! What etcd's keys say: peers by their keys, and what cannot be read. One entry never changes another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use etcd_client::KeyValue;
use fabric::Peer;
use fabric::lease::{self, Subnets};
use libcni::spec::IpNetwork;
use tracing::warn;

use super::keys::Keys;
use super::session::Listing;

/// Unreadable entries that are named; the others are counted.
const NAMED: usize = 256;
/// Under this name.
const MORE: &str = "(more)";

/// All entries but our own.
#[derive(Debug)]
pub(super) struct Entries {
    keys: Keys,
    /// Our own key: never a peer.
    own: String,
    pub(super) peers: BTreeMap<String, Arc<Peer>>,
    pub(super) skipped: BTreeMap<String, String>,
    /// Unreadable keys by their hash (a key may be a megabyte), and what they take nevertheless.
    unreadable: HashMap<u64, Option<Subnets>>,
    hasher: RandomState,
    logged: BTreeSet<String>,
}

// === impl Entries ===

impl Entries {
    pub(super) fn new(keys: Keys, own: String) -> Self {
        Self {
            keys,
            own,
            peers: BTreeMap::new(),
            skipped: BTreeMap::new(),
            unreadable: HashMap::new(),
            hasher: RandomState::new(),
            logged: BTreeSet::new(),
        }
    }

    /// All of it anew: what is not in the listing is gone, what changed is changed. Gives our own entry.
    pub(super) fn replace(&mut self, listing: Listing) -> Option<KeyValue> {
        let before = std::mem::take(&mut self.peers);
        self.skipped.clear();
        self.unreadable.clear();
        let mut own = None;
        for kv in listing.kvs {
            if self.is_own(kv.key()) {
                own = Some(kv);
                continue;
            }
            self.put(kv.key(), kv.value());
        }
        for key in &listing.oversize {
            self.skip(key, "the value is larger than 4 MiB".to_owned());
        }
        // Who did not change stays the same allocation: cheap for all who compare.
        for (name, peer) in &mut self.peers {
            if let Some(known) = before.get(name).filter(|known| *known == peer) {
                *peer = Arc::clone(known);
            }
        }
        own
    }

    pub(super) fn is_own(&self, key: &[u8]) -> bool {
        key == self.own.as_bytes()
    }

    /// An entry as it is now.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let read = self.keys.subnets_of(key).and_then(|subnets| {
            let name = self.keys.name(key);
            lease::parse(&name, &subnets, value)
        });
        match read {
            Ok(peer) => {
                self.forget_unreadable(key);
                self.peers.insert(peer.name.clone(), Arc::new(peer));
            }
            Err(why) => {
                self.peers.remove(&self.keys.name(key));
                self.skip(key, why.to_string());
            }
        }
    }

    /// An entry is no more.
    pub(super) fn delete(&mut self, key: &[u8]) {
        self.forget_unreadable(key);
        self.peers.remove(&self.keys.name(key));
    }

    /// Who else has, or holds the place of, one of these subnets.
    pub(super) fn holder(&self, subnets: &Subnets) -> Option<String> {
        let ours = [Some(subnets.v4), subnets.v6];
        let meets = |net: &IpNetwork| ours.iter().flatten().any(|own| overlap(own, net));
        let peer = self.peers.values().find(|peer| {
            let sites = [&peer.v4, &peer.v6];
            sites.into_iter().flatten().any(|site| meets(&site.subnet))
        });
        if let Some(peer) = peer {
            return Some(who(peer));
        }
        let mut taken = self.unreadable.values().flatten();
        let met = taken.find(|nets| [Some(nets.v4), nets.v6].iter().flatten().any(meets))?;
        Some(format!("an entry that cannot be read (key {})", met.key()))
    }

    fn skip(&mut self, key: &[u8], why: String) {
        let name = self.keys.name(key);
        if self.logged.len() < NAMED && self.logged.insert(name.clone()) {
            warn!(key = name, why, "an entry in etcd is passed over");
        }
        let hash = self.hasher.hash_one(key);
        self.unreadable.insert(hash, self.keys.taken_by(key));
        if self.skipped.len() < NAMED || self.skipped.contains_key(&name) {
            self.skipped.insert(name, why);
        }
        self.count_unnamed();
    }

    fn forget_unreadable(&mut self, key: &[u8]) {
        if self.unreadable.remove(&self.hasher.hash_one(key)).is_some() {
            self.skipped.remove(&self.keys.name(key));
            self.count_unnamed();
        }
    }

    fn count_unnamed(&mut self) {
        let named = self.skipped.len() - usize::from(self.skipped.contains_key(MORE));
        match self.unreadable.len().saturating_sub(named) {
            0 => self.skipped.remove(MORE),
            more => self.skipped.insert(MORE.to_owned(), more.to_string()),
        };
    }
}

/// A peer in words.
pub(super) fn who(peer: &Peer) -> String {
    let ip = peer.v4.map(|site| site.public_ip.to_string());
    format!("{} (key {})", ip.unwrap_or_default(), peer.name)
}

pub(super) fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}
