//! The record of an operation whose plugin writes none: what its caller, the runtime, knows of it.

use std::time::Instant;

use super::clock::Clock;
use super::{Operation, SWITCH, Sink, Subject, complain, wanted};
use crate::spec::error::CniError;
use crate::spec::json::Node;

/// The one phase: from the start of the process to its end.
const PHASE: &str = "run";

/// An operation of another program, under way.
pub(crate) struct Foreign {
    operation: Operation,
    subject: Subject,
}

impl Foreign {
    /// Begins now, if the environment or the key `record` of the plugin's configuration names a sink. A key that does not
    /// is for the plugin to judge, and passed over.
    pub(crate) fn begin(
        plugin: &str,
        config: &Node,
        network: &str,
        subject: Subject,
    ) -> Option<Self> {
        let sink = match (wanted(config), Sink::of_process()) {
            (Ok(Some(sink)), _) | (_, Ok(Some(sink))) => sink,
            (_, Ok(None)) => return None,
            (_, Err(e)) => {
                complain(plugin, &format!("{SWITCH}: {e}"));
                return None;
            }
        };
        let mut operation = Operation {
            plugin: plugin.to_owned().into(),
            network: network.to_owned(),
            clock: Clock::start(PHASE, Instant::now()),
            sink: None,
            trace: None,
        };
        operation.switch_on(sink);
        Some(Self { operation, subject })
    }

    /// See [`super::traceparent`].
    pub(crate) fn traceparent(&self) -> Option<String> {
        self.operation.traceparent()
    }

    /// It is over: writes the record.
    pub(crate) fn end(mut self, pid: Option<u32>, outcome: Result<(), &CniError>) {
        self.subject.pid = pid.unwrap_or(self.subject.pid);
        self.operation.finish(self.subject, outcome, Instant::now());
    }
}
