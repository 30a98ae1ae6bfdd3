//! What is not finished: ADDs under way or broken off, and DELs that halted half-way.
//!
//! One file per attachment, `podwire/pending/<network>-<container>-<ifname>` in the cache directory: outside of `results`,
//! where the reference lists attachments. Its JSON is that of a cache entry and three keys more: `verb`, `left` (how
//! many plugins of the chain are still to be deleted, from that one back to the first) and `why`.
//!
//! An ADD writes it before the first plugin runs, holds a lock on it (flock(2), which ends with the process) and removes
//! it when the result is in the cache. So a file without a lock is what a crash left, and can be undone by anyone, once the
//! plugin that was at work has ended, too.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::cache::{Cache, CacheEntry, Saved, encode};
use super::file::{self, Key};
use super::list::NetworkList;
use super::{Attach, RuntimeError};
use crate::spec::Verb;
use crate::spec::json::{Fields, Node};

const KIND: &str = "podwirePendingV1";
/// A lock that is waited for with a deadline has to be asked for; blocking in flock(2) would take a signal to end.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// An attachment that is neither there nor gone. The next DEL of it, or GC of its network, finishes it.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The network's name.
    pub network: String,
    /// The container.
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
    /// DEL: it halted. ADD: whoever ran it died.
    pub verb: Verb,
    /// The `type`s of the plugins whose DEL is still to be run, in that order.
    pub left: Vec<String>,
    /// What the plugin said at which it halted.
    pub why: String,
    /// When that was.
    pub since: SystemTime,
    /// Where it is recorded.
    pub file: PathBuf,
    pub(super) entry: CacheEntry,
    pub(super) list: NetworkList,
}

/// What is recorded of an attachment.
#[derive(Debug)]
pub(super) enum Record {
    /// Nothing that could be used.
    None,
    /// Its ADD is at work, in this process or another.
    Adding,
    /// Whoever ran its ADD died, but a plugin is still at work on it.
    Orphaned,
    /// Something to finish.
    Pending(Box<Pending>),
}

/// An ADD under way. Dropped without [`Intent::done`], as by a crash, it is what is left to undo.
#[derive(Debug)]
pub(super) struct Intent {
    /// Holds the lock.
    _file: File,
    path: PathBuf,
}

/// The directory of these files.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    cache: Cache,
}

impl Journal {
    pub(super) fn new(cache_dir: &Path) -> Self {
        Self {
            dir: cache_dir.join("podwire/pending"),
            cache: Cache::new(cache_dir),
        }
    }

    /// Before the first plugin of an ADD runs.
    pub(super) fn begin(&self, saved: Saved<'_>, left: usize) -> Result<Intent, RuntimeError> {
        let text = text(saved, Verb::Add, left, "ADD was broken off");
        let path = self.path(saved.key);
        let lock = |file: &File| file.try_lock().map_err(io::Error::from);
        let (dir, text) = (&self.dir, text.as_bytes());
        let begun = match file::place(&path, dir).create_new(text, lock) {
            // What is there is torn or outdated, or the file system has no links; unless another ADD was quicker.
            Err(_) if !is_locked(&path) => file::place(&path, dir).replace(text, lock),
            begun => begun,
        };
        match begun {
            Ok(file) => Ok(Intent { _file: file, path }),
            Err(e) => Err(file::failed("write", &path, e)),
        }
    }

    /// `left` plugins of the list are still to be deleted.
    pub(super) fn halted(
        &self,
        saved: Saved<'_>,
        left: usize,
        why: &str,
    ) -> Result<(), RuntimeError> {
        let text = text(saved, Verb::Del, left, why);
        let path = self.path(saved.key);
        file::write_atomically(&path, text.as_bytes()).map_err(|e| file::failed("write", &path, e))
    }

    pub(super) fn remove(&self, key: &Key) -> Result<(), RuntimeError> {
        file::remove(&self.path(key))
    }

    pub(super) fn read(&self, key: &Key) -> Record {
        let path = self.path(key);
        match self.record(&path) {
            Record::Pending(pending) if !pending.entry.is_of(key) => Record::None,
            record => record,
        }
    }

    /// As [`Journal::read`], but lets an ADD at work come to its end, which it has to do by its own deadline.
    pub(super) fn read_settled(&self, key: &Key, deadline: Instant) -> Record {
        loop {
            match self.read(key) {
                Record::Adding if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
                record => return record,
            }
        }
    }

    /// Everything that is to be finished.
    pub(super) fn all(&self) -> io::Result<Vec<Pending>> {
        let paths = file::list(&self.dir)?;
        let pending = paths.iter().filter_map(|path| match self.record(path) {
            Record::Pending(pending) => Some(*pending),
            Record::None | Record::Adding | Record::Orphaned => None,
        });
        Ok(pending.collect())
    }

    /// The attachments that are being added.
    pub(super) fn adding(&self) -> io::Result<Vec<CacheEntry>> {
        let paths = file::list(&self.dir)?;
        let adding = paths
            .iter()
            .filter(|path| matches!(self.record(path), Record::Adding | Record::Orphaned))
            .filter_map(|path| entry(path));
        Ok(adding.map(|(entry, _)| entry).collect())
    }

    fn record(&self, path: &Path) -> Record {
        if is_locked(path) {
            return Record::Adding;
        }
        match pending(path) {
            None => Record::None,
            // A cache entry that is newer was made by an ADD that ended after this.
            Some(pending) if self.is_outdated(&pending) => Record::None,
            Some(pending) if pending.verb == Verb::Add && is_at_work(&pending.entry) => {
                Record::Orphaned
            }
            Some(pending) => Record::Pending(Box::new(pending)),
        }
    }

    fn is_outdated(&self, pending: &Pending) -> bool {
        let cached = self.cache.read(&pending.entry.key());
        cached.is_some_and(|cached| cached.modified > pending.since)
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(key.file_name())
    }
}

impl Intent {
    /// The ADD is over, and its result in the cache or everything undone.
    pub(super) fn done(self) {
        // One that cannot be removed is older than the cache entry, or describes what a DEL finds gone.
        let _ = file::remove(&self.path);
    }
}

impl Pending {
    /// The attachment as it was given to ADD or DEL.
    #[must_use]
    pub fn attach(&self) -> Attach {
        self.entry.attach()
    }
}

fn text(saved: Saved<'_>, verb: Verb, left: usize, why: &str) -> String {
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    encode(KIND, saved)
        .put("verb", verb.as_str())
        .put("left", left)
        .put("why", why)
        .build()
        .write_compact()
}

fn is_locked(path: &Path) -> bool {
    let file = File::open(path);
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether a plugin, or its delegate, survived the process that ran the ADD and is still busy with it: told by the
/// environment it was given. Undone under its hands, the attachment would come back.
///
/// This process does not count: a plugin that runs others by this library (as multus does) has such an environment itself.
fn is_at_work(entry: &CacheEntry) -> bool {
    let wanted = [
        "CNI_COMMAND=ADD".to_owned(),
        format!("CNI_CONTAINERID={}", entry.container_id),
        format!("CNI_IFNAME={}", entry.ifname),
    ];
    let at_work = |environ: Vec<u8>| {
        let has = |variable: &String| environ.split(|b| *b == 0).any(|v| v == variable.as_bytes());
        wanted.iter().all(has)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = std::process::id().to_string();
    processes
        .filter(|process| process.file_name() != own.as_str())
        .map(|process| process.path().join("environ"))
        // Most of /proc is no process, and of those some just ended.
        .filter_map(|environ| fs::read(environ).ok())
        .any(at_work)
}

fn entry(path: &Path) -> Option<(CacheEntry, Node)> {
    let node = Node::parse(&fs::read(path).ok()?).ok()?;
    let modified = fs::metadata(path).and_then(|m| m.modified()).ok()?;
    Some((CacheEntry::read(&node, KIND, path, modified)?, node))
}

/// None if it is torn, which is as if it were not there.
fn pending(path: &Path) -> Option<Pending> {
    let (entry, node) = entry(path)?;
    if path.file_name()? != entry.key().file_name().as_str() {
        return None;
    }
    let fields = Fields::of(&node, "").ok()?;
    let list = NetworkList::parse(&entry.config, None).ok()?;
    let left = usize::try_from(fields.u32("left").ok()??).ok()?;
    let plugins = list.plugins.get(..left)?;
    Some(Pending {
        network: entry.network.clone(),
        container_id: entry.container_id.clone(),
        ifname: entry.ifname.clone(),
        verb: Verb::parse(&fields.str("verb").ok()??)?,
        left: plugins
            .iter()
            .rev()
            .map(|plugin| plugin.kind.clone())
            .collect(),
        why: fields.str("why").ok()?.unwrap_or_default(),
        since: entry.modified,
        file: path.to_owned(),
        list,
        entry,
    })
}

#[cfg(test)]
mod tests;
