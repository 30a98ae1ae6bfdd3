//! STATUS: could the next ADD get its addresses, and write them down.
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat};

use super::boot::BootId;
use super::dir::Dir;
use super::index::Index;
use super::locked::Intent;
use super::range::{RangeSet, address};
use super::rebuild::rebuild;
use super::{IpamConf, StoreError};

impl IpamConf {
    /// STATUS: whether the next ADD can get its addresses and write them down. Takes no lock and changes nothing:
    /// it may be asked every few seconds, and answers for that moment only.
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
        let fail = |e| StoreError::io("list", path, e);
        let boot = BootId::read(&self.dir.boot_id);
        let now = dir.stamp().map_err(fail)?;
        let index = dir.side(false).ok().as_ref().and_then(Index::open);
        let index = match index.filter(|index| index.is_fresh(boot, now)) {
            Some(index) => index,
            None => {
                rebuild(&dir, boot, None, now, Intent::Look)
                    .map_err(fail)?
                    .0
            }
        };
        for set in &self.sets {
            if !has_room(&index, set).map_err(fail)? {
                return Err(StoreError::Full {
                    ranges: set.to_string(),
                    dir: path.to_owned(),
                });
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
