//! Which peers are believed. A directory may hold anything: entries of another cluster, of clones of a machine, of
//! somebody who wishes us harm. What is refused is named and changes nothing for the others.
//!
//! Pure: the same peers, in whatever order, and the same standing give the same verdict.

mod believed;
mod court;
mod reason;
mod standing;

use std::sync::Arc;

use court::Court;
pub use reason::Reason;
pub use standing::Standing;

use crate::own::Own;
use crate::peer::{Peer, Site};

/// So many peers of a family are taken in and no more: as many as a /8 has subnets /24.
pub const MAX_PEERS: usize = 1 << 16;

/// What was made of the peers.
#[derive(Debug, Clone, Default)]
pub struct Judged<'a> {
    /// Those with at least one side that is believed, in the order of their keys.
    pub peers: Vec<Accepted<'a>>,
    /// What was refused; a peer of two families may be here and there.
    pub refused: Vec<Refusal>,
}

/// A peer that is believed, at least one side of it.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    /// What the directory calls it.
    pub key: &'a str,
    /// All that it says.
    pub peer: &'a Arc<Peer>,
    /// What is believed of IPv4.
    pub v4: Option<Site>,
    /// What is believed of IPv6.
    pub v6: Option<Site>,
}

/// A peer, or one family of it, that is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the directory calls it.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// The family; `None` is all of it.
    pub v6: Option<bool>,
    /// Why.
    pub reason: Reason,
}

/// Says which of the peers are believed, each family by itself: a peer that is wrong about one keeps the other.
///
/// Where two cannot both be believed, the one that has stood longer is; between two that are new, the one whose subnet
/// is of the usual size; between equals, the one whose key comes first.
pub fn judge<'a>(
    own: &Own,
    standing: &Standing,
    peers: impl IntoIterator<Item = (&'a str, &'a Arc<Peer>)>,
) -> Judged<'a> {
    let kind = own.backend.kind();
    let mut judged = Judged::default();
    let peers = peers.into_iter();
    let mut candidates: Vec<Accepted<'a>> = Vec::with_capacity(peers.size_hint().0);
    for (key, peer) in peers {
        if peer.kind == kind {
            let (v4, v6) = (None, None);
            candidates.push(Accepted { key, peer, v4, v6 });
        } else {
            let reason = Reason::Backend(peer.kind.as_str().to_owned());
            judged.refuse(key, peer, None, reason);
        }
    }
    // The verdict must not depend on the order in which they are told.
    candidates.sort_by_key(|candidate| candidate.key);
    let stood = standing.of(&candidates);
    for v6 in [false, true] {
        if let Some(side) = own.side(v6) {
            Court::new(own, side).hear(v6, &mut candidates, &stood, &mut judged);
        }
    }
    candidates.retain(|peer| peer.v4.is_some() || peer.v6.is_some());
    judged.peers = candidates;
    judged
}

// === impl Judged ===

impl Judged<'_> {
    fn refuse(&mut self, key: &str, peer: &Peer, v6: Option<bool>, reason: Reason) {
        self.refused.push(Refusal {
            key: key.to_owned(),
            name: peer.name.clone(),
            v6,
            reason,
        });
    }
}

// === impl Accepted ===

impl Accepted<'_> {
    /// What is believed of a family.
    pub fn site(&self, v6: bool) -> Option<&Site> {
        if v6 {
            self.v6.as_ref()
        } else {
            self.v4.as_ref()
        }
    }

    fn place(&mut self, v6: bool) -> &mut Option<Site> {
        if v6 { &mut self.v6 } else { &mut self.v4 }
    }

    /// The network identifier it says, if that is not ours. It is believed all the same, as flannel does (nobody on
    /// Linux compares it), but packets will hardly arrive: worth a word in the log.
    pub fn other_vni(&self, vni: u32) -> Option<u32> {
        let said = |site: Option<Site>| site?.vtep?.vni;
        [said(self.v4), said(self.v6)]
            .into_iter()
            .flatten()
            .find(|said| *said != vni)
    }
}

#[cfg(test)]
mod tests;
