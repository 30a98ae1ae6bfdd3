//! An object read as Go fills a struct.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Node;
use crate::spec::cidr::{IpNetwork, parse_cidr, parse_ip};

/// The keys of one object, read by name and type.
///
/// - Keys match in any case, including the two letters outside ASCII that fold into it (`ſ`, `K`).
/// - Of equal keys the last counts; objects (and maps) under equal keys are merged.
/// - `null` is "not there": it does not replace an earlier scalar, but empties an earlier array or map.
/// - A key nobody asks for is never looked at.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    path: String,
    objects: Vec<&'a [(String, Node)]>,
}

/// A key whose value cannot be used. Becomes a [`CniError`](crate::spec::CniError) of code 7.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}; allowed: {}", self.what(), self.allowed())]
pub enum FieldError {
    /// The value has another JSON type, or is a number out of range.
    WrongType {
        /// Full path of the key, like `ipam.ranges[0][1].subnet`; empty for the document itself.
        path: String,
        /// What was found, like `a string ("5")`.
        found: String,
        /// What the key may hold.
        allowed: Cow<'static, str>,
    },
    /// The type is right and the value is not.
    BadValue {
        /// Full path of the key.
        path: String,
        /// The value as written.
        found: String,
        /// What the key may hold.
        allowed: Cow<'static, str>,
    },
    /// The key is needed and not there.
    Missing {
        /// Full path of the key.
        path: String,
        /// What the key may hold.
        allowed: Cow<'static, str>,
    },
}

const AN_OBJECT: &str = "an object";
const AN_ARRAY: &str = "an array";
const A_STRING: &str = "a string";
const AN_ADDRESS: &str = "an IP address such as \"10.0.0.1\" or \"fd00::1\"";
const A_CIDR: &str = "an address with its prefix length such as \"10.0.0.1/24\" or \"fd00::1/64\"";

// === impl FieldError ===

impl FieldError {
    /// The type of `node` is not one that is allowed.
    pub fn wrong_type(
        path: impl Into<String>,
        node: &Node,
        allowed: impl Into<Cow<'static, str>>,
    ) -> FieldError {
        FieldError::WrongType {
            path: path.into(),
            found: shown(node),
            allowed: allowed.into(),
        }
    }

    /// `found` has the right type, but is not allowed.
    pub fn bad_value(
        path: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<Cow<'static, str>>,
    ) -> FieldError {
        FieldError::BadValue {
            path: path.into(),
            found: found.into(),
            allowed: allowed.into(),
        }
    }

    /// The key has to be there.
    pub fn missing(path: impl Into<String>, allowed: impl Into<Cow<'static, str>>) -> FieldError {
        FieldError::Missing {
            path: path.into(),
            allowed: allowed.into(),
        }
    }

    /// Full path of the key; empty for the document itself.
    pub fn path(&self) -> &str {
        match self {
            FieldError::WrongType { path, .. }
            | FieldError::BadValue { path, .. }
            | FieldError::Missing { path, .. } => path,
        }
    }

    /// Where and what: `"mtu" is a string ("5")`.
    pub fn what(&self) -> String {
        let path = match self.path() {
            "" => Cow::Borrowed("the document"),
            path => Cow::Owned(format!("\"{path}\"")),
        };
        match self {
            FieldError::WrongType { found, .. } => format!("{path} is {found}"),
            FieldError::BadValue { found, .. } => {
                format!("{path} is {}", crate::spec::error::quoted(&clipped(found)))
            }
            FieldError::Missing { .. } => format!("{path} is missing"),
        }
    }

    /// What the key may hold.
    pub fn allowed(&self) -> &str {
        match self {
            FieldError::WrongType { allowed, .. }
            | FieldError::BadValue { allowed, .. }
            | FieldError::Missing { allowed, .. } => allowed,
        }
    }
}

/// A value for a message: its kind, and a scalar's own text.
fn shown(node: &Node) -> String {
    match node {
        Node::String(_) | Node::Number(_) | Node::Bool(_) => {
            format!("{} ({})", node.kind(), clipped(&node.write_compact()))
        }
        _ => node.kind().to_owned(),
    }
}

/// Messages stay one line long whatever the config holds.
fn clipped(text: &str) -> Cow<'_, str> {
    const MAX_CHARS: usize = 80;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Opens `node`, which must be an object or null (an empty one). `path` is where it sits, `""` for the document.
    pub fn of(node: &'a Node, path: &str) -> Result<Fields<'a>, FieldError> {
        let objects = match node {
            Node::Object(entries) => vec![entries.as_slice()],
            Node::Null => Vec::new(),
            other => return Err(FieldError::wrong_type(path, other, AN_OBJECT)),
        };
        Ok(Fields {
            path: path.to_owned(),
            objects,
        })
    }

    /// Full path of a key of this object, for errors of one's own.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Every value under `key`, in document order.
    fn all<'s>(&'s self, key: &'s str) -> impl DoubleEndedIterator<Item = &'a Node> + 's {
        self.objects
            .iter()
            .copied()
            .flatten()
            .filter(move |(name, _)| folds_to(name, key))
            .map(|(_, value)| value)
    }

    /// The value of a scalar or struct: the last that is not null.
    fn last(&self, key: &str) -> Option<&'a Node> {
        self.all(key).rfind(|value| !matches!(value, Node::Null))
    }

    fn wrong(&self, key: &str, node: &Node, allowed: impl Into<Cow<'static, str>>) -> FieldError {
        FieldError::wrong_type(self.path_of(key), node, allowed)
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, FieldError> {
        match self.last(key) {
            None => Ok(None),
            Some(Node::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, other, A_STRING)),
        }
    }

    /// A string, possibly empty.
    pub fn str(&self, key: &str) -> Result<Option<String>, FieldError> {
        Ok(self.text(key)?.map(str::to_owned))
    }

    /// A string below nested objects: `["args", "cni", "mac"]`. None where any of them is missing.
    pub fn str_at(&self, path: &[&str]) -> Result<Option<String>, FieldError> {
        match path {
            [] => Ok(None),
            [key] => self.str(key),
            [key, rest @ ..] => match self.fields(key)? {
                Some(inner) => inner.str_at(rest),
                None => Ok(None),
            },
        }
    }

    /// A boolean; the strings "true" and "false" are none.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, FieldError> {
        match self.last(key) {
            None => Ok(None),
            Some(Node::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// An integer. `1.0` and `1e3` are none, as for Go.
    pub fn i64(&self, key: &str) -> Result<Option<i64>, FieldError> {
        match self.last(key) {
            None => Ok(None),
            Some(Node::Number(n)) if n.is_i64() => Ok(n.as_i64()),
            Some(other) => Err(self.wrong(key, other, "an integer")),
        }
    }

    /// An integer that is not negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, FieldError> {
        self.unsigned(key, u64::MAX)
    }

    /// An integer from 0 to 4294967295.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, FieldError> {
        Ok(self
            .unsigned(key, u32::MAX.into())?
            .and_then(|n| u32::try_from(n).ok()))
    }

    /// An integer from 0 to `max`.
    pub fn unsigned(&self, key: &str, max: u64) -> Result<Option<u64>, FieldError> {
        match self.last(key) {
            None => Ok(None),
            Some(Node::Number(n)) if n.as_u64().is_some_and(|n| n <= max) => Ok(n.as_u64()),
            Some(other) => Err(self.wrong(key, other, format!("an integer from 0 to {max}"))),
        }
    }

    /// A value of any type, null being none. Objects under duplicate keys are merged.
    pub fn node(&self, key: &str) -> Option<Cow<'a, Node>> {
        let mut merged: Option<Cow<'a, Node>> = None;
        for value in self.all(key) {
            merged = match (merged, value) {
                (_, Node::Null) => None,
                (Some(earlier), Node::Object(entries)) if matches!(*earlier, Node::Object(_)) => {
                    let mut earlier = earlier.into_owned();
                    if let Node::Object(all) = &mut earlier {
                        all.extend_from_slice(entries);
                    }
                    Some(Cow::Owned(earlier))
                }
                (_, value) => Some(Cow::Borrowed(value)),
            };
        }
        merged
    }

    /// An object, merged over duplicate keys.
    pub fn fields(&self, key: &str) -> Result<Option<Fields<'a>>, FieldError> {
        let mut objects = Vec::new();
        for value in self.all(key) {
            match value {
                Node::Null => {}
                Node::Object(entries) => objects.push(entries.as_slice()),
                other => return Err(self.wrong(key, other, AN_OBJECT)),
            }
        }
        if objects.is_empty() {
            return Ok(None);
        }
        Ok(Some(Fields {
            path: self.path_of(key),
            objects,
        }))
    }

    /// The elements of an array.
    pub fn array(&self, key: &str) -> Result<Option<Vec<&'a Node>>, FieldError> {
        match self.all(key).next_back() {
            None | Some(Node::Null) => Ok(None),
            Some(Node::Array(items)) => Ok(Some(items.iter().collect())),
            Some(other) => Err(self.wrong(key, other, AN_ARRAY)),
        }
    }

    /// An array of objects, each knowing its path (`ips[0]`). A null element is an empty object.
    pub fn array_of_fields(&self, key: &str) -> Result<Option<Vec<Fields<'a>>>, FieldError> {
        let Some(items) = self.array(key)? else {
            return Ok(None);
        };
        let path = self.path_of(key);
        let open = |(i, item)| Fields::of(item, &format!("{path}[{i}]"));
        items
            .into_iter()
            .enumerate()
            .map(open)
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }

    /// An array of strings. A null element is `""`.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>, FieldError> {
        let Some(items) = self.array(key)? else {
            return Ok(None);
        };
        let mut texts = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Node::String(text) => texts.push(text.clone()),
                Node::Null => texts.push(String::new()),
                other => return Err(self.wrong(&format!("{key}[{i}]"), other, A_STRING)),
            }
        }
        Ok(Some(texts))
    }

    /// An address; `""` is none.
    pub fn ip(&self, key: &str) -> Result<Option<IpAddr>, FieldError> {
        match self.text(key)? {
            None | Some("") => Ok(None),
            Some(text) => match parse_ip(text) {
                Some(ip) => Ok(Some(ip)),
                None => Err(FieldError::bad_value(self.path_of(key), text, AN_ADDRESS)),
            },
        }
    }

    /// An address with prefix length, host bits kept. `""` is an error, as for the reference.
    pub fn cidr(&self, key: &str) -> Result<Option<IpNetwork>, FieldError> {
        match self.text(key)? {
            None => Ok(None),
            Some(text) => match parse_cidr(text) {
                Some(net) => Ok(Some(net)),
                None => Err(FieldError::bad_value(self.path_of(key), text, A_CIDR)),
            },
        }
    }

    /// All keys and values of an object that is a map (`sysctl`, `capabilities`): here keys are exact, the last of equal
    /// ones counts, in the order of first appearance.
    pub fn entries(&self) -> Vec<(&'a str, &'a Node)> {
        let mut entries: Vec<(&'a str, &'a Node)> = Vec::new();
        for (key, value) in self.objects.iter().copied().flatten() {
            match entries.iter_mut().find(|(seen, _)| seen == key) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        }
        entries
    }
}

/// Whether Go would take `name` for the field `key` (which is ASCII): Unicode simple folding, where U+017F is an `s` and
/// U+212A a `k`.
fn folds_to(name: &str, key: &str) -> bool {
    // Either of those is longer than its letter.
    if name.len() <= key.len() {
        return name.eq_ignore_ascii_case(key);
    }
    if name.is_ascii() {
        return false;
    }
    let folded = name.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    });
    folded.eq(key.chars().map(|c| c.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests;
