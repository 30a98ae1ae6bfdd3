//! The command line of `conformance diff`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::format::Format;

use super::told::{Told, known};
use super::{Cases, Sides, VERSIONS, builtin, compare};

/// Most of a run is waiting: for RCU when a link goes, for a carrier to come.
const AT_ONCE: usize = 8;

/// Give two directories of plugins the same inputs; tell what differs, and which differences are known
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of the executables to judge.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Directory of those that are the measure.
    #[arg(long, value_name = "DIR")]
    against: PathBuf,
    /// A directory of cases and of known differences (differences.json), instead of those that come with the program.
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Only this version of the specification; may be given several times.
    #[arg(long = "spec", value_name = "VERSION", value_parser = VERSIONS)]
    specs: Vec<String>,
    /// How many cases run at the same time.
    #[arg(long, value_name = "N", default_value_t = AT_ONCE)]
    jobs: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Options {
    /// Whether every difference is known. A known one that did not occur is told, and fails nothing: it may be of
    /// another version of the plugins.
    ///
    /// # Errors
    /// It could not be run.
    #[expect(clippy::print_stdout, reason = "it talks to people")]
    pub fn run(self) -> Result<bool> {
        ensure!(self.jobs > 0, "--jobs is at least 1");
        let versions: Vec<&str> = match self.specs.as_slice() {
            [] => VERSIONS.to_vec(),
            some => some.iter().map(String::as_str).collect(),
        };
        let cases = match &self.cases {
            Some(dir) => Cases::read(dir)?,
            None => builtin::cases()?,
        };
        let directory = |dir: &PathBuf| {
            let path = dir.canonicalize();
            path.with_context(|| format!("the directory {}", dir.display()))
        };
        let sides = Sides {
            reference: directory(&self.against)?,
            ours: directory(&self.bin_dir)?,
        };
        let mut cases = cases.only(&self.filter, &versions);
        let absent = cases.without_plugins_missing_in(&sides);
        ensure!(
            !cases.cases.is_empty(),
            "there is no case to run: no name contains {:?}, or neither directory has the plugins{}",
            self.filter,
            absent
                .iter()
                .map(|name| format!(" {name}"))
                .collect::<String>()
        );
        let report = compare(&cases, &sides, self.jobs);
        let told = Told {
            report: &report,
            sides: &Sides {
                reference: self.against,
                ours: self.bin_dir,
            },
            absent: &absent,
            known: known(),
        };
        match self.format {
            Format::Table => print!("{told}"),
            Format::Json => println!("{:#}", told.to_json()),
        }
        Ok(told.is_explained())
    }
}
