//! Pauses between attempts: doubling, with jitter, so that a cluster does not come back to etcd in one step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How long to wait before the next attempt.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// While etcd is away.
    pub(super) fn away() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// Half to all of the step.
    pub(super) fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step.mul_f64(0.5 + fraction() / 2.0)
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }

    /// Things are well again.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// From 0 to 1; the standard library keys its hash tables from getrandom(2).
fn fraction() -> f64 {
    let word = RandomState::new().hash_one(0_u8) >> 32;
    u32::try_from(word).map_or(0.0, f64::from) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::away();
        let mut whole = 100;
        for _ in 0..10 {
            let step = backoff.step().as_millis();
            assert!((whole / 2..=whole).contains(&step), "{step} of {whole}");
            whole = (whole * 2).min(5000);
        }
        backoff.reset();
        assert!(backoff.step().as_millis() <= 100);
    }
}
