//! The caller's span, and the place of ours below it: `TRACEPARENT` of "Trace Context" (W3C Recommendation),
//! section 3.2.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Flags of version 00 that are passed on: sampled, and (level 2) that the trace ID is random.
const SAMPLED: u8 = 1;
const KNOWN_FLAGS: u8 = 3;

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

// === IDs ===

/// A span ID that looks random: process and moment, which no other of a node shares, and the caller's span, mixed by
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
