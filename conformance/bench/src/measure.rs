//! The measurements, a file for each group of rows. All follow one plan: prepare everything, warm up, then take the
//! contenders in turns so short that what disturbs one disturbs all.

pub mod burst;
pub mod crowd;
pub mod dual;
pub mod footprint;
pub mod overlay;
pub mod record;
pub mod sequential;
pub mod store;
pub mod traffic;

/// Rounds that are run and not counted, so that caches, bridges and rules are as on a node in use.
const WARM_UP: usize = 3;

/// Turns in an order that changes from round to round, so that nobody always follows the slowest.
/// Xorshift, not real randomness: a run can be repeated.
#[derive(Debug)]
pub struct Turns(u64);

impl Turns {
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let chosen = self.0 % (last as u64 + 1);
            items.swap(last, usize::try_from(chosen).unwrap_or(0));
        }
    }
}
