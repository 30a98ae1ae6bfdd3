//! Run cases given as data against each plugin.

pub mod builtin;
pub mod case;
mod exec;
mod expect;
mod keys;
mod leftover;
mod matching;
mod plan;
mod play;
pub mod profile;
mod progress;
mod regex;
pub mod report;
mod steps;
mod table;
pub mod versions;
mod work;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use self::plan::Plan;
use crate::differential::glob;

/// Run cases given as data against each plugin
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of the executables to judge.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Judge this one (repeatable); without it, every one that has a profile.
    #[arg(long, value_name = "NAME")]
    plugin: Vec<String>,
    /// Versions of the specification: 1.0.0, 0.4.0...1.1.0 or 0.4.0+ (repeatable).
    #[arg(long, value_name = "VERSION")]
    spec: Vec<String>,
    /// Cases with this ID, or else with this in their ID; * is any text (repeatable).
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// A directory with more cases; one with a known ID takes its place (repeatable).
    #[arg(long, value_name = "DIR")]
    cases: Vec<PathBuf>,
    /// Profile of a plugin, or a network configuration for it (repeatable).
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// SHOULD counts as MUST.
    #[arg(long)]
    strict: bool,
    /// Only print what there is.
    #[arg(long)]
    list: bool,
    /// So many at a time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    jobs: usize,
}

impl Options {
    /// Whether all passed.
    ///
    /// # Errors
    /// It could not be run.
    #[allow(clippy::print_stdout)]
    pub fn run(self) -> Result<bool> {
        let started = Instant::now();
        let bin_dir = fs::canonicalize(&self.bin_dir)
            .with_context(|| format!("--bin-dir {}", self.bin_dir.display()))?;
        for hidden in ["/run", "/var/lib/cni"] {
            ensure!(
                !bin_dir.starts_with(hidden),
                "--bin-dir {}: each run has a {hidden} of its own; copy the executables elsewhere",
                bin_dir.display()
            );
        }
        let versions = match self.spec.is_empty() {
            true => versions::VERSIONS.to_vec(),
            false => versions::parse(&self.spec.join(",")).context("--spec")?,
        };
        let mut profiles = builtin::profiles()?;
        let mut cases = builtin::cases()?;
        for dir in &self.cases {
            let more = case::read_dir(dir)?;
            case::are_unique(&more)?;
            cases.retain(|known| more.iter().all(|case| case.id != known.id));
            cases.extend(more);
            let file = dir.join("profiles.json");
            if let Ok(text) = fs::read_to_string(&file) {
                profiles.read(&file.display().to_string(), &text)?;
            }
        }
        case::are_unique(&cases)?;
        for file in &self.config {
            let name = file.display().to_string();
            let text = fs::read_to_string(file).with_context(|| name.clone())?;
            profiles.read(&name, &text)?;
        }
        self.choose(&mut cases)?;
        let there = plan::executables(&bin_dir)?;
        let names = plan::judged(&there, &self.plugin, &cases, &profiles)?;
        let plan = Plan::make(&cases, &profiles, &names, &there, &versions, &bin_dir)?;
        if self.list {
            for case in &cases {
                println!("{:<6} {}  {}", case.level.name(), case.id, case.about);
            }
            return Ok(true);
        }
        let report = work::work(&plan, &profiles, &bin_dir, self.jobs, started);
        print!("{}", table::table(&report));
        Ok(report.is_passed(self.strict))
    }

    fn choose(&self, cases: &mut Vec<case::Case>) -> Result<()> {
        for filter in &self.filter {
            let bare = filter.strip_suffix(".shape").unwrap_or(filter);
            let bare = bare.strip_suffix(".residue").unwrap_or(bare);
            let is_one = |case: &case::Case| match bare.contains('*') {
                true => glob(bare, &case.id),
                false => case.id.contains(bare),
            };
            ensure!(
                cases.iter().any(is_one),
                "no case has {filter} in its ID (see --list)"
            );
        }
        if self.filter.is_empty() {
            return Ok(());
        }
        let exact: Vec<bool> = self
            .filter
            .iter()
            .map(|f| cases.iter().any(|c| c.id == *f))
            .collect();
        cases.retain(|case| {
            self.filter.iter().zip(&exact).any(|(filter, exact)| {
                let bare = filter.strip_suffix(".shape").unwrap_or(filter);
                let bare = bare.strip_suffix(".residue").unwrap_or(bare);
                match (exact, bare.contains('*')) {
                    (true, _) => case.id == *filter,
                    (_, true) => glob(bare, &case.id),
                    (_, false) => case.id.contains(bare),
                }
            })
        });
        Ok(())
    }
}
