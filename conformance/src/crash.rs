//! Kill or fail a plugin at every system call; DEL and GC must then leave nothing.
//!
//! Each point has a node of its own. The plugin, and whatever it starts, is followed by `ptrace`, and killed after its first,
//! second, third … system call, until a run ends before its point. Then DEL (and at another time GC) has to succeed and to
//! leave nothing, and a fresh ADD to work. After that each call that reaches for a file or the kernel's network fails in
//! turn: the plugin has to say so, having undone what it began.

mod calls;
mod plan;
mod point;
mod report;
mod stop;
mod trace;

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::format::Format;

pub use calls::Fault;
pub use plan::Verb;
pub use report::{Finding, Report, Row};

use plan::Plan;
use point::{Course, Outcome, Point};
use trace::At;

/// A plugin whose runs never end before the point is stopped here: some loop makes ever more calls.
const POINTS_AT_MOST: usize = 200_000;

/// Kill or fail a plugin at every system call; DEL and GC must then leave nothing
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)]
pub struct Options {
    /// Directory of the executables to judge.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Only these: bridge, host-local, loopback, overlay, flannel. Otherwise all that are there.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    plugin: Vec<String>,
    /// Only these verbs: ADD, DEL, CHECK, GC.
    #[arg(long, value_name = "VERB", num_args = 1.., ignore_case = true)]
    verb: Vec<Verb>,
    /// Kill only, unless --fail is there, too.
    #[arg(long)]
    kill: bool,
    /// Fail calls only, unless --kill is there, too.
    #[arg(long)]
    fail: bool,
    /// Only these errors: ENOSPC, EIO, EBUSY, ENOBUFS, EINTR.
    #[arg(long, value_name = "ERROR", num_args = 1.., ignore_case = true)]
    error: Vec<Fault>,
    /// What follows a kill: DEL or GC. Otherwise each of them.
    #[arg(long, value_name = "VERB", ignore_case = true)]
    then: Option<Verb>,
    /// Only each Nth point.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    every: usize,
    /// Only this point, as the report names it.
    #[arg(long, value_name = "N", value_parser = positive)]
    point: Option<usize>,
    /// How many points at a time. Most of their time is waiting.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = positive)]
    jobs: usize,
    /// How to print what came of it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a number from 1".to_owned()),
    }
}

/// A row of points: one verb, one thing that happens, at point after point.
struct Series {
    verb: Verb,
    then: Verb,
    fault: Option<Fault>,
}

// === impl Options ===

impl Options {
    /// Those for a directory, as if nothing else was given.
    #[must_use]
    pub fn of(bin_dir: &Path) -> Options {
        Options {
            bin_dir: bin_dir.to_owned(),
            plugin: Vec::new(),
            verb: Vec::new(),
            kill: false,
            fail: false,
            error: Vec::new(),
            then: None,
            every: 1,
            point: None,
            jobs: 6,
            format: Format::Table,
        }
    }

    /// Only these plugins and verbs.
    #[must_use]
    pub fn only(mut self, plugins: &[&str], verbs: &[Verb]) -> Options {
        self.plugin = plugins.iter().map(|p| (*p).to_owned()).collect();
        self.verb = verbs.to_vec();
        self
    }

    /// No faults, only kills.
    #[must_use]
    pub fn kill(mut self) -> Options {
        self.kill = true;
        self
    }

    /// No kills, only this fault.
    #[must_use]
    pub fn fail(mut self, fault: Fault) -> Options {
        self.fail = true;
        self.error.push(fault);
        self
    }

    /// Only this point.
    #[must_use]
    pub fn point(mut self, n: usize) -> Options {
        self.point = Some(n);
        self
    }

    /// Only each Nth point.
    #[must_use]
    pub fn every(mut self, n: usize) -> Options {
        self.every = n.max(1);
        self
    }

    /// Whether all passed.
    ///
    /// # Errors
    /// It could not be run.
    #[allow(clippy::print_stdout)]
    pub fn run(self) -> Result<bool> {
        let report = self.report()?;
        match self.format {
            Format::Table => println!("{report}"),
            Format::Json => println!("{:#}", report.json()),
        }
        Ok(report.is_clean())
    }

    /// What came of all points.
    ///
    /// # Errors
    /// It could not be run: no such plugin, an ADD that fails with nothing in its way, no right to follow processes.
    pub fn report(&self) -> Result<Report> {
        let began = Instant::now();
        let directory = self.bin_dir.canonicalize();
        let directory = directory.with_context(|| self.bin_dir.display().to_string())?;
        ensure!(
            self.then.is_none_or(|v| [Verb::Del, Verb::Gc].contains(&v)),
            "--then is DEL or GC"
        );
        let fails = self.fail || !self.kill;
        ensure!(
            stop::CAN_FAIL || !fails,
            "calls can be failed on x86-64 and aarch64 only; --kill works here, too"
        );
        let report = Mutex::new(Report::default());
        for plan in Plan::of(&directory, &self.plugin)? {
            for verb in plan.verbs() {
                if self.verb.is_empty() || self.verb.contains(&verb) {
                    self.judge(&plan, &directory, verb, &report)?;
                }
            }
        }
        let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        ensure!(!report.rows.is_empty(), "no plugin there has that verb");
        report.took = began.elapsed();
        Ok(report)
    }

    fn series(&self, plan: &Plan, verb: Verb) -> Vec<Series> {
        let mut series = Vec::new();
        if self.kill || !self.fail {
            for then in [Verb::Del, Verb::Gc] {
                let speaks = then != Verb::Gc || plan.knows_gc();
                if speaks && self.then.is_none_or(|v| v == then) {
                    let fault = None;
                    series.push(Series { verb, then, fault });
                }
            }
        }
        if self.fail || !self.kill {
            // A runtime answers a GC that failed with the next one.
            let then = if verb == Verb::Gc {
                Verb::Gc
            } else {
                Verb::Del
            };
            for fault in Fault::ALL {
                if self.error.is_empty() || self.error.contains(&fault) {
                    let fault = Some(fault);
                    series.push(Series { verb, then, fault });
                }
            }
        }
        series
    }

    fn judge(
        &self,
        plan: &Plan,
        directory: &Path,
        verb: Verb,
        report: &Mutex<Report>,
    ) -> Result<()> {
        for series in self.series(plan, verb) {
            let course = point::undisturbed(plan, directory, verb, series.then)?;
            {
                let mut report = lock(report);
                let key = (plan.plugin.clone(), verb.name().to_owned());
                report.rows.entry(key).or_default().calls = course.ended.calls;
            }
            self.go_through(plan, directory, &series, &course, report)?;
        }
        Ok(())
    }

    fn go_through(
        &self,
        plan: &Plan,
        directory: &Path,
        series: &Series,
        course: &Course,
        report: &Mutex<Report>,
    ) -> Result<()> {
        let expected = match series.fault {
            None => course.ended.calls,
            Some(fault) => course
                .ended
                .may_fail
                .get(&fault)
                .copied()
                .unwrap_or_default(),
        };
        let next = AtomicUsize::new(self.point.unwrap_or(self.every));
        let over = AtomicBool::new(false);
        let work = || -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                let n = next.fetch_add(self.every, Ordering::Relaxed);
                let point = Point {
                    verb: series.verb,
                    then: series.then,
                    at: match series.fault {
                        None => At::Kill(n),
                        Some(fault) => At::Fail(fault, n),
                    },
                };
                self.progress(plan, series, n, expected);
                // What is in the harness's own way (a busy machine) is tried once more.
                let outcome = point::attempt(plan, directory, point, course)
                    .or_else(|_| point::attempt(plan, directory, point, course))
                    .inspect_err(|_| over.store(true, Ordering::Relaxed))
                    .with_context(|| self.repeat(plan, series, n))?;
                // A run may be a few calls shorter than another: the kernel's answers come in one message or in two.
                let ended = outcome.call.is_none() && n >= expected;
                let last = ended || self.point.is_some();
                if last {
                    over.store(true, Ordering::Relaxed);
                }
                self.note(plan, series, n, outcome, report);
                if n > POINTS_AT_MOST {
                    bail!("{} makes no end of system calls", plan.plugin);
                }
            }
            Ok(())
        };
        let jobs = if self.point.is_some() { 1 } else { self.jobs };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                worker.join().unwrap_or_else(|_| Err(anyhow!("panicked")))?;
            }
            Ok(())
        })
    }

    fn note(
        &self,
        plan: &Plan,
        series: &Series,
        n: usize,
        outcome: Outcome,
        report: &Mutex<Report>,
    ) {
        let Some(call) = outcome.call else {
            return;
        };
        let mut report = lock(report);
        let key = (plan.plugin.clone(), series.verb.name().to_owned());
        let row = report.rows.entry(key).or_default();
        match series.fault {
            None => row.points += 1,
            Some(_) => row.faults += 1,
        }
        row.residues += usize::from(!outcome.residues.is_empty());
        row.wrong += usize::from(!outcome.wrong.is_empty());
        let point = match series.fault {
            None => format!("killed after call {n} ({call})"),
            Some(fault) => format!("{} from {call} (point {n})", fault.name()),
        };
        let residues = outcome.residues.into_iter().map(|what| (true, what));
        let wrong = outcome.wrong.into_iter().map(|what| (false, what));
        for (residue, what) in residues.chain(wrong) {
            report.findings.push(Finding {
                plugin: plan.plugin.clone(),
                verb: series.verb.name().to_owned(),
                point: point.clone(),
                residue,
                what,
                repeat: self.repeat(plan, series, n),
            });
        }
    }

    fn repeat(&self, plan: &Plan, series: &Series, n: usize) -> String {
        let how = match series.fault {
            None => format!("--kill --then {}", series.then.name()),
            Some(fault) => format!("--fail --error {}", fault.name()),
        };
        format!(
            "conformance crash --bin-dir {} --plugin {} --verb {} {how} --point {n}",
            self.bin_dir.display(),
            plan.plugin,
            series.verb.name()
        )
    }

    /// On a terminal only.
    fn progress(&self, plan: &Plan, series: &Series, n: usize, expected: usize) {
        if !stderr().is_terminal() {
            return;
        }
        let what = series.fault.map_or("kill", Fault::name);
        let verb = series.verb.name();
        let end = if n >= expected { '\n' } else { '\r' };
        if n <= expected || self.point.is_some() {
            eprint!(
                "\x1b[K{} {verb} {what}: {n} of {expected}{end}",
                plan.plugin
            );
        }
    }
}

fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
