//! Running the cases: many at once, as they mostly wait for the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::VERSIONS;
use super::case::{Call, Case, Cases, Prev};
use super::declared::{Declared, Ids, explain};
use super::normal::{self, Names};
use super::report::{Report, Wrong};
use super::snapshot::Snapshot;
use super::trace::Trace;
use crate::node::{self, Node};
use crate::suite::exec::{self, End};

/// A call that takes longer is stopped, which is a fact as others. On a busy machine one may well take a minute.
const LIMIT: Duration = Duration::from_secs(180);

/// The two directories of executables.
#[derive(Debug, Clone)]
pub struct Sides {
    /// Whose behaviour is the measure.
    pub reference: PathBuf,
    /// Whose is measured.
    pub ours: PathBuf,
}

/// Runs every case in every version it names, `at_once` at a time, each on both sides.
pub fn compare(cases: &Cases, sides: &Sides, at_once: usize) -> Report {
    let started = Instant::now();
    let jobs: Vec<(&Case, &str)> = cases
        .cases
        .iter()
        .flat_map(|case| case.versions.iter().map(move |v| (case, v.as_str())))
        .collect();
    let next = AtomicUsize::new(0);
    let report = Mutex::new(Report::default());
    let work = || {
        while let Some(&(case, version)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = verdict(cases, case, version, sides);
            let mut report = report.lock().unwrap_or_else(|e| e.into_inner());
            report.runs += 1;
            report.facts += verdict.facts;
            report.wrong.extend(verdict.wrong);
            for id in verdict.used {
                *report.occurred.entry(id).or_default() += 1;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
    let mut report = report.into_inner().unwrap_or_else(|e| e.into_inner());
    report.cases = cases.cases.len();
    let in_all = |case: &&Case| {
        VERSIONS
            .iter()
            .all(|v| case.versions.iter().any(|w| w == v))
    };
    report.in_all_versions = cases.cases.iter().filter(in_all).count();
    report.ids = Ids::of(&cases.definitions, &cases.cases);
    let unseen = Ids::unseen(&cases.definitions, &cases.cases);
    for what in unseen.into_iter().filter(|_| !cases.partial) {
        report.wrong.push(Wrong::Unused {
            case: "anywhere".to_owned(),
            what,
            version: String::new(),
        });
    }
    report.wrong.sort();
    report.took = started.elapsed();
    report
}

#[derive(Default)]
struct Verdict {
    facts: usize,
    used: BTreeSet<String>,
    wrong: Vec<Wrong>,
}

fn verdict(cases: &Cases, case: &Case, version: &str, sides: &Sides) -> Verdict {
    let mut verdict = Verdict::default();
    let (reference, ours) = thread::scope(|scope| {
        let theirs = scope.spawn(|| trace(case, version, &sides.reference));
        let ours = scope.spawn(|| trace(case, version, &sides.ours));
        (joined(theirs.join()), joined(ours.join()))
    });
    let (reference, ours) = match (reference, ours) {
        (Ok(reference), Ok(ours)) => (reference, ours),
        (Err(why), _) | (_, Err(why)) => {
            verdict.wrong.push(Wrong::Broken {
                case: case.name.clone(),
                version: version.to_owned(),
                why: format!("{why:#}"),
            });
            return verdict;
        }
    };
    for (path, theirs, mine) in reference.beside(&ours) {
        verdict.facts += 1;
        if theirs == mine {
            continue;
        }
        let declared = case.declared.iter().chain(&cases.definitions.everywhere);
        match explain(declared, (case, version), (path, theirs, mine)) {
            Ok(ids) => verdict.used.extend(ids.into_iter().map(str::to_owned)),
            Err(rewritten) => verdict.wrong.push(Wrong::Differs {
                case: case.name.clone(),
                path: path.to_owned(),
                reference: rewritten,
                ours: mine.map(str::to_owned),
                version: version.to_owned(),
            }),
        }
    }
    let expected = case.declared.iter().filter(|d| d.applies(case, version));
    for Declared { id, .. } in expected {
        if !verdict.used.contains(id) {
            verdict.wrong.push(Wrong::Unused {
                case: case.name.clone(),
                what: id.clone(),
                version: version.to_owned(),
            });
        }
    }
    verdict
}

fn joined(outcome: thread::Result<Result<Trace>>) -> Result<Trace> {
    outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {:?}", panic.downcast_ref::<String>())))
}

/// One side of a run, on the calling thread, which is of no other use afterwards.
fn trace(case: &Case, version: &str, plugins: &Path) -> Result<Trace> {
    let node = Node::enter(plugins, &case.pods, case.dad)?;
    node.sh(&case.setup)?;
    let mut side = Side {
        case,
        version,
        node,
        names: Names::new(&case.said()),
        results: BTreeMap::new(),
        failed: BTreeSet::new(),
        trace: Trace::default(),
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut calls = case.calls.iter().filter(|c| c.fits(version)).peekable();
    while let Some(call) = calls.next() {
        let count = counts.entry(call.verb.to_lowercase()).or_default();
        *count += 1;
        let label = match count {
            1 => call.verb.to_lowercase(),
            n => format!("{}{n}", call.verb.to_lowercase()),
        };
        side.call(call, &label, calls.peek().is_none())?;
    }
    Ok(side.trace)
}

struct Side<'c> {
    case: &'c Case,
    version: &'c str,
    node: Node,
    names: Names,
    /// By container and interface.
    results: BTreeMap<(String, String), Value>,
    failed: BTreeSet<(String, String)>,
    trace: Trace,
}

impl Side<'_> {
    fn call(&mut self, call: &Call, label: &str, is_last: bool) -> Result<()> {
        let attachment = (call.container.clone(), call.ifname.clone());
        if call.after_success && self.failed.contains(&attachment) {
            return Ok(());
        }
        self.node.sh(&call.before)?;
        if let Some(pod) = self.node.pods().iter().find(|p| p.name == call.pod) {
            self.node.inside(pod, || self.node.sh(&call.in_pod))?;
        }
        let prev = match &call.prev {
            Prev::Given(Value::Null) => None,
            Prev::Given(value) => Some(value),
            Prev::Own if call.verb != "ADD" && self.version >= "0.4.0" => {
                self.results.get(&attachment)
            }
            Prev::Own => None,
        };
        let stdin = self.case.stdin(call, self.version, prev);
        let mut command = Command::new(node::plugin(&self.case.plugin));
        let at = (&*call.container, &*call.pod, &*call.ifname);
        let env = node::environment(&call.verb, at, &call.env);
        let output = exec::run(&mut command, &env, stdin.as_bytes(), LIMIT)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        // A snapshot of the kernel is dearer than the call, so not each call has one: whether those that have no business
        // with the kernel (CHECK, VERSION, an IPAM) kept to that is seen after the last.
        let changes = ["ADD", "DEL"].contains(&call.verb.as_str());
        let snapshot = if is_last || (changes && self.case.plugin != "host-local") {
            let sysctls = is_last || call.verb == "ADD";
            Snapshot::of_all(&self.node, sysctls)?
        } else {
            Snapshot::of_files()?
        };
        let links = snapshot.links();
        self.names.learn(&links);
        let exit = match output.end {
            End::Exit(code) => code.to_string(),
            end => format!("{end:?}"),
        };
        self.trace.put(format!("{label}/exit"), exit);
        let parsed = serde_json::from_str::<Value>(&stdout);
        if output.is_success() {
            self.trace
                .put(format!("{label}/stdout"), self.names.text(&stdout));
            // With no verb at all, what is printed for people is the interface.
            if stdout.is_empty() && call.env.contains_key("CNI_COMMAND") {
                let text = String::from_utf8_lossy(&output.stderr);
                self.trace.put(format!("{label}/stderr"), text);
            }
            if let (Ok(result), "ADD") = (parsed, call.verb.as_str()) {
                let macs = normal::macs(&result, &links, &self.names);
                self.trace.put(format!("{label}/macs"), macs);
                self.failed.remove(&attachment);
                self.results.insert(attachment, result);
            }
        } else {
            if call.verb == "ADD" {
                self.failed.insert(attachment);
            }
            self.tell_error(label, &stdout, parsed.ok());
        }
        snapshot.tell(label, &self.names, &mut self.trace);
        Ok(())
    }

    /// Code, message and details each by itself, and whatever else is printed.
    fn tell_error(&mut self, label: &str, stdout: &str, error: Option<Value>) {
        let Some(Value::Object(mut error)) = error else {
            self.trace
                .put(format!("{label}/stdout"), self.names.text(stdout));
            return;
        };
        for key in ["code", "msg", "details"] {
            let text = match error.remove(key) {
                None => continue,
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
            };
            self.trace
                .put(format!("{label}/error/{key}"), self.names.text(&text));
        }
        if !error.is_empty() {
            self.trace.put(
                format!("{label}/error/more"),
                Value::Object(error).to_string(),
            );
        }
    }
}
