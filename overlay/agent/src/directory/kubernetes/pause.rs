//! Growing pauses between tries, and saying why, not too often.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Pace;

/// How often a lasting trouble is said again.
const REPEAT: Duration = Duration::from_secs(60);

/// Pauses, each twice as long as the one before it, up to a limit.
#[derive(Debug)]
pub struct Pause {
    first: Duration,
    longest: Duration,
    next: Duration,
}

/// A trouble, said when it begins or changes, and then every minute.
#[derive(Debug, Default)]
pub struct Complaint(Option<(String, Instant)>);

// === impl Pause ===

impl Pause {
    /// Of this pace.
    pub fn of(pace: &Pace) -> Self {
        Self {
            first: pace.first,
            longest: pace.longest,
            next: pace.first,
        }
    }

    /// The length of the next one. A part of it is chance, so that a thousand nodes do not come back at once.
    pub fn next(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.longest);
        // The hash of nothing under a random key is a random number.
        let chance = RandomState::new().hash_one(()) % 512;
        full / 2 + full * u32::try_from(chance).unwrap_or_default() / 1024
    }

    /// Makes one.
    pub async fn make(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// It went well: begins with the shortest again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

// === impl Complaint ===

impl Complaint {
    /// Logs it, if that is due.
    pub fn say(&mut self, what: &str, why: &str) {
        let due = match &self.0 {
            Some((said, when)) => said != why || when.elapsed() >= REPEAT,
            None => true,
        };
        if due {
            warn!("{what}: {why}");
            self.0 = Some((why.to_owned(), Instant::now()));
        }
    }

    /// It is over. Was there one?
    pub fn end(&mut self) -> bool {
        self.0.take().is_some()
    }
}
