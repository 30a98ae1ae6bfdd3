//! GC: freeing what no attachment of the runtime's list owns.
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::dir::{Dir, Found, Holder};
use super::locked::{Intent, Locked};
use super::owner::Owner;
use super::{NetDir, StoreError};
use crate::spec::Attachment;

/// Freed under one hold of the lock: some milliseconds at most, so a pod that starts meanwhile does not notice.
const AT_ONCE: usize = 64;

impl NetDir {
    /// GC: frees every reservation of this network whose attachment is not in `valid`, and torn files. A file
    /// without interface name stays if any attachment of its container is valid.
    ///
    /// `on_freed` hears of each address; `on_empty` is as for [`NetDir::release`]. Returns how many were freed.
    /// All files are read before the lock is taken; what was reserved after that is not looked at, for the
    /// list is older.
    ///
    /// # Errors
    /// The lock or the file system; what was freed until then stays freed.
    pub fn gc(
        &self,
        valid: &[Attachment],
        mut on_freed: impl FnMut(IpAddr),
        on_empty: impl FnOnce(),
    ) -> Result<usize, StoreError> {
        let Some(dir) = Dir::open(self.path())? else {
            on_empty();
            return Ok(0);
        };
        let condemned = condemned(&dir, valid)?;
        let mut freed = 0;
        let mut dir = Some(dir);
        let mut batches = condemned.chunks(AT_ONCE).peekable();
        loop {
            let dir = match dir.take() {
                Some(dir) => dir,
                None => Dir::create(self.path())?,
            };
            let mut locked = Locked::open(self, dir, Intent::Change)?;
            for (ip, found) in batches.next().unwrap_or_default() {
                if locked.free_if_same(*ip, found)? {
                    on_freed(*ip);
                    freed += 1;
                }
            }
            if batches.peek().is_none() {
                if locked.holds_only(0) {
                    on_empty();
                }
                locked.finish();
                return Ok(freed);
            }
            locked.finish();
        }
    }
}

fn condemned(dir: &Dir, valid: &[Attachment]) -> Result<Vec<(IpAddr, Found)>, StoreError> {
    let mut owners: BTreeSet<Owner> = valid.iter().map(Owner::of).collect();
    owners.extend(valid.iter().map(|a| Owner::legacy(&a.container_id)));
    let mut condemned = Vec::new();
    let listed = dir.each(|ip, found| {
        let stays = match &found.holder {
            Holder::Owner(owner) => owners.contains(owner),
            Holder::Nobody => false,
            Holder::Unknown => true,
        };
        if !stays {
            condemned.push((ip, found));
        }
        Ok(())
    });
    listed.map_err(|e| StoreError::io("list", dir.path(), e))?;
    Ok(condemned)
}
