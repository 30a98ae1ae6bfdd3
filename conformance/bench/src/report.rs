//! What was measured, and how it is shown: two tables for people, one JSON document for machines.

use serde_json::{Map, Value, json};

use crate::bounds::{Bound, Measure, Verdict};
use crate::ground::Who;
use crate::stats::Samples;

/// Everything measured in a run, in the order it was first measured.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    facts: Vec<Fact>,
}

/// Times of one kind of work.
#[derive(Debug)]
struct Row {
    work: &'static str,
    samples: [Samples; Who::ALL.len()],
}

/// A figure that is not a time.
#[derive(Debug)]
struct Fact {
    name: &'static str,
    values: [Option<f64>; Who::ALL.len()],
}

/// How tables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Plain,
    Markdown,
}

/// Cells of text: the first column is a name, the others are aligned right.
#[derive(Debug)]
struct Table {
    rows: Vec<Vec<String>>,
}

// === impl Report ===

impl Report {
    /// Fixes the place of rows that will come in any order; without samples a row is not shown.
    pub fn expect_rows(&mut self, works: &[&'static str]) {
        for work in works {
            self.row(work);
        }
    }

    pub fn push(&mut self, work: &'static str, who: Who, time_ms: f64) {
        let index = self.row(work);
        if let Some(samples) = self
            .rows
            .get_mut(index)
            .and_then(|row| row.samples.get_mut(who as usize))
        {
            samples.push(time_ms);
        }
    }

    /// Keeps the largest value said of a fact.
    pub fn at_most(&mut self, name: &'static str, who: Who, value: f64) {
        let index = self
            .facts
            .iter()
            .position(|fact| fact.name == name)
            .unwrap_or_else(|| {
                self.facts.push(Fact {
                    name,
                    values: Default::default(),
                });
                self.facts.len() - 1
            });
        if let Some(known) = self
            .facts
            .get_mut(index)
            .and_then(|fact| fact.values.get_mut(who as usize))
        {
            *known = Some(known.map_or(value, |known| known.max(value)));
        }
    }

    pub fn median(&self, work: &str, who: Who) -> Option<f64> {
        self.samples(work, who)?.median()
    }

    pub fn best(&self, work: &str, who: Who) -> Option<f64> {
        self.samples(work, who)?.best()
    }

    /// See [`Samples::differences`] and [`Samples::midmean`].
    pub fn typical_difference(&self, work: &str, base: &str, who: Who) -> Option<f64> {
        let (mine, base) = (self.samples(work, who)?, self.samples(base, who)?);
        mine.differences(base)?.midmean()
    }

    fn samples(&self, work: &str, who: Who) -> Option<&Samples> {
        self.rows
            .iter()
            .find(|row| row.work == work)?
            .samples
            .get(who as usize)
    }

    pub fn fact(&self, name: &str, who: Who) -> Option<f64> {
        *self
            .facts
            .iter()
            .find(|fact| fact.name == name)?
            .values
            .get(who as usize)?
    }

    /// `machine` as [`crate::machine::describe`] makes it.
    pub fn print(&self, format: Format, machine: &Value, bounds: &[&Bound]) -> String {
        let mut text = self.times().print(format);
        if !self.facts.is_empty() {
            text += "\n";
            text += &self.other_figures().print(format);
        }
        text += "\n";
        text += &self.verdicts(bounds).print(format);
        let of = |key| {
            machine
                .get(key)
                .map(|value| value.to_string().replace('"', ""))
                .unwrap_or_default()
        };
        text + &format!(
            "\nLinux {}, {} CPUs, {} % of whose time other programs used.",
            of("kernel"),
            of("cpus"),
            of("others_percent")
        )
    }

    /// `machine` is put in as it is.
    pub fn to_json(&self, machine: &Value, bounds: &[&Bound]) -> Value {
        let by_who = |value: &dyn Fn(Who) -> Option<Value>| -> Value {
            let object: Map<_, _> = Who::ALL
                .iter()
                .filter_map(|who| Some((who.name().to_owned(), value(*who)?)))
                .collect();
            object.into()
        };
        let times: Vec<Value> = self.rows.iter().map(|row| {
            let of = |who: Who| {
                let samples = row.samples.get(who as usize)?;
                Some(json!({ "median_ms": samples.median()?, "p99_ms": samples.p99()?, "runs": samples.len() }))
            };
            json!({ "work": row.work, "times": by_who(&of) })
        }).collect();
        let facts: Vec<Value> = self.facts.iter().map(|fact| {
            json!({ "name": fact.name, "values": by_who(&|who| self.fact(fact.name, who).map(Value::from)) })
        }).collect();
        let bounds: Vec<Value> = bounds
            .iter()
            .map(|bound| {
                json!({
                    "work": bound.work,
                    "measure": bound.measure.describe(),
                    "value": bound.measure.value(self),
                    "limit": bound.limit,
                    "verdict": bound.verdict(self).name(),
                })
            })
            .collect();
        json!({ "machine": machine, "times": times, "facts": facts, "bounds": bounds })
    }

    fn row(&mut self, work: &'static str) -> usize {
        self.rows
            .iter()
            .position(|row| row.work == work)
            .unwrap_or_else(|| {
                self.rows.push(Row {
                    work,
                    samples: Default::default(),
                });
                self.rows.len() - 1
            })
    }

    fn times(&self) -> Table {
        let mut table = Table::new(&[
            "median / p99, ms",
            "ours",
            "floor",
            "reference",
            "ours/floor",
            "ours/reference",
            "runs",
        ]);
        for row in &self.rows {
            let [ours, floor, reference] = &row.samples;
            let times = |samples: &Samples| match (samples.median(), samples.p99()) {
                (Some(median), Some(p99)) => {
                    format!("{} / {}", significant(median), significant(p99))
                }
                _ => "-".to_owned(),
            };
            let ratio = |other: &Samples| match (ours.median(), other.median()) {
                (Some(ours), Some(other)) => format!("{:.2}", ours / other),
                _ => "-".to_owned(),
            };
            let runs = row.samples.iter().map(Samples::len).max().unwrap_or(0);
            if runs == 0 {
                continue;
            }
            table.rows.push(vec![
                row.work.to_owned(),
                times(ours),
                times(floor),
                times(reference),
                ratio(floor),
                ratio(reference),
                runs.to_string(),
            ]);
        }
        table
    }

    fn other_figures(&self) -> Table {
        let mut table = Table::new(&["", "ours", "floor", "reference"]);
        for fact in &self.facts {
            let mut row = vec![fact.name.to_owned()];
            row.extend(
                fact.values
                    .iter()
                    .map(|value| value.map_or("-".to_owned(), |value| format!("{value:.0}"))),
            );
            table.rows.push(row);
        }
        table
    }

    fn verdicts(&self, bounds: &[&Bound]) -> Table {
        let mut table = Table::new(&["bound", "measure", "value", "limit", "verdict"]);
        for bound in bounds {
            let verdict = bound.verdict(self);
            let number = |value: f64| match bound.measure {
                // Its whole point is in the third decimal.
                Measure::OverPartner(..) => format!("{value:.3}"),
                _ if value >= 100.0 => format!("{value:.0}"),
                _ => format!("{value:.2}"),
            };
            table.rows.push(vec![
                bound.work.to_owned(),
                bound.measure.describe(),
                bound.measure.value(self).map_or("-".to_owned(), number),
                number(bound.limit),
                match verdict {
                    Verdict::Fail => "**FAIL**".to_owned(),
                    _ => verdict.name().to_owned(),
                },
            ]);
        }
        table
    }
}

/// Milliseconds with three digits that mean something.
fn significant(time_ms: f64) -> String {
    match time_ms {
        ..10.0 => format!("{time_ms:.2}"),
        ..100.0 => format!("{time_ms:.1}"),
        _ => format!("{time_ms:.0}"),
    }
}

// === impl Table ===

impl Table {
    fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    fn print(&self, format: Format) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(String::len)
                .max()
        };
        let widths: Vec<usize> = (0..columns)
            .map(|column| width(column).unwrap_or(0))
            .collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            match format {
                Format::Plain => text += cells.join("  ").trim_end(),
                Format::Markdown => text += &format!("| {} |", cells.join(" | ")),
            }
            text.push('\n');
            if number == 0 && format == Format::Markdown {
                text += &format!("|---|{}\n", "---:|".repeat(columns.saturating_sub(1)));
            }
        }
        text
    }
}
