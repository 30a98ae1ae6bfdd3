//! What came of it all.

use std::collections::BTreeMap;
use std::time::Duration;

use super::case::{Case, Level};
use super::plan::{Judged, Plan, Skip};

/// Of one assertion, in one version or in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It does not apply.
    Skipped,
    /// As it should be.
    Pass,
    /// The case itself could not be run.
    Broken,
    /// Not as it should be.
    Fail,
}

/// One assertion about one plugin.
#[derive(Debug, Clone)]
pub struct Assertion {
    /// The case's ID, or that with `.shape` or `.residue`.
    pub id: String,
    /// The case's.
    pub case: String,
    /// Where it counts: the case's area, `shape` or `residue`.
    pub area: String,
    /// Its weight.
    pub level: Level,
    /// The specification's section.
    pub spec: String,
    /// For people.
    pub about: String,
    /// Whom it is about.
    pub plugin: String,
    /// By version. With no version: in none.
    pub versions: BTreeMap<String, (Status, Vec<String>)>,
    /// A failure that is known, and why it is there.
    pub known: Option<String>,
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    /// Whom it is about.
    pub judged: Vec<Judged>,
    /// In the order of areas and IDs.
    pub assertions: Vec<Assertion>,
    /// Case x plugin that were run in some version.
    pub cases: usize,
    /// Case x plugin x version.
    pub runs: usize,
    /// From start to end.
    pub took: Duration,
}

// === impl Status ===

impl Status {
    /// One word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Skipped => "skipped",
            Status::Pass => "pass",
            Status::Broken => "broken",
            Status::Fail => "fail",
        }
    }
}

// === impl Assertion ===

impl Assertion {
    /// Over all versions: the worst.
    #[must_use]
    pub fn status(&self) -> Status {
        let all = self.versions.values().map(|(status, _)| *status);
        all.max().unwrap_or(Status::Skipped)
    }

    /// The versions in which it is so, together with why.
    #[must_use]
    pub fn of(&self, status: Status) -> Vec<(Vec<&str>, &[String])> {
        let mut groups: Vec<(Vec<&str>, &[String])> = Vec::new();
        for (version, (is, why)) in &self.versions {
            if *is != status {
                continue;
            }
            match groups.iter_mut().find(|(_, w)| *w == why.as_slice()) {
                Some((versions, _)) => versions.push(version),
                None => groups.push((vec![version], why)),
            }
        }
        groups
    }
}

// === impl Report ===

/// Collects what runs bring.
#[derive(Debug, Default)]
pub struct Collected(BTreeMap<(String, String, String), Assertion>);

/// Which of a case's assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the case says.
    Case,
    /// The shape of results.
    Shape,
    /// What is left.
    Residue,
}

impl Collected {
    /// Takes in one run's.
    pub fn put(
        &mut self,
        (case, part): (&Case, Part),
        plugin: &str,
        version: &str,
        status: Status,
        why: Vec<String>,
    ) {
        let (id, area, level, spec, about) = match part {
            Part::Case => (
                case.id.clone(),
                case.area.as_str(),
                case.level,
                case.spec.as_str(),
                case.about.clone(),
            ),
            Part::Shape => (
                format!("{}.shape", case.id),
                "shape",
                Level::Must,
                "ADD Success",
                "the result has the shape that its version has".to_owned(),
            ),
            Part::Residue => (
                format!("{}.residue", case.id),
                "residue",
                match case.undone() {
                    true => case.level,
                    false => Level::Must,
                },
                "DEL",
                "after the last DEL everything is as it was".to_owned(),
            ),
        };
        let key = (area.to_owned(), id.clone(), plugin.to_owned());
        let assertion = self.0.entry(key).or_insert_with(|| Assertion {
            id,
            case: case.id.clone(),
            area: area.to_owned(),
            level,
            spec: spec.to_owned(),
            about,
            plugin: plugin.to_owned(),
            versions: BTreeMap::new(),
            known: None,
        });
        assertion.versions.insert(version.to_owned(), (status, why));
    }

    /// All are there.
    pub fn finish(mut self, plan: &Plan<'_>, took: Duration) -> Report {
        for Skip {
            case,
            plugin,
            version,
            why,
        } in &plan.skipped
        {
            let version = version.unwrap_or_default();
            let why = vec![why.clone()];
            self.put((case, Part::Case), plugin, version, Status::Skipped, why);
        }
        let mut cases: Vec<(&str, &str)> = plan
            .runs
            .iter()
            .map(|run| (run.case.id.as_str(), run.plugin.as_str()))
            .collect();
        cases.sort_unstable();
        cases.dedup();
        Report {
            judged: plan.judged.clone(),
            assertions: self.0.into_values().collect(),
            cases: cases.len(),
            runs: plan.runs.len(),
            took,
        }
    }
}

impl Report {
    /// Those of a status.
    pub fn all(&self, status: Status) -> impl Iterator<Item = &Assertion> {
        self.assertions.iter().filter(move |a| a.status() == status)
    }

    /// Whether every applicable MUST passed (and SHOULD, if that is asked for).
    #[must_use]
    pub fn is_passed(&self, strict: bool) -> bool {
        let counts =
            |a: &&Assertion| a.level == Level::Must || (strict && a.level == Level::Should);
        let wrong = self.all(Status::Fail).chain(self.all(Status::Broken));
        !wrong.into_iter().any(|a| counts(&a)) && self.runs > 0
    }
}
