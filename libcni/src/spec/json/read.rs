//! Bytes to [`Node`]: `serde_json`, with a visitor that keeps order and duplicates.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::Node;

/// Largest document. Go has no limit; a config or result this size is a mistake, and the tree takes several times it.
pub const MAX_BYTES: usize = 16 << 20;

/// Why bytes are not one JSON document. The text of a syntax error ends with its line and column.
///
/// Stricter than Go, whatever key it stands under:
///
/// - half of a surrogate pair alone in a string (`"\ud800"`);
/// - a number no double can hold (`1e999`);
/// - arrays and objects more than 127 deep (Go: 10,000), because reading, printing and dropping a value each use the
///   stack once per level.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// More than [`MAX_BYTES`].
    #[error("the document is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// Not JSON, or JSON with something after it.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
}

struct NodeVisitor;

/// What is not UTF-8 becomes U+FFFD, as Go does it inside strings; outside of them it is an error either way.
pub(super) fn document(bytes: &[u8]) -> Result<Node, JsonError> {
    if bytes.len() > MAX_BYTES {
        return Err(JsonError::TooLarge);
    }
    Ok(serde_json::from_str(&String::from_utf8_lossy(bytes))?)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value)
            .map(Node::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = elements.next_element()? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = pairs.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }
}
