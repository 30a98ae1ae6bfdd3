//! STATUS: could the next ADD get its addresses, and write them down.
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat};

use super::boot::BootId;
use super::dir::Dir;
use super::error::Exhausted;
use super::index::Index;
use super::locked::{Intent, Locked};
use super::range::{RangeSet, address};
use super::rebuild::rebuild;
use super::{IpamConf, NetDir, StoreError};

/// How long STATUS waits for the lock. It may be asked every few seconds.
const LOCK_WAIT: Duration = Duration::from_secs(1);

impl IpamConf {
    /// STATUS: whether the next ADD can get its addresses and write them down. The answer is of that moment.
    ///
    /// Takes no lock if the index is fresh, and changes nothing, but for one thing: after a reboot a pool that
    /// only looks exhausted must not keep the node from being ready, so it does what ADD would begin with, and
    /// frees what the earlier boot left.
    ///
    /// # Errors
    /// Code 50 with the reason. (Not 51: pods that have their address keep it.)
    pub fn status(&self) -> Result<(), StoreError> {
        self.dns()?;
        let path = self.dir.path();
        writable(path).map_err(|(path, source)| StoreError::Unwritable { path, source })?;
        let Some(dir) = Dir::open(path)? else {
            return Ok(());
        };
        let boot = BootId::read(&self.dir.boot_id);
        let now = dir.stamp().map_err(|e| StoreError::io("list", path, e))?;
        let index = dir.side(false).ok().as_ref().and_then(Index::open);
        let intent = match index {
            Some(index) if index.is_fresh(boot, now) => return self.has_room(&index),
            Some(index) if index.is_of_earlier_boot(boot) => Intent::Change,
            _ => Intent::Look,
        };
        let patience = NetDir {
            lock_wait: LOCK_WAIT.min(self.dir.lock_wait),
            ..self.dir.clone()
        };
        if let Ok(locked) = Locked::open(&patience, dir, intent) {
            let outcome = self.has_room(locked.index());
            locked.finish();
            return outcome;
        }
        // Somebody holds the lock for long. ADD waits longer, so that alone is no reason to say no.
        let dir = Dir::create(path)?;
        let (index, _) = rebuild(&dir, boot, None, now, Intent::Look)
            .map_err(|e| StoreError::io("list", path, e))?;
        self.has_room(&index)
    }

    fn has_room(&self, index: &Index) -> Result<(), StoreError> {
        for set in &self.sets {
            let room =
                has_room(index, set).map_err(|e| StoreError::io("index", self.dir.path(), e))?;
            if !room {
                return Err(StoreError::Full(Exhausted::of(set, self.dir.path())));
            }
        }
        Ok(())
    }
}

fn has_room(index: &Index, set: &RangeSet) -> io::Result<bool> {
    for stretch in set.lap(None) {
        let mut from = stretch.first;
        while let Some(free) = index.next_free(from, stretch.last)? {
            if address(free) != stretch.range.gateway {
                return Ok(true);
            }
            match free.checked_add(1).filter(|next| *next <= stretch.last) {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    Ok(false)
}

/// Tries it, on the directory or the nearest one above that exists, without leaving anything there.
fn writable(path: &Path) -> Result<(), (std::path::PathBuf, io::Error)> {
    let mut at = path;
    loop {
        match write_at(at) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => match at.parent() {
                Some(parent) if parent.as_os_str().is_empty() => at = Path::new("."),
                Some(parent) => at = parent,
                None => return Err((at.to_owned(), e)),
            },
            other => return other.map_err(|e| (at.to_owned(), e)),
        }
    }
}

fn write_at(dir: &Path) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    match openat(AT_FDCWD, dir, flags, Mode::from_bits_truncate(0o600)) {
        // As much as a reservation: a full disk shows here.
        Ok(fd) => File::from(fd).write_all(&[b' '; 80]),
        // No unnamed files here; ask for the permission at least.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => Ok(faccessat(
            AT_FDCWD,
            dir,
            AccessFlags::W_OK | AccessFlags::X_OK,
            AtFlags::AT_EACCESS,
        )?),
        Err(e) => Err(e.into()),
    }
}
