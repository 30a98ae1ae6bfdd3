//! A network directory with its lock held: what may be done to it, and the index kept in step.
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use super::boot::BootId;
use super::dir::{Dir, Draft, Found, Holder};
use super::index::{Index, Slot, owner_hash};
use super::owner::Owner;
use super::range::{address, number};
use super::rebuild::rebuild;
use super::{NetDir, StoreError, lock};
use crate::record;
use crate::spec::Attachment;

/// What the holder of the lock is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    /// Nothing is written, not even the index.
    Look,
    /// Reservations may be made or freed.
    Change,
}

/// The directory while we hold its lock.
#[derive(Debug)]
pub(super) struct Locked {
    pub(super) dir: Dir,
    side: Option<OwnedFd>,
    index: Index,
    boot: Option<BootId>,
    intent: Intent,
    /// The index was made from the files a moment ago; making it again would not change it.
    rebuilt: bool,
    /// The directory was changed, or the index is new.
    changed: bool,
    /// Released when closed, after everything above. None only for [`Intent::Look`] where it cannot be made.
    _lock: Option<File>,
}

/// A reservation to be: the unnamed file, or, where there is no such thing, only its content.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    pub(super) owner: &'a Owner,
    pub(super) draft: Option<Draft>,
}

/// What became of an attempt to reserve.
#[derive(Debug)]
pub(super) enum Claim {
    /// Reserved. `reused`: it may have been reserved before, in this boot.
    Done { reused: bool },
    /// It is somebody's. None: it cannot be told whose.
    Taken(Option<Owner>),
}

impl Locked {
    /// Waits for the lock. If the directory was removed while we waited, its path is made again.
    pub(super) fn open(net: &NetDir, mut dir: Dir, intent: Intent) -> Result<Self, StoreError> {
        let boot = BootId::read(&net.boot_id);
        let lock = loop {
            let file = match dir.lock_file() {
                Ok(file) => file,
                // A read-only file system: then nobody changes anything either.
                Err(_) if intent == Intent::Look => break None,
                Err(e) => return Err(e),
            };
            record::during("lock", || {
                lock::lock(&file, &dir.lock_path(), net.lock_wait)
            })?;
            // A lock in a directory that was removed meanwhile excludes nobody.
            match file.metadata() {
                Ok(meta) if meta.nlink() == 0 => dir = Dir::create(net.path())?,
                _ => break Some(file),
            }
        };
        let fail = |e| StoreError::io("index", net.path(), e);
        let side = dir.side(false).ok();
        let now = dir.stamp().map_err(fail)?;
        let old = side.as_ref().and_then(Index::open);
        let (index, side, rebuilt) = match old {
            Some(index) if index.is_fresh(boot, now) => (index, side, false),
            old => {
                let (index, side) = rebuild(&dir, boot, old.as_ref(), now, intent).map_err(fail)?;
                (index, side, true)
            }
        };
        Ok(Self {
            dir,
            side,
            index,
            boot,
            intent,
            rebuilt,
            changed: rebuilt,
            _lock: lock,
        })
    }

    /// What the attachment holds, as CHECK and DEL see it: if no file names it with its interface, files of old
    /// releases that name the container count.
    pub(super) fn held(
        &mut self,
        attachment: &Attachment,
    ) -> Result<Vec<(IpAddr, Owner)>, StoreError> {
        let exact = self.held_by(&Owner::of(attachment))?;
        if !exact.is_empty() {
            return Ok(exact);
        }
        self.held_by(&Owner::legacy(&attachment.container_id))
    }

    /// What has exactly this owner.
    pub(super) fn held_by(&mut self, owner: &Owner) -> Result<Vec<(IpAddr, Owner)>, StoreError> {
        if owner.is_legacy() && self.index.legacy() == 0 {
            return Ok(Vec::new());
        }
        loop {
            let slots = self.index.owned_by(owner_hash(owner.as_bytes()));
            let slots = match slots {
                Ok(slots) => slots,
                Err(e) => {
                    self.rebuild_in_memory(e)?;
                    continue;
                }
            };
            let mut held = Vec::with_capacity(slots.len());
            let mut wrong = false;
            for slot in slots {
                let ip = address(slot.address);
                match self.read(ip)? {
                    Some(Holder::Owner(found)) if found == *owner => held.push((ip, found)),
                    // Another owner of the same hash: one in 2^64. Or the index is wrong.
                    _ => wrong = true,
                }
            }
            if !wrong || self.rebuilt {
                return Ok(held);
            }
            self.rebuild()?;
        }
    }

    fn read(&self, ip: IpAddr) -> Result<Option<Holder>, StoreError> {
        match self.dir.read(ip) {
            Ok(found) => Ok(found.map(|found| found.holder)),
            Err(e) => Err(StoreError::io("read", &self.dir.path_of(ip), e)),
        }
    }

    /// The lowest address from `first` to `last` that the index knows no reservation of.
    pub(super) fn next_free(
        &mut self,
        first: u128,
        last: u128,
    ) -> Result<Option<u128>, StoreError> {
        match self.index.next_free(first, last) {
            Ok(free) => Ok(free),
            Err(e) => {
                self.rebuild_in_memory(e)?;
                self.index
                    .next_free(first, last)
                    .map_err(|e| StoreError::io("index", self.dir.path(), e))
            }
        }
    }

    /// Whether the index may have missed a change, made without the lock at the very moment of one of ours.
    /// Then it is made anew from the files, and what was concluded from it should be concluded again.
    pub(super) fn was_wrong(&mut self) -> Result<bool, StoreError> {
        if self.rebuilt {
            return Ok(false);
        }
        let files = self
            .dir
            .count()
            .map_err(|e| StoreError::io("list", self.dir.path(), e))?;
        if files == self.index.len() {
            return Ok(false);
        }
        self.rebuild()?;
        Ok(true)
    }

    /// Reserves one address, if it is free. A torn reservation is.
    pub(super) fn claim(&mut self, pending: &Pending<'_>, ip: IpAddr) -> Result<Claim, StoreError> {
        self.begin();
        let fail = |dir: &Dir, e| StoreError::io("write", &dir.path_of(ip), e);
        let mark = loop {
            if let Some(mark) = self.put(pending, ip).map_err(|e| fail(&self.dir, e))? {
                break mark;
            }
            match self.read(ip)? {
                Some(Holder::Owner(owner)) => return Ok(Claim::Taken(Some(owner))),
                Some(Holder::Unknown) => return Ok(Claim::Taken(None)),
                Some(Holder::Nobody) => {
                    break self.replace(pending, ip).map_err(|e| fail(&self.dir, e))?;
                }
                None => {} // gone again
            }
        };
        let slot = Slot {
            owner: owner_hash(pending.owner.as_bytes()),
            address: number(ip),
            file: mark,
        };
        let entered = self.enter(slot, pending.owner.is_legacy());
        let before = match entered {
            Ok(before) => before,
            Err(e) => {
                self.rebuild_in_memory(e)?;
                true
            }
        };
        Ok(Claim::Done {
            reused: before || self.index.has_unseen_history(),
        })
    }

    fn enter(&mut self, slot: Slot, legacy: bool) -> io::Result<bool> {
        self.index.make_room(self.side.as_ref(), 1)?;
        self.index.put(slot, legacy)?;
        self.index.mark(slot.address)
    }

    fn put(&self, pending: &Pending<'_>, ip: IpAddr) -> io::Result<Option<u64>> {
        match &pending.draft {
            Some(draft) => Ok(self.dir.put(draft, ip)?.then_some(draft.mark)),
            None => self.dir.put_slowly(pending.owner, self.side()?, ip),
        }
    }

    fn replace(&self, pending: &Pending<'_>, ip: IpAddr) -> io::Result<u64> {
        match &pending.draft {
            Some(draft) => self
                .dir
                .replace(draft, self.side()?, ip)
                .map(|()| draft.mark),
            None => self.dir.replace_slowly(pending.owner, self.side()?, ip),
        }
    }

    fn side(&self) -> io::Result<&OwnedFd> {
        self.side
            .as_ref()
            .ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }

    /// Frees an address that `owner` holds.
    pub(super) fn free(&mut self, ip: IpAddr, owner: &Owner) -> Result<(), StoreError> {
        self.begin();
        self.dir
            .remove(ip)
            .map_err(|e| StoreError::io("remove", &self.dir.path_of(ip), e))?;
        let hash = owner_hash(owner.as_bytes());
        let forgotten = self
            .index
            .take_out(hash, number(ip), owner.is_legacy())
            .and_then(|()| self.index.unmark(number(ip)));
        match forgotten {
            Ok(()) => Ok(()),
            Err(e) => self.rebuild_in_memory(e),
        }
    }

    /// Frees an address if its file is still the one found earlier, without the lock. False if it is not.
    pub(super) fn free_if_same(&mut self, ip: IpAddr, found: &Found) -> Result<bool, StoreError> {
        let now = self
            .dir
            .read(ip)
            .map_err(|e| StoreError::io("read", &self.dir.path_of(ip), e))?;
        match now {
            Some(now) if now == *found => {}
            _ => return Ok(false),
        }
        match &found.holder {
            Holder::Owner(owner) => self.free(ip, owner)?,
            // Torn: the index does not know it.
            Holder::Nobody => {
                self.begin();
                self.dir
                    .remove(ip)
                    .map_err(|e| StoreError::io("remove", &self.dir.path_of(ip), e))?;
            }
            Holder::Unknown => return Ok(false),
        }
        Ok(true)
    }

    /// See [`Dir::set_cursor`].
    pub(super) fn set_cursor(&mut self, set: usize, ip: IpAddr) -> Result<(), StoreError> {
        self.begin();
        self.dir.set_cursor(self.side.as_ref(), set, ip)
    }

    /// The index as it is now.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Whether the next holder of the lock will find the index.
    pub(super) fn is_indexed(&self) -> bool {
        self.index.is_kept()
    }

    /// Whether there are exactly this many reservations in the network.
    pub(super) fn holds_only(&self, n: usize) -> bool {
        self.index.len() == n as u64
    }

    /// The index is wrong from before the first change on until [`Locked::finish`].
    fn begin(&mut self) {
        if !self.changed {
            self.changed = true;
            // Should it fail, the directory's new time still says that the index is old.
            let _ = self.index.begin();
        }
    }

    fn rebuild(&mut self) -> Result<(), StoreError> {
        let fail = |e| StoreError::io("index", self.dir.path(), e);
        let now = self.dir.stamp().map_err(fail)?;
        let (index, side) =
            rebuild(&self.dir, self.boot, Some(&self.index), now, self.intent).map_err(fail)?;
        self.index = index;
        self.side = side.or(self.side.take());
        (self.rebuilt, self.changed) = (true, true);
        Ok(())
    }

    /// The index file cannot be read or written: do without it. It stays marked as wrong.
    fn rebuild_in_memory(&mut self, why: io::Error) -> Result<(), StoreError> {
        let fail = |e| StoreError::io("index", self.dir.path(), e);
        if !self.index.is_kept() {
            return Err(fail(why));
        }
        let now = self.dir.stamp().map_err(fail)?;
        let (index, _) = rebuild(&self.dir, self.boot, None, now, Intent::Look).map_err(fail)?;
        self.index = index;
        (self.rebuilt, self.changed) = (true, true);
        Ok(())
    }

    /// Declares the index right again, and gives up the lock.
    pub(super) fn finish(mut self) {
        if self.changed && self.intent == Intent::Change && self.index.is_kept() {
            // If the time does not stick, the index stays marked as wrong, and is made anew each time.
            if let Ok(Some(stamp)) = self.dir.restamp() {
                let _ = self.index.commit(stamp);
            }
        }
    }
}
