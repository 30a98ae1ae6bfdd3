//! Where nodes tell each other who and where they are.
//!
//! A directory is asked in this order: [`Directory::net_conf`], [`Directory::hints`], [`Directory::lease`], then
//! [`Directory::run`], which lasts. None of them fails because the other side is away or not ready: they wait, try
//! again with growing pauses, and say so in the log. An error is for good: a file that is no certificate, a
//! configuration that makes no sense.

pub mod etcd;
pub mod file;
pub mod kubernetes;
pub mod pick;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use fabric::{Kind, NetConf, Peer, Site, Vtep};
use libcni::kernel::Mac;
use libcni::spec::IpNetwork;
use thiserror::Error;
use tokio::sync::watch;

/// What will not get better by waiting. The text is whole: what, why, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct DirectoryError(pub String);

/// A place where nodes tell each other who and where they are.
pub trait Directory: Sized + Send {
    /// The network's configuration; waits until there is one.
    fn net_conf(&mut self) -> impl Future<Output = Result<NetConf, DirectoryError>> + Send;

    /// What it remembers of this node, and what its operator wishes.
    /// Nothing, unless it keeps more than leases.
    fn hints(&mut self) -> impl Future<Output = Result<Hints, DirectoryError>> + Send {
        std::future::ready(Ok(Hints::default()))
    }

    /// Leases the node's subnets and tells the others where it is, in one write. Waits until it has them.
    fn lease(
        &mut self,
        conf: &NetConf,
        me: &Me,
        before: Option<&Lease>,
    ) -> impl Future<Output = Result<Lease, DirectoryError>> + Send;

    /// Keeps the lease and follows the others, until dropped.
    fn run(self, links: Links) -> impl Future<Output = DirectoryError> + Send;
}

/// What a directory knows of this node before it has an interface, a device, a lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// The address to be known by, which also chooses the interface (flannel's annotation `node-public-ip`).
    pub public_ip: Option<IpAddr>,
    /// Of IPv6 (`node-public-ipv6`).
    pub public_ipv6: Option<IpAddr>,
    /// The node's addresses by the directory's own knowledge (Kubernetes' InternalIP), better than a guess.
    pub internal_ips: Vec<IpAddr>,
    /// The MAC of its VTEP, as published before.
    pub mac: Option<Mac>,
    /// Of the VTEP over IPv6.
    pub mac_v6: Option<Mac>,
}

/// What this node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Its backend.
    pub kind: Kind,
    /// Its IPv4 side; there exactly if the network has one.
    pub v4: Option<End>,
    /// Its IPv6 side; there exactly if the network has one.
    pub v6: Option<End>,
}

/// Where a node is reached, in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its address in the underlay. A directory may publish another, if its operator says so.
    pub public_ip: IpAddr,
    /// Its tunnel's end.
    pub vtep: Option<Vtep>,
}

/// The node's own subnets: one per family of the network, host bits off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    /// Of IPv4.
    pub v4: Option<IpNetwork>,
    /// Of IPv6.
    pub v6: Option<IpNetwork>,
}

/// What ties a running directory to the agent.
#[derive(Debug)]
pub struct Links {
    /// The network.
    pub conf: NetConf,
    /// The node's subnets, as [`Directory::lease`] gave them.
    pub lease: Lease,
    /// What to tell; published anew when it changes.
    pub me: watch::Receiver<Me>,
    /// Whether the node's network works; a directory with a place for that (Kubernetes' NetworkUnavailable) says so.
    pub ready: watch::Receiver<Ready>,
    /// What is known of the others; sent when it changes, many changes at once where many come at once.
    pub view: watch::Sender<Arc<View>>,
}

/// Whether pods of this node have a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// They have.
    Yes,
    /// Not yet, or no longer, and why.
    No(String),
}

/// What a directory says.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The others, by what the directory calls them; never this node itself.
    pub peers: BTreeMap<String, Arc<Peer>>,
    /// Entries that cannot be read, and why. They change nothing for the others.
    pub skipped: BTreeMap<String, String>,
    /// Whether `peers` is complete. Until then nobody is taken to have left.
    pub complete: bool,
    /// Set while the directory cannot be reached: why. `peers` is what it said last.
    pub away: Option<String>,
    /// Set when the lease is somebody else's now: who has it, and what to do.
    pub lost: Option<String>,
    /// When it was heard of last.
    pub heard: Option<Instant>,
    /// Events taken in since the start, for the metrics.
    pub events: u64,
}

// === impl View ===

impl View {
    /// Whether there is nothing in `other` that anybody would do something about.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.peers == other.peers
            && self.skipped == other.skipped
            && self.complete == other.complete
            && self.away == other.away
            && self.lost == other.lost
    }
}

// === impl Me ===

impl Me {
    /// As the others see it.
    pub fn peer(&self, name: &str, lease: &Lease) -> Peer {
        let site = |subnet: Option<IpNetwork>, end: Option<End>| {
            let (subnet, end) = subnet.zip(end)?;
            Some(Site {
                subnet,
                public_ip: end.public_ip,
                vtep: end.vtep,
            })
        };
        Peer {
            name: name.to_owned(),
            kind: self.kind.clone(),
            v4: site(lease.v4, self.v4),
            v6: site(lease.v6, self.v6),
        }
    }
}
