//! The index's table from owner to address: open addressing, linear probing, 32-byte places.
//!
//! A probe never wraps: the table has a tail instead. Removal moves the rest of the cluster up, so there are
//! no tombstones and the table never needs sweeping, however many pods come and go.
use std::io;
use std::os::unix::fs::FileExt;

use super::{HEAD_BYTES, Index, mix, torn};

const SLOT_BYTES: usize = 32;
/// Places after the last home place. At half load the longest cluster of a million owners is about 40 long.
const TAIL: u64 = 1024;
/// Read at a time: longer than nearly every cluster.
const WINDOW: usize = 16;
/// Places copied at a time when the table grows: 128 KiB.
const SECTION: u64 = 4096;
const EMPTY: [u8; SLOT_BYTES] = [0; SLOT_BYTES];

/// One reservation as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Slot {
    /// [`owner_hash`] of the reservation file's content; never 0, which marks an empty place.
    pub(in crate::store) owner: u64,
    /// The address, as [`crate::store::range::number`].
    pub(in crate::store) address: u128,
    /// Which file it was: changes when the file is removed and made again.
    pub(in crate::store) file: u64,
}

/// Hash of what a reservation file says of its owner. FNV-1a and a finalizer; no secret is needed, since a
/// collision only costs reading one more file.
pub(in crate::store) fn owner_hash(content: &[u8]) -> u64 {
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash).max(1)
}

pub(super) fn table_bytes(places: u64) -> Option<u64> {
    places.checked_add(TAIL)?.checked_mul(SLOT_BYTES as u64)
}

impl Index {
    /// The reservations whose owner has this hash.
    pub(in crate::store) fn owned_by(&self, owner: u64) -> io::Result<Vec<Slot>> {
        let mut found = Vec::new();
        self.probe(owner, |_, slot| {
            if slot.owner == owner {
                found.push(slot);
            }
            false
        })?;
        Ok(found)
    }

    /// Enters a reservation. There must be room (see [`Index::make_room`]).
    pub(in crate::store) fn put(&mut self, slot: Slot, legacy: bool) -> io::Result<()> {
        let free = self.probe(slot.owner, |_, _| false)?;
        let free = free.ok_or_else(|| torn("an owner found no place"))?;
        self.file.write_all_at(&slot.to_bytes(), at(free))?;
        self.head.owners += 1;
        self.head.legacy += u64::from(legacy);
        Ok(())
    }

    /// Takes a reservation out, if it is in.
    pub(in crate::store) fn take_out(
        &mut self,
        owner: u64,
        address: u128,
        legacy: bool,
    ) -> io::Result<()> {
        let mut hole = None;
        let mut cluster = Vec::new(); // from the hole to the last before the free place
        let end = self.probe(owner, |place, slot| {
            if hole.is_none() && slot.owner == owner && slot.address == address {
                hole = Some(place);
            }
            if hole.is_some() {
                cluster.push(slot);
            }
            false
        })?;
        let (Some(first), Some(_)) = (hole, end) else {
            return Ok(());
        };
        // Close the gap: whoever probed past it moves into it, which leaves the next gap.
        let mut rest = cluster.iter().zip(first..).skip(1);
        let mut bytes = Vec::with_capacity(cluster.len() * SLOT_BYTES);
        let mut gap = first;
        let mut stay = Vec::new();
        for (slot, place) in rest.by_ref() {
            if self.home(slot.owner) <= gap {
                bytes.extend_from_slice(&slot.to_bytes());
                stay.drain(..)
                    .for_each(|s: Slot| bytes.extend_from_slice(&s.to_bytes()));
                gap = place;
            } else {
                stay.push(*slot);
            }
        }
        bytes.extend_from_slice(&[0; SLOT_BYTES]);
        stay.drain(..)
            .for_each(|s: Slot| bytes.extend_from_slice(&s.to_bytes()));
        self.file.write_all_at(&bytes, at(first))?;
        self.head.owners = self.head.owners.saturating_sub(1);
        self.head.legacy = self.head.legacy.saturating_sub(u64::from(legacy));
        Ok(())
    }

    /// Fills this table, which is empty, from one of the same size or half of it: section by section, each in
    /// memory and written at once. Place by place it would take others 50 ms of waiting for the lock when the
    /// 32,768th pod comes; all at once, 4 MiB.
    pub(super) fn copy_owners(&mut self, from: &Self) -> io::Result<()> {
        let section = SECTION.min(from.head.owner_places);
        let mut carried = Vec::new(); // what did not fit between its home and the end of the section before
        let mut start = 0;
        while start < self.head.owner_places {
            let mut places = std::mem::take(&mut carried);
            places.resize(places_in(section + TAIL)?, EMPTY);
            // Homes are the low bits: where this section's owners had theirs, or behind.
            from.each_place(start % from.head.owner_places, section + TAIL, |slot| {
                let home = self.home(slot.owner);
                if !(start..start + section).contains(&home) {
                    return Ok(());
                }
                let free = places
                    .iter_mut()
                    .skip(places_in(home - start)?)
                    .find(|place| **place == EMPTY)
                    .ok_or_else(|| torn("an owner found no place"))?;
                *free = slot.to_bytes();
                Ok(())
            })?;
            carried = places.split_off(places_in(section)?);
            self.file.write_all_at(places.as_flattened(), at(start))?;
            start += section;
        }
        self.file.write_all_at(carried.as_flattened(), at(start))?;
        self.head.owners = from.head.owners;
        self.head.legacy = from.head.legacy;
        Ok(())
    }

    /// The reservations in `n` places from `first` on, or up to the table's end.
    pub(super) fn each_place(
        &self,
        first: u64,
        n: u64,
        mut f: impl FnMut(Slot) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = (self.head.owner_places + TAIL).min(first.saturating_add(n));
        let mut window = vec![EMPTY; places_in(end.saturating_sub(first))?];
        self.file
            .read_exact_at(window.as_flattened_mut(), at(first))?;
        window
            .iter()
            .filter_map(Slot::from_bytes)
            .try_for_each(&mut f)
    }

    fn home(&self, owner: u64) -> u64 {
        owner & (self.head.owner_places - 1)
    }

    /// Visits places from the owner's home on until one is free, which is returned, or the visitor says stop.
    fn probe(
        &self,
        owner: u64,
        mut visit: impl FnMut(u64, Slot) -> bool,
    ) -> io::Result<Option<u64>> {
        let mut place = self.home(owner);
        let end = self.head.owner_places + TAIL;
        let mut window = [0u8; WINDOW * SLOT_BYTES];
        while place < end {
            let n = usize::try_from(end - place).unwrap_or(WINDOW).min(WINDOW);
            let window = window.get_mut(..n * SLOT_BYTES).unwrap_or_default();
            self.file.read_exact_at(window, at(place))?;
            for slot in slots(window) {
                match slot {
                    None => return Ok(Some(place)),
                    Some(slot) if visit(place, slot) => return Ok(None),
                    Some(_) => place += 1,
                }
            }
        }
        Ok(None)
    }
}

fn at(place: u64) -> u64 {
    HEAD_BYTES + place * SLOT_BYTES as u64
}

fn places_in(n: u64) -> io::Result<usize> {
    usize::try_from(n).map_err(io::Error::other)
}

fn slots(bytes: &[u8]) -> impl Iterator<Item = Option<Slot>> {
    bytes
        .as_chunks::<SLOT_BYTES>()
        .0
        .iter()
        .map(Slot::from_bytes)
}

// === impl Slot ===

impl Slot {
    fn to_bytes(self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        let words = self.owner.to_le_bytes().into_iter();
        let words = words
            .chain(self.address.to_le_bytes())
            .chain(self.file.to_le_bytes());
        for (byte, value) in bytes.iter_mut().zip(words) {
            *byte = value;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let (owner, rest) = bytes.split_first_chunk()?;
        let (address, rest) = rest.split_first_chunk()?;
        let owner = u64::from_le_bytes(*owner);
        (owner != 0).then_some(Self {
            owner,
            address: u128::from_le_bytes(*address),
            file: u64::from_le_bytes(*rest.first_chunk()?),
        })
    }
}
