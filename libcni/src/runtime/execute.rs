//! One plugin's run, from its name to what it printed; what it said on the side is handed on, and a record is written
//! for those that write none.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::exec::{self, Job, Output};
use super::{PluginFailure, Runtime, RuntimeError};
use crate::kernel::process::Ended;
use crate::plugin::{delegate, suite};
use crate::record::{Foreign, Subject};
use crate::spec::error::{CniError, Code};
use crate::spec::json::{Fields, Node};
use crate::spec::{Verb, Version};

/// What a plugin that succeeded wrote to stderr.
#[derive(Debug, Clone, Copy)]
pub struct PluginLog<'a> {
    /// Its `type`.
    pub plugin: &'a str,
    /// What it did.
    pub verb: Verb,
    /// As it wrote it; the last [`STDERR_BYTES`](exec::STDERR_BYTES).
    pub text: &'a [u8],
}

/// Where such logs go; by default to this process's stderr.
#[derive(Clone, Default)]
pub(super) struct LogSink(Option<Arc<Listener>>);

type Listener = dyn Fn(&PluginLog<'_>) + Send + Sync;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) kind: &'a str,
    pub(super) env: &'a [(&'static str, String)],
    pub(super) stdin: &'a [u8],
    pub(super) deadline: Instant,
    pub(super) verb: Verb,
    /// The plugin's configuration and its network, if it is about any.
    pub(super) of: Option<(&'a Node, &'a str)>,
}

/// One plugin's failure, before its place is known.
pub(super) struct Failure {
    pub(super) error: CniError,
    pub(super) started: bool,
    pub(super) ended: Option<Ended>,
    pub(super) late: bool,
    pub(super) stderr: String,
}

/// Of a plugin that was not started.
impl From<CniError> for Failure {
    fn from(error: CniError) -> Self {
        Self {
            error,
            started: false,
            ended: None,
            late: false,
            stderr: String::new(),
        }
    }
}

impl Runtime {
    /// Finds a plugin and runs it to its end.
    pub(super) fn execute(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        let record = call.record();
        let file = self.find(call.kind);
        // One of ours writes its own.
        let own = matches!((&record, &file), (Some(_), Ok(file)) if suite::is_of_suite(file));
        let mut env: Vec<(&str, &str)> = call.env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let traceparent = record
            .as_ref()
            .filter(|_| !own)
            .and_then(Foreign::traceparent);
        env.extend(traceparent.as_deref().map(|span| ("TRACEPARENT", span)));
        let mut pid = None;
        let outcome = file
            .map_err(Failure::from)
            .and_then(|file| self.attempt(call, file, &env, &mut pid));
        let failure = outcome.as_ref().err();
        // ... unless it did not come to it.
        let silent = |f: &Failure| !f.started || matches!(f.ended, Some(Ended::Signal(_)));
        if let Some(record) = record.filter(|_| !own || failure.is_some_and(silent)) {
            record.end(pid, failure.map_or(Ok(()), |failure| Err(&failure.error)));
        }
        outcome
    }

    fn attempt(
        &self,
        call: &Call<'_>,
        file: PathBuf,
        env: &[(&str, &str)],
        pid: &mut Option<u32>,
    ) -> Result<Vec<u8>, Failure> {
        if Instant::now() >= call.deadline {
            let msg = format!(
                "not begun: the {:?} of the whole chain are over",
                self.timeout
            );
            return Err(CniError::new(Code::TryAgain, msg).into());
        }
        let job = Job {
            file: &file,
            env,
            stdin: call.stdin,
            deadline: call.deadline,
            grace: self.grace,
        };
        let output = exec::run(&job).map_err(|e| Failure {
            started: e.started,
            ..CniError::new(Code::Io, format!("failed to run {}: {e}", file.display())).into()
        })?;
        *pid = Some(output.pid);
        if output.ended == Ended::Exit(0) {
            self.log.take(call, &output);
            return Ok(output.stdout);
        }
        let stderr = output.stderr_tail();
        Err(Failure {
            error: delegate::failure(&file, output.ended, &output.stdout, stderr),
            started: true,
            ended: Some(output.ended),
            late: output.late,
            stderr: String::from_utf8_lossy(stderr).into_owned(),
        })
    }

    /// VERSION of one plugin. One from before that verb speaks 0.1.0.
    pub(super) fn ask_versions(&self, kind: &str) -> Result<Vec<String>, RuntimeError> {
        let dummy = |key: &'static str| (key, "dummy".to_owned());
        let env = [
            ("CNI_COMMAND", Verb::Version.as_str().to_owned()),
            dummy("CNI_NETNS"),
            dummy("CNI_IFNAME"),
            dummy("CNI_PATH"),
        ];
        let stdin = Node::obj()
            .put("cniVersion", Version::CURRENT.as_str())
            .build();
        let deadline = self.deadline();
        let told = self.execute(&Call {
            kind,
            env: &env,
            stdin: stdin.write_compact().as_bytes(),
            deadline,
            verb: Verb::Version,
            of: None,
        });
        let told = match told {
            Err(failure) if failure.error.msg == "unknown CNI_COMMAND: VERSION" => {
                return Ok(vec![Version::V0_1_0.as_str().to_owned()]);
            }
            told => told.and_then(|stdout| Ok(versions(&stdout)?)),
        };
        told.map_err(|failure| {
            RuntimeError::Plugin(Box::new(PluginFailure {
                kind: kind.to_owned(),
                name: None,
                verb: Verb::Version,
                step: 1,
                steps: 1,
                late: failure.late.then_some(self.timeout),
                error: failure.error,
                started: failure.started,
                ended: failure.ended,
                stderr: failure.stderr,
                also: Vec::new(),
                left: Vec::new(),
            }))
        })
    }

    /// The executable of a plugin.
    pub(super) fn find(&self, kind: &str) -> Result<PathBuf, CniError> {
        let dirs = self.plugin_path.iter();
        let dirs: Vec<String> = dirs.map(|dir| dir.to_string_lossy().into_owned()).collect();
        delegate::find(kind, &dirs).map_err(|error| {
            error.with_details("install it there, or correct `type` or the plugin path (CNI_PATH)")
        })
    }

    pub(super) fn plugin_path_text(&self) -> String {
        let dirs = self.plugin_path.iter();
        let dirs: Vec<String> = dirs.map(|dir| dir.to_string_lossy().into_owned()).collect();
        dirs.join(":")
    }
}

/// `supportedVersions` of an answer to VERSION, or its `cniVersion` alone.
fn versions(stdout: &[u8]) -> Result<Vec<String>, CniError> {
    let node = Node::parse(stdout)?;
    let fields = Fields::of(&node, "")?;
    match fields.strings("supportedVersions")? {
        Some(versions) if !versions.is_empty() => Ok(versions),
        _ => Ok(fields.str("cniVersion")?.into_iter().collect()),
    }
}

// === impl Call ===

impl Call<'_> {
    fn record(&self) -> Option<Foreign> {
        let (config, network) = self.of?;
        let var = |name| {
            let mut vars = self.env.iter();
            let found = vars.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let subject = Subject {
            verb: self.verb.as_str().to_owned(),
            container: var("CNI_CONTAINERID"),
            ifname: var("CNI_IFNAME"),
            pid: std::process::id(),
        };
        Foreign::begin(self.kind, config, network, subject)
    }
}

// === impl LogSink ===

impl LogSink {
    pub(super) fn new(sink: impl Fn(&PluginLog<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(sink)))
    }

    fn take(&self, call: &Call<'_>, output: &Output) {
        if output.stderr.is_empty() {
            return;
        }
        match &self.0 {
            Some(sink) => sink(&PluginLog {
                plugin: call.kind,
                verb: call.verb,
                text: &output.stderr,
            }),
            // That nobody reads it is no failure of the plugin.
            None => drop(std::io::stderr().write_all(&output.stderr)),
        }
    }
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "callback"
        } else {
            "stderr"
        })
    }
}
