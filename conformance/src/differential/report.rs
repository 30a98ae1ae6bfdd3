//! What a comparison found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::declared::Ids;

/// The outcome of a whole run.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases, variants counted singly.
    pub cases: usize,
    /// Of these, cases run in every spec version.
    pub in_all_versions: usize,
    /// Cases times spec versions.
    pub runs: usize,
    /// Facts of both sides laid side by side.
    pub facts: usize,
    /// From start to end.
    pub took: Duration,
    /// IDs of the differences that occurred, with the number of runs.
    pub occurred: BTreeMap<String, usize>,
    /// All IDs that are declared.
    pub ids: Ids,
    /// What was not to be.
    pub wrong: Vec<Wrong>,
}

/// One thing that was not to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// The case could not be run at all.
    Broken {
        /// Its name.
        case: String,
        /// The spec version.
        version: String,
        /// Why.
        why: String,
    },
    /// A difference nobody declared.
    Differs {
        /// The case's name.
        case: String,
        /// Which fact.
        path: String,
        /// The reference's, rewritten as far as declared.
        reference: Option<String>,
        /// Ours.
        ours: Option<String>,
        /// The spec version.
        version: String,
    },
    /// A declared difference that did not occur.
    Unused {
        /// The case's name, or none if it never occurred anywhere.
        case: String,
        /// The ID or the whole entry.
        what: String,
        /// The spec version.
        version: String,
    },
}

impl Report {
    /// Panics with everything that is wrong, at most `at_most` groups of it.
    #[track_caller]
    pub fn assert_right(&self, at_most: usize) {
        assert!(self.wrong.is_empty(), "{}", self.told(at_most));
    }

    fn told(&self, at_most: usize) -> String {
        // The same in several versions is one thing.
        let mut groups: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for wrong in &self.wrong {
            let (text, version) = wrong.told();
            groups.entry(text).or_default().insert(version);
        }
        let mut out = format!("{self}\n{} things are wrong\n", groups.len());
        for (text, versions) in groups.iter().take(at_most) {
            let versions: Vec<&str> = versions.iter().copied().collect();
            out += &format!("{text}  [{}]\n", versions.join(" "));
        }
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cases ({} in all spec versions), {} runs of both sides, {} facts compared in {:.1} s; {} of {} declared differences occurred",
            self.cases,
            self.in_all_versions,
            self.runs,
            self.facts,
            self.took.as_secs_f64(),
            self.occurred.len(),
            self.ids.len(),
        )
    }
}

impl Wrong {
    fn told(&self) -> (String, &str) {
        match self {
            Wrong::Broken { case, version, why } => (format!("{case}: BROKEN: {why}"), version),
            Wrong::Differs {
                case,
                path,
                reference,
                ours,
                version,
            } => {
                let side = |v: &Option<String>| v.clone().unwrap_or_else(|| "(absent)".to_owned());
                (
                    format!(
                        "{case}: {path}\n  reference: {}\n  ours:      {}\n",
                        side(reference),
                        side(ours)
                    ),
                    version,
                )
            }
            Wrong::Unused {
                case,
                what,
                version,
            } => (format!("{case}: declared but equal: {what}\n"), version),
        }
    }
}
