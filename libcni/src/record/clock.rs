//! When each phase of an operation began.

use std::time::{Duration, Instant};

use super::Phase;

/// More changes of phase than this are a loop; its last phase then goes on.
const MAX_MARKS: usize = 64;
/// What is shorter than this is no waiting.
const WAITING: Duration = Duration::from_micros(100);

/// The phases of one operation so far.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    first: &'static str,
    /// Without the first: an operation that is not recorded allocates nothing.
    marks: Vec<(&'static str, Instant)>,
}

/// An unbroken part of a phase, from the operation's start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) name: &'static str,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Clock {
    pub(super) fn start(first: &'static str, now: Instant) -> Self {
        Self {
            started: now,
            first,
            marks: Vec::new(),
        }
    }

    /// The phase that runs.
    pub(super) fn current(&self) -> &'static str {
        self.marks.last().map_or(self.first, |(name, _)| name)
    }

    pub(super) fn mark(&mut self, name: &'static str, now: Instant) {
        if self.current() != name && self.marks.len() < MAX_MARKS {
            self.marks.push((name, now));
        }
    }

    /// A phase within the one that runs, if it was a long one.
    pub(super) fn insert(&mut self, name: &'static str, from: Instant, to: Instant) {
        if to.saturating_duration_since(from) >= WAITING {
            let around = self.current();
            self.mark(name, from);
            self.mark(around, to);
        }
    }

    pub(super) fn total(&self, over: Instant) -> Duration {
        over.saturating_duration_since(self.started)
    }

    /// One after the other without a gap, the last one until `over`.
    pub(super) fn intervals(&self, over: Instant) -> Vec<Interval> {
        let mut intervals = Vec::with_capacity(self.marks.len() + 1);
        let (mut name, mut from) = (self.first, Duration::ZERO);
        for (next, at) in &self.marks {
            let to = at.saturating_duration_since(self.started);
            intervals.push(Interval { name, from, to });
            (name, from) = (next, to);
        }
        let to = self.total(over);
        intervals.push(Interval { name, from, to });
        intervals
    }

    /// The intervals of equal names together.
    pub(super) fn phases(&self, over: Instant) -> Vec<Phase> {
        let mut times: Vec<(&'static str, Duration)> = Vec::new();
        for Interval { name, from, to } in self.intervals(over) {
            match times.iter_mut().find(|(known, _)| *known == name) {
                Some((_, time)) => *time += to.saturating_sub(from),
                None => times.push((name, to.saturating_sub(from))),
            }
        }
        let phases = times.into_iter().map(|(name, time)| Phase {
            name: name.into(),
            us: whole_us(time),
        });
        phases.collect()
    }
}

pub(super) fn whole_us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn phases_fill_the_whole_time() {
        let start = Instant::now();
        let mut clock = Clock::start("a", start);
        for (name, at) in [("b", 10), ("b", 15), ("c", 30), ("b", 60)] {
            clock.mark(name, start + us(at));
        }
        let over = start + us(100);
        let interval = |name, from, to| Interval {
            name,
            from: us(from),
            to: us(to),
        };
        assert_eq!(
            clock.intervals(over),
            [
                interval("a", 0, 10),
                interval("b", 10, 30),
                interval("c", 30, 60),
                interval("b", 60, 100)
            ]
        );
        let phases: Vec<_> = clock.phases(over);
        let phases: Vec<_> = phases.iter().map(|p| (&*p.name, p.us)).collect();
        assert_eq!(phases, [("a", 10), ("b", 60), ("c", 30)]);
        assert_eq!(clock.total(over), us(100));
        assert_eq!(clock.current(), "b");
    }

    #[test]
    fn only_waiting_is_inserted() {
        let start = Instant::now();
        let mut clock = Clock::start("a", start);
        clock.insert("lock", start + us(10), start + us(20));
        clock.insert("lock", start + us(100), start + us(300));
        let phases = clock.phases(start + us(400));
        let phases: Vec<_> = phases.iter().map(|p| (&*p.name, p.us)).collect();
        assert_eq!(phases, [("a", 200), ("lock", 200)]);
    }

    #[test]
    fn a_loop_of_phases_is_bounded() {
        let start = Instant::now();
        let mut clock = Clock::start("a", start);
        for _ in 0..1000 {
            clock.mark("b", start);
            clock.mark("c", start);
        }
        let intervals = clock.intervals(start + us(5));
        assert_eq!(intervals.len(), MAX_MARKS + 1);
        assert_eq!(intervals.last().unwrap().to, us(5));
    }
}
