//! One line on a terminal while it runs.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::report::Status;

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(100);
/// What a terminal surely has.
const WIDTH: usize = 78;

/// Counts, shown if anybody looks.
#[derive(Debug)]
pub struct Progress {
    total: usize,
    done: usize,
    failed: usize,
    broken: usize,
    shown: Option<Instant>,
    is_watched: bool,
}

impl Progress {
    pub fn of(total: usize) -> Progress {
        Progress {
            total,
            done: 0,
            failed: 0,
            broken: 0,
            shown: None,
            is_watched: io::stderr().is_terminal(),
        }
    }

    pub fn step(&mut self, status: Status, id: &str) {
        self.done += 1;
        self.failed += usize::from(status == Status::Fail);
        self.broken += usize::from(status == Status::Broken);
        let is_due = self.shown.is_none_or(|at| at.elapsed() >= EVERY);
        if self.is_watched && (is_due || self.done == self.total) {
            self.shown = Some(Instant::now());
            let line = format!(
                "{}/{} runs, {} failed, {} broken: {id}",
                self.done, self.total, self.failed, self.broken
            );
            let line: String = line.chars().take(WIDTH).collect();
            let _ = write!(io::stderr(), "\r{line:<WIDTH$}");
        }
    }

    pub fn end(&self) {
        if self.is_watched {
            let _ = write!(io::stderr(), "\r{:<WIDTH$}\r", "");
        }
    }
}
