//! A network's directory and the verbs on it.
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{IpamConf, StoreError};
use crate::spec::conf::network_name;
use crate::spec::error::CniError;
use crate::spec::json::{Fields, Node};
use crate::spec::{Attachment, CniResult, NetName};

/// Where the reference keeps reservations if `ipam.dataDir` does not say.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// The directory of one network's reservations. It need not exist.
#[derive(Debug, Clone)]
pub struct NetDir {
    path: PathBuf,
    boot_id: PathBuf,
    lock_wait: Duration,
}

/// What ADD got.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// One address per range set, in their order; routes and dns of the config. No interfaces.
    pub result: CniResult,
    /// Whether one of the addresses may have been another attachment's earlier in this boot, so that
    /// neighbours and connection tracking may remember it. Never false if it was.
    pub reused: bool,
}

impl NetDir {
    /// The directory of `net` in `data_dir`.
    #[must_use]
    pub fn new(data_dir: &Path, net: &NetName) -> Self {
        Self {
            path: data_dir.join(net.as_str()),
            boot_id: PathBuf::from(super::boot::BOOT_ID),
            lock_wait: Duration::from_secs(30),
        }
    }

    /// The directory a network's config means. Reads `name` and `ipam.dataDir` and nothing else, so DEL and GC
    /// work when the rest of the config has become invalid.
    ///
    /// # Errors
    /// No valid name, or a data directory that is not a string.
    pub fn of(config: &Node) -> Result<Self, CniError> {
        let net = network_name(config)?;
        let data_dir = Fields::of(config, "")?.str_at(&["ipam", "dataDir"])?;
        let data_dir = data_dir.filter(|dir| !dir.is_empty());
        Ok(Self::new(
            Path::new(data_dir.as_deref().unwrap_or(DEFAULT_DATA_DIR)),
            &net,
        ))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// DEL: frees what the attachment holds, which may be nothing. Returns the freed addresses.
    ///
    /// If the network holds no reservation afterwards, `on_empty` runs, with the lock still held: no ADD can
    /// come between. It also runs if there was nothing to free, so what a killed DEL left undone is done now.
    ///
    /// # Errors
    /// The lock or the file system; what was freed until then stays freed.
    pub fn release(
        &self,
        attachment: &Attachment,
        on_empty: impl FnOnce(),
    ) -> Result<Vec<IpAddr>, StoreError> {
        let _ = (attachment, on_empty);
        Err(StoreError::io(
            "release in",
            &self.path,
            std::io::ErrorKind::Unsupported,
        ))
    }

    /// What the attachment holds. Changes nothing.
    ///
    /// # Errors
    /// The lock or the file system.
    pub fn held(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, StoreError> {
        let _ = attachment;
        Err(StoreError::io(
            "look into",
            &self.path,
            std::io::ErrorKind::Unsupported,
        ))
    }

    /// CHECK: the attachment must hold at least one address.
    ///
    /// # Errors
    /// It holds none; the lock or the file system.
    pub fn check(&self, attachment: &Attachment) -> Result<(), StoreError> {
        if self.held(attachment)?.is_empty() {
            return Err(StoreError::NotHeld(attachment.container_id.clone()));
        }
        Ok(())
    }

    /// GC: frees every reservation of this network whose attachment is not in `valid`, and torn files.
    /// `on_freed` hears of each address; `on_empty` is as for [`NetDir::release`]. Returns how many were freed.
    ///
    /// # Errors
    /// The lock or the file system; what was freed until then stays freed.
    pub fn gc(
        &self,
        valid: &[Attachment],
        on_freed: impl FnMut(IpAddr),
        on_empty: impl FnOnce(),
    ) -> Result<usize, StoreError> {
        let _ = (valid, on_freed, on_empty);
        Err(StoreError::io(
            "collect garbage in",
            &self.path,
            std::io::ErrorKind::Unsupported,
        ))
    }
}

impl IpamConf {
    /// ADD: reserves one address per range set for the attachment, all or nothing.
    ///
    /// # Errors
    /// Nothing this call reserved remains; what the attachment held before stays.
    pub fn add(&self, attachment: &Attachment) -> Result<Lease, StoreError> {
        let _ = attachment;
        self.dns()?;
        Err(StoreError::io(
            "reserve in",
            self.dir.path(),
            std::io::ErrorKind::Unsupported,
        ))
    }

    /// STATUS: whether the next ADD can get its addresses and write them down. Takes no lock, changes nothing.
    ///
    /// # Errors
    /// Code 50 with the reason.
    pub fn status(&self) -> Result<(), StoreError> {
        Err(StoreError::io(
            "look into",
            self.dir.path(),
            std::io::ErrorKind::Unsupported,
        ))
    }
}
