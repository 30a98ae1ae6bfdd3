//! Run cases given as data against each plugin.

pub mod builtin;
mod by_hand;
pub mod case;
pub(crate) mod exec;
mod expect;
pub mod format;
mod input;
mod leftover;
mod matching;
mod plan;
mod play;
pub mod profile;
mod progress;
pub mod report;
mod steps;
pub mod versions;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::format::Format;
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
    /// What is known to fail: JSON, {"ID (* is any text)": "why"}. It still counts (repeatable).
    #[arg(long, value_name = "FILE")]
    known: Vec<PathBuf>,
    /// SHOULD counts as MUST.
    #[arg(long)]
    strict: bool,
    /// How the report is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only print what there is.
    #[arg(long)]
    list: bool,
    /// Only print the runs as shell scripts, to see by hand what a plugin does.
    #[arg(long)]
    explain: bool,
    /// So many at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// How long a call may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    time_limit: u64,
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
        let known = self.known()?;
        let limit = Duration::from_secs(self.time_limit);
        let names = plan::judged(&there, &self.plugin, &cases, &profiles)?;
        let names = (names.as_slice(), !self.plugin.is_empty(), limit);
        let plan = Plan::make(&cases, &profiles, names, &there, &versions, &bin_dir)?;
        if self.list {
            print!("{}", list(&plan, self.format));
            return Ok(true);
        }
        if self.explain {
            for run in &plan.runs {
                let steps = run.case.steps(&run.plugin, &profiles, run.version)?;
                println!("{}", by_hand::script(run, &steps, &bin_dir));
            }
            return Ok(true);
        }
        let at_once = (usize::from(self.jobs), limit);
        let mut report = work::work(&plan, &profiles, &bin_dir, at_once, started)?;
        report.strict = self.strict;
        report.mark_known(&known);
        let more = self.files()?;
        report.explain(&plan, |run| {
            let steps = run.case.steps(&run.plugin, &profiles, run.version);
            let script = steps.map(|steps| by_hand::script(run, &steps, &bin_dir));
            let command = by_hand::command(run, &bin_dir, &more);
            (command, script.unwrap_or_default())
        });
        print!("{}", self.format.write(&report));
        Ok(report.is_passed())
    }

    fn known(&self) -> Result<BTreeMap<String, String>> {
        let mut known = BTreeMap::new();
        for file in &self.known {
            let name = file.display().to_string();
            let text = fs::read_to_string(file).with_context(|| format!("--known {name}"))?;
            let value = serde_json::from_str::<Value>(&text).with_context(|| name.clone())?;
            let Value::Object(map) = value else {
                bail!("{name}: an object of IDs and reasons is wanted");
            };
            for (id, why) in map {
                let why = why.as_str();
                let why = why.with_context(|| format!("{name}: {id}: the reason is a text"))?;
                known.insert(id, why.to_owned());
            }
        }
        Ok(known)
    }

    /// The options that name files, for a command that works from anywhere.
    fn files(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for (option, paths) in [("--cases", &self.cases), ("--config", &self.config)] {
            for path in paths {
                let path = fs::canonicalize(path)?;
                words.extend([option.to_owned(), path.display().to_string()]);
            }
        }
        Ok(words)
    }

    /// An ID that there is stands for itself; anything else for all that it is in.
    fn choose(&self, cases: &mut Vec<case::Case>) -> Result<()> {
        let mut chosen = BTreeSet::new();
        for filter in &self.filter {
            let bare = filter.strip_suffix(".shape").unwrap_or(filter);
            let bare = bare.strip_suffix(".residue").unwrap_or(bare);
            let ids = || cases.iter().map(|case| case.id.as_str());
            let exact = [filter.as_str(), bare];
            let exact = exact.into_iter().find(|id| ids().any(|i| i == *id));
            let fits = |id: &&str| match exact {
                Some(exact) => *id == exact,
                None if filter.contains('*') => glob(filter, id),
                None => id.contains(filter.as_str()),
            };
            let before = chosen.len();
            chosen.extend(ids().filter(fits).map(str::to_owned));
            ensure!(
                chosen.len() > before || ids().any(|id| fits(&id)),
                "no case has {filter} in its ID (see --list)"
            );
        }
        if !self.filter.is_empty() {
            cases.retain(|case| chosen.contains(&case.id));
        }
        Ok(())
    }
}

/// What would be run.
fn list(plan: &Plan<'_>, format: Format) -> String {
    let mut cases: Vec<(&case::Case, &str, Vec<&str>)> = Vec::new();
    for run in &plan.runs {
        match cases.last_mut() {
            Some((case, plugin, versions))
                if case.id == run.case.id && *plugin == run.plugin.as_str() =>
            {
                versions.push(run.version);
            }
            _ => cases.push((run.case, &run.plugin, vec![run.version])),
        }
    }
    if format == Format::Json {
        let told = cases.iter().map(|(case, plugin, versions)| {
            json!({
                "id": case.id, "area": case.area, "level": case.level.name(), "spec": case.spec,
                "about": case.about, "plugin": plugin, "versions": versions,
            })
        });
        return format!("{:#}\n", Value::from(told.collect::<Vec<_>>()));
    }
    let mut out = String::new();
    for (case, plugin, versions) in &cases {
        let level = case.level.name();
        let id = format!("{} [{plugin}]", case.id);
        let versions = versions.join(" ");
        out += &format!(
            "{level:<6} {id:<56} {} ({})  {versions}\n",
            case.about, case.spec
        );
    }
    let runs = plan.runs.len();
    out + &format!("{} cases, {runs} runs\n", cases.len())
}
