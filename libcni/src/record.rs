//! What an operation did, how long each phase took and how it ended: one JSON line per call of a plugin.
//!
//! Off unless `PODWIRE_RECORD` in the environment or the key `record` of the network configuration names a
//! [`Sink`]; then it costs no system call. A record never makes an operation fail: what cannot be written is
//! said on stderr and forgotten. The line's fields, and how to switch it on for a node: `docs/records.md`.
//!
//! The plugin's edge calls [`begin`], [`configure`] and [`end`]; the plugin only says which [`phase`] comes
//! next. The operation is kept per thread, as the steps to undo are, so that a panic can be recorded, too.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let file = dir.path().join("operations");
//! # std::fs::write(&file, "{\"time\":\"2026-11-20T08:00:00Z\",\"verb\":\"ADD\",\"us\":3400}\n")?;
//! use libcni::record;
//!
//! let slow = record::read(&file).filter(|op| op.total_us > 1000);
//! for op in slow {
//!     println!("{op}");
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod clock;
mod file;
mod foreign;
mod journal;
mod json;
mod line;
mod read;
mod sink;
mod spans;
mod stamp;
mod trace;

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::{Instant, SystemTime};

pub(crate) use foreign::Foreign;
pub use read::read;
pub use sink::{Sink, SinkError};
pub use stamp::format as rfc3339;
pub use trace::{Trace, TraceParent};

use crate::spec::conf::network_name;
use crate::spec::error::CniError;
use crate::spec::json::{FieldError, Fields, Node};
use clock::Clock;

/// The environment's switch: a [`Sink`]. A key `record` of the network configuration goes before it.
pub const SWITCH: &str = "PODWIRE_RECORD";
/// The network configuration's switch.
const KEY: &str = "record";
/// The phase every operation begins with: environment, stdin and configuration are read and checked.
const FIRST_PHASE: &str = "config";
/// Longest text of a record in bytes; what is longer ends in an ellipsis.
const MAX_TEXT: usize = 1024;

/// One operation of one plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When the plugin's work began, to the microsecond.
    pub time: SystemTime,
    /// `CNI_COMMAND` as given.
    pub verb: String,
    /// The plugin's name.
    pub plugin: String,
    /// `name` of the network; empty if the configuration could not be read so far.
    pub network: String,
    /// `CNI_CONTAINERID` as given; empty for a verb without.
    pub container: String,
    /// `CNI_IFNAME` as given; empty for a verb without.
    pub ifname: String,
    /// How it failed; none if it succeeded.
    pub error: Option<CniError>,
    /// From the plugin's first instruction to the end of its answer, in microseconds. What the kernel needs to start
    /// and to end a process is not in it.
    pub total_us: u64,
    /// What the time went into, in the order each was first begun. Of a failed operation the last one, or the one
    /// before `undo`, is where it failed.
    pub phases: Vec<Phase>,
    /// Process ID of the plugin.
    pub pid: u32,
    /// Its span, if the caller had one.
    pub trace: Option<Trace>,
}

/// A part of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its name, as docs/records.md lists them.
    pub name: Cow<'static, str>,
    /// All the time spent in it, in microseconds.
    pub us: u64,
}

/// An operation under way.
struct Operation {
    plugin: Cow<'static, str>,
    network: String,
    clock: Clock,
    sink: Option<Sink>,
    trace: Option<(TraceParent, u64)>,
}

/// What an operation is about, and who does it.
pub(crate) struct Subject {
    pub(crate) verb: String,
    pub(crate) container: String,
    pub(crate) ifname: String,
    pub(crate) pid: u32,
}

thread_local! {
    static OPERATION: RefCell<Option<Operation>> = const { RefCell::new(None) };
}

// === the edge ===

/// An operation of `plugin` begins on this thread. It will be recorded if the environment, or later
/// [`configure`], says where.
pub fn begin(plugin: &'static str) {
    let mut operation = Operation {
        plugin: plugin.into(),
        network: String::new(),
        clock: Clock::start(FIRST_PHASE, Instant::now()),
        sink: None,
        trace: None,
    };
    match Sink::of_process() {
        Ok(Some(sink)) => operation.switch_on(sink),
        Ok(None) => {}
        Err(e) => complain(plugin, &format!("{SWITCH}: {e}")),
    }
    OPERATION.set(Some(operation));
}

/// Takes the network's name and the key `record` from its configuration. If neither that nor the environment named a
/// sink, the operation is forgotten here, and nothing of this module does any more work.
///
/// # Errors
/// `record` is no sink. The operation is recorded all the same if the environment asked for it.
pub fn configure(config: &Node) -> Result<(), FieldError> {
    let wanted = wanted(config);
    let Some(mut operation) = OPERATION.take() else {
        return wanted.map(drop);
    };
    if let Ok(Some(sink)) = &wanted {
        operation.switch_on(sink.clone());
    }
    if operation.sink.is_some() {
        if let Ok(name) = network_name(config) {
            name.as_str().clone_into(&mut operation.network);
        }
        OPERATION.set(Some(operation));
    }
    wanted.map(drop)
}

/// What comes next belongs to this phase, until another one begins. A look at the clock; nothing when off.
pub fn phase(name: &'static str) {
    with_operation(|operation| operation.clock.mark(name, Instant::now()));
}

/// If `work` takes long, it was a phase of its own within another, which goes on afterwards: for what may have to
/// wait and mostly need not.
pub fn during<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let mut began = None;
    with_operation(|_| began = Some(Instant::now()));
    let outcome = work();
    if let Some(began) = began {
        with_operation(|operation| operation.clock.insert(name, began, Instant::now()));
    }
    outcome
}

/// `TRACEPARENT` for a program that the operation runs: its span becomes a child of ours. None where we make no
/// span; then the program gets what we got.
#[must_use]
pub fn traceparent() -> Option<String> {
    let mut text = None;
    with_operation(|operation| text = operation.traceparent());
    text
}

/// The operation is over and its answer given: writes the record, if one is wanted.
pub fn end(outcome: Result<(), &CniError>) {
    let over = Instant::now();
    let operation = OPERATION.with(|slot| slot.try_borrow_mut().ok()?.take());
    let Some(operation) = operation else { return };
    operation.finish(Subject::of_process(), outcome, over);
}

fn with_operation(act: impl FnOnce(&mut Operation)) {
    OPERATION.with(|slot| {
        // Taken while a panic is told.
        if let Ok(mut slot) = slot.try_borrow_mut()
            && let Some(operation) = slot.as_mut()
        {
            act(operation);
        }
    });
}

fn wanted(config: &Node) -> Result<Option<Sink>, FieldError> {
    let Some(value) = Fields::of(config, "")?.node(KEY) else {
        return Ok(None);
    };
    match value.as_str() {
        Some(text) => {
            Sink::parse(text).map_err(|_| FieldError::bad_value(KEY, text, sink::ALLOWED))
        }
        None => Err(FieldError::wrong_type(KEY, &value, sink::ALLOWED)),
    }
}

fn complain(plugin: &str, why: &str) {
    crate::plugin::log(format_args!(
        "{plugin}: this operation is not recorded: {why}"
    ));
}

// === impl Operation ===

impl Operation {
    fn switch_on(&mut self, sink: Sink) {
        self.sink = Some(sink);
        if self.trace.is_none() {
            self.trace = TraceParent::of_process().map(|parent| {
                let span = trace::new_span_id(&parent);
                (parent, span)
            });
        }
    }

    fn traceparent(&self) -> Option<String> {
        let (parent, span) = self.trace.as_ref()?;
        Some(parent.with_parent(*span).to_string())
    }

    /// Writes the record, if one is wanted.
    fn finish(&self, subject: Subject, outcome: Result<(), &CniError>, over: Instant) {
        let Some(sink) = &self.sink else { return };
        // Somebody who asks for the version by hand is no operation.
        if subject.verb.is_empty() {
            return;
        }
        let record = self.record(subject, outcome.err(), over);
        let spans = |lines| match &self.trace {
            Some((parent, span)) if parent.is_sampled() => {
                let mut lines = spans::append(lines, &record, *span, &self.clock.intervals(over));
                lines.push('\n');
                lines
            }
            _ => lines,
        };
        if let Err(e) = sink.write(&record, spans) {
            complain(&self.plugin, &e.to_string());
        }
    }

    fn record(&self, subject: Subject, error: Option<&CniError>, over: Instant) -> Record {
        let total = self.clock.total(over);
        let began = SystemTime::now().checked_sub(total);
        Record {
            time: stamp::whole_us(began.unwrap_or(SystemTime::UNIX_EPOCH)),
            verb: subject.verb,
            plugin: self.plugin.clone().into_owned(),
            network: clipped(&self.network),
            container: subject.container,
            ifname: subject.ifname,
            error: error
                .map(|e| CniError::new(e.code, clipped(&e.msg)).with_details(clipped(&e.details))),
            total_us: clock::whole_us(total),
            phases: self.clock.phases(over),
            pid: subject.pid,
            trace: self.trace.as_ref().map(|(p, span)| p.with_span(*span)),
        }
    }
}

impl Subject {
    /// What this process, a plugin, was called for.
    fn of_process() -> Self {
        let var = |name| {
            let value = std::env::var_os(name).unwrap_or_default();
            clipped(&value.to_string_lossy())
        };
        Self {
            verb: var("CNI_COMMAND"),
            container: var("CNI_CONTAINERID"),
            ifname: var("CNI_IFNAME"),
            pid: std::process::id(),
        }
    }
}

/// At most [`MAX_TEXT`] bytes of a text.
fn clipped(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_TEXT);
    format!("{}…", text.get(..end).unwrap_or_default())
}

// === impl Record ===

/// For people, in one line whatever the fields hold:
/// `bridge ADD cbr0 1f0c/eth0: code 11 after 3.412 ms: no address left`.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{} {}", self.plugin, self.verb);
        for (before, word) in [
            (" ", &self.network),
            (" ", &self.container),
            ("/", &self.ifname),
        ] {
            if !word.is_empty() {
                text.push_str(before);
                text.push_str(word);
            }
        }
        let (ms, us) = (self.total_us / 1000, self.total_us % 1000);
        match &self.error {
            None => write!(text, ": ok in {ms}.{us:03} ms")?,
            Some(e) => write!(
                text,
                ": code {} after {ms}.{us:03} ms: {e}",
                e.code.as_u32()
            )?,
        }
        for c in text.chars() {
            f.write_char(if c.is_control() { '\u{fffd}' } else { c })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
