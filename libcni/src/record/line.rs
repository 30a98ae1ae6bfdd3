//! A record to its JSON line and back.

use super::{Phase, Record, Trace, stamp};
use crate::spec::error::CniError;
use crate::spec::json::{Fields, Node};

/// How every record's line begins. Inside a JSON string the quotes would be escaped.
const BEGINNING: &[u8] = b"{\"time\":\"";

impl Record {
    /// The JSON object in one line, without its end. Empty fields are left out.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut phases = Node::obj();
        for phase in &self.phases {
            phases = phases.put(&phase.name, phase.us);
        }
        let trace = |part: fn(&Trace) -> &String| self.trace.as_ref().map(|t| part(t).as_str());
        let line = Node::obj()
            .put("time", stamp::format(self.time))
            .put("verb", self.verb.as_str())
            .put("plugin", self.plugin.as_str())
            .put_filled("network", self.network.as_str())
            .put_filled("container", self.container.as_str())
            .put_filled("ifname", self.ifname.as_str())
            .put_some("error", self.error.as_ref().map(CniError::to_node))
            .put("us", self.total_us)
            .put("phases", phases)
            .put("pid", self.pid)
            .put_some("trace", trace(|t| &t.trace_id))
            .put_some("span", trace(|t| &t.span_id))
            .put_some("parent", trace(|t| &t.parent_id));
        line.build().write_compact()
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
