//! One verb over a chain of plugins, and each plugin's part of it.

use std::time::Instant;

use super::execute::{Call, Failure};
use super::list::{NetworkList, PluginConf};
use super::request::{Extra, request};
use super::{Attach, PluginFailure, Runtime, RuntimeError};
use crate::kernel::process::Ended;
use crate::spec::error::CniError;
use crate::spec::json::Node;
use crate::spec::{CniResult, Verb};

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
        let told = self.runtime.execute(&Call {
            kind: &plugin.kind,
            env: &self.env,
            stdin: &stdin,
            deadline: self.deadline,
            verb: self.verb,
            of: Some((plugin.node(), &self.list.name)),
        });
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

fn args_text(args: &[(String, String)]) -> String {
    let pairs: Vec<String> = args.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(";")
}
