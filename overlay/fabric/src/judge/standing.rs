//! Who was believed last time, and what of.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;

use super::Accepted;
use crate::peer::{Peer, Site};

/// What each peer had when it was last believed: who has something keeps it.
#[derive(Debug, Clone, Default)]
pub struct Standing(BTreeMap<String, Stood>);

/// What was believed of a peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Stood {
    /// All that it said then; while it says the same and this node is the same, it need not be looked at again.
    said: Option<Arc<Peer>>,
    sites: [Option<Site>; 2],
}

/// What two lists in the order of their keys have at a key.
enum Pair<L, R> {
    Left(L),
    Right(R),
    Both(L, R),
}

// === impl Standing ===

impl Standing {
    /// Remembers that a peer has this.
    pub fn insert(&mut self, v6: bool, key: &str, site: Site) {
        let stood = self.0.entry(key.to_owned()).or_default();
        if let Some(place) = stood.sites.get_mut(usize::from(v6)) {
            *place = Some(site);
        }
    }

    /// Remembers who is believed now, and nobody else. The peers are in the order of their keys.
    pub fn update(&mut self, peers: &[Accepted<'_>]) {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        let by_key =
            |(key, _): &(&String, &mut Stood), peer: &&Accepted<'_>| key.as_str().cmp(peer.key);
        for pair in pairs(self.0.iter_mut(), peers.iter(), by_key) {
            match pair {
                Pair::Both((_, stood), peer) => stood.take(peer),
                Pair::Left((key, _)) => gone.push(key.clone()),
                Pair::Right(peer) => new.push(peer),
            }
        }
        for key in gone {
            self.0.remove(&key);
        }
        for peer in new {
            self.0.entry(peer.key.to_owned()).or_default().take(peer);
        }
    }

    /// This node is another now: all are looked at again. What they have they keep.
    pub fn look_again(&mut self) {
        for stood in self.0.values_mut() {
            stood.said = None;
        }
    }

    /// Is nothing known of anybody?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was believed of each of these, which are in the order of their keys.
    pub(super) fn of(&self, peers: &[Accepted<'_>]) -> Vec<Option<&Stood>> {
        let by_key =
            |(key, _): &(&String, &Stood), peer: &&Accepted<'_>| key.as_str().cmp(peer.key);
        let all = pairs(self.0.iter(), peers.iter(), by_key);
        all.filter_map(|pair| match pair {
            Pair::Both((_, stood), _) => Some(Some(stood)),
            Pair::Right(_) => Some(None),
            Pair::Left(_) => None,
        })
        .collect()
    }
}

// === impl Stood ===

impl Stood {
    pub(super) fn site(&self, v6: bool) -> Option<&Site> {
        self.sites.get(usize::from(v6))?.as_ref()
    }

    /// Does it say what it said?
    pub(super) fn says_the_same(&self, peer: &Arc<Peer>) -> bool {
        self.said
            .as_ref()
            .is_some_and(|said| Arc::ptr_eq(said, peer))
    }

    fn take(&mut self, peer: &Accepted<'_>) {
        let theirs = |said: &Arc<Peer>| Arc::ptr_eq(said, peer.peer);
        if !self.said.as_ref().is_some_and(theirs) {
            self.said = Some(Arc::clone(peer.peer));
        }
        self.sites = [peer.v4, peer.v6];
    }
}

/// Walks two lists that are in order at once.
fn pairs<L, R>(
    left: impl Iterator<Item = L>,
    right: impl Iterator<Item = R>,
    order: impl Fn(&L, &R) -> Ordering,
) -> impl Iterator<Item = Pair<L, R>> {
    let mut both: (Peekable<_>, Peekable<_>) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || {
        let (left, right) = &mut both;
        let order = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) => order(l, r),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => left.next().map(Pair::Left),
            Ordering::Greater => right.next().map(Pair::Right),
            Ordering::Equal => left.next().zip(right.next()).map(|(l, r)| Pair::Both(l, r)),
        }
    })
}
