//! What a run is told by.

use std::fmt;

use serde_json::{Value, json};

use super::Options;
use super::round::Calls;
use super::side::Outcome;

/// So many lines of residue, of addresses given twice.
const LINES: usize = 10;
const PERCENTILES: [(&str, usize); 4] = [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)];

/// All of it. The first side is the judged one.
#[derive(Debug)]
pub(super) struct Told {
    about: String,
    plugin: String,
    pods: usize,
    parallel: usize,
    rounds: usize,
    sides: Vec<Outcome>,
}

// === impl Told ===

impl Told {
    pub(super) fn of(options: &Options, sides: Vec<Outcome>) -> Told {
        let Options {
            pods,
            parallel,
            rounds,
            plugin,
            ..
        } = options;
        let masq = if options.ip_masq { ", ipMasq" } else { "" };
        Told {
            about: format!(
                "{plugin}{masq}: {pods} pods, {parallel} calls at a time, {rounds} rounds; times in ms"
            ),
            plugin: plugin.clone(),
            pods: *pods,
            parallel: *parallel,
            rounds: *rounds,
            sides,
        }
    }

    /// Of the judged side.
    pub(super) fn is_well(&self) -> bool {
        self.sides.first().is_some_and(Outcome::is_well)
    }

    /// How many times as long the other side's calls take, by verb and percentile.
    fn ratio(&self, verb: fn(&Outcome) -> &Calls, percent: usize) -> Option<f64> {
        let [ours, theirs] = self.sides.as_slice() else {
            return None;
        };
        let time = |side| verb(side).percentile(percent);
        Some(time(theirs)? / time(ours)?)
    }

    pub(super) fn to_json(&self) -> Value {
        let times = |calls: &Calls| {
            let mut all = json!({
                "calls": calls.times_ms.len() + calls.failed,
                "failed": calls.failed,
                "failures": calls.why,
                "seconds": calls.took.as_secs_f64(),
            });
            for (name, percent) in PERCENTILES {
                if let Some(keys) = all.as_object_mut() {
                    keys.insert(format!("{name}_ms"), calls.percentile(percent).into());
                }
            }
            all
        };
        let side = |side: &Outcome| {
            json!({
                "directory": side.dir.display().to_string(),
                "add": times(&side.rounds.add),
                "del": times(&side.rounds.del),
                "duplicate_addresses": side.rounds.twice,
                "residue": side.residue,
                "missing": side.missing,
                "passed": side.is_well(),
            })
        };
        let ratio = |verb| {
            let of = |(name, percent): (&str, usize)| {
                Some(((*name).to_owned(), Value::from(self.ratio(verb, percent)?)))
            };
            Value::Object(PERCENTILES.into_iter().filter_map(of).collect())
        };
        json!({
            "plugin": self.plugin,
            "pods": self.pods,
            "parallel": self.parallel,
            "rounds": self.rounds,
            "sides": self.sides.iter().map(side).collect::<Vec<_>>(),
            "times_as_long_against": {"add": ratio(add), "del": ratio(del)},
            "passed": self.is_well(),
        })
    }
}

fn add(side: &Outcome) -> &Calls {
    &side.rounds.add
}

fn del(side: &Outcome) -> &Calls {
    &side.rounds.del
}

/// For people.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.about)?;
        write!(f, "{:<6}{:>8}{:>8}", "", "calls", "failed")?;
        for (name, _) in PERCENTILES {
            write!(f, "{name:>9}")?;
        }
        writeln!(f, "{:>9}", "calls/s")?;
        for side in &self.sides {
            writeln!(f, "{}", side.dir.display())?;
            for (name, calls) in [("ADD", add(side)), ("DEL", del(side))] {
                let all = calls.times_ms.len() + calls.failed;
                write!(f, "  {name:<4}{all:>8}{:>8}", calls.failed)?;
                for (_, percent) in PERCENTILES {
                    match calls.percentile(percent) {
                        Some(time) => write!(f, "{time:>9.2}")?,
                        None => write!(f, "{:>9}", "-")?,
                    }
                }
                #[expect(clippy::cast_precision_loss, reason = "a count")]
                let rate = all as f64 / calls.took.as_secs_f64().max(1e-9);
                writeln!(f, "{rate:>9.0}")?;
            }
        }
        if self.sides.len() == 2 {
            writeln!(f, "the second takes so many times as long")?;
            for (name, verb) in [("ADD", add as fn(&Outcome) -> &Calls), ("DEL", del)] {
                write!(f, "  {name:<20}")?;
                for (_, percent) in PERCENTILES {
                    match self.ratio(verb, percent) {
                        Some(ratio) => write!(f, "{ratio:>9.2}")?,
                        None => write!(f, "{:>9}", "-")?,
                    }
                }
                writeln!(f)?;
            }
        }
        for side in &self.sides {
            side.tell(f)?;
        }
        let verdict = if self.is_well() { "passed" } else { "FAILED" };
        writeln!(f, "\n{verdict}")
    }
}

// === impl Outcome ===

impl Outcome {
    fn is_well(&self) -> bool {
        let nothing_failed = self.rounds.add.failed + self.rounds.del.failed == 0;
        nothing_failed
            && self.rounds.twice.is_empty()
            && self.residue.is_empty()
            && self.missing.is_empty()
    }

    fn tell(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.dir.display())?;
        let failures: Vec<String> = [&self.rounds.add, &self.rounds.del]
            .iter()
            .flat_map(|calls| calls.why.clone())
            .collect();
        let failed = self.rounds.add.failed + self.rounds.del.failed;
        for (what, n, lines) in [
            ("calls that failed", failed, &failures),
            (
                "addresses given twice",
                self.rounds.twice.len(),
                &self.rounds.twice,
            ),
            ("things left over", self.residue.len(), &self.residue),
            (
                "things gone that are not the pods'",
                self.missing.len(),
                &self.missing,
            ),
        ] {
            writeln!(f, "  {what}: {n}")?;
            for line in lines.iter().take(LINES) {
                writeln!(f, "    {line}")?;
            }
            if n > lines.len().min(LINES) {
                writeln!(f, "    and {} more", n - lines.len().min(LINES))?;
            }
        }
        Ok(())
    }
}
