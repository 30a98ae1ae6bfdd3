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
    /// The lock, or the first failure of the file system after everything else was tried.
    pub fn gc(
        &self,
        valid: &[Attachment],
        mut on_freed: impl FnMut(IpAddr),
        on_empty: impl FnOnce(),
    ) -> Result<usize, StoreError> {
        let mut condemned = match Dir::open(self.path())? {
            Some(dir) => condemned(&dir, valid)?.into_iter().peekable(),
            None => Vec::new().into_iter().peekable(),
        };
        let mut freed = 0;
        let mut outcome = Ok(());
        loop {
            let Some(dir) = Dir::open(self.path())? else {
                on_empty();
                return Ok(freed);
            };
            let mut locked = Locked::open(self, dir, Intent::Change)?;
            // Without an index each hold of the lock begins with reading everything.
            let at_once = if locked.is_indexed() {
                AT_ONCE
            } else {
                usize::MAX
            };
            for (ip, found) in condemned.by_ref().take(at_once) {
                match locked.free_if_same(ip, &found) {
                    Ok(false) => {}
                    Ok(true) => {
                        on_freed(ip);
                        freed += 1;
                    }
                    Err(e) => outcome = outcome.and(Err(e)),
                }
            }
            if condemned.peek().is_none() {
                if locked.holds_only(0) {
                    on_empty();
                }
                locked.finish();
                return outcome.map(|()| freed);
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
