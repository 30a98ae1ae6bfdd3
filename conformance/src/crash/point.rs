//! One point: a plugin that dies or fails there, and what comes after.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::calls::Fault;
use super::plan::{Plan, Verb};
use super::trace::{At, Ended};
use crate::node::Node;
use crate::residue::Moment;

/// What happens, to which verb, and what is called afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) verb: Verb,
    pub(super) at: At,
    /// DEL or GC.
    pub(super) then: Verb,
}

/// What came of a point.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The system call, or none: the run ended before.
    pub(super) call: Option<String>,
    pub(super) residues: Vec<String>,
    pub(super) wrong: Vec<String>,
}

/// What a verb does when nobody interferes.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) ended: Ended,
    /// Lines that are there after `then` in any case, without what is random in them: GC cannot reach into a pod.
    usual: BTreeSet<String>,
    /// And after another ADD and its DEL.
    usual_last: BTreeSet<String>,
}

/// Does something on a thread of its own, for it takes the thread into other namespaces.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let outcome = scope.spawn(work).join();
        outcome.unwrap_or_else(|_| Err(anyhow!("panicked")))
    })
}

/// Watches `verb`; and, on another node, what ADD and `then` leave.
pub(super) fn undisturbed(plan: &Plan, directory: &Path, verb: Verb, then: Verb) -> Result<Course> {
    let ended = apart(|| {
        let _node = plan.node(directory)?;
        let mut prev = None;
        if verb != Verb::Add {
            prev = Some(plainly(plan, Verb::Add, None)?);
        }
        let ended = plan.call(verb, prev.as_ref(), At::Watch)?;
        ensure!(ended.code == Some(0), "{}", said(plan, verb, &ended));
        Ok(ended)
    })?;
    apart(|| {
        let node = plan.node(directory)?;
        let before = Moment::now(&node)?;
        let left = || -> Result<BTreeSet<String>> {
            let left = before.left_over(&Moment::now(&node)?);
            Ok(left.iter().map(|l| steady(l)).collect())
        };
        plainly(plan, Verb::Add, None)?;
        plainly(plan, then, None)?;
        let mut usual = left()?;
        plainly(plan, Verb::Add, None)?;
        plainly(plan, Verb::Del, None)?;
        let usual_last = left()?;
        // What the network shares and keeps (a cursor, a chain) may come with the second ADD only.
        usual.extend(usual_last.iter().cloned());
        Ok(Course {
            ended,
            usual,
            usual_last,
        })
    })
}

fn said(plan: &Plan, verb: Verb, ended: &Ended) -> String {
    format!("{} {}: {}", plan.plugin, verb.name(), text(ended))
}

/// It has to succeed.
fn plainly(plan: &Plan, verb: Verb, prev: Option<&Value>) -> Result<Value> {
    let ended = plan.call(verb, prev, At::Never)?;
    ensure!(ended.code == Some(0), "{}", said(plan, verb, &ended));
    match verb {
        Verb::Add => serde_json::from_str(&ended.stdout).with_context(|| said(plan, verb, &ended)),
        _ => Ok(Value::Null),
    }
}

struct Trial<'t> {
    plan: &'t Plan,
    course: &'t Course,
    node: Node,
    before: Moment,
    outcome: Outcome,
}

/// Tries it.
pub(super) fn attempt(
    plan: &Plan,
    directory: &Path,
    point: Point,
    course: &Course,
) -> Result<Outcome> {
    apart(|| {
        let node = plan.node(directory)?;
        let before = Moment::now(&node)?;
        let mut trial = Trial {
            plan,
            course,
            node,
            before,
            outcome: Outcome::default(),
        };
        trial.run(point)?;
        Ok(trial.outcome)
    })
}

impl Trial<'_> {
    fn run(&mut self, point: Point) -> Result<()> {
        let mut prev = None;
        if point.verb != Verb::Add {
            prev = Some(plainly(self.plan, Verb::Add, None)?);
        }
        let ended = self.plan.call(point.verb, prev.as_ref(), point.at)?;
        self.outcome.call.clone_from(&ended.point);
        if ended.point.is_none() {
            return Ok(());
        }
        if let At::Fail(fault, _) = point.at {
            self.answer(point.verb, fault, &ended);
            let failed_add = point.verb == Verb::Add && ended.code != Some(0);
            let done = [Verb::Del, Verb::Gc].contains(&point.verb) && ended.code == Some(0);
            if failed_add {
                self.nothing_left("after the ADD that failed", &ended)?;
            } else if done {
                self.nothing_left("after a success", &ended)?;
            } else if point.verb == Verb::Check {
                self.succeed(Verb::Check, "CHECK once more", prev.as_ref())?;
            }
        } else if point.verb == Verb::Check {
            // It must not have changed anything.
            self.succeed(Verb::Check, "CHECK once more", prev.as_ref())?;
        }
        let next = point.then.name();
        let last = self.succeed(point.then, &format!("{next} after it"), prev.as_ref())?;
        self.nothing_left(&format!("after {next}"), &last)?;
        let last = self.succeed(Verb::Add, "a fresh ADD", None)?;
        let prev = serde_json::from_str(&last.stdout).ok();
        let last = self.succeed(Verb::Del, "the last DEL", prev.as_ref())?;
        let course = self.course;
        self.nothing_but(&course.usual_last, "after the last DEL", &last)
    }

    /// Success with what belongs to it, or an error object and everything in it.
    fn answer(&mut self, verb: Verb, fault: Fault, ended: &Ended) {
        let stdout = serde_json::from_str::<Value>(&ended.stdout);
        let what = match (ended.code, stdout) {
            _ if ended.late.is_some() => "it did not end in time",
            (None, _) => "ended by a signal",
            (Some(0), Ok(result)) if verb == Verb::Add => {
                if result.get("cniVersion").is_some() {
                    return;
                }
                "ADD succeeded with something that is no result"
            }
            (Some(0), Err(_)) if verb == Verb::Add => "ADD succeeded without a result",
            (Some(0), _) if ended.stdout.is_empty() || verb == Verb::Add => return,
            (Some(0), _) => "it printed something",
            (Some(_), Ok(error)) if is_error(&error) => {
                if fault != Fault::Eintr {
                    return;
                }
                "EINTR is to be tried again"
            }
            (Some(_), Ok(_)) => "what it printed is not an error object with code and msg",
            (Some(_), Err(_)) => "what it printed is not JSON",
        };
        self.outcome.wrong.push(format!("{what}: {}", text(ended)));
    }

    fn succeed(&mut self, verb: Verb, what: &str, prev: Option<&Value>) -> Result<Ended> {
        let ended = self.plan.call(verb, prev, At::Never)?;
        if ended.code != Some(0) {
            let said = text(&ended);
            self.outcome.wrong.push(format!("{what} failed: {said}"));
        }
        Ok(ended)
    }

    fn nothing_left(&mut self, when: &str, last: &Ended) -> Result<()> {
        let course = self.course;
        self.nothing_but(&course.usual, when, last)
    }

    fn nothing_but(&mut self, usual: &BTreeSet<String>, when: &str, last: &Ended) -> Result<()> {
        let now = Moment::now(&self.node)?;
        let usual = |line: &String| !usual.contains(&steady(line));
        let left: Vec<String> = self
            .before
            .left_over(&now)
            .into_iter()
            .filter(usual)
            .collect();
        if !left.is_empty() {
            let mut line = format!("{when}: {}", left.join("; "));
            if last.code != Some(0) || when.contains("success") {
                line += &format!(" [it said: {}]", text(last));
            }
            self.outcome.residues.push(line);
        }
        let gone = self.before.missing(&now);
        if !gone.is_empty() {
            let line = format!("{when}, of what is not its own: {}", gone.join("; "));
            self.outcome.wrong.push(line);
        }
        Ok(())
    }
}

fn is_error(error: &Value) -> bool {
    let code = error.get("code").and_then(Value::as_u64);
    let msg = error.get("msg").and_then(Value::as_str);
    code.is_some_and(|c| c > 0)
        && msg.is_some_and(|m| !m.is_empty())
        && error.get("cniVersion").is_none_or(Value::is_string)
}

fn text(ended: &Ended) -> String {
    let status = match ended.code {
        Some(code) => format!("status {code}"),
        None => match &ended.late {
            Some(doing) => format!("too slow ({doing}), killed"),
            None => "killed".to_owned(),
        },
    };
    let words = [&ended.stdout, &ended.stderr].map(|said| {
        let words: Vec<&str> = said.split_whitespace().collect();
        words.join(" ").chars().take(400).collect::<String>()
    });
    format!("{status} {}", words.join(" ").trim())
}

/// Without MACs, which are random, and the addresses and names made of them.
fn steady(line: &str) -> String {
    let is_mac = |word: &str| word.len() == 17 && word.split(':').all(|p| p.len() == 2);
    let told = line.split(' ').map(|word| {
        if word.starts_with("fe80:") {
            "fe80::*"
        } else if is_mac(word) {
            "MAC"
        } else {
            word
        }
    });
    told.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_is_no_part_of_a_line() {
        assert_eq!(steady("fdb 0a:1b:2c:3d:4e:5f dev cni0"), "fdb MAC dev cni0");
        assert_eq!(steady("addr cni0 fe80::1:2/64"), "addr cni0 fe80::*");
        assert_eq!(steady("addr cni0 fd00::1/64"), "addr cni0 fd00::1/64");
    }

    #[test]
    fn an_error_has_a_code_and_words() {
        let whole = serde_json::json!({"cniVersion": "1.0.0", "code": 5, "msg": "m"});
        assert!(is_error(&whole));
        for key in ["code", "msg"] {
            let mut error = whole.clone();
            error.as_object_mut().unwrap().remove(key);
            assert!(!is_error(&error), "{key}");
        }
    }
}
