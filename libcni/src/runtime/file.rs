//! Small state files: written whole or not at all, under names that cannot lead elsewhere.
//!
//! Nothing is synced to disk, as in the address store: an attachment does not outlive the boot, and what a power loss
//! tears reads as absent.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{Attach, RuntimeError};
use crate::file::{self, Lasting, Place};
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

/// A place for a state file of one owner, which is nobody else's to read.
pub(super) fn place<'a>(path: &'a Path, draft_dir: &'a Path) -> Place<'a> {
    Place {
        path,
        draft_dir,
        mode: 0o600,
        lasting: Lasting::UntilReboot,
    }
}

/// Puts one there, in a directory in which nobody minds a hidden file.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    file::replace(path, bytes, 0o600, Lasting::UntilReboot)
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
