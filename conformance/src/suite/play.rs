//! One run of a case: its node, its calls, what must hold, its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::exec::{self, Output};
use super::expect::{Expect, Outcome, shape};
use super::input::Stdin;
use super::leftover::left;
use super::matching::{differences, says};
use super::steps::{Call, Hold, Prev, Steps};
use crate::node::{self, Node};
use crate::residue::Moment;

/// What came of it. An empty list is a pass.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// The case's own assertion.
    pub wrong: Vec<String>,
    /// Of the results' shape; none where no ADD succeeded.
    pub shape: Option<Vec<String>>,
    /// An ADD failed.
    pub refused: bool,
    /// What was left; none where the case failed, so that it says nothing.
    pub residue: Option<Vec<String>>,
}

/// One variable may have 128 KiB.
const LONGEST_RESULT: usize = 100_000;

/// A container's interface.
type Attachment = (String, String);

struct Play<'c> {
    steps: &'c Steps,
    version: &'c str,
    /// How long a call may take.
    limit: Duration,
    node: Node,
    /// The last result of each.
    results: BTreeMap<Attachment, Value>,
    /// What the last successful ADD printed.
    last: String,
    /// Attached by this plugin's call, and not yet detached by it.
    open: Vec<Call>,
    /// An ADD that failed, and no later DEL that did not.
    failed: Vec<Call>,
    played: Played,
}

/// Runs it on the calling thread, which is of no other use afterwards.
///
/// # Errors
/// The case itself cannot be run.
pub fn play(steps: &Steps, version: &str, bin_dir: &Path, limit: Duration) -> Result<Played> {
    let node = Node::enter(bin_dir, &steps.pods, steps.dad)?;
    let _end = KillsTheRest;
    script(&steps.setup, "").context("setup")?;
    let before = Moment::now(&node)?;
    let mut play = Play {
        steps,
        version,
        limit,
        node,
        results: BTreeMap::new(),
        last: String::new(),
        open: Vec::new(),
        failed: Vec::new(),
        played: Played::default(),
    };
    let mut calls = steps.calls.as_slice();
    let mut number = 0;
    while let Some((first, rest)) = calls.split_first() {
        let beside = rest.iter().take_while(|c| c.beside).count();
        let (batch, rest) = calls.split_at(beside + 1);
        calls = rest;
        number += 1;
        let step = format!("call {number} ({})", first.title());
        play.batch(batch).with_context(|| step.clone())?;
        number += beside;
        if !play.played.wrong.is_empty() {
            for why in &mut play.played.wrong {
                *why = format!("{step}: {why}");
            }
            break;
        }
    }
    play.close()?;
    if let Some(wrong) = &mut play.played.residue {
        wrong.extend(left(&before, &Moment::now(&play.node)?, steps));
    }
    Ok(play.played)
}

impl Play<'_> {
    /// Calls that are made at once, or one call, be it `times`.
    fn batch(&mut self, batch: &[Call]) -> Result<()> {
        let mut at_once = batch.len() > 1;
        let mut all = Vec::new();
        for call in batch {
            script(&call.before, &self.last).context("before")?;
            at_once |= call.at_once;
            for n in 0..call.times {
                all.push((call, call.numbered(n)));
            }
        }
        let pods: BTreeSet<&str> = all.iter().map(|(_, c)| c.pod.as_str()).collect();
        for call in batch.iter().filter(|c| !c.in_pod.is_empty()) {
            for pod in self
                .node
                .pods()
                .iter()
                .filter(|p| pods.contains(p.name.as_str()))
            {
                self.node
                    .inside(pod, || script(&call.in_pod, &self.last))
                    .context("in_pod")?;
            }
        }
        let mut outputs = Vec::new();
        if at_once {
            let mut ready = Vec::new();
            for (_, call) in &all {
                ready.push((call, self.input(call)));
            }
            let frame = (self.version, self.limit);
            thread::scope(|scope| {
                let make =
                    |(call, input): (_, String)| scope.spawn(move || make(call, &input, frame));
                let running: Vec<_> = ready.into_iter().map(make).collect();
                for one in running {
                    let output = one
                        .join()
                        .unwrap_or_else(|_| Err(anyhow!("a thread panicked")));
                    outputs.push(output);
                }
            });
        }
        let mut outputs = outputs.into_iter();
        let mut done = Vec::new();
        for (number, (of, call)) in all.iter().enumerate() {
            let output = match outputs.next() {
                Some(output) => output?,
                None => make(call, &self.input(call), (self.version, self.limit))?,
            };
            let which = match all.len() {
                1 => String::new(),
                _ => format!("{} of them ({}): ", number + 1, call.title()),
            };
            for why in of.expect.judge(&call.verb, &output)? {
                self.played.wrong.push(format!("{which}{why}"));
            }
            self.note(call, &output);
            done.push((*of, output));
        }
        for call in batch {
            let outputs: Vec<&Output> = done
                .iter()
                .filter(|(of, _)| std::ptr::eq(*of, call))
                .map(|(_, output)| output)
                .collect();
            self.played.wrong.extend(of_all(call, &outputs));
        }
        if !self.played.wrong.is_empty() {
            return Ok(());
        }
        let mut held = BTreeSet::new();
        for (_, call) in &all {
            for (i, hold) in call.holds.iter().enumerate() {
                // Without {n} it is the same each time.
                if held.insert((hold.place.clone(), hold.sh.clone(), i)) {
                    self.hold(hold)?;
                }
            }
        }
        Ok(())
    }

    fn input(&self, call: &Call) -> String {
        let attachment = (call.container.clone(), call.ifname.clone());
        let last = self.results.get(&attachment);
        let prev = match &call.prev {
            Prev::Given(Value::Null) => None,
            Prev::Given(value) => Some(value),
            Prev::Chain => last,
            Prev::Usual if ["CHECK", "DEL"].contains(&call.verb.as_str()) => {
                last.filter(|_| call.version(self.version) >= "0.4.0")
            }
            Prev::Usual => None,
        };
        call.input(prev)
    }

    /// What a call means for those after it.
    fn note(&mut self, call: &Call, output: &Output) {
        let is_other = |open: &Call| {
            (&open.plugin, &open.container, &open.ifname)
                != (&call.plugin, &call.container, &call.ifname)
        };
        match (call.verb.as_str(), output.is_success()) {
            ("ADD", true) => {
                self.failed.retain(is_other);
                self.open.retain(is_other);
                self.open.push(call.clone());
                self.last = output.text().into_owned();
                // As a variable it would be too long, or none.
                if self.last.len() > LONGEST_RESULT || self.last.contains('\0') {
                    self.last.clear();
                }
                if let Some(result) = output.json() {
                    let wrong = shape(&result, call.version(self.version));
                    let all = self.played.shape.get_or_insert_default();
                    let told = wrong.iter().map(|w| format!("{}: {w}", call.title()));
                    all.extend(told);
                    let attachment = (call.container.clone(), call.ifname.clone());
                    self.results.insert(attachment, result);
                }
            }
            ("ADD", false) => {
                self.played.refused = true;
                if self.open.iter().all(is_other) {
                    self.failed.retain(is_other);
                    self.failed.push(call.clone());
                }
            }
            ("DEL", true) => {
                self.open.retain(is_other);
                self.failed.retain(is_other);
            }
            _ => {}
        }
    }

    fn hold(&mut self, hold: &Hold) -> Result<()> {
        let place = match hold.place.as_str() {
            "" => "the node",
            pod => pod,
        };
        let result = [("RESULT", self.last.as_str())];
        let output = match hold.place.as_str() {
            "" => exec::sh(&hold.sh, &result)?,
            name => {
                let pod = self.node.pods().iter().find(|p| p.name == name);
                let pod = pod.with_context(|| format!("holds: there is no pod {name}"))?;
                self.node.inside(pod, || exec::sh(&hold.sh, &result))?
            }
        };
        let what = format!("in {place}, `{}`", hold.sh);
        if output.is_success() != hold.ok {
            let how = if hold.ok { "fails" } else { "succeeds" };
            let why = format!("{what} {how}{}{}", output.printed(), output.tail());
            self.played.wrong.push(why);
            return Ok(());
        }
        if let Some(want) = &hold.says
            && !says(want, &output.text())?
        {
            let why = format!("{what} does not say {want:?}{}", output.printed());
            self.played.wrong.push(why);
        }
        if hold.json.is_empty() {
            return Ok(());
        }
        let Some(got) = output.json() else {
            let why = format!("{what} prints no JSON{}", output.printed());
            self.played.wrong.push(why);
            return Ok(());
        };
        for (pointer, want) in &hold.json {
            match got.pointer(pointer) {
                Some(got) => {
                    for why in differences(want, got)? {
                        let why = format!("{what} at {pointer}: {why}");
                        self.played.wrong.push(why);
                    }
                }
                None => {
                    let why = format!("{what} has nothing at {pointer}{}", output.printed());
                    self.played.wrong.push(why);
                }
            }
        }
        Ok(())
    }

    /// The DELs that are still due, the last attached first.
    fn close(&mut self) -> Result<()> {
        let mut wrong = Vec::new();
        let failed = match self.steps.undone {
            true => Vec::new(),
            false => std::mem::take(&mut self.failed),
        };
        let open = std::mem::take(&mut self.open);
        let due = failed.into_iter().map(|call| (call, false));
        let due = due.chain(open.into_iter().rev().map(|call| (call, true)));
        for (call, is_judged) in due {
            let call = closing(call);
            let output = make(&call, &self.input(&call), (self.version, self.limit))?;
            let judged = call.expect.judge("DEL", &output)?;
            for why in judged.iter().filter(|_| is_judged) {
                wrong.push(format!("the closing {}: {why}", call.title()));
            }
        }
        if self.played.wrong.is_empty() {
            self.played.residue = Some(wrong);
        }
        Ok(())
    }
}

/// The DEL that undoes an ADD.
pub fn closing(add: Call) -> Call {
    let mut env = add.env;
    env.remove("CNI_COMMAND");
    Call {
        verb: "DEL".to_owned(),
        env,
        prev: Prev::Usual,
        expect: Expect::default(),
        holds: Vec::new(),
        ..add
    }
}

/// What `times` calls must have in common, or must not.
fn of_all(call: &Call, outputs: &[&Output]) -> Vec<String> {
    let mut wrong = Vec::new();
    let succeeded: Vec<&&Output> = outputs.iter().filter(|o| o.is_success()).collect();
    if let Some(want) = call.expect.successes
        && call.expect.outcome != Outcome::Either
        && succeeded.len() != want
    {
        let of = outputs.len();
        let failed = outputs.iter().find(|o| !o.is_success());
        let why = failed.map(|o| o.printed() + &o.tail()).unwrap_or_default();
        wrong.push(format!(
            "{} of {of} succeeded, not {want}{why}",
            succeeded.len()
        ));
    }
    for pointer in &call.expect.distinct {
        let mut seen = BTreeSet::new();
        for output in &succeeded {
            let json = output.json().unwrap_or_default();
            match json.pointer(pointer) {
                Some(value) if seen.insert(value.to_string()) => {}
                Some(value) => wrong.push(format!("two have {value} at {pointer}")),
                None => wrong.push(format!("there is nothing at {pointer}{}", output.printed())),
            }
        }
    }
    wrong
}

/// Calls the plugin.
fn make(call: &Call, input: &str, (version, limit): (&str, Duration)) -> Result<Output> {
    let made = match &call.stdin {
        Stdin::Script(_, script) => {
            let output = exec::sh(script, &[("CONFIG", input), ("VERSION", version)])?;
            ensure!(output.is_success(), "stdin_sh fails{}", output.tail());
            Some(output.stdout)
        }
        _ => None,
    };
    let stdin = made.as_deref().unwrap_or(input.as_bytes());
    exec::run(
        &mut Command::new(node::plugin(&call.plugin)),
        &call.environment(),
        stdin,
        limit,
    )
}

/// Shell of the case, which has to succeed.
fn script(script: &str, last: &str) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    let output = exec::sh(script, &[("RESULT", last)])?;
    ensure!(
        output.is_success(),
        "`{script}` fails{}{}",
        output.printed(),
        output.tail()
    );
    Ok(())
}

/// Ends whatever a plugin or a script left running: it is in the run's mount namespace or in the network namespace of the
/// node or a pod, and nobody else is.
pub struct KillsTheRest;

impl Drop for KillsTheRest {
    fn drop(&mut self) {
        let mounts = fs::read_link("/proc/thread-self/ns/mnt").ok();
        let mut nets = Vec::from_iter(fs::read_link("/proc/thread-self/ns/net").ok());
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            if let Ok(status) = fs::metadata(entry.path()) {
                nets.push(format!("net:[{}]", status.ino()).into());
            }
        }
        let me = std::process::id().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<i32>() else {
                continue;
            };
            let of = |kind: &str| fs::read_link(entry.path().join("ns").join(kind)).ok();
            let is_in = of("mnt").is_some_and(|ns| mounts.as_ref() == Some(&ns))
                || of("net").is_some_and(|ns| nets.contains(&ns));
            if name != me && is_in {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}
