//! Making the index anew from the files, and clearing away what an earlier boot left.
//!
//! This reads every file, once; it happens after somebody else changed the directory, after one of us was
//! killed in the middle, and once per boot.
//!
//! **Earlier boots.** A reservation outlives its attachment when the machine goes down, and a node that
//! crashes often enough has no address left. The proof that a reservation is from before this boot is the index
//! of that boot: it names the boot and lists file by file what was there. A file that is in that list, the same
//! inode last written at the same nanosecond, was not made in this boot. No clock is compared, so a
//! machine that wakes up in 1970 does not lose its pods' addresses. If its address is, against all
//! expectation, in use in some network namespace, or that cannot be told, it stays.
use std::cell::OnceCell;
use std::io;
use std::os::fd::OwnedFd;

use super::boot::BootId;
use super::dir::{Dir, Holder};
use super::index::{Index, Slot, Stamp, owner_hash};
use super::live;
use super::locked::Intent;
use super::range::number;

/// The new index, and `.podwire` if it can be had. `now` is the directory's stamp before anything was done.
pub(super) fn rebuild(
    dir: &Dir,
    boot: Option<BootId>,
    old: Option<&Index>,
    now: Stamp,
    intent: Intent,
) -> io::Result<(Index, Option<OwnedFd>)> {
    let side = match intent {
        Intent::Change => dir.side(true).ok(),
        Intent::Look => None,
    };
    let old = Old {
        index: old,
        boot,
        now,
    };
    if boot.is_some() && dir.is_local() && side.is_some() {
        // No room, no permission: then without.
        if let Ok(index) = build(dir, boot, &old, side.as_ref()) {
            return Ok((index, side));
        }
    }
    Ok((build(dir, boot, &old, None)?, side))
}

struct Old<'a> {
    index: Option<&'a Index>,
    boot: Option<BootId>,
    now: Stamp,
}

impl Old<'_> {
    /// Whether a file is known to be from before this boot.
    fn lists(&self, slot: &Slot) -> bool {
        // An unreadable or torn index proves nothing.
        self.index
            .filter(|index| index.is_of_earlier_boot(self.boot))
            .is_some_and(|index| {
                index
                    .owned_by(slot.owner)
                    .is_ok_and(|slots| slots.contains(slot))
            })
    }

    /// Whether every change up to now is known, and all of it is from before this boot.
    fn ends_with_earlier_boot(&self) -> bool {
        self.index.is_some_and(|index| {
            index.is_of_earlier_boot(self.boot) && index.saw_everything(self.now)
        })
    }
}

fn build(
    dir: &Dir,
    boot: Option<BootId>,
    old: &Old<'_>,
    side: Option<&OwnedFd>,
) -> io::Result<Index> {
    let expected = old.index.map_or(0, Index::len).min(1 << 20); // torn, it says anything
    let mut index = Index::create(side, boot, expected)?;
    let live = OnceCell::new();
    // Of an earlier boot, and nobody's any more.
    let is_left_over = |slot: &Slot, ip| {
        side.is_some() && old.lists(slot) && {
            let live = live.get_or_init(|| live::look(live::Which::All));
            live.as_ref()
                .is_ok_and(|live| !live.addresses.contains(&ip))
        }
    };
    let mut untouched = true;
    dir.each(|ip, found| {
        untouched = false;
        let Holder::Owner(owner) = found.holder else {
            return Ok(());
        };
        let slot = Slot {
            owner: owner_hash(owner.as_bytes()),
            address: number(ip),
            file: found.mark,
        };
        if is_left_over(&slot, ip) && dir.remove(ip).is_ok() {
            return Ok(());
        }
        index.make_room(side, 1)?;
        index.put(slot, owner.is_legacy())?;
        index.mark(slot.address).map(|_| ())
    })?;
    // An address can have been given and freed without a trace in the files.
    if !(old.ends_with_earlier_boot() || untouched && !dir.has_cursor()?) {
        index.set_unseen_history();
    }
    index.publish(side)?;
    Ok(index)
}
