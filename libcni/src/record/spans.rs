//! Our spans, as a line of OTLP/JSON.
//!
//! Source: `opentelemetry/proto/trace/v1/trace.proto` with the JSON mapping of the OTLP specification: IDs in hex,
//! 64-bit integers as text, enums as numbers.

use std::time::{Duration, UNIX_EPOCH};

use super::Record;
use super::clock::Interval;
use super::json::Json;

/// `STATUS_CODE_ERROR` of trace.proto.
const ERROR: u64 = 2;
/// Longest `tracestate` that has to be passed on (Trace Context, section 3.3.1.5).
const MAX_STATE: usize = 512;

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
