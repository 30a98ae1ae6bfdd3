//! What is looked at of a Node, which is little of it: the lists of images and of who wrote which field, most of its
//! 10 KB and more, are passed over while they come in.
//!
//! Not an implementation of `kube::Resource`, whose `ObjectMeta` would read and keep all of that.

use std::fmt;
use std::net::IpAddr;

use fabric::lease::MAX_VALUE_BYTES;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::annotation;
use libcni::spec::parse_ip;

/// The condition that says whether a node's pods have a network.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// A Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `resourceVersion`.
    pub version: String,
    /// Those that may concern us, by their whole names; of one that is too long the number of its bytes.
    pub annotations: Vec<(String, Result<String, usize>)>,
    /// `podCIDRs`, or else the one `podCIDR`.
    pub pod_cidrs: Vec<String>,
    /// Addresses of type InternalIP.
    pub internal_ips: Vec<IpAddr>,
    /// `NetworkUnavailable`.
    pub condition: Option<Condition>,
}

/// A condition of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    pub last_transition_time: Option<String>,
}

/// What a watch tells of.
#[derive(Debug)]
pub enum Event {
    /// Added or modified.
    Node(Node),
    /// Deleted: its name, and the version of that.
    Gone { name: String, version: String },
    /// Nothing happened, up to this version.
    Bookmark { version: String },
    /// A Node that cannot be read.
    Unreadable {
        name: String,
        version: String,
        why: String,
    },
    /// The server's: code and text.
    Error { code: u16, message: String },
    /// Anything else.
    Unknown(String),
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    resource_version: String,
    #[serde(default, deserialize_with = "or_default")]
    annotations: Annotations,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR", deserialize_with = "or_default")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs", deserialize_with = "or_default")]
    pod_cidrs: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "or_default")]
    addresses: Vec<Address>,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Address {
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    address: String,
}

#[derive(Deserialize)]
struct Told<T> {
    #[serde(rename = "type")]
    kind: String,
    object: T,
}

/// Enough of a Node to say whose it is.
#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMeta {
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    resource_version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Failure {
    code: u16,
    message: String,
}

#[derive(Default)]
struct Annotations(Vec<(String, Result<String, usize>)>);

struct AnnotationsVisitor;

/// Go writes `null` where a list or a map is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    de: D,
) -> Result<T, D::Error> {
    Option::deserialize(de).map(Option::unwrap_or_default)
}

// === impl Annotations ===

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        de.deserialize_map(AnnotationsVisitor)
    }
}

impl<'de> Visitor<'de> for AnnotationsVisitor {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Annotations, M::Error> {
        let mut kept = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if !annotation::concerns(&key) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value::<String>()?;
            let bytes = value.len();
            kept.push((
                key,
                Some(value)
                    .filter(|_| bytes <= MAX_VALUE_BYTES)
                    .ok_or(bytes),
            ));
        }
        Ok(Annotations(kept))
    }
}

// === impl Node ===

impl Node {
    /// From its JSON.
    ///
    /// # Errors
    /// It is none: its name if that can be read, and why.
    pub fn parse(json: &[u8]) -> Result<Self, (Option<String>, String)> {
        serde_json::from_slice::<Wire>(json)
            .map(Self::from)
            .map_err(|e| {
                let head = serde_json::from_slice::<Head>(json).ok();
                (
                    head.map(|head| head.metadata.name),
                    annotation::clip(&e.to_string()),
                )
            })
    }

    /// Is this an older state than that? Only where both versions are numbers, as they are so far.
    pub fn is_before(&self, other: &Self) -> bool {
        let number = |node: &Self| node.version.parse::<u64>().ok();
        number(self)
            .zip(number(other))
            .is_some_and(|(this, other)| this < other)
    }
}

impl From<Wire> for Node {
    fn from(wire: Wire) -> Self {
        let Wire {
            metadata,
            spec,
            status,
        } = wire;
        let mut pod_cidrs = spec.pod_cidrs;
        if pod_cidrs.is_empty() && !spec.pod_cidr.is_empty() {
            pod_cidrs.push(spec.pod_cidr);
        }
        let internal = status.addresses.iter().filter(|a| a.kind == "InternalIP");
        Self {
            name: metadata.name,
            version: metadata.resource_version,
            annotations: metadata.annotations.0,
            pod_cidrs,
            internal_ips: internal.filter_map(|a| parse_ip(&a.address)).collect(),
            condition: status
                .conditions
                .into_iter()
                .find(|c| c.kind == NETWORK_UNAVAILABLE),
        }
    }
}

// === impl Event ===

impl Event {
    /// From a watch's line.
    pub fn parse(json: &[u8]) -> Self {
        let why = match serde_json::from_slice::<Told<Wire>>(json) {
            Ok(told) => return Self::of(&told.kind, told.object.into()),
            Err(e) => annotation::clip(&e.to_string()),
        };
        if let Some(failure) = told::<Failure>(json).filter(|told| told.kind == "ERROR") {
            let Failure { code, message } = failure.object;
            return Self::Error { code, message };
        }
        match told::<Head>(json) {
            Some(told) if told.kind == "DELETED" => Self::Gone {
                name: told.object.metadata.name,
                version: told.object.metadata.resource_version,
            },
            Some(told) => Self::Unreadable {
                name: told.object.metadata.name,
                version: told.object.metadata.resource_version,
                why,
            },
            None => Self::Unknown(why),
        }
    }

    fn of(kind: &str, node: Node) -> Self {
        let Node { name, version, .. } = &node;
        match kind {
            "ADDED" | "MODIFIED" => Self::Node(node),
            "DELETED" => Self::Gone {
                name: name.clone(),
                version: version.clone(),
            },
            "BOOKMARK" => Self::Bookmark {
                version: version.clone(),
            },
            other => Self::Unknown(format!("an event {}", annotation::brief(other))),
        }
    }
}

fn told<T: DeserializeOwned>(json: &[u8]) -> Option<Told<T>> {
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests;
