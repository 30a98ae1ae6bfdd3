//! Making the kernel agree: what should be there against what is there, and the difference in one batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use libcni::nl::{NlError, ROUTE, Socket};
use thiserror::Error;

use crate::judge::Refusal;
use crate::own::Own;
use crate::peer::Peer;

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
    /// What the kernel refused, and for which peer.
    pub failed: Vec<(String, NlError)>,
    /// Peers that are not believed.
    pub refused: Vec<Refusal>,
    /// How long it took.
    pub took: Duration,
}

/// Nothing could be done at all.
#[derive(Debug, Error)]
pub enum FabricError {
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
        let sock = Socket::open(ROUTE)?;
        Ok(Self { own, sock })
    }

    /// This node, as it is to be.
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// This node is to be different from now on (its address, MTU, MAC changed); the next step makes it so.
    pub fn set_own(&mut self, own: Own) {
        self.own = own;
    }

    /// Reads what is there (device, and one dump of each table) and sends the difference. What is right is not touched.
    ///
    /// # Errors
    /// Nothing is known or nothing can be made: no device, no answer. What concerns one peer only is in the report.
    pub fn converge(&mut self, peers: &Peers, others: Others) -> Result<Report, FabricError> {
        let _ = (peers, others, &mut self.sock);
        Ok(Report::default())
    }

    /// The same against what is remembered of the last time, without reading; a whole [`Fabric::converge`] when in
    /// doubt.
    ///
    /// # Errors
    /// As `converge`.
    pub fn follow(&mut self, peers: &Peers, others: Others) -> Result<Report, FabricError> {
        self.converge(peers, others)
    }

    /// Somebody else changed the kernel: the next [`Fabric::follow`] reads it again.
    pub fn doubt(&mut self) {}

    /// Leaves everything as flanneld would have made it, for a flanneld to take over: plain routes of protocol boot,
    /// nothing of ours. No packet is lost.
    ///
    /// # Errors
    /// As `converge`.
    pub fn release(&mut self) -> Result<Report, FabricError> {
        Ok(Report::default())
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// As `converge`.
    pub fn remove(&mut self) -> Result<(), FabricError> {
        Ok(())
    }
}
