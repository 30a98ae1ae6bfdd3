//! Finding attachments that nobody owns any more, for runtimes that never call GC.
//!
//! The spec's GC frees whatever is not in a list, so a pod that is being added while the list is made is in danger.
//! This goes the other way: what stands is found from its traces ([`find`]), each attachment is judged by itself
//! ([`Life::judge`]), and only one that is dead beyond doubt is deleted, by DEL ([`Found::release`]).
//!
//! Traces are cache entries, ADDs and DELs left half-way, reservation files of host-local (the reference's too) and the aliases
//! of this suite's host ends. The newest trace tells the attachment's age. An alias alone has none: it is remembered
//! from one look to the next ([`Memory`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::{Attach, CacheEntry, NetworkList, Runtime, RuntimeError};
use crate::kernel::link;
use crate::nl::{NlError, ROUTE, Socket};
use crate::plugin::identity;
use crate::spec::error::CniError;
use crate::spec::json::Fields;
use crate::spec::{NetName, Node};
use crate::store::live::Live;
use crate::store::{DEFAULT_DATA_DIR, NetDir, Reservation, StoreError};

/// The name of an interface in reservations of old releases, which do not say it.
const USUAL_IFNAME: &str = "eth0";

/// Why the traces cannot be gathered. Then nothing may be concluded.
#[derive(Debug, Error)]
pub enum FindError {
    /// The result cache.
    #[error("the cache of results cannot be read: {0}")]
    Cache(#[from] io::Error),
    /// A network's reservations.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A network's name or data directory.
    #[error("{}", .0.msg)]
    Conf(CniError),
    /// The links.
    #[error(transparent)]
    Link(#[from] NlError),
}

/// One attachment and all that was found of it.
#[derive(Debug, Default)]
pub struct Found {
    /// The network's name.
    pub network: String,
    /// The container's ID.
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
    /// Its cache entry.
    pub cached: Option<CacheEntry>,
    /// Whether an ADD or DEL of it was left half-way.
    pub halted: bool,
    /// Addresses reserved for it.
    pub addresses: Vec<IpAddr>,
    /// Host ends with its alias.
    pub links: Vec<String>,
    /// Files that are its traces, and when each was written.
    files: Vec<(PathBuf, SystemTime)>,
}

/// Every attachment of these networks that left a trace, by network, container and interface.
///
/// # Errors
/// Some trace could not be read.
pub fn find(runtime: &Runtime, networks: &[&NetworkList]) -> Result<Vec<Found>, FindError> {
    let mut all = All::default();
    let wanted = |name: &str| networks.iter().any(|list| list.name == name);
    for entry in runtime.attachments()? {
        if wanted(&entry.network) {
            let found = all.of(&entry.network, &entry.container_id, &entry.ifname);
            found.files.push((entry.file.clone(), entry.modified));
            found.cached = Some(entry);
        }
    }
    for pending in runtime.pending()? {
        if wanted(&pending.network) {
            let found = all.of(&pending.network, &pending.container_id, &pending.ifname);
            found.files.push((pending.file, pending.since));
            found.halted = true;
        }
    }
    for list in networks {
        for dir in reservation_dirs(list)? {
            for reservation in dir.reservations()? {
                all.reserved(&list.name, &dir, reservation);
            }
        }
    }
    for link in link::list(&mut Socket::open(ROUTE)?, "veth")? {
        let alias = link.alias.as_deref().unwrap_or_default();
        if let Some((net, at)) = identity::of_alias(alias).filter(|(net, _)| wanted(net.as_str())) {
            let found = all.of(net.as_str(), at.container_id.as_str(), at.ifname.as_str());
            found.links.push(link.name);
        }
    }
    Ok(all.0.into_values().collect())
}

/// By network, container, interface.
#[derive(Default)]
struct All(BTreeMap<(String, String, String), Found>);

impl All {
    fn of(&mut self, network: &str, container_id: &str, ifname: &str) -> &mut Found {
        let key = (network.into(), container_id.into(), ifname.into());
        self.0.entry(key).or_insert_with(|| Found {
            network: network.into(),
            container_id: container_id.into(),
            ifname: ifname.into(),
            ..Found::default()
        })
    }

    fn reserved(&mut self, network: &str, dir: &NetDir, reservation: Reservation) {
        let id = reservation.container_id.as_str();
        let known = self
            .0
            .values()
            .find(|f| f.network == network && f.container_id == id);
        let ifname = match (reservation.ifname, known) {
            (Some(ifname), _) => ifname.to_string(),
            (None, Some(found)) => found.ifname.clone(),
            (None, None) => USUAL_IFNAME.to_owned(),
        };
        let found = self.of(network, id, &ifname);
        let file = dir.path().join(reservation.ip.to_string());
        found.files.push((file, reservation.since));
        found.addresses.push(reservation.ip);
    }
}

fn reservation_dirs(list: &NetworkList) -> Result<Vec<NetDir>, FindError> {
    let net = NetName::parse(&list.name).map_err(FindError::Conf)?;
    let ipam = |node: &Node, key: &str| {
        let fields = Fields::of(node, "").ok()?;
        fields.str_at(&["ipam", key]).ok().flatten()
    };
    let dirs = list.plugins.iter().map(|plugin| plugin.node());
    let dirs = dirs.filter(|node| ipam(node, "type").as_deref() == Some("host-local"));
    let dirs = dirs.map(|node| {
        let data_dir = ipam(node, "dataDir").filter(|dir| !dir.is_empty());
        NetDir::new(
            Path::new(data_dir.as_deref().unwrap_or(DEFAULT_DATA_DIR)),
            &net,
        )
    });
    Ok(dirs.collect())
}

/// By name, or by what the directory's name leads to (`/var/run` is `/run`).
fn is_in(file: &Path, dir: &Path) -> bool {
    let Some(parent) = file.parent() else {
        return false;
    };
    let real = |dir: &Path| fs::canonicalize(dir).ok();
    parent == dir || real(parent).is_some_and(|parent| Some(parent) == real(dir))
}

// === impl Found ===

impl Found {
    /// `network/container/interface`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.network, self.container_id, self.ifname)
    }

    /// When its newest trace was written; `None` if none of them tells.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.files.iter().map(|(_, written)| *written).max()
    }

    /// The namespace's path, if the cache knows it.
    #[must_use]
    pub fn netns(&self) -> Option<&str> {
        self.cached.as_ref()?.netns.as_deref()
    }

    /// Whether one of its files was written again, or is gone, since it was found: somebody works on it.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        let written = |file: &Path| file.symlink_metadata().and_then(|m| m.modified()).ok();
        self.files
            .iter()
            .any(|(file, then)| written(file) != Some(*then))
    }

    /// DEL, by `list` and what the cache knows of ADD's configuration.
    ///
    /// # Errors
    /// As [`Runtime::del`]'s.
    pub fn release(&self, runtime: &Runtime, list: &NetworkList) -> Result<(), RuntimeError> {
        let (id, ifname) = (self.container_id.as_str(), self.ifname.as_str());
        match &self.cached {
            Some(entry) => runtime.del(list, &entry.attach()),
            None => runtime.del(list, &Attach::new(id, "", ifname)),
        }
    }
}

/// What is known to live on this machine.
#[derive(Debug)]
pub struct Life {
    /// Containers the runtime knows; `None` if no runtime was asked.
    pub containers: Option<BTreeSet<String>>,
    /// Namespaces and addresses in use. Taken after [`find`], as is the list of containers: what came up
    /// meanwhile must be seen alive.
    pub live: Live,
    /// Only attachments whose namespace was in this directory are judged, as far as the cache knows it: those of other
    /// directories are somebody else's.
    pub within: Option<PathBuf>,
}

/// What becomes of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for this reason.
    Alive(String),
    /// It may be one that is just being added; to be judged again when so much time has passed.
    Young(Duration),
    /// Nobody owns it, for this reason.
    Dead(String),
}

impl Life {
    /// Judges one attachment: dead is what nobody knows, nobody is in, and was so for `grace` at least.
    #[must_use]
    pub fn judge(
        &self,
        found: &Found,
        since: Option<SystemTime>,
        now: SystemTime,
        grace: Duration,
    ) -> Verdict {
        let known = self.containers.as_ref();
        if known.is_some_and(|known| known.contains(&found.container_id)) {
            return Verdict::Alive("the runtime knows the container".into());
        }
        let netns = found.netns().unwrap_or_default();
        if let Some(dir) = &self.within
            && !netns.is_empty()
            && !is_in(Path::new(netns), dir)
        {
            return Verdict::Alive(format!("{netns} is not in {}", dir.display()));
        }
        let inode = fs::metadata(netns).map(|m| m.ino());
        if inode
            .as_ref()
            .is_ok_and(|inode| self.live.namespaces.contains(inode))
        {
            return Verdict::Alive(format!("{netns} is in use"));
        }
        let in_use = |ip: &&IpAddr| self.live.addresses.contains(*ip);
        if let Some(ip) = found.addresses.iter().find(in_use) {
            return Verdict::Alive(format!("{ip} is in use"));
        }
        if known.is_none()
            && let Some(link) = found.links.first()
        {
            return Verdict::Alive(format!("{link} stands, and so does its pod's end"));
        }
        // A clock that was set back makes everything young, and nothing dead.
        let age = since.and_then(|since| now.duration_since(since).ok());
        match age {
            Some(age) if age >= grace => Verdict::Dead(match known {
                Some(_) => "the runtime does not know the container".into(),
                None if netns.is_empty() => "no namespace has its addresses".into(),
                None => format!("{netns} is gone"),
            }),
            age => Verdict::Young(grace.saturating_sub(age.unwrap_or_default())),
        }
    }
}

/// When attachments without a date of their own were first seen, kept in a file.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<String, u64>);

impl Memory {
    /// An unreadable or torn file is an empty memory.
    #[must_use]
    pub fn read(file: &Path) -> Self {
        let node = fs::read(file)
            .ok()
            .and_then(|bytes| Node::parse(&bytes).ok());
        let Some(Node::Object(members)) = node else {
            return Self::default();
        };
        let seconds = |node: &Node| match node {
            Node::Number(number) => number.as_u64(),
            _ => None,
        };
        Self(
            members
                .iter()
                .filter_map(|(key, node)| Some((key.clone(), seconds(node)?)))
                .collect(),
        )
    }

    /// Since when an attachment is known to stand, at least.
    #[must_use]
    pub fn since(&self, found: &Found) -> Option<SystemTime> {
        let remembered = self.0.get(&found.key());
        let remembered = remembered.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(*s));
        found.since().or(remembered)
    }

    /// Remembers those of `all` that have no date, and forgets what is gone.
    pub fn update(&mut self, all: &[Found], now: SystemTime) {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let undated = all.iter().filter(|found| found.since().is_none());
        let kept = undated.map(|found| {
            let key = found.key();
            let since = self.0.get(&key).copied().unwrap_or(now);
            (key, since)
        });
        self.0 = kept.collect();
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        if self.0.is_empty() {
            return match fs::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        }
        let mut members = Node::obj();
        for (key, since) in &self.0 {
            members = members.put(key, *since);
        }
        super::cache::write_atomically(file, members.build().write_compact().as_bytes())
    }
}

#[cfg(test)]
mod tests;
