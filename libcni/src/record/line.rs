//! A record to its JSON line and back.

use super::json::Json;
use super::{Phase, Record, Trace, stamp};
use crate::spec::error::CniError;
use crate::spec::json::{Fields, Node};

/// How every record's line begins. Inside a JSON string the quotes would be escaped.
const BEGINNING: &[u8] = b"{\"time\":\"";

/// Room for an ADD's line and its spans.
const CAPACITY: usize = 4096;

impl Record {
    /// The JSON object in one line, without its end. Empty fields are left out.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut json = Json::after(String::with_capacity(CAPACITY));
        json.text("time", &stamp::format(self.time));
        json.text("verb", &self.verb);
        json.text("plugin", &self.plugin);
        json.filled("network", &self.network);
        json.filled("container", &self.container);
        json.filled("ifname", &self.ifname);
        if let Some(e) = &self.error {
            json.begin("error", "{");
            json.number("code", e.code.as_u32().into());
            json.text("msg", &e.msg);
            json.filled("details", &e.details);
            json.end("}");
        }
        json.number("us", self.total_us);
        json.begin("phases", "{");
        for phase in &self.phases {
            json.number(&phase.name, phase.us);
        }
        json.end("}");
        json.number("pid", self.pid.into());
        if let Some(trace) = &self.trace {
            json.text("trace", &trace.trace_id);
            json.text("span", &trace.span_id);
            json.text("parent", &trace.parent_id);
        }
        json.finish()
    }

    /// Reads a line. What stands before the record in it is the rest of a line that a crash cut off. None: a torn
    /// line, or one of another kind.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let at = line
            .windows(BEGINNING.len())
            .rposition(|window| window == BEGINNING)?;
        let node = Node::parse(line.get(at..)?).ok()?;
        let fields = Fields::of(&node, "").ok()?;
        let text = |key| fields.str(key).ok().flatten().unwrap_or_default();
        let error = fields.node("error");
        let trace = Trace {
            trace_id: text("trace"),
            span_id: text("span"),
            parent_id: text("parent"),
        };
        Some(Self {
            time: stamp::parse(&text("time"))?,
            verb: Some(text("verb")).filter(|verb| !verb.is_empty())?,
            plugin: text("plugin"),
            network: text("network"),
            container: text("container"),
            ifname: text("ifname"),
            error: error.and_then(|node| CniError::from_node(&node).ok()),
            total_us: fields.u64("us").ok().flatten()?,
            phases: phases(&fields),
            pid: fields.u32("pid").ok().flatten().unwrap_or_default(),
            trace: (!trace.trace_id.is_empty()).then_some(trace),
        })
    }
}

fn phases(fields: &Fields<'_>) -> Vec<Phase> {
    let Ok(Some(phases)) = fields.fields("phases") else {
        return Vec::new();
    };
    let phase = |(name, us): (&str, &Node)| match us {
        Node::Number(us) => Some(Phase {
            name: name.to_owned().into(),
            us: us.as_u64()?,
        }),
        _ => None,
    };
    phases.entries().into_iter().filter_map(phase).collect()
}
