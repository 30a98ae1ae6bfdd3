//! Which peers are believed. A directory may hold anything: entries of another cluster, of clones of a machine, of
//! somebody who wishes us harm. What is refused is named and changes nothing for the others.
//!
//! Pure: the same peers, in whatever order, and the same standing give the same verdict.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use libcni::kernel::Mac;
use libcni::spec::IpNetwork;

use crate::own::Own;
use crate::peer::{Peer, Site, Vtep};

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

/// Why a peer is not believed. Shown in words; [`Reason::label`] is for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It speaks another backend.
    Backend(String),
    /// Its subnet is ours, or has a part of ours.
    OwnSubnet(IpNetwork),
    /// Its subnet is not in the network.
    Outside(IpNetwork),
    /// Its subnet is far larger than a node's.
    TooWide(IpNetwork),
    /// Its subnet overlaps that of another peer, whose key this is.
    Overlap(IpNetwork, String),
    /// Its subnet has an address of the underlay in it: the tunnel would be led into itself.
    Underlay(IpNetwork, IpAddr),
    /// There is no MAC to send to.
    NoVtep,
    /// Its MAC is all zeroes or a group's.
    BadMac(Mac),
    /// Its MAC is ours.
    OwnMac(Mac),
    /// Its MAC is that of another peer, whose key this is.
    SameMac(Mac, String),
    /// Nobody can be reached at such an address.
    BadAddress(IpAddr),
    /// Its address is ours.
    OwnAddress(IpAddr),
    /// Its address is in the subnet of pods.
    AddressInSubnet(IpAddr, IpNetwork),
    /// More peers than are taken in.
    TooMany,
}

/// What each peer had when it was last believed: who has something keeps it.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub(crate) v4: HashMap<String, Site>,
    pub(crate) v6: HashMap<String, Site>,
}

/// Says which of the peers are believed.
pub fn judge<'a>(
    own: &Own,
    standing: &Standing,
    peers: impl IntoIterator<Item = (&'a str, &'a Arc<Peer>)>,
) -> Judged<'a> {
    let _ = (own, standing, peers.into_iter().count());
    Judged::default()
}

// === impl Reason ===

impl Reason {
    /// A short name that stays the same, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Backend(_) => "backend",
            Self::OwnSubnet(_) => "own-subnet",
            Self::Outside(_) => "outside-network",
            Self::TooWide(_) => "too-wide",
            Self::Overlap(..) => "overlap",
            Self::Underlay(..) => "underlay",
            Self::NoVtep => "no-vtep",
            Self::BadMac(_) => "bad-mac",
            Self::OwnMac(_) => "own-mac",
            Self::SameMac(..) => "same-mac",
            Self::BadAddress(_) => "bad-address",
            Self::OwnAddress(_) => "own-address",
            Self::AddressInSubnet(..) => "address-in-subnet",
            Self::TooMany => "too-many",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
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

    /// The network identifier it says, if that is not ours. It is believed all the same, as flannel does (nobody on
    /// Linux compares it), but packets will not arrive: worth a word in the log.
    pub fn other_vni(&self, vni: u32) -> Option<u32> {
        let said = |site: Option<Site>| site?.vtep.and_then(|vtep: Vtep| vtep.vni);
        [said(self.v4), said(self.v6)]
            .into_iter()
            .flatten()
            .find(|said| *said != vni)
    }
}
