//! What a refusal must look like.

use serde_json::Value;
use testkit::{Call, Output, Pod};

use crate::node::{Node, State};

/// A node with one pod, and what went wrong on it. All cases of a test are tried before it fails.
pub struct Ground {
    pub node: Node,
    pub pod: Pod,
    wrong: Vec<String>,
}

/// An error's code (several, where it is a matter of taste), words of the whole text, and words of the details, where a
/// remedy is asked for.
pub struct Want {
    pub codes: &'static [u64],
    pub msg: &'static str,
    pub details: &'static str,
}

pub fn want(codes: &'static [u64], msg: &'static str, details: &'static str) -> Want {
    Want {
        codes,
        msg,
        details,
    }
}

// === impl Ground ===

impl Ground {
    pub fn new() -> Self {
        let node = Node::new("n");
        node.host
            .sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        Self {
            node,
            pod: Pod::new("pod"),
            wrong: Vec::new(),
        }
    }

    /// `bridge`, for the pod.
    pub fn call(&self, verb: &str, conf: &Value) -> Call {
        self.node.call(verb, "c", self.pod.netns(), conf)
    }

    #[track_caller]
    pub fn add(&self, conf: &Value) -> Value {
        self.node.ok(&self.call("ADD", conf))
    }

    #[track_caller]
    pub fn del(&self, conf: &Value) {
        self.node.ok(&self.call("DEL", conf));
    }

    pub fn wrong(&mut self, case: &str, what: impl std::fmt::Display) {
        self.wrong.push(format!("{case}: {what}"));
    }

    /// It fails like that, and nothing has changed. Returns what it said.
    pub fn refused(&mut self, case: &str, call: &Call, want: &Want) -> String {
        let before = self.state();
        let out = self.node.run(call);
        if let Err(what) = refusal(&out, want) {
            self.wrong(case, what);
        }
        self.unchanged(case, &before);
        out.stdout
    }

    /// It succeeds.
    pub fn granted(&mut self, case: &str, call: &Call) {
        let out = self.node.run(call);
        if !out.status.success() {
            self.wrong(case, format!("fails: {}", out.stdout));
        }
    }

    /// With the names of all links in the pod.
    pub fn state(&self) -> (State, String) {
        (self.node.state(), self.pod.sh("ip -br link"))
    }

    pub fn unchanged(&mut self, case: &str, before: &(State, String)) {
        let now = self.state();
        if let Err(what) = before.0.same(&now.0) {
            self.wrong(case, what);
        }
        if before.1 != now.1 {
            self.wrong(
                case,
                format!("in the pod: {:?} became {:?}", before.1, now.1),
            );
        }
    }

    /// Nothing of any pod is left.
    pub fn clean(&mut self, case: &str) {
        if let Err(what) = self.node.state().is_clean() {
            self.wrong(case, what);
        }
    }

    /// Another pod of that network comes and goes.
    pub fn next_works(&mut self, case: &str, conf: &Value) {
        if let Err(what) = self.node.works(conf) {
            self.wrong(case, what);
        }
    }

    pub fn finish(self) {
        assert!(self.wrong.is_empty(), "\n{}", self.wrong.join("\n"));
    }
}

/// Exit status 1 and an error object of that kind.
pub fn refusal(out: &Output, want: &Want) -> Result<(), String> {
    let Ok(error) = serde_json::from_str::<Value>(&out.stdout) else {
        return Err(format!("no JSON: {out:?}"));
    };
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_lowercase();
    let (msg, details) = (text("msg"), text("details"));
    let words =
        |words: &str, text: &str| words.split(' ').all(|w| text.contains(&w.to_lowercase()));
    if out.status.code() != Some(1) {
        return Err(format!("{}: {error}", out.status));
    }
    if !error["code"]
        .as_u64()
        .is_some_and(|code| want.codes.contains(&code))
    {
        return Err(format!("code, not {:?}: {error}", want.codes));
    }
    let whole = format!("{msg} {details}");
    if msg.is_empty() || !words(want.msg, &whole) {
        return Err(format!("message without {:?}: {error}", want.msg));
    }
    if !want.details.is_empty() && (details.is_empty() || !words(want.details, &details)) {
        return Err(format!("details without {:?}: {error}", want.details));
    }
    Ok(())
}
