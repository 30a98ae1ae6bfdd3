//! A comparison, told to whoever ran it: what differs by its ID and why, and what nobody explains by its case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use super::declared::is_id;
use super::{Report, Sides, Wrong};

/// Where each ID has a row.
const DOCUMENT: &str = include_str!("../../../docs/differences.md");
/// A value of one side is told up to this many characters.
const SHOWN: usize = 400;

/// A row of the document: what an ID means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    reference: String,
    ours: String,
    why: String,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) report: &'a Report,
    pub(super) sides: &'a Sides,
    /// Plugins that have cases, but that a directory does not have.
    pub(super) absent: &'a [String],
    pub(super) known: BTreeMap<String, Known>,
}

/// A difference nobody explains; the same in several versions is one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Unexplained<'a> {
    case: &'a str,
    fact: &'a str,
    against: Option<&'a str>,
    judged: Option<&'a str>,
}

/// The document's tables.
pub(super) fn known() -> BTreeMap<String, Known> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let mut cell = || Some(cells.next()?.to_owned());
        let id = cell().filter(|id| is_id(id))?;
        let known = Known {
            reference: cell()?,
            ours: cell()?,
            why: cell()?,
        };
        Some((id, known))
    };
    DOCUMENT.lines().filter_map(row).collect()
}

// === impl Told ===

impl Told<'_> {
    /// Whether all cases ran, and no difference is without an explanation.
    pub(super) fn is_explained(&self) -> bool {
        let mut wrong = self.report.wrong.iter();
        wrong.all(|wrong| matches!(wrong, Wrong::Unused { .. }))
    }

    /// With the versions.
    fn unexplained(&self) -> BTreeMap<Unexplained<'_>, BTreeSet<&str>> {
        let mut groups: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
        for wrong in &self.report.wrong {
            if let Wrong::Differs {
                case,
                path,
                reference,
                ours,
                version,
            } = wrong
            {
                let difference = Unexplained {
                    case,
                    fact: path,
                    against: reference.as_deref(),
                    judged: ours.as_deref(),
                };
                groups.entry(difference).or_default().insert(version);
            }
        }
        groups
    }

    /// Cases that could not be run, and why.
    fn broken(&self) -> BTreeMap<(&str, &str), BTreeSet<&str>> {
        let mut groups: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
        for wrong in &self.report.wrong {
            if let Wrong::Broken { case, version, why } = wrong {
                groups
                    .entry((case.as_str(), why.as_str()))
                    .or_default()
                    .insert(version);
            }
        }
        groups
    }

    /// Known ones that were expected somewhere and did not occur there: how often, by what is declared.
    fn unused(&self) -> BTreeMap<&str, usize> {
        let mut unused = BTreeMap::new();
        for wrong in &self.report.wrong {
            if let Wrong::Unused { what, .. } = wrong {
                *unused.entry(what.as_str()).or_default() += 1;
            }
        }
        unused
    }

    pub(super) fn to_json(&self) -> Value {
        let known = |(id, runs): (&String, &usize)| {
            let known = self.known.get(id);
            json!({
                "id": id,
                "runs": runs,
                "against": known.map(|k| &k.reference),
                "judged": known.map(|k| &k.ours),
                "why": known.map(|k| &k.why),
            })
        };
        let unexplained = |(one, versions): (Unexplained<'_>, BTreeSet<&str>)| {
            json!({
                "case": one.case,
                "fact": one.fact,
                "against": one.against,
                "judged": one.judged,
                "versions": versions,
            })
        };
        let broken = |((case, why), versions): ((&str, &str), BTreeSet<&str>)| json!({"case": case, "why": why, "versions": versions});
        json!({
            "judged": self.sides.ours.display().to_string(),
            "against": self.sides.reference.display().to_string(),
            "cases": self.report.cases,
            "runs": self.report.runs,
            "facts": self.report.facts,
            "seconds": self.report.took.as_secs_f64(),
            "plugins_missing": self.absent,
            "known": self.report.occurred.iter().map(known).collect::<Vec<_>>(),
            "unexplained": self.unexplained().into_iter().map(unexplained).collect::<Vec<_>>(),
            "not_run": self.broken().into_iter().map(broken).collect::<Vec<_>>(),
            "did_not_occur": self.unused(),
            "passed": self.is_explained(),
        })
    }
}

/// For people.
impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (report, sides) = (self.report, self.sides);
        writeln!(
            f,
            "judged  {}\nagainst {}",
            sides.ours.display(),
            sides.reference.display()
        )?;
        writeln!(
            f,
            "{} cases, {} runs of both sides, {} facts compared in {:.1} s",
            report.cases,
            report.runs,
            report.facts,
            report.took.as_secs_f64()
        )?;
        for plugin in self.absent {
            writeln!(
                f,
                "{plugin}: not in both directories, so its cases were left out"
            )?;
        }
        writeln!(f, "\nknown differences: {}", report.occurred.len())?;
        let mut occurred: Vec<(&String, &usize)> = report.occurred.iter().collect();
        // B2 before B10.
        occurred.sort_by_key(|(id, _)| (id.get(..1), id.len(), *id));
        for (id, runs) in occurred {
            writeln!(f, "\n{id:<4} in {runs} runs")?;
            if let Some(known) = self.known.get(id) {
                writeln!(f, "     against: {}", known.reference)?;
                writeln!(f, "     judged:  {}", known.ours)?;
                writeln!(f, "     why:     {}", known.why)?;
            }
        }
        let unused = self.unused();
        if !unused.is_empty() {
            writeln!(f, "\nexpected, but not seen: {}", unused.len())?;
            for (what, runs) in unused {
                writeln!(f, "  {} ({runs})", cut(what))?;
            }
        }
        let broken = self.broken();
        if !broken.is_empty() {
            writeln!(f, "\ncases that could not be run: {}", broken.len())?;
            for ((case, why), versions) in broken {
                writeln!(f, "  {case} [{}]: {}", listed(&versions), cut(why))?;
            }
        }
        self.tell_unexplained(f)?;
        let verdict = if self.is_explained() {
            "passed"
        } else {
            "FAILED"
        };
        writeln!(f, "\n{verdict}")
    }
}

impl Told<'_> {
    fn tell_unexplained(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unexplained = self.unexplained();
        writeln!(f, "\nunexplained differences: {}", unexplained.len())?;
        let mut case = "";
        for (one, versions) in &unexplained {
            if one.case != case {
                case = one.case;
                writeln!(f, "\n{case}")?;
            }
            let side = |value: Option<&str>| value.map_or_else(|| "(absent)".to_owned(), cut);
            writeln!(f, "  {} [{}]", one.fact, listed(versions))?;
            writeln!(f, "    against: {}", side(one.against))?;
            writeln!(f, "    judged:  {}", side(one.judged))?;
        }
        Ok(())
    }
}

fn listed(versions: &BTreeSet<&str>) -> String {
    versions.iter().copied().collect::<Vec<_>>().join(" ")
}

/// In one line that somebody can read.
fn cut(text: &str) -> String {
    let mut out: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = out.char_indices().nth(SHOWN) {
        out.truncate(end);
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_document_explains_its_id() {
        let known = known();
        let row = known.get("H1").unwrap();
        assert!(
            row.reference.contains("0644") && row.ours == "0600",
            "{row:?}"
        );
        assert!(known.len() > 30 && known.values().all(|known| !known.why.is_empty()));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = "ä\n".repeat(1000);
        let shown = cut(&text);
        assert!(
            shown.ends_with("...") && shown.chars().count() == SHOWN + 3,
            "{shown}"
        );
        assert_eq!(cut(" a\n    b"), "a b");
    }
}
