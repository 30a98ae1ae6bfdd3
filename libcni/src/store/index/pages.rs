//! The index's bitmaps: which addresses are reserved now, and which ever were in this boot.
//!
//! A page covers 2,048 addresses; pages are found by their number in a hash table like the owners', so a /64
//! with three reservations costs three pages at most. No page means: all free. The next free address of a
//! nearly full /16 is found by reading at most 32 of them.
use std::io;
use std::os::unix::fs::FileExt;

use super::{Index, low_word, mix, torn};

const ADDRESSES_LOG2: u32 = 11;
const WORDS: usize = 32;
/// Number, `now`, `ever`; 16 bytes of padding make 17 cache lines of... 544 divide evenly into 8-byte words.
const PAGE_BYTES: usize = 16 + 2 * WORDS * 8;
const TAIL: u64 = 256;

#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    now: [u64; WORDS],
    ever: [u64; WORDS],
}

pub(super) fn table_bytes(places: u64) -> Option<u64> {
    places.checked_add(TAIL)?.checked_mul(PAGE_BYTES as u64)
}

impl Index {
    /// Marks an address as reserved. True if it ever was before, in this boot. There must be room
    /// (see [`Index::make_room`]).
    pub(in crate::store) fn mark(&mut self, address: u128) -> io::Result<bool> {
        let (place, page) = self.page(number(address))?;
        let mut page = match page {
            Some(page) => page,
            None => {
                self.head.pages += 1;
                Page::EMPTY
            }
        };
        let (word, bit) = within(address);
        let mut before = false;
        if let Some(word) = page.ever.get_mut(word) {
            before = *word & bit != 0;
            *word |= bit;
        }
        if let Some(word) = page.now.get_mut(word) {
            *word |= bit;
        }
        self.write_page(place, number(address), &page)?;
        Ok(before)
    }

    /// Marks an address as free.
    pub(in crate::store) fn unmark(&mut self, address: u128) -> io::Result<()> {
        let (place, Some(mut page)) = self.page(number(address))? else {
            return Ok(());
        };
        let (word, bit) = within(address);
        if let Some(word) = page.now.get_mut(word) {
            *word &= !bit;
        }
        self.write_page(place, number(address), &page)
    }

    /// The lowest free address from `first` to `last`, both included.
    pub(in crate::store) fn next_free(&self, first: u128, last: u128) -> io::Result<Option<u128>> {
        let mut from = first;
        while from <= last {
            let Some(page) = self.page(number(from))?.1 else {
                return Ok(Some(from));
            };
            let base = number(from) << ADDRESSES_LOG2;
            if let Some(free) = page.free_from(from - base) {
                let free = base + free;
                return Ok((free <= last).then_some(free));
            }
            match base.checked_add(1 << ADDRESSES_LOG2) {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(None)
    }

    pub(super) fn each_page(
        &self,
        mut f: impl FnMut(u128, &Page) -> io::Result<()>,
    ) -> io::Result<()> {
        for place in 0..self.head.page_places + TAIL {
            if let Some((number, page)) = self.read_page(place)? {
                f(number, &page)?;
            }
        }
        Ok(())
    }

    pub(super) fn put_page(&mut self, number: u128, page: &Page) -> io::Result<()> {
        let (place, _) = self.page(number)?;
        self.head.pages += 1;
        self.write_page(place, number, page)
    }

    /// A page, or the place where it would be.
    fn page(&self, number: u128) -> io::Result<(u64, Option<Page>)> {
        let home = mix(low_word(number) ^ low_word(number >> 64)) & (self.head.page_places - 1);
        for place in home..self.head.page_places + TAIL {
            match self.read_page(place)? {
                None => return Ok((place, None)),
                Some((n, page)) if n == number => return Ok((place, Some(page))),
                Some(_) => {}
            }
        }
        Err(torn("a page found no place"))
    }

    fn read_page(&self, place: u64) -> io::Result<Option<(u128, Page)>> {
        let mut bytes = [0u8; PAGE_BYTES];
        self.file.read_exact_at(&mut bytes, self.page_at(place)?)?;
        Ok(Page::from_bytes(&bytes))
    }

    fn write_page(&self, place: u64, number: u128, page: &Page) -> io::Result<()> {
        self.file
            .write_all_at(&page.to_bytes(number), self.page_at(place)?)
    }

    fn page_at(&self, place: u64) -> io::Result<u64> {
        let offset = self
            .head
            .pages_at()
            .zip(place.checked_mul(PAGE_BYTES as u64));
        offset
            .map(|(base, rest)| base + rest)
            .ok_or_else(|| torn("sizes"))
    }
}

/// The number of an address's page.
fn number(address: u128) -> u128 {
    address >> ADDRESSES_LOG2
}

/// Word and bit of an address within its page.
fn within(address: u128) -> (usize, u64) {
    let bit = low_word(address & ((1 << ADDRESSES_LOG2) - 1));
    (
        usize::try_from(bit / 64).unwrap_or(usize::MAX),
        1 << (bit % 64),
    )
}

// === impl Page ===

impl Page {
    const EMPTY: Self = Self {
        now: [0; WORDS],
        ever: [0; WORDS],
    };

    /// The first clear bit at or after `from`.
    fn free_from(&self, from: u128) -> Option<u128> {
        let (first, bit) = within(from);
        let words = self.now.iter().enumerate().skip(first);
        words
            .map(|(i, word)| (i, if i == first { word | (bit - 1) } else { *word }))
            .find(|(_, word)| *word != u64::MAX)
            .map(|(i, word)| i as u128 * 64 + u128::from(word.trailing_ones()))
    }

    /// The number is stored plus one: zeros are an empty place.
    fn to_bytes(self, number: u128) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        let (head, rest) = bytes.split_at_mut(size_of::<u128>());
        head.copy_from_slice(&(number + 1).to_le_bytes());
        let (places, _) = rest.as_chunks_mut::<8>();
        for (place, word) in places.iter_mut().zip(self.now.iter().chain(&self.ever)) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; PAGE_BYTES]) -> Option<(u128, Self)> {
        let (number, rest) = bytes.split_first_chunk()?;
        let number = u128::from_le_bytes(*number).checked_sub(1)?;
        let mut page = Self::EMPTY;
        let (words, _) = rest.as_chunks::<8>();
        for (slot, word) in page.now.iter_mut().chain(&mut page.ever).zip(words) {
            *slot = u64::from_le_bytes(*word);
        }
        Some((number, page))
    }
}
