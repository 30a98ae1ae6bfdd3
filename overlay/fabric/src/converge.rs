//! Making the kernel agree: what should be there against what is there, and the difference in one batch.
//!
//! There is one way in for everything, start, change, repair, take-over: state what should be, find what differs, send
//! that. What is right already is not touched, so no packet between others is lost whatever happens to a peer.

mod look;
mod release;
mod send;
mod want;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libcni::kernel::link;
use libcni::nl::{NlError, ROUTE, Socket};
use thiserror::Error;

use crate::device::{self, Device};
use crate::judge::{Refusal, Standing, judge};
use crate::own::Own;
use crate::peer::Peer;
use crate::state::{Links, Tables, numbers_gateways};

/// Peers by what the directory calls them.
pub type Peers = BTreeMap<String, Arc<Peer>>;

/// What becomes of what the kernel has of peers that are not in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They have left: it is removed.
    Remove,
    /// The list is not complete yet: it stays.
    Keep,
}

/// The kernel's side of one node.
#[derive(Debug)]
pub struct Fabric {
    own: Own,
    sock: Socket,
    /// What is there of IPv4 and IPv6, as far as is known.
    known: [Option<Known>; 2],
    /// Who is believed.
    standing: Standing,
    /// By which link a peer's address is reached without a gateway, if it is; asked for with `DirectRouting` only.
    direct: HashMap<IpAddr, Option<u32>>,
    /// Is what is known perhaps wrong?
    doubt: bool,
}

/// What is known of a family.
#[derive(Debug, Default)]
pub(crate) struct Known {
    links: Links,
    tables: Tables,
}

/// What was done. Counted are objects: next hops, routes, neighbours, forwarding entries, and what a device is like.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Were not there.
    pub added: usize,
    /// Were there and different.
    pub changed: usize,
    /// Should not be there.
    pub removed: usize,
    /// Were missing or different though we had set them: somebody else changed the kernel.
    pub repaired: usize,
    /// Messages sent that change something.
    pub messages: usize,
    /// What the kernel refused, and for which peer: its key, or a device's name; empty for the remains of a peer that
    /// has left.
    pub failed: Vec<(String, NlError)>,
    /// Peers that are not believed.
    pub refused: Vec<Refusal>,
    /// Keys of peers that say another network identifier than ours, and which. They are believed all the same.
    pub other_vni: Vec<(String, u32)>,
    /// How long it took.
    pub took: Duration,
}

/// Nothing could be done at all.
#[derive(Debug, Error)]
pub enum FabricError {
    /// The interface to the other nodes is gone.
    #[error(
        "the interface to the other nodes, {name} (index {index}), is not there: choose it again"
    )]
    NoParent {
        /// Its name.
        name: String,
        /// Its index.
        index: u32,
    },
    /// A socket, a dump, or the device.
    #[error(transparent)]
    Kernel(#[from] NlError),
}

// === impl Fabric ===

impl Fabric {
    /// Opens the kernel. Nothing is changed, nothing is read yet.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn open(own: Own) -> Result<Self, FabricError> {
        Ok(Self {
            own,
            sock: Socket::open(ROUTE)?,
            known: [None, None],
            standing: Standing::default(),
            direct: HashMap::new(),
            doubt: true,
        })
    }

    /// This node, as it is to be.
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// This node is to be different from now on (its address, MTU, MAC changed); the next step makes it so.
    pub fn set_own(&mut self, own: Own) {
        self.own = own;
        self.standing.look_again();
        self.doubt = true;
    }

    /// Reads what is there (device, and one dump of each table) and sends the difference. What is right is not touched.
    ///
    /// # Errors
    /// Nothing is known or nothing can be made: no device, no answer. What concerns one peer only is in the report.
    pub fn converge(&mut self, peers: &Peers, others: Others) -> Result<Report, FabricError> {
        let start = Instant::now();
        // Until the end: whatever fails, the next step reads again.
        self.doubt = true;
        let mut report = Report::default();
        let before = std::mem::take(&mut self.known);
        self.direct.clear();
        self.parent()?;
        for (v6, before) in [false, true].into_iter().zip(&before) {
            let known = self.read(v6, before.as_ref(), &mut report)?;
            if let Some(place) = self.known.get_mut(usize::from(v6)) {
                *place = known;
            }
        }
        self.doubt = false;
        if self.standing.is_empty() {
            self.standing = self.found(peers);
        }
        let outcome = self.settle(peers, others, &before, &mut report);
        self.doubt |= outcome.is_err();
        report.took = start.elapsed();
        outcome.map(|()| report)
    }

    /// The same against what is remembered of the last time, without reading; a whole [`Fabric::converge`] when in
    /// doubt.
    ///
    /// # Errors
    /// As `converge`.
    pub fn follow(&mut self, peers: &Peers, others: Others) -> Result<Report, FabricError> {
        if self.doubt {
            return self.converge(peers, others);
        }
        let start = Instant::now();
        let mut report = Report::default();
        let outcome = self.settle(peers, others, &[None, None], &mut report);
        self.doubt |= outcome.is_err();
        report.took = start.elapsed();
        outcome.map(|()| report)
    }

    /// Somebody else changed the kernel: the next [`Fabric::follow`] reads it again.
    pub fn doubt(&mut self) {
        self.doubt = true;
    }

    /// Makes the device what it should be and reads a family.
    fn read(
        &mut self,
        v6: bool,
        before: Option<&Known>,
        report: &mut Report,
    ) -> Result<Option<Known>, FabricError> {
        let Some(objects) = self
            .own
            .side(v6)
            .map(|side| numbers_gateways(&side.network))
        else {
            return Ok(None);
        };
        let device = device::ensure(&mut self.sock, &self.own, v6)?;
        if let Some(device) = &device {
            self.count(device, v6, before.is_some(), report);
        }
        let links = Links {
            device: device.map_or(0, |device| device.index),
            objects,
        };
        let tables = Tables::read(&mut self.sock, v6, links)?;
        Ok(Some(Known { links, tables }))
    }

    fn count(&self, device: &Device, v6: bool, again: bool, report: &mut Report) {
        let done = if device.added { 1 } else { device.changed };
        report.messages += done;
        match (device.added, again) {
            (_, true) => report.repaired += done,
            (true, false) => report.added += done,
            (false, false) => report.changed += done,
        }
        if let Some(error) = &device.mtu {
            let name = self.own.device(v6).unwrap_or_default();
            report.failed.push((name, error.clone()));
        }
    }

    /// Judges the peers and sends what they need and nothing has.
    fn settle(
        &mut self,
        peers: &Peers,
        others: Others,
        before: &[Option<Known>; 2],
        report: &mut Report,
    ) -> Result<(), FabricError> {
        let listed = peers.iter().map(|(key, peer)| (key.as_str(), peer));
        let judged = judge(&self.own, &self.standing, listed);
        for (v6, before) in [false, true].into_iter().zip(before) {
            let wants = self.wants(&judged.peers, v6)?;
            let Some(known) = self.known.get_mut(usize::from(v6)).and_then(Option::as_mut) else {
                continue;
            };
            let steps = known.tables.diff(&wants, others);
            let before = before.as_ref().map(|known| &known.tables);
            let name = |peer: Option<usize>| {
                let peer = peer.and_then(|at| judged.peers.get(at));
                peer.map_or_else(String::new, |peer| peer.key.to_owned())
            };
            self.doubt |= send::all(&mut self.sock, known, &steps, before, name, report)?;
        }
        self.standing.update(&judged.peers);
        if let crate::Backend::Vxlan(vxlan) = &self.own.backend {
            let other = judged.peers.iter();
            report.other_vni = other
                .filter_map(|peer| Some((peer.key.to_owned(), peer.other_vni(vxlan.vni)?)))
                .collect();
        }
        report.refused = judged.refused;
        Ok(())
    }

    fn parent(&mut self) -> Result<(), FabricError> {
        let (name, index) = (&self.own.parent.name, self.own.parent.index);
        match link::get_index(&mut self.sock, index)? {
            Some(_) => Ok(()),
            None => Err(FabricError::NoParent {
                name: name.clone(),
                index,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
