//! What came of all points, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde_json::{Value, json};

/// Findings told in full below the table, of each kind.
const TOLD: usize = 5;

/// The points of one verb of one plugin.
#[derive(Debug, Default, Clone)]
pub struct Row {
    /// The system calls of a run that nothing happens to.
    pub calls: usize,
    /// Kills tried.
    pub points: usize,
    /// Faults injected.
    pub faults: usize,
    /// Points that left something.
    pub residues: usize,
    /// Points with an answer that is wrong.
    pub wrong: usize,
}

/// Something at one point.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The executable.
    pub plugin: String,
    /// `ADD`
    pub verb: String,
    /// `killed after call 17` or `ENOSPC the 3rd time it may come`, and the name of the system call.
    pub point: String,
    /// Something left, or else a wrong answer.
    pub residue: bool,
    /// In words.
    pub what: String,
    /// A command that does just this.
    pub repeat: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Report {
    /// By plugin and verb.
    pub rows: BTreeMap<(String, String), Row>,
    /// What there is to say.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// No residue and no wrong answer, at one point at least.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.rows.values().any(|r| r.points + r.faults > 0)
    }

    /// The sum of all rows.
    #[must_use]
    pub fn total(&self) -> Row {
        let mut total = Row::default();
        for row in self.rows.values() {
            total.calls += row.calls;
            total.points += row.points;
            total.faults += row.faults;
            total.residues += row.residues;
            total.wrong += row.wrong;
        }
        total
    }

    /// Everything, as one object.
    #[must_use]
    pub fn json(&self) -> Value {
        let row = |((plugin, verb), row): (&(String, String), &Row)| {
            json!({"plugin": plugin, "verb": verb, "systemCalls": row.calls, "points": row.points, "faults": row.faults,
                   "residues": row.residues, "wrong": row.wrong})
        };
        let finding = |f: &Finding| {
            json!({"plugin": f.plugin, "verb": f.verb, "point": f.point, "kind": if f.residue { "residue" } else { "wrong" },
                   "what": f.what, "repeat": f.repeat})
        };
        json!({
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "seconds": self.took.as_secs_f64(),
            "clean": self.is_clean(),
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // The same thing at many points is told a few times, then counted.
        let mut kinds: BTreeMap<(&str, &str, String), Vec<&Finding>> = BTreeMap::new();
        for finding in &self.findings {
            let kind = (
                finding.plugin.as_str(),
                finding.verb.as_str(),
                without_digits(&finding.what),
            );
            kinds.entry(kind).or_default().push(finding);
        }
        for ((plugin, verb, _), findings) in &kinds {
            for finding in findings.iter().take(TOLD) {
                let kind = if finding.residue { "residue" } else { "wrong" };
                writeln!(
                    f,
                    "{plugin} {verb}, {}: {kind} {}",
                    finding.point, finding.what
                )?;
                writeln!(f, "    {}", finding.repeat)?;
            }
            if let Some(more) = findings.len().checked_sub(TOLD).filter(|n| *n > 0) {
                writeln!(
                    f,
                    "    and the same at {more} more points (--format json names all)"
                )?;
            }
        }
        writeln!(
            f,
            "{:12} {:6} {:>6} {:>7} {:>7} {:>9} {:>6}",
            "plugin", "verb", "calls", "points", "faults", "residues", "wrong"
        )?;
        let mut line = |plugin: &str, verb: &str, row: &Row| {
            writeln!(
                f,
                "{plugin:12} {verb:6} {:>6} {:>7} {:>7} {:>9} {:>6}",
                row.calls, row.points, row.faults, row.residues, row.wrong
            )
        };
        for ((plugin, verb), row) in &self.rows {
            line(plugin, verb, row)?;
        }
        line("all", "", &self.total())?;
        write!(f, "{:.1} s", self.took.as_secs_f64())
    }
}

/// What is the same at another point: not its numbers, names of veths and hashes.
fn without_digits(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_ascii_hexdigit())
        .take(120)
        .collect()
}
