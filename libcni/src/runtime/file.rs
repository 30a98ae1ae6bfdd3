//! Small state files: written whole or not at all, under names that cannot lead elsewhere.
//!
//! Nothing is synced to disk, as in the address store: an attachment does not outlive the boot, and what a power loss
//! tears reads as absent.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Attach, RuntimeError};
use crate::spec::error::{CniError, Code};
use crate::spec::{ContainerId, IfName, NetName};

/// Longest file name of Linux' file systems.
const NAME_MAX_BYTES: usize = 255;

/// An attachment whose three names were checked: what its files are called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) network: String,
    pub(super) container_id: String,
    pub(super) ifname: String,
}

impl Key {
    /// Checks the names in the reference's order.
    ///
    /// # Errors
    /// The codes that a plugin gives for them: 3, 4, 7. Also 4 if all together are too long for a file name: found out
    /// after ADD it would be a leak.
    pub(super) fn of(network: &str, at: &Attach) -> Result<Self, CniError> {
        ContainerId::parse(&at.container_id)?;
        NetName::parse(network)?;
        IfName::parse(&at.ifname)?;
        let key = Self {
            network: network.to_owned(),
            container_id: at.container_id.clone(),
            ifname: at.ifname.clone(),
        };
        if key.file_name().len() > NAME_MAX_BYTES {
            return Err(CniError::new(
                Code::InvalidEnvironment,
                "network name, container ID and interface name are too long together",
            )
            .with_details(format!(
                "they name a file: {} bytes at most",
                NAME_MAX_BYTES - 2
            )));
        }
        Ok(key)
    }

    pub(super) fn file_name(&self) -> String {
        format!("{}-{}-{}", self.network, self.container_id, self.ifname)
    }
}

/// Puts a file in its place, complete: directories 0700, files 0600. Until then it is in `draft_dir`, on the same file
/// system. `ready` sees the file before it has its name; the answer is the open file.
pub(super) fn replace(
    path: &Path,
    draft_dir: &Path,
    bytes: &[u8],
    ready: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<File> {
    put(path, draft_dir, bytes, ready, |draft| {
        fs::rename(draft, path)
    })
}

/// As [`replace`], but what is there already stays, and is an error (`AlreadyExists`).
pub(super) fn create_new(
    path: &Path,
    draft_dir: &Path,
    bytes: &[u8],
    ready: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<File> {
    put(path, draft_dir, bytes, ready, |draft| {
        fs::hard_link(draft, path)?;
        fs::remove_file(draft)
    })
}

fn put(
    path: &Path,
    draft_dir: &Path,
    bytes: &[u8],
    ready: impl FnOnce(&File) -> io::Result<()>,
    name: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<File> {
    let draft = draft_dir.join(draft_name());
    let write = || {
        let mut file = in_dir(draft_dir, || create(&draft))?;
        file.write_all(bytes)?;
        ready(&file)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        in_dir(dir, || name(&draft))?;
        Ok(file)
    };
    write().inspect_err(|_: &io::Error| {
        // Perhaps it was never made.
        let _ = fs::remove_file(&draft);
    })
}

/// As [`replace`], for a directory in which nobody minds a hidden file.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    replace(path, dir, bytes, |_| Ok(())).map(drop)
}

/// A hidden name that no other writer has.
fn draft_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".new.{}.{next}", std::process::id())
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

/// Tries again with the directory made, if that is what is missing.
fn in_dir<T>(dir: &Path, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match attempt() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            attempt()
        }
        outcome => outcome,
    }
}

/// The files of a directory that are not hidden, sorted by name; none if there is no such directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if !name.as_encoded_bytes().starts_with(b".") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// That it does not exist is no error.
pub(super) fn remove(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", path, e)),
        _ => Ok(()),
    }
}

pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> RuntimeError {
    RuntimeError::State {
        what,
        path: path.to_owned(),
        source,
    }
}
