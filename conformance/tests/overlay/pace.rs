//! How fast the machine is at the moment.

use std::process::Command;
use std::time::{Duration, Instant};

/// What the start of a process takes on a machine that does nothing else, with a margin.
const START: Duration = Duration::from_millis(3);
const STARTS: u32 = 10;
const MOST: f64 = 5.0;

/// What a bound of an idle machine is on this one now: as many times as long as the start of a process is.
pub fn stretched(bound: Duration) -> Duration {
    let begun = Instant::now();
    for _ in 0..STARTS {
        Command::new("true").status().unwrap();
    }
    let times = begun.elapsed().as_secs_f64() / (START * STARTS).as_secs_f64();
    bound.mul_f64(times.clamp(1.0, MOST))
}
