//! JSON as Go's `encoding/json` reads and prints it.
//!
//! CNI was defined by a Go program, and configs in the field lean on what that program takes: keys in any case,
//! duplicate keys, `null` for "not set", bytes that are not UTF-8. A strict reader would refuse them. [`Node`] keeps a
//! document as written (order, duplicates); [`Fields`] reads an object the way Go fills a struct.
//!
//! The syntax is `serde_json`'s, for 20 KB more in a static `bridge` than a tokenizer of our own. Its feature
//! `arbitrary_precision` must stay off in the whole program: it hands numbers to a visitor as objects.

mod fields;
mod print;
mod read;

pub use fields::{FieldError, Fields};
pub use read::{JsonError, MAX_BYTES};
pub use serde_json::Number;

/// One JSON value, in document order, duplicate keys kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// `null`: for every reader the same as "not there".
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number: exact if it is an integer of 64 bits, else a double.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Node>),
    /// An object.
    Object(Vec<(String, Node)>),
}

/// Builds an object key by key, in the order they will be printed.
#[derive(Debug, Clone, Default)]
pub struct ObjBuilder(Vec<(String, Node)>);

// === impl Node ===

impl Node {
    /// Reads one document and nothing after it. See [`JsonError`] for what is refused.
    pub fn parse(bytes: &[u8]) -> Result<Node, JsonError> {
        read::document(bytes)
    }

    /// The value's type with its article, for messages: "a string", "an array".
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Number(_) => "a number",
            Node::String(_) => "a string",
            Node::Array(_) => "an array",
            Node::Object(_) => "an object",
        }
    }

    /// The text if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// Prints as Go's `MarshalIndent(v, "", "    ")`: what plugins put on stdout. No newline at the end.
    pub fn write_indented(&self) -> String {
        print::indented(self)
    }

    /// Prints as Go's `Marshal`: no white space.
    pub fn write_compact(&self) -> String {
        print::compact(self)
    }

    /// Orders the keys of every object by their bytes and drops all but the last of equal ones: a document as it comes
    /// out of a Go `map[string]interface{}`.
    pub fn sort_keys(&mut self) {
        match self {
            Node::Array(items) => items.iter_mut().for_each(Node::sort_keys),
            Node::Object(entries) => {
                // Stable, so of equal keys the last in the document is the last of its run.
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries.reverse();
                entries.dedup_by(|earlier, kept| earlier.0 == kept.0);
                entries.reverse();
                entries.iter_mut().for_each(|(_, value)| value.sort_keys());
            }
            _ => {}
        }
    }

    /// Starts an object.
    pub fn obj() -> ObjBuilder {
        ObjBuilder(Vec::new())
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Null => true,
            Node::String(text) => text.is_empty(),
            Node::Array(items) => items.is_empty(),
            Node::Object(entries) => entries.is_empty(),
            Node::Bool(_) | Node::Number(_) => false,
        }
    }
}

// === impl ObjBuilder ===

impl ObjBuilder {
    /// Appends a key.
    #[must_use]
    pub fn put(mut self, key: &str, value: impl Into<Node>) -> ObjBuilder {
        self.push(key, value.into());
        self
    }

    /// Apart from [`ObjBuilder::put`], which exists once per type.
    #[inline(never)]
    fn push(&mut self, key: &str, value: Node) {
        self.0.push((key.to_owned(), value));
    }

    /// Appends a key if there is a value.
    #[must_use]
    pub fn put_some<T: Into<Node>>(self, key: &str, value: Option<T>) -> ObjBuilder {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    /// Appends a key unless its value is null or an empty string, array or object (Go's `omitempty`).
    #[must_use]
    pub fn put_filled(self, key: &str, value: impl Into<Node>) -> ObjBuilder {
        let value = value.into();
        if value.is_empty() {
            self
        } else {
            self.put(key, value)
        }
    }

    /// The finished object.
    pub fn build(self) -> Node {
        Node::Object(self.0)
    }
}

impl From<ObjBuilder> for Node {
    fn from(builder: ObjBuilder) -> Node {
        builder.build()
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Node {
        Node::String(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Node {
        Node::String(text)
    }
}

impl From<bool> for Node {
    fn from(value: bool) -> Node {
        Node::Bool(value)
    }
}

impl From<u8> for Node {
    fn from(value: u8) -> Node {
        Node::from(i64::from(value))
    }
}

impl From<u32> for Node {
    fn from(value: u32) -> Node {
        Node::from(i64::from(value))
    }
}

impl From<u64> for Node {
    fn from(value: u64) -> Node {
        Node::Number(value.into())
    }
}

impl From<i64> for Node {
    fn from(value: i64) -> Node {
        Node::Number(value.into())
    }
}

impl From<Vec<Node>> for Node {
    fn from(items: Vec<Node>) -> Node {
        Node::Array(items)
    }
}

impl From<&[String]> for Node {
    fn from(items: &[String]) -> Node {
        Node::Array(
            items
                .iter()
                .map(|item| Node::String(item.clone()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests;
