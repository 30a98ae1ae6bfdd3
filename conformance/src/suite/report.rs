//! What came of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::case::{Case, Level};
use super::plan::{Judged, Plan, Run, Skip};
use crate::differential::glob;

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
    /// The command that shows the failure again.
    pub again: String,
    /// The same as a shell script.
    pub script: String,
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
    /// SHOULD counts as MUST.
    pub strict: bool,
    /// What is known to fail, and did not.
    pub unused: Vec<String>,
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

    /// Which, and whose.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} [{}]", self.id, self.plugin)
    }

    /// Why it is so, with the versions it is so in.
    #[must_use]
    pub fn told(&self, status: Status) -> Vec<String> {
        let mut told = Vec::new();
        for (versions, why) in self.of(status) {
            let versions = versions.join(" ");
            told.extend(why.iter().map(|why| match versions.is_empty() {
                true => why.clone(),
                false => format!("{versions}: {why}"),
            }));
        }
        told
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
    Residue {
        /// Every ADD failed, and there was one.
        refused: bool,
    },
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
            Part::Residue { refused } => (
                format!("{}.residue", case.id),
                "residue",
                match refused {
                    _ if case.undone() => case.level,
                    // Its DEL may find the same fault; the specification says "should".
                    true => Level::Should,
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
            again: String::new(),
            script: String::new(),
        });
        assertion.level = assertion.level.min(level);
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
            strict: false,
            unused: Vec::new(),
        }
    }
}

impl Report {
    /// Marks those failures that are known: a glob of their IDs (or of `ID [PLUGIN]`), and why.
    pub fn mark_known(&mut self, known: &BTreeMap<String, String>) {
        let (mut failed, mut passed) = (BTreeSet::new(), BTreeSet::new());
        for assertion in &mut self.assertions {
            let title = assertion.title();
            for (pattern, why) in known {
                if !glob(pattern, &assertion.id) && !glob(pattern, &title) {
                    continue;
                }
                match assertion.status() {
                    Status::Fail | Status::Broken => {
                        failed.insert(pattern);
                        assertion.known = Some(why.clone());
                    }
                    Status::Pass => drop(passed.insert(pattern)),
                    Status::Skipped => {}
                }
            }
        }
        self.unused = passed.difference(&failed).map(|p| (*p).clone()).collect();
    }

    /// Says of each failure how to see it again.
    pub fn explain(&mut self, plan: &Plan<'_>, again: impl Fn(&Run<'_>) -> (String, String)) {
        let wrong = [Status::Fail, Status::Broken];
        let failed = |a: &&mut Assertion| wrong.contains(&a.status());
        for assertion in self.assertions.iter_mut().filter(failed) {
            let status = assertion.status();
            let groups = assertion.of(status);
            let version = groups.first().and_then(|(versions, _)| versions.first());
            let is_it = |run: &&Run<'_>| {
                run.case.id == assertion.case
                    && run.plugin == assertion.plugin
                    && Some(&run.version) == version
            };
            if let Some(run) = plan.runs.iter().find(is_it) {
                (assertion.again, assertion.script) = again(run);
            }
        }
    }

    /// Whether a failure of it is one of the whole.
    #[must_use]
    pub fn counts(&self, assertion: &Assertion) -> bool {
        let must = assertion.level == Level::Must;
        must || (self.strict && assertion.level == Level::Should)
    }

    /// One sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let plugins: Vec<&str> = self.judged.iter().map(|j| j.name.as_str()).collect();
        let number = |status| self.all(status).count();
        let failed = self.all(Status::Fail).filter(|a| self.counts(a)).count();
        format!(
            "{}: {}. {} cases in {} runs took {:.1} s: of {} assertions {} pass, {} fail ({failed} of them count), \
             {} could not be run; {} are not applicable.",
            match self.is_passed() {
                true => "passed",
                false => "FAILED",
            },
            plugins.join(", "),
            self.cases,
            self.runs,
            self.took.as_secs_f64(),
            self.assertions.len() - number(Status::Skipped),
            number(Status::Pass),
            number(Status::Fail),
            number(Status::Broken),
            number(Status::Skipped),
        )
    }

    /// Those of a status.
    pub fn all(&self, status: Status) -> impl Iterator<Item = &Assertion> {
        self.assertions.iter().filter(move |a| a.status() == status)
    }

    /// Whether every applicable MUST passed (and SHOULD, if it is strict).
    #[must_use]
    pub fn is_passed(&self) -> bool {
        let mut wrong = self.all(Status::Fail).chain(self.all(Status::Broken));
        self.runs > 0 && !wrong.any(|a| self.counts(a))
    }
}
