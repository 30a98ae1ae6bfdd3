//! A process that dies, or a system call that fails, at every single point of ADD and of DEL.
//!
//! `FAULTS_EVERY=1` tries all points; otherwise each [`SAMPLE`]-th, another set of them in each run.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use testkit::{Pod, bin_dir, in_netns};

use crate::node::{Node, State};

/// Most of a point is waiting: for RCU when a veth goes, for a port to forward.
const AT_ONCE: usize = 8;
/// How many points make one try, unless all are asked for.
const SAMPLE: usize = 8;

/// The `nth` system call of this name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    name: String,
    nth: usize,
}

/// What happens there instead.
#[derive(Debug, Clone)]
enum Fault {
    Kill,
    Error(&'static str),
}

/// What came of all points.
#[derive(Debug, Default)]
struct Tally {
    tried: AtomicUsize,
    failed: AtomicUsize,
    residues: Mutex<BTreeMap<String, usize>>,
    wrong: Mutex<Vec<String>>,
}

/// A node, a pod, a configuration.
struct Bench {
    node: Node,
    pod: Pod,
    conf: Value,
    /// Another pod of the network: what is shared stands already.
    neighbour: Option<Pod>,
}

impl Fault {
    fn inject(&self, at: &Point) -> String {
        let what = match self {
            Self::Kill => "signal=KILL".to_owned(),
            Self::Error(errno) => format!("error={errno}"),
        };
        format!("inject={}:{what}:when={}", at.name, at.nth)
    }
}

impl Bench {
    fn new(name: &str, crowded: bool) -> Self {
        let node = Node::new(name);
        let pod = Pod::new(&format!("{name}-pod"));
        // Without the search for duplicates that the kernel makes for a link-local address of its own.
        node.host
            .sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        let conf = node.conf(json!({}));
        let neighbour = crowded.then(|| {
            let pod = Pod::new(&format!("{name}-other"));
            node.ok(&node.call("ADD", "other", pod.netns(), &conf));
            pod
        });
        let bench = Self {
            node,
            pod,
            conf,
            neighbour,
        };
        bench.plain("ADD");
        bench.plain("DEL");
        bench
    }

    fn call(&self, verb: &str) -> Output {
        let call = self.node.call(verb, "c", self.pod.netns(), &self.conf);
        let child = self.node.spawn(call.command(), &self.conf.to_string());
        child.wait_with_output().unwrap()
    }

    fn plain(&self, verb: &str) {
        let out = self.call(verb);
        assert!(out.status.success(), "{verb}: {}", text(&out));
    }

    fn traced(&self, verb: &str, args: &[&str]) -> Output {
        let plain = self
            .node
            .call(verb, "c", self.pod.netns(), &self.conf)
            .command();
        let mut traced = Command::new("strace");
        traced.env_clear();
        traced.envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
        traced
            .args(["-f", "-qq", "-s", "0"])
            .args(args)
            .arg(bin_dir().join("bridge"));
        traced
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.node.spawn(traced, &self.conf.to_string());
        child.wait_with_output().unwrap()
    }

    /// The system calls of a verb from its first look at the environment of its own on: not the loader's.
    fn points(&self, verb: &str) -> Vec<Point> {
        let log = self.node.dir.join("strace");
        let out = self.traced(verb, &["-o", log.to_str().unwrap()]);
        assert!(out.status.success(), "{}", text(&out));
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut points = Vec::new();
        let mut started = false;
        for line in fs::read_to_string(log).unwrap().lines() {
            // "1234 openat(...". A line that resumes a call is not one.
            let Some((name, rest)) = line
                .split_once(' ')
                .and_then(|(_, l)| l.trim_start().split_once('('))
            else {
                continue;
            };
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                continue;
            }
            let nth = seen.entry(name.to_owned()).or_default();
            *nth += 1;
            started |= name == "rt_sigaction" && rest.contains("SIGTERM");
            if started {
                points.push(Point {
                    name: name.to_owned(),
                    nth: *nth,
                });
            }
        }
        points
    }

    /// ADD with that fault, then what a runtime does: DEL; then the next try, and its DEL.
    fn add_at(&self, at: &Point, fault: &Fault, tally: &Tally) -> Result<(), String> {
        let before = self.node.state();
        let out = self.traced("ADD", &["-o", "/dev/null", "-e", &fault.inject(at)]);
        tally.tried.fetch_add(1, Ordering::Relaxed);
        let mut complaints = Vec::new();
        if !out.status.success() {
            tally.failed.fetch_add(1, Ordering::Relaxed);
            if let Fault::Error(_) = fault {
                complaints.extend(wrong_answer(&out));
            }
            if let Err(residue) = before.same(&self.node.state()) {
                tally.count(&residue);
                if let Fault::Error(_) = fault {
                    complaints.push(format!("a failed ADD left: {residue} ({})", text(&out)));
                }
            }
        } else if serde_json::from_slice::<Value>(&out.stdout).is_err() {
            complaints.push(format!("no result: {}", text(&out)));
        }
        complaints.extend(self.ends_well(before, false));
        none(complaints)
    }

    /// DEL with that fault, then DEL again, and the next pod.
    fn del_at(&self, at: &Point, fault: &Fault, tally: &Tally) -> Result<(), String> {
        let before = self.node.state();
        let mut complaints = Vec::new();
        let added = self.call("ADD");
        if !added.status.success() {
            complaints.push(format!("ADD: {}", text(&added)));
        }
        let out = self.traced("DEL", &["-o", "/dev/null", "-e", &fault.inject(at)]);
        tally.tried.fetch_add(1, Ordering::Relaxed);
        if out.status.success() {
            let left = before
                .clone()
                .without_trifles()
                .same(&self.node.state().without_trifles());
            complaints.extend(left.err().map(|e| format!("a DEL that succeeded: {e}")));
        } else {
            tally.failed.fetch_add(1, Ordering::Relaxed);
            if let Fault::Error(_) = fault {
                complaints.extend(wrong_answer(&out));
            }
            if let Err(residue) = before.same(&self.node.state()) {
                tally.count(&residue);
            }
        }
        let after_error = matches!(fault, Fault::Error(_));
        complaints.extend(self.ends_well(before, after_error));
        none(complaints)
    }

    /// DEL leaves nothing; but for neighbours, where a DEL before it failed to forget them.
    fn ends_well(&self, mut before: State, neighbours_left: bool) -> Vec<String> {
        let mut complaints = Vec::new();
        if neighbours_left {
            before.neighbours = self.node.state().neighbours;
        }
        for verb in ["DEL", "ADD", "DEL"] {
            let out = self.call(verb);
            if !out.status.success() {
                complaints.push(format!("{verb} after it: {}", text(&out)));
            }
            if verb == "DEL"
                && let Err(residue) = before.same(&self.node.state())
            {
                complaints.push(format!("DEL after it left: {residue}"));
            }
        }
        complaints
    }
}

impl Tally {
    /// By kind: which things, not which addresses.
    fn count(&self, residue: &str) {
        let kinds: BTreeSet<&str> = residue
            .split("\n      ")
            .map(|r| match r.split_once(": ") {
                // Which table, or which chain.
                Some((what @ ("rule left" | "rule lost"), rest)) => {
                    &r[..what.len() + 2 + rest.find(" / ").unwrap_or(rest.len())]
                }
                Some((what, _)) => what,
                None => r,
            })
            .collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        *self
            .residues
            .lock()
            .unwrap()
            .entry(kinds.join(", "))
            .or_default() += 1;
    }
}

fn none(complaints: Vec<String>) -> Result<(), String> {
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(complaints.join("\n    "))
    }
}

/// An error object with everything an error must have, unless it was stdout itself that failed.
fn wrong_answer(out: &Output) -> Option<String> {
    let stderr = String::from_utf8_lossy(&out.stderr);
    if out.stdout.is_empty() && stderr.contains("cannot write to stdout") {
        return None;
    }
    let Ok(error) = serde_json::from_slice::<Value>(&out.stdout) else {
        return Some(format!("no JSON: {}", text(out)));
    };
    let whole = error["code"].as_u64().is_some_and(|code| code > 0)
        && error["msg"].as_str().is_some_and(|msg| msg.len() > 5);
    (out.status.code() != Some(1) || !whole).then(|| format!("bad error: {}", text(out)))
}

fn text(out: &Output) -> String {
    format!(
        "{} {} {}",
        out.status,
        String::from_utf8_lossy(&out.stdout).replace('\n', " "),
        String::from_utf8_lossy(&out.stderr).trim_end()
    )
}

/// Every point, or a sample of them that differs from run to run.
fn chosen<T>(all: Vec<T>) -> Vec<T> {
    if env::var("FAULTS_EVERY").is_ok() {
        return all;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let offset = usize::try_from(now.as_secs()).unwrap() % SAMPLE;
    all.into_iter().skip(offset).step_by(SAMPLE).collect()
}

/// Tries them all, several nodes at a time.
fn each(verb: &str, crowded: bool, faults: impl Fn(Vec<Point>) -> Vec<(Point, Fault)> + Sync) {
    let began = Instant::now();
    let tally = Tally::default();
    let first = Bench::new("n", crowded);
    if verb == "DEL" {
        first.plain("ADD");
    }
    let points = first.points(verb);
    if verb == "ADD" {
        first.plain("DEL");
    }
    assert!(points.len() > 40, "{points:?}");
    let tries = chosen(faults(points.clone()));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let (tries, next, tally) = (&tries, &next, &tally);
            scope.spawn(move || {
                let bench = Bench::new(&format!("n{worker}"), crowded);
                while let Some((point, fault)) = tries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = match verb {
                        "ADD" => bench.add_at(point, fault, tally),
                        _ => bench.del_at(point, fault, tally),
                    };
                    if let Err(what) = outcome {
                        let what = format!("{verb}, {}: {what}", fault.inject(point));
                        tally.wrong.lock().unwrap().push(what);
                    }
                }
                drop(bench.neighbour);
            });
        }
    });
    let wrong = tally.wrong.into_inner().unwrap();
    eprintln!(
        "{verb}{}: {} system calls, {} points tried, {} failed, {} wrong, {:.1} s; left before DEL: {:#?}",
        if crowded { " beside another pod" } else { "" },
        points.len(),
        tally.tried.into_inner(),
        tally.failed.into_inner(),
        wrong.len(),
        began.elapsed().as_secs_f64(),
        tally.residues.into_inner().unwrap(),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn killed(points: Vec<Point>) -> Vec<(Point, Fault)> {
    points.into_iter().map(|p| (p, Fault::Kill)).collect()
}

/// The system calls through which the kernel or a disk says no.
fn failing(points: Vec<Point>) -> Vec<(Point, Fault)> {
    const CALLS: [&str; 14] = [
        "openat",
        "write",
        "pwrite64",
        "linkat",
        "renameat2",
        "rename",
        "renameat",
        "sendto",
        "recvfrom",
        "sendmsg",
        "recvmsg",
        "socket",
        "setns",
        "unlinkat",
    ];
    let points = points
        .into_iter()
        .filter(|p| CALLS.contains(&p.name.as_str()));
    let errors = ["ENOSPC", "EIO", "ENOMEM"];
    points
        .flat_map(|p| errors.map(|errno| (p.clone(), Fault::Error(errno))))
        .collect()
}

#[test]
fn first_add_killed_at_every_system_call() {
    in_netns(|| each("ADD", false, killed));
}

#[test]
fn add_killed_at_every_system_call() {
    in_netns(|| each("ADD", true, killed));
}

#[test]
fn last_del_killed_at_every_system_call() {
    in_netns(|| each("DEL", false, killed));
}

#[test]
fn del_killed_at_every_system_call() {
    in_netns(|| each("DEL", true, killed));
}

#[test]
fn every_system_call_of_the_first_add_fails() {
    in_netns(|| each("ADD", false, failing));
}

#[test]
fn every_system_call_of_add_fails() {
    in_netns(|| each("ADD", true, failing));
}

#[test]
fn every_system_call_of_the_last_del_fails() {
    in_netns(|| each("DEL", false, failing));
}
