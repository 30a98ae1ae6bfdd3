//! One verb over a chain of plugins, and each plugin's part of it.

use std::path::PathBuf;
use std::time::Instant;

use super::exec::{self, Job};
use super::list::{NetworkList, PluginConf};
use super::request::{Extra, request};
use super::{Attach, PluginFailure, Runtime, RuntimeError};
use crate::kernel::process::Ended;
use crate::plugin::delegate;
use crate::spec::error::{CniError, Code};
use crate::spec::json::{Fields, Node};
use crate::spec::{CniResult, Verb, Version};

/// A verb under way: it has one deadline, whatever number of plugins it runs.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    runtime: &'a Runtime,
    list: &'a NetworkList,
    verb: Verb,
    /// `CNI_*` of the attachment; empty for the verbs that are about none.
    env: Vec<(&'static str, String)>,
    deadline: Instant,
}

impl<'a> Pass<'a> {
    /// Starts the clock.
    pub(super) fn new(
        runtime: &'a Runtime,
        list: &'a NetworkList,
        verb: Verb,
        at: Option<&Attach>,
    ) -> Self {
        let of = |field: fn(&Attach) -> &str| at.map(field).unwrap_or_default().to_owned();
        let args = at.map(|at| args_text(&at.args)).unwrap_or_default();
        Self {
            runtime,
            list,
            verb,
            env: vec![
                ("CNI_COMMAND", verb.as_str().to_owned()),
                ("CNI_CONTAINERID", of(|at| &at.container_id)),
                ("CNI_NETNS", of(|at| &at.netns)),
                ("CNI_IFNAME", of(|at| &at.ifname)),
                ("CNI_ARGS", args),
                ("CNI_PATH", runtime.plugin_path_text()),
            ],
            deadline: runtime.deadline(),
        }
    }

    /// ADD from the first plugin to the last: the final result, in the list's version.
    pub(super) fn add(&self, capability_args: &Node) -> Result<Node, Box<Failed>> {
        let mut prev = None;
        for (i, plugin) in self.list.plugins.iter().enumerate() {
            let extra = Extra::Attachment {
                prev: prev.as_ref(),
                capability_args,
            };
            let answer = self
                .run(i, plugin, extra)
                .and_then(|stdout| self.result(i, plugin, &stdout));
            match answer {
                Ok(result) => prev = Some(result),
                Err(error) => {
                    let started = error.failure().is_some_and(|failure| failure.started);
                    return Err(Box::new(Failed {
                        ran: i + usize::from(started),
                        prev,
                        error,
                    }));
                }
            }
        }
        // A chain is never empty; a result of nothing is what one would answer.
        Ok(prev.unwrap_or(Node::Null))
    }

    /// DEL of the first `left` plugins, from the last of them to the first. On failure also how many are left, the
    /// failing one included.
    pub(super) fn del(
        &self,
        left: usize,
        prev: Option<&Node>,
        capability_args: &Node,
    ) -> Result<(), (usize, RuntimeError)> {
        let extra = Extra::Attachment {
            prev,
            capability_args,
        };
        for (i, plugin) in self.list.plugins.iter().enumerate().take(left).rev() {
            self.run(i, plugin, extra).map_err(|error| (i + 1, error))?;
        }
        Ok(())
    }

    /// CHECK and STATUS: forward, to the first failure.
    pub(super) fn ask(&self, extra: Extra<'_>) -> Result<(), RuntimeError> {
        for (i, plugin) in self.list.plugins.iter().enumerate() {
            self.run(i, plugin, extra)?;
        }
        Ok(())
    }

    /// GC: forward, past every failure.
    pub(super) fn all(&self, extra: Extra<'_>) -> Vec<RuntimeError> {
        let plugins = self.list.plugins.iter().enumerate();
        plugins
            .filter_map(|(i, plugin)| self.run(i, plugin, extra).err())
            .collect()
    }

    /// That the executable of every plugin is there, before any is run.
    pub(super) fn find_all(&self) -> Result<(), RuntimeError> {
        for (i, plugin) in self.list.plugins.iter().enumerate() {
            let found = self.runtime.find(&plugin.kind);
            found.map_err(|error| self.placed(i, plugin, error.into()))?;
        }
        Ok(())
    }

    /// One plugin; what it printed.
    fn run(
        &self,
        index: usize,
        plugin: &PluginConf,
        extra: Extra<'_>,
    ) -> Result<Vec<u8>, RuntimeError> {
        let stdin = request(self.list, plugin, extra);
        let told = self
            .runtime
            .execute(&plugin.kind, &self.env, &stdin, self.deadline);
        told.map_err(|failure| self.placed(index, plugin, failure))
    }

    /// What ADD printed, in the list's version.
    fn result(
        &self,
        index: usize,
        plugin: &PluginConf,
        stdout: &[u8],
    ) -> Result<Node, RuntimeError> {
        let version = self.list.version;
        let read = || {
            let node = Node::parse(stdout)?;
            let result = CniResult::parse(&node, version)?;
            // Below 0.3.0 a result without an address has no shape of its own; as written it is good enough.
            Ok(result.to_node(version).unwrap_or(node))
        };
        read().map_err(|error: CniError| {
            let error = CniError::new(error.code, format!("no result: {}", error.msg))
                .with_details(error.details);
            let failure = Failure {
                started: true,
                ended: Some(Ended::Exit(0)),
                ..error.into()
            };
            self.placed(index, plugin, failure)
        })
    }

    fn placed(&self, index: usize, plugin: &PluginConf, failure: Failure) -> RuntimeError {
        RuntimeError::Plugin(Box::new(PluginFailure {
            kind: plugin.kind.clone(),
            name: plugin.name.clone(),
            verb: self.verb,
            step: index + 1,
            steps: self.list.plugins.len(),
            error: failure.error,
            started: failure.started,
            ended: failure.ended,
            late: failure.late.then_some(self.runtime.timeout),
            stderr: failure.stderr,
            also: Vec::new(),
            left: Vec::new(),
        }))
    }
}

/// An ADD that stopped on its way.
#[derive(Debug)]
pub(super) struct Failed {
    /// How many plugins may have done something, so how many have to be undone.
    pub(super) ran: usize,
    /// What they had made before the one that failed.
    pub(super) prev: Option<Node>,
    /// Why.
    pub(super) error: RuntimeError,
}

/// One plugin's failure, before its place is known.
struct Failure {
    error: CniError,
    started: bool,
    ended: Option<Ended>,
    late: bool,
    stderr: String,
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
    fn execute(
        &self,
        kind: &str,
        env: &[(&str, String)],
        stdin: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, Failure> {
        let file = self.find(kind)?;
        if Instant::now() >= deadline {
            let msg = format!(
                "not begun: the {:?} of the whole chain are over",
                self.timeout
            );
            return Err(CniError::new(Code::TryAgain, msg).into());
        }
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let job = Job {
            file: &file,
            env: &env,
            stdin,
            deadline,
            grace: self.grace,
        };
        let output = exec::run(&job).map_err(|e| Failure {
            started: e.started,
            ..CniError::new(Code::Io, format!("failed to run {}: {e}", file.display())).into()
        })?;
        if output.ended == Ended::Exit(0) {
            return Ok(output.stdout);
        }
        Err(Failure {
            error: delegate::failure(&file, output.ended, &output.stdout, &output.stderr),
            started: true,
            ended: Some(output.ended),
            late: output.late,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
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
        let told = self.execute(kind, &env, stdin.write_compact().as_bytes(), deadline);
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

fn args_text(args: &[(String, String)]) -> String {
    let pairs: Vec<String> = args.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(";")
}
