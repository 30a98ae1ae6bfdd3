//! A network's directory and the verbs on it.
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::StoreError;
use super::dir::{Dir, Holder};
use super::locked::{Intent, Locked};
use crate::spec::conf::network_name;
use crate::spec::error::CniError;
use crate::spec::json::{Fields, Node};
use crate::spec::{Attachment, ContainerId, IfName, NetName};

/// Where the reference keeps reservations if `ipam.dataDir` does not say.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// One reserved address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The address.
    pub ip: IpAddr,
    /// Whose.
    pub container_id: ContainerId,
    /// For which of its interfaces; missing in files of old releases of the reference.
    pub ifname: Option<IfName>,
    /// When it was made, by the machine's clock.
    pub since: SystemTime,
}

/// The directory of one network's reservations. It need not exist.
#[derive(Debug, Clone)]
pub struct NetDir {
    pub(super) path: PathBuf,
    pub(super) boot_id: PathBuf,
    pub(super) lock_wait: Duration,
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
        let Some(dir) = Dir::open(&self.path)? else {
            on_empty();
            return Ok(Vec::new());
        };
        let mut locked = Locked::open(self, dir, Intent::Change)?;
        let held = locked.held(attachment)?;
        let mut freed = Vec::with_capacity(held.len());
        let mut failed = None;
        for (ip, owner) in held {
            match locked.free(ip, &owner) {
                Ok(()) => freed.push(ip),
                Err(e) => failed = Some(e),
            }
        }
        if locked.holds_only(0) {
            on_empty();
        }
        locked.finish();
        failed.map_or(Ok(freed), Err)
    }

    /// Takes an ADD back: frees those of `ips` that the attachment holds, and nothing else of it.
    ///
    /// # Errors
    /// The lock or the file system; what was freed until then stays freed.
    pub fn release_only(&self, attachment: &Attachment, ips: &[IpAddr]) -> Result<(), StoreError> {
        let Some(dir) = Dir::open(&self.path)? else {
            return Ok(());
        };
        let mut locked = Locked::open(self, dir, Intent::Change)?;
        let mut held = locked.held(attachment)?;
        held.retain(|(ip, _)| ips.contains(ip));
        let mut outcome = Ok(());
        for (ip, owner) in held {
            outcome = locked.free(ip, &owner).and(outcome);
        }
        locked.finish();
        outcome
    }

    /// Runs `last` and returns its outcome if no other attachment holds anything in this network. The lock is
    /// held meanwhile: no ADD can come between. None if another does.
    ///
    /// # Errors
    /// The lock or the file system; then `last` did not run.
    pub fn when_sole<T>(
        &self,
        attachment: &Attachment,
        last: impl FnOnce() -> T,
    ) -> Result<Option<T>, StoreError> {
        let Some(dir) = Dir::open(&self.path)? else {
            return Ok(Some(last()));
        };
        let mut locked = Locked::open(self, dir, Intent::Change)?;
        let held = locked.held(attachment)?;
        let outcome = locked.holds_only(held.len()).then(last);
        locked.finish();
        Ok(outcome)
    }

    /// What the attachment holds. Changes nothing.
    ///
    /// # Errors
    /// The lock or the file system.
    pub fn held(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, StoreError> {
        let Some(dir) = Dir::open(&self.path)? else {
            return Ok(Vec::new());
        };
        let held = Locked::open(self, dir, Intent::Look)?.held(attachment)?;
        Ok(held.into_iter().map(|(ip, _)| ip).collect())
    }

    /// Every reservation, from the files and without the lock: who came or went meanwhile may be missing or
    /// listed. Torn files, and what is no reservation, are not. The cost grows with their number.
    ///
    /// # Errors
    /// The directory, or a file in it, cannot be read.
    pub fn reservations(&self) -> Result<Vec<Reservation>, StoreError> {
        let Some(dir) = Dir::open(&self.path)? else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        let listed = dir.each(|ip, found| {
            let Holder::Owner(owner) = found.holder else {
                return Ok(());
            };
            let written = dir
                .path_of(ip)
                .symlink_metadata()
                .and_then(|m| m.modified());
            // Freed a moment ago, otherwise.
            if let (Some((container_id, ifname)), Ok(since)) = (owner.parts(), written) {
                all.push(Reservation {
                    ip,
                    container_id,
                    ifname,
                    since,
                });
            }
            Ok(())
        });
        listed.map_err(|e| StoreError::io("list", &self.path, e))?;
        Ok(all)
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
}
