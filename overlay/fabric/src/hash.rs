//! A quick hash for small keys from strangers: addresses, MACs, subnets.
//!
//! The standard library's takes three times as long, and thousands of look-ups are made whenever one peer changes. As
//! there, the key is random and secret, so nobody can choose entries that all fall into one place.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Makes hashers under a random key.
#[derive(Debug, Clone)]
pub(crate) struct Keyed(u64, u64);

/// Folds the two halves of a product into each other.
#[derive(Debug)]
pub(crate) struct Folding {
    state: u64,
    key: u64,
}

// === impl Keyed ===

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Self(random.hash_one(1), random.hash_one(2) | 1)
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        let Self(state, key) = *self;
        Folding { state, key }
    }
}

// === impl Folding ===

impl Folding {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key);
        #[allow(clippy::cast_possible_truncation)] // One half, and the other.
        let (low, high) = (product as u64, (product >> 64) as u64);
        self.state = low ^ high;
    }
}

impl Hasher for Folding {
    fn finish(&self) -> u64 {
        let mut last = Self { ..*self };
        last.fold(self.key.rotate_left(32));
        last.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(chunk) {
                *place = *byte;
            }
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.fold(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.fold(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.fold(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.fold(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Neighbouring keys, as networks have them, spread over the low bits, which choose a place in the table, and over
    /// the high ones, which tell entries of a place apart.
    #[test]
    fn neighbours_are_spread() {
        let keyed = Keyed::default();
        let hashes: Vec<u64> = (0..4096_u32)
            .map(|n| keyed.hash_one((0x0a00_0000 + n).to_be_bytes()))
            .collect();
        let places = |shift: u32| {
            hashes
                .iter()
                .map(|h| (h >> shift) & 0xfff)
                .collect::<HashSet<_>>()
                .len()
        };
        // 4,096 balls in 4,096 boxes leave 63 % of them not empty.
        for shift in [0, 12, 52] {
            assert!(
                (2300..2900).contains(&places(shift)),
                "{} at {shift}",
                places(shift)
            );
        }
        assert_ne!(Keyed::default().hash_one(1_u32), keyed.hash_one(1_u32));
    }
}
