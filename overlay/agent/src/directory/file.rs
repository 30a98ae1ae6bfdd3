//! A directory of files, in flannel's layout: what its etcd keys are there, files are here.
//!
//! ```text
//! DIR/config                          the network's configuration
//! DIR/subnets/192.168.128.0-24        a node's lease, named by its subnet
//! ```
//! Each node writes its own file and watches the others'. For labs, for fleets whose files come by other means (a
//! repository, a shared mount), and for whoever wants no server.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fabric::lease::{self, Subnets};
use fabric::{NetConf, Peer};
use tracing::{info, warn};

use super::pick::pick;
use super::{Directory, DirectoryError, Lease, Links, Me, View};
use entry::Entry;
use inotify::Watch;

mod entry;
mod inotify;

/// How often everything is read again, for file systems that do not tell of others' changes.
const RESCAN: Duration = Duration::from_secs(10);
/// How often a lease is tried for again, when something is in the way.
const AGAIN: Duration = Duration::from_secs(1);

/// Nodes as files.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    /// What chooses among the free subnets first: the same node the same one, whenever it can.
    node: String,
}

/// A lease, and what the others' files say.
struct Follower<'a> {
    files: &'a Files,
    own: Entry,
    me: Me,
    view: View,
}

// === impl Files ===

impl Files {
    /// Of a directory, which is made if it is not there, and for a node's name.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path, node: &str) -> Result<Self, DirectoryError> {
        let files = Self {
            dir: dir.to_owned(),
            node: node.to_owned(),
        };
        let subnets = files.subnets();
        fs::create_dir_all(&subnets).map_err(|e| {
            DirectoryError(format!(
                "make the directory of peers {}: {e}",
                subnets.display()
            ))
        })?;
        Ok(files)
    }

    fn subnets(&self) -> PathBuf {
        self.dir.join("subnets")
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::read_dir(self.subnets())? {
            entries.extend(Entry::of(&found?.file_name().to_string_lossy()));
        }
        Ok(entries)
    }

    /// The lease this node has, or may have, by what stands in the files.
    fn choose(&self, conf: &NetConf, me: &Me, before: Option<&Lease>) -> Result<Lease, String> {
        let v4_net = conf
            .v4
            .as_ref()
            .ok_or("a directory of files needs an IPv4 network")?;
        let entries = self
            .entries()
            .map_err(|e| format!("read {}: {e}", self.subnets().display()))?;
        let (mut taken, mut taken_v6, mut own) = (BTreeSet::new(), BTreeSet::new(), None);
        for entry in entries {
            let Lease { v4, v6 } = entry.lease();
            let leasable = v4.is_some_and(|v4| v4_net.leases(&v4));
            let is_own = |peer: Peer| same_node(&peer, me);
            // Of several the one of before: the others are lies, or of a network that is no more.
            let better = own.is_none() || Some(&entry.lease()) == before;
            if better
                && leasable
                && entry
                    .read(&self.subnets())
                    .and_then(Result::ok)
                    .is_some_and(is_own)
            {
                own = Some(entry.lease());
                continue;
            }
            taken.extend(v4);
            taken_v6.extend(v6);
        }
        // What it has it keeps, whatever others say they have.
        let Lease { v4, v6 } = own.unwrap_or_default();
        let before = before.copied().unwrap_or_default();
        let full = |net| format!("no subnet of {net} is free");
        let v4 = v4.or_else(|| pick(v4_net, &taken, before.v4.as_ref(), &self.node));
        let v4 = v4.ok_or_else(|| full(v4_net.net))?;
        let v6 = conf.v6.as_ref().map(|net| {
            let held = v6.filter(|v6| net.leases(v6));
            let free = held.or_else(|| pick(net, &taken_v6, before.v6.as_ref(), &self.node));
            free.ok_or_else(|| full(net.net))
        });
        Ok(Lease {
            v4: Some(v4),
            v6: v6.transpose()?,
        })
    }

    /// Leases what may be had; says why not.
    fn claim(
        &self,
        conf: &NetConf,
        me: &Me,
        before: Option<&Lease>,
    ) -> Result<Option<Lease>, String> {
        let lease = self.choose(conf, me, before)?;
        let Some(v4) = lease.v4 else { return Ok(None) };
        let entry = Entry::from(Subnets { v4, v6: lease.v6 });
        let text = lease::value(&me.peer(&self.node, &lease));
        let claimed = entry.claim(&self.subnets(), text.as_bytes(), |there| {
            same_node(there, me)
        });
        let claimed = claimed.map_err(|e| {
            format!(
                "write this node's lease in {}: {e}",
                self.subnets().display()
            )
        })?;
        if claimed {
            self.forget_others(&entry, me);
        }
        Ok(claimed.then_some(lease))
    }

    /// Removes leases this node had under other keys: of IPv4 alone before there was IPv6, of a network that is no more.
    fn forget_others(&self, own: &Entry, me: &Me) {
        for entry in self
            .entries()
            .into_iter()
            .flatten()
            .filter(|entry| entry != own)
        {
            let path = self.subnets().join(entry.key());
            if let Some(Ok(peer)) = entry.read(&self.subnets())
                && same_node(&peer, me)
            {
                info!(file = %path.display(), "gives up this node's earlier lease");
                if let Err(e) = fs::remove_file(&path) {
                    warn!(file = %path.display(), error = %e, "cannot remove it");
                }
            }
        }
    }
}

/// As flannel sees it: a node is its address.
fn same_node(peer: &Peer, me: &Me) -> bool {
    peer.v4.map(|site| site.public_ip) == me.v4.map(|end| end.public_ip)
}

impl Directory for Files {
    async fn net_conf(&mut self) -> Result<NetConf, DirectoryError> {
        let file = self.dir.join("config");
        let mut watch = Watch::of(&self.dir);
        let mut told = String::new();
        loop {
            // Neither is for ever: it may be written just now, or set right.
            let why = match fs::read(&file) {
                Ok(text) => match NetConf::parse(&text) {
                    Ok(conf) => return Ok(conf),
                    Err(e) => e.to_string(),
                },
                Err(e) if e.kind() == ErrorKind::NotFound => "it is not there yet".to_owned(),
                Err(e) => {
                    return Err(DirectoryError(format!("read {}: {e}", file.display())));
                }
            };
            if told != why {
                warn!(file = %file.display(), %why, "waits for the network's configuration");
                told = why;
            }
            let _ = tokio::time::timeout(RESCAN, watch.changed()).await;
        }
    }

    async fn lease(
        &mut self,
        conf: &NetConf,
        me: &Me,
        before: Option<&Lease>,
    ) -> Result<Lease, DirectoryError> {
        if conf.v4.is_none() {
            let why = "a network of IPv6 alone needs Kubernetes as its directory: flannel's keys are IPv4 subnets";
            return Err(DirectoryError(why.into()));
        }
        let mut told = String::new();
        loop {
            match self.claim(conf, me, before) {
                Ok(Some(lease)) => return Ok(lease),
                // Another node was faster: there are fewer free ones now.
                Ok(None) => tokio::task::yield_now().await,
                Err(why) => {
                    if told != why {
                        warn!(%why, "no lease yet");
                        told = why;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn run(self, links: Links) -> DirectoryError {
        let Some(v4) = links.lease.v4 else {
            return DirectoryError("a directory of files needs an IPv4 lease".into());
        };
        let follower = Follower {
            files: &self,
            own: Entry::from(Subnets {
                v4,
                v6: links.lease.v6,
            }),
            me: links.me.borrow().clone(),
            view: View::default(),
        };
        follower.follow(links).await;
        DirectoryError("the agent stopped".into())
    }
}

// === impl Follower ===

impl Follower<'_> {
    async fn follow(mut self, mut links: Links) {
        let dir = self.files.subnets();
        let mut watch = Watch::of(&dir);
        let mut rescan = tokio::time::interval(RESCAN);
        loop {
            let before = self.view.clone();
            tokio::select! {
                names = watch.changed() => match names {
                    Some(names) => {
                        for entry in names.iter().filter_map(|name| Entry::of(name)) {
                            self.view.events += 1;
                            self.take_in(&entry);
                        }
                    }
                    // Too many at once, or the directory is another: read all.
                    None => rescan.reset_immediately(),
                },
                _ = rescan.tick() => {
                    watch.renew(&dir);
                    let read = self.take_in_all();
                    self.view.complete |= read.is_ok();
                    let away = read.err();
                    self.view.away = away.map(|e| format!("read {}: {e}", dir.display()));
                }
                changed = links.me.changed() => {
                    if changed.is_err() {
                        return; // the agent is gone
                    }
                    self.me = links.me.borrow_and_update().clone();
                    let written = self.put();
                    self.view.lost = written.err().map(|e| format!("cannot write this node's lease: {e}"));
                }
            }
            if self.view.away.is_none() {
                self.view.heard = Some(Instant::now());
            }
            if before.heard.is_none() || !self.view.says_the_same(&before) {
                links.view.send_replace(Arc::new(self.view.clone()));
            }
        }
    }

    /// Takes in what a file says now.
    fn take_in(&mut self, entry: &Entry) {
        let key = entry.key();
        let read = entry.read(&self.files.subnets());
        if *entry == self.own {
            self.view.lost = self.keep(read);
            return;
        }
        let known = self.view.peers.remove(&key);
        let skipped = self.view.skipped.remove(&key);
        match read {
            Some(Ok(peer)) => {
                let known = known.filter(|known| **known == peer);
                self.view
                    .peers
                    .insert(key, known.unwrap_or_else(|| Arc::new(peer)));
            }
            Some(Err(why)) => {
                if skipped.as_ref() != Some(&why) {
                    warn!(file = %key, %why, "no lease: passed over");
                }
                self.view.skipped.insert(key, why);
            }
            None => {}
        }
    }

    fn take_in_all(&mut self) -> io::Result<()> {
        let mut entries = self.files.entries()?;
        entries.push(self.own.clone());
        for entry in &entries {
            self.take_in(entry);
        }
        let keys: BTreeSet<String> = entries.iter().map(Entry::key).collect();
        self.view.peers.retain(|key, _| keys.contains(key));
        self.view.skipped.retain(|key, _| keys.contains(key));
        Ok(())
    }

    /// Puts the node's own file back when it is gone; says so when it is somebody else's.
    fn keep(&self, read: Option<Result<Peer, String>>) -> Option<String> {
        match read {
            Some(Ok(peer)) if !same_node(&peer, &self.me) => {
                let holder = peer
                    .v4
                    .map_or_else(String::new, |site| site.public_ip.to_string());
                Some(format!(
                    "{} is held by {holder}: give one of the nodes another subnet",
                    self.own.key()
                ))
            }
            Some(Ok(peer)) if lease::value(&peer) == self.text() => None,
            _ => {
                info!(file = %self.own.key(), "writes this node's lease again");
                let written = self.put();
                written
                    .err()
                    .map(|e| format!("this node's lease is gone and cannot be written: {e}"))
            }
        }
    }

    fn text(&self) -> String {
        lease::value(&self.me.peer(&self.files.node, &self.own.lease()))
    }

    fn put(&self) -> io::Result<()> {
        fabric::file::replace(
            &self.files.subnets().join(self.own.key()),
            self.text().as_bytes(),
            0o644,
        )
    }
}

#[cfg(test)]
mod tests;
