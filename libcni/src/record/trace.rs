//! Spans: the caller's, from W3C Trace Context, and ours, as a line of OTLP/JSON.
//!
//! Sources: "Trace Context" (W3C Recommendation), section 3.2; `opentelemetry/proto/trace/v1/trace.proto` with the
//! JSON mapping of the OTLP specification: IDs in hex, 64-bit integers as strings, enums as numbers.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Record;
use super::clock::Interval;
use super::json::Json;

/// `STATUS_CODE_ERROR` of trace.proto.
const ERROR: u64 = 2;
/// Flags of version 00 that are passed on: sampled, and (level 2) that the trace ID is random.
const SAMPLED: u8 = 1;
const KNOWN_FLAGS: u8 = 3;
/// Longest `tracestate` that has to be passed on (section 3.3.1.5).
const MAX_STATE: usize = 512;

/// The caller's span: `TRACEPARENT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: String,
    parent_id: String,
    flags: u8,
}

/// Where an operation is in its caller's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace: 32 hex digits.
    pub trace_id: String,
    /// The operation: 16 hex digits.
    pub span_id: String,
    /// The caller's span: 16 hex digits.
    pub parent_id: String,
}

// === impl TraceParent ===

impl TraceParent {
    /// The one in the environment, if it is valid.
    #[must_use]
    pub fn of_process() -> Option<Self> {
        Self::parse(std::env::var_os("TRACEPARENT")?.to_str()?)
    }

    /// `00-<trace>-<parent>-<flags>`, all in lower-case hex, no ID zero. A later version may have more behind it; no
    /// version is `ff`. None: invalid, to be ignored as a whole.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.split_at_checked(55)?;
        let mut parts = head.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let parent_id = hex(parts.next()?, 16)?;
        let flags = hex(parts.next()?, 2)?;
        let ends_well = match version {
            "00" => rest.is_empty(),
            "ff" => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
        if !ends_well || is_zero(trace_id) || is_zero(parent_id) {
            return None;
        }
        Some(Self {
            trace_id: trace_id.to_owned(),
            parent_id: parent_id.to_owned(),
            flags: u8::from_str_radix(flags, 16).ok()? & KNOWN_FLAGS,
        })
    }

    /// Whether the caller records its own spans: if it does not, ours would have no parent.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same with `span` as the parent, for those we call.
    pub(super) fn with_parent(&self, span: u64) -> Self {
        Self {
            parent_id: id(span),
            ..self.clone()
        }
    }

    /// Where `span`, a child of this, is.
    pub(super) fn with_span(&self, span: u64) -> Trace {
        Trace {
            trace_id: self.trace_id.clone(),
            span_id: id(span),
            parent_id: self.parent_id.clone(),
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.trace_id, self.parent_id, self.flags
        )
    }
}

fn hex(text: &str, len: usize) -> Option<&str> {
    let is_hex = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == len && text.bytes().all(is_hex)).then_some(text)
}

// === our spans ===

/// A span ID that looks random: process and moment, which nobody else of a node shares, and the caller's span, mixed by
/// the finalizer of SplitMix64. Those of its phases are the ones that follow it.
pub(super) fn new_span_id(parent: &TraceParent) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut id = u64::from_str_radix(&parent.parent_id, 16).unwrap_or_default();
    for unique in [
        u64::from(std::process::id()),
        now.as_secs(),
        now.subsec_nanos().into(),
    ] {
        id = id.wrapping_add(unique).wrapping_add(0x9e37_79b9_7f4a_7c15);
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        id ^= id >> 31;
    }
    id.max(1)
}

fn id(span: u64) -> String {
    format!("{span:016x}")
}

/// Appends the request that an OTLP exporter would send: the operation's span, and one for each part of it.
pub(super) fn append(lines: String, record: &Record, span: u64, phases: &[Interval]) -> String {
    let Some(trace) = &record.trace else {
        return lines;
    };
    let state = state();
    let began = record.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut json = Json::after(lines);
    let times = |json: &mut Json, from: Duration, to: Duration| {
        json.nanoseconds("startTimeUnixNano", began + from);
        json.nanoseconds("endTimeUnixNano", began + to);
    };
    // What all spans of one parent have in common.
    let family = |parent: &str| {
        let mut json = Json::after(String::with_capacity(256));
        json.text("traceId", &trace.trace_id);
        json.text("parentSpanId", parent);
        json.filled("traceState", &state);
        json.members()
    };
    json.begin("resourceSpans", "[{");
    json.begin("resource", "{");
    json.begin("attributes", "[");
    attribute(&mut json, "service.name", "podwire");
    attribute(&mut json, "service.version", env!("CARGO_PKG_VERSION"));
    json.end("]}");
    json.begin("scopeSpans", "[{");
    json.begin("scope", "{");
    json.text("name", "podwire");
    json.end("}");
    json.begin("spans", "[");

    json.next();
    json.again(&family(&trace.parent_id));
    json.id("spanId", span);
    json.text("name", &format!("{} {}", record.plugin, record.verb));
    let over = phases.last().map_or(Duration::ZERO, |last| last.to);
    times(&mut json, Duration::ZERO, over);
    json.begin("attributes", "[");
    attribute(&mut json, "cni.network", &record.network);
    attribute(&mut json, "cni.container_id", &record.container);
    attribute(&mut json, "cni.ifname", &record.ifname);
    if let Some(e) = &record.error {
        attribute(&mut json, "cni.error.code", &e.code.as_u32().to_string());
    }
    json.end("]");
    if let Some(e) = &record.error {
        json.begin("status", "{");
        json.number("code", ERROR);
        json.text("message", &e.to_string());
        json.end("}");
    }
    json.end("}");
    let (mut child, siblings) = (span, family(&trace.span_id));
    for phase in phases {
        child = child.wrapping_add(1).max(1);
        json.next();
        json.again(&siblings);
        json.id("spanId", child);
        json.text("name", phase.name);
        times(&mut json, phase.from, phase.to);
        json.end("}");
    }
    json.end("]}]}]");
    json.finish()
}

fn attribute(json: &mut Json, key: &str, value: &str) {
    json.next();
    json.text("key", key);
    json.begin("value", "{");
    json.text("stringValue", value);
    json.end("}}");
}

/// `TRACESTATE`, which goes along with a valid parent.
fn state() -> String {
    let state = std::env::var("TRACESTATE").unwrap_or_default();
    let is_well = state.len() <= MAX_STATE && state.bytes().all(|b| (b' '..=b'~').contains(&b));
    if is_well { state } else { String::new() }
}
