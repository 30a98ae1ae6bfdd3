//! What the agent knew last, on disk: a node that boots while its directory is away has its peers all the same, and
//! `overlayd show` and `path` need no agent that runs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fabric::converge::Peers;
use fabric::judge::Refusal;
use fabric::own::{Own, OwnSide, Parent};
use fabric::{Kind, NetConf, Peer, Site, Vtep};
use libcni::kernel::Mac;
use libcni::spec::{IpNetwork, parse_cidr, parse_ip};
use serde::{Deserialize, Serialize};

use crate::directory::{Lease, View};

const FILE: &str = "state.json";
/// Another layout is not read.
const LAYOUT: u32 = 1;

/// What was known.
#[derive(Debug, Clone)]
pub struct Known {
    /// The network.
    pub conf: NetConf,
    /// This node.
    pub own: Own,
    /// The others.
    pub peers: Peers,
    /// Entries that could not be read, and why.
    pub skipped: BTreeMap<String, String>,
    /// Peers that were not believed, and why.
    pub refused: BTreeMap<String, String>,
    /// Set if the directory was away: why.
    pub away: Option<String>,
    /// When, RFC 3339 in UTC.
    pub written: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    layout: u32,
    written: String,
    config: String,
    parent: StoredParent,
    v4: Option<StoredSite>,
    v6: Option<StoredSite>,
    away: Option<String>,
    peers: BTreeMap<String, StoredPeer>,
    skipped: BTreeMap<String, String>,
    refused: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct StoredParent {
    name: String,
    index: u32,
    mtu: u32,
}

#[derive(Serialize, Deserialize)]
struct StoredPeer {
    name: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    v4: Option<StoredSite>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v6: Option<StoredSite>,
}

#[derive(Serialize, Deserialize)]
struct StoredSite {
    subnet: String,
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
}

/// Where it is, in a state directory.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

// === impl Known ===

impl Known {
    /// As it stands now.
    pub fn of(
        conf: &NetConf,
        own: &Own,
        view: &View,
        refused: &[Refusal],
        written: String,
    ) -> Self {
        let refused = refused
            .iter()
            .map(|refusal| (refusal.key.clone(), refusal.reason.to_string()));
        Self {
            conf: conf.clone(),
            own: own.clone(),
            peers: view.peers.clone(),
            skipped: view.skipped.clone(),
            refused: refused.collect(),
            away: view.away.clone(),
            written,
        }
    }

    /// The node's subnets.
    pub fn lease(&self) -> Lease {
        let subnet = |side: &Option<OwnSide>| side.map(|side| side.subnet);
        Lease {
            v4: subnet(&self.own.v4),
            v6: subnet(&self.own.v6),
        }
    }

    /// Reads it; `None` if there is none, or it is torn or of another layout.
    pub fn read(state_dir: &Path) -> Option<Self> {
        let bytes = std::fs::read(path(state_dir)).ok()?;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        (stored.layout == LAYOUT).then(|| stored.known())?
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// As the file system's.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let stored = Stored {
            layout: LAYOUT,
            written: self.written.clone(),
            config: self.conf.text.clone(),
            parent: StoredParent {
                name: self.own.parent.name.clone(),
                index: self.own.parent.index,
                mtu: self.own.parent.mtu,
            },
            v4: self.own.v4.map(|side| own_site(&side)),
            v6: self.own.v6.map(|side| own_site(&side)),
            away: self.away.clone(),
            peers: self
                .peers
                .iter()
                .map(|(key, peer)| (key.clone(), StoredPeer::of(peer)))
                .collect(),
            skipped: self.skipped.clone(),
            refused: self.refused.clone(),
        };
        let mut bytes = serde_json::to_vec(&stored)?;
        bytes.push(b'\n');
        fabric::file::replace(&path(state_dir), &bytes, 0o600)
    }
}

fn own_site(side: &OwnSide) -> StoredSite {
    StoredSite {
        subnet: side.subnet.to_string(),
        ip: side.local.to_string(),
        mac: Some(side.mac.to_string()),
        vni: None,
    }
}

// === impl Stored ===

impl Stored {
    fn known(self) -> Option<Known> {
        let conf = NetConf::parse(self.config.as_bytes()).ok()?;
        let side = |stored: Option<StoredSite>, v6: bool| {
            let (stored, network) = stored.zip(conf.network(v6))?;
            let site = stored.site()?;
            let mac = site.vtep.map(|vtep| vtep.mac).unwrap_or_default();
            Some(OwnSide {
                network: network.net,
                subnet: site.subnet,
                local: site.public_ip,
                mac,
            })
        };
        let (v4, v6) = (side(self.v4, false), side(self.v6, true));
        let parent = Parent {
            index: self.parent.index,
            name: self.parent.name,
            mtu: self.parent.mtu,
            v4: v4.and_then(|side| match side.local {
                std::net::IpAddr::V4(ip) => Some(ip),
                std::net::IpAddr::V6(_) => None,
            }),
            v6: v6.and_then(|side| match side.local {
                std::net::IpAddr::V6(ip) => Some(ip),
                std::net::IpAddr::V4(_) => None,
            }),
        };
        let own = Own {
            backend: conf.backend.clone(),
            parent,
            v4,
            v6,
        };
        let peers = self.peers.into_iter();
        let peers = peers.filter_map(|(key, peer)| Some((key, Arc::new(peer.peer()?))));
        Some(Known {
            conf,
            own,
            peers: peers.collect(),
            skipped: self.skipped,
            refused: self.refused,
            away: self.away,
            written: self.written,
        })
    }
}

// === impl StoredPeer ===

impl StoredPeer {
    fn of(peer: &Peer) -> Self {
        Self {
            name: peer.name.clone(),
            kind: peer.kind.as_str().to_owned(),
            v4: peer.v4.as_ref().map(StoredSite::of),
            v6: peer.v6.as_ref().map(StoredSite::of),
        }
    }

    fn peer(self) -> Option<Peer> {
        let site = |stored: Option<StoredSite>| stored.map(|stored| stored.site());
        Some(Peer {
            name: self.name,
            kind: Kind::parse(&self.kind),
            v4: site(self.v4).flatten(),
            v6: site(self.v6).flatten(),
        })
    }
}

// === impl StoredSite ===

impl StoredSite {
    fn of(site: &Site) -> Self {
        Self {
            subnet: site.subnet.to_string(),
            ip: site.public_ip.to_string(),
            mac: site.vtep.map(|vtep| vtep.mac.to_string()),
            vni: site.vtep.and_then(|vtep| vtep.vni),
        }
    }

    fn site(&self) -> Option<Site> {
        let subnet: IpNetwork = parse_cidr(&self.subnet)?;
        let mac = self.mac.as_deref().and_then(Mac::parse);
        Some(Site {
            subnet,
            public_ip: parse_ip(&self.ip)?,
            vtep: mac.map(|mac| Vtep { mac, vni: self.vni }),
        })
    }
}
