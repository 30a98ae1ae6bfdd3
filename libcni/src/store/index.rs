//! The index beside the reservation files: who holds what, and which address is next.
//!
//! One file, `.podwire/index` in the network's directory: a header, a hash table from owner to address
//! ([`owners`]) and a hash table of bitmaps ([`pages`]). A verb reads and writes a few hundred bytes of it,
//! however many reservations there are.
//!
//! It is a hint with a proof of freshness, never the truth. The proof: it was written in this boot, and the
//! directory's modification time is still the one we gave it after our own last change. That is a full clock
//! reading, while the kernel stamps changes with its tick (or, from Linux 6.13, a fine clock that moves on),
//! so a change by anybody else, even within the same tick, shows. The header says "dirty" from before our
//! change until after the new stamp: whoever is killed in between leaves an index nobody believes.
//! A hit is checked against the reservation file, an allocation is decided by link(2).
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::boot::BootId;

mod owners;
mod pages;

pub(super) use owners::{Slot, owner_hash};

const NAME: &str = "index";
const NEW_NAME: &str = "index.new";
/// Where the tables begin.
const HEAD_BYTES: u64 = 4096;
/// `pwindex` and the version of the layout. A file of another version is rebuilt.
const MAGIC: u64 = u64::from_le_bytes(*b"pwindex1");
const WORDS: usize = 13;

const DIRTY: u64 = 1;
const UNSEEN_HISTORY: u64 = 2;

/// An open index.
#[derive(Debug)]
pub(super) struct Index {
    file: File,
    head: Head,
    place: Place,
}

/// Where an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In memory of this process.
    Memory,
    /// In `.podwire/index.new`.
    New,
    /// In `.podwire/index`.
    Published,
}

/// What ties an index to the directory it describes, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) mtime_s: i64,
    pub(super) mtime_ns: i64,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    boot: [u8; 16],
    stamp: Stamp,
    flags: u64,
    /// Places in the owner table, a power of two; the table has a tail after them.
    owner_places: u64,
    owners: u64,
    page_places: u64,
    pages: u64,
    /// Reservations in the old form, without interface name.
    legacy: u64,
}

impl Index {
    /// Opens `.podwire/index`; `None` if there is none or it is not one.
    pub(super) fn open(side: &OwnedFd) -> Option<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = File::from(openat(side, NAME, flags, Mode::empty()).ok()?);
        let head = Head::read(&file)?;
        Some(Self {
            file,
            head,
            place: Place::Published,
        })
    }

    /// An empty index with room for `owners` reservations, dirty. In memory if there is no `side` directory;
    /// in `.podwire/` it takes the place of the old one with [`Index::publish`].
    pub(super) fn create(
        side: Option<&OwnedFd>,
        boot: Option<BootId>,
        owners: u64,
    ) -> io::Result<Self> {
        let places = |n: u64| n.saturating_mul(2).max(1024).next_power_of_two();
        Self::with_places(side, boot, places(owners), 64)
    }

    fn with_places(
        side: Option<&OwnedFd>,
        boot: Option<BootId>,
        owners: u64,
        pages: u64,
    ) -> io::Result<Self> {
        let (file, place) = match side {
            Some(side) => {
                // Not truncated but made anew: the old one may be open.
                match unlinkat(side, NEW_NAME, UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(e) => return Err(e.into()),
                }
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mode = Mode::from_bits_truncate(0o600);
                (File::from(openat(side, NEW_NAME, flags, mode)?), Place::New)
            }
            None => {
                let fd = memfd_create("host-local index", MFdFlags::MFD_CLOEXEC)?;
                (File::from(fd), Place::Memory)
            }
        };
        let head = Head {
            boot: boot.map_or([0; 16], |boot| boot.0),
            stamp: Stamp {
                dev: 0,
                ino: 0,
                mtime_s: 0,
                mtime_ns: 0,
            },
            flags: DIRTY,
            owner_places: owners,
            owners: 0,
            page_places: pages,
            pages: 0,
            legacy: 0,
        };
        file.set_len(head.file_bytes().unwrap_or(HEAD_BYTES))?;
        head.write(&file)?;
        Ok(Self { file, head, place })
    }

    /// Makes an index made by [`Index::create`] the one that [`Index::open`] finds.
    pub(super) fn publish(&mut self, side: Option<&OwnedFd>) -> io::Result<()> {
        if let (Some(side), Place::New) = (side, self.place) {
            renameat(side, NEW_NAME, side, NAME)?;
            self.place = Place::Published;
        }
        Ok(())
    }

    /// Whether it describes the directory as it is now.
    pub(super) fn is_fresh(&self, boot: Option<BootId>, now: Stamp) -> bool {
        boot.is_some_and(|boot| boot.0 == self.head.boot)
            && self.head.flags & DIRTY == 0
            && self.head.stamp == now
    }

    /// Whether it was written in an earlier boot. Then what it lists existed before this one.
    pub(super) fn is_of_earlier_boot(&self, boot: Option<BootId>) -> bool {
        boot.is_some_and(|boot| boot.0 != self.head.boot && self.head.boot != [0; 16])
    }

    /// Whether nothing was changed behind its back since it was last committed, in whichever boot.
    pub(super) fn saw_everything(&self, now: Stamp) -> bool {
        self.head.flags & DIRTY == 0 && self.head.stamp == now
    }

    /// Whether the directory may have held reservations in this boot that the index does not know of.
    pub(super) fn has_unseen_history(&self) -> bool {
        self.head.flags & UNSEEN_HISTORY != 0
    }

    /// See [`Index::has_unseen_history`]. Stays until the next boot.
    pub(super) fn set_unseen_history(&mut self) {
        self.head.flags |= UNSEEN_HISTORY;
    }

    /// How many reservations there are.
    pub(super) fn len(&self) -> u64 {
        self.head.owners
    }

    /// How many of them have no interface name.
    pub(super) fn legacy(&self) -> u64 {
        self.head.legacy
    }

    /// Whether it is there for the next process.
    pub(super) fn is_kept(&self) -> bool {
        self.place == Place::Published
    }

    /// Declares the index wrong until [`Index::commit`]. To be called before the directory is changed.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.head.flags |= DIRTY;
        self.head.write(&self.file)
    }

    /// Declares the index right for the directory as stamped.
    pub(super) fn commit(&mut self, stamp: Stamp) -> io::Result<()> {
        self.head.flags &= !DIRTY;
        self.head.stamp = stamp;
        self.head.write(&self.file)
    }

    /// Makes room for `more` reservations; rarely has anything to do, for it doubles.
    pub(super) fn make_room(&mut self, side: Option<&OwnedFd>, more: u64) -> io::Result<()> {
        let owners_ok = (self.head.owners + more) * 2 <= self.head.owner_places;
        let pages_ok = (self.head.pages + more) * 2 <= self.head.page_places;
        if owners_ok && pages_ok {
            return Ok(());
        }
        let side = side.filter(|_| self.place != Place::Memory);
        let double = |ok: bool, n: u64| if ok { n } else { n * 2 };
        let mut new = Self::with_places(
            side,
            None,
            double(owners_ok, self.head.owner_places),
            double(pages_ok, self.head.page_places),
        )?;
        new.head.boot = self.head.boot;
        new.head.flags = self.head.flags | DIRTY;
        new.copy_owners(self)?;
        self.each_page(|number, page| new.put_page(number, page))?;
        new.head.write(&new.file)?;
        if self.place == Place::Published {
            new.publish(side)?;
        }
        *self = new;
        // Growing by one doubling at a time keeps `with_places` simple; a big `more` takes several.
        self.make_room(side, more)
    }
}

// === impl Head ===

impl Head {
    fn read(file: &File) -> Option<Self> {
        let mut bytes = [0u8; WORDS * 8];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let (chunks, _) = bytes.as_chunks::<8>();
        let mut words = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk));
        let mut word = || words.next();
        if word()? != MAGIC {
            return None;
        }
        let boot = (u128::from(word()?) << 64 | u128::from(word()?)).to_be_bytes();
        let stamp = Stamp {
            dev: word()?,
            ino: word()?,
            mtime_s: word()?.cast_signed(),
            mtime_ns: word()?.cast_signed(),
        };
        let head = Self {
            boot,
            stamp,
            flags: word()?,
            owner_places: word()?,
            owners: word()?,
            page_places: word()?,
            pages: word()?,
            legacy: word()?,
        };
        let length = file.metadata().ok()?.len();
        head.is_possible(length).then_some(head)
    }

    /// Whether the tables lie within a file of this length, and hold no more than they have places. What is in them may
    /// still be torn by a power loss.
    fn is_possible(&self, length: u64) -> bool {
        self.owner_places.is_power_of_two()
            && self.page_places.is_power_of_two()
            && self.file_bytes().is_some_and(|bytes| bytes <= length)
            && self.legacy <= self.owners
            && self.owners <= self.owner_places
            && self.pages <= self.page_places
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let boot = u128::from_be_bytes(self.boot);
        let [low, high] = [boot, boot >> 64].map(low_word);
        let words: [u64; WORDS] = [
            MAGIC,
            high,
            low,
            self.stamp.dev,
            self.stamp.ino,
            self.stamp.mtime_s.cast_unsigned(),
            self.stamp.mtime_ns.cast_unsigned(),
            self.flags,
            self.owner_places,
            self.owners,
            self.page_places,
            self.pages,
            self.legacy,
        ];
        let mut bytes = [0u8; WORDS * 8];
        let (chunks, _) = bytes.as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        file.write_all_at(&bytes, 0)
    }

    fn pages_at(&self) -> Option<u64> {
        owners::table_bytes(self.owner_places)?.checked_add(HEAD_BYTES)
    }

    fn file_bytes(&self) -> Option<u64> {
        self.pages_at()?
            .checked_add(pages::table_bytes(self.page_places)?)
    }
}

/// The lower half.
fn low_word(n: u128) -> u64 {
    n.to_le_bytes()
        .first_chunk()
        .map_or(0, |half| u64::from_le_bytes(*half))
}

/// The finalizer of MurmurHash3: every bit of the input moves every bit of the output.
fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

fn torn(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("host-local index: {what}"),
    )
}

#[cfg(test)]
mod tests;
