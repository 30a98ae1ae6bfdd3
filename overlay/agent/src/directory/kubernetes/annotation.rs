//! flannel's annotations of a Node: their names, and what this node writes.
//!
//! Source: flannel, `pkg/subnet/kube/annotations.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fabric::{Kind, lease as flannel};
use libcni::spec::error::quoted;

use super::node::Node;
use crate::directory::{DirectoryError, Lease, Me};

/// What a Node's annotations are called after the prefix.
pub const GATE: &str = "kube-subnet-manager";
pub const TYPE: &str = "backend-type";
pub const DATA: Pair = Pair("backend-data", "backend-v6-data");
pub const PUBLIC_IP: Pair = Pair("public-ip", "public-ipv6");
pub const NODE_PUBLIC_IP: Pair = Pair("node-public-ip", "node-public-ipv6");
pub const OVERWRITE: Pair = Pair("public-ip-overwrite", "public-ipv6-overwrite");

/// One name per family.
#[derive(Debug, Clone, Copy)]
pub struct Pair(&'static str, &'static str);

/// What stands before an annotation's name, its `/` or `-` included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// Whether somebody may want an annotation of this name, whatever its prefix. Others are not even kept.
pub fn concerns(name: &str) -> bool {
    let v4 = [DATA.0, PUBLIC_IP.0, OVERWRITE.0];
    let v6 = [DATA.1, PUBLIC_IP.1, OVERWRITE.1];
    [GATE, TYPE]
        .iter()
        .chain(&v4)
        .chain(&v6)
        .any(|end| name.ends_with(end))
}

/// A text that somebody else had a hand in, fit for a log: one line, not longer than a few of them.
pub fn clip(text: &str) -> String {
    const CHARS: usize = 300;
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = line.take(CHARS).collect();
    if out.len() < text.len() {
        out.push_str("...");
    }
    out
}

/// The beginning of a text that somebody else wrote, in quotes.
pub fn brief(text: &str) -> String {
    const CHARS: usize = 48;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!(
            "{}... ({} bytes)",
            quoted(text.get(..end).unwrap_or_default()),
            text.len()
        ),
        None => quoted(text),
    }
}

// === impl Pair ===

impl Pair {
    /// Of a family.
    pub fn of(self, v6: bool) -> &'static str {
        if v6 { self.1 } else { self.0 }
    }
}

// === impl Prefix ===

impl Prefix {
    /// As flannel's `--kube-annotation-prefix` takes it: `x.y` and `x.y/` give `x.y/NAME`, `x.y/z` gives `x.y/z-NAME`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, DirectoryError> {
        let (domain, rest) = text.split_once('/').unwrap_or((text, ""));
        let letters = |part: &str| {
            part.bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        };
        let mut labels = domain.split('.');
        let is_domain =
            domain.contains('.') && labels.all(|part| !part.is_empty() && letters(part));
        if !is_domain || !letters(rest) || rest == "-" {
            return Err(DirectoryError(format!(
                "the annotation prefix {} is none: a domain of small letters, digits, \"_\", \"-\" and \".\" is wanted, \
                 and after it at most one \"/\" and a name, such as flannel.alpha.coreos.com",
                brief(text)
            )));
        }
        let dash = if rest.is_empty() || rest.ends_with('-') {
            ""
        } else {
            "-"
        };
        Ok(Self(format!("{domain}/{rest}{dash}")))
    }

    /// An annotation's whole name.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    /// What a Node says under a name; an empty value is none.
    ///
    /// # Errors
    /// It is too long to be looked at.
    pub fn read<'a>(&self, node: &'a Node, name: &str) -> Result<Option<&'a str>, String> {
        let found = node.annotations.iter().find(|(key, _)| {
            key.strip_prefix(self.0.as_str())
                .is_some_and(|rest| rest == name)
        });
        match found {
            None => Ok(None),
            Some((_, Ok(value))) => Ok(Some(value.as_str()).filter(|value| !value.is_empty())),
            Some((_, Err(bytes))) => Err(format!(
                "its annotation {name} has {bytes} bytes; at most {} are looked at",
                flannel::MAX_VALUE_BYTES
            )),
        }
    }

    /// An address a Node's operator wishes for; one that cannot be read is none, and named in the second place.
    pub fn read_ip(&self, node: &Node, name: &str, v6: bool) -> (Option<IpAddr>, Option<String>) {
        let text = match self.read(node, name) {
            Ok(None) => return (None, None),
            Ok(Some(text)) => text,
            Err(why) => return (None, Some(why)),
        };
        match flannel::public_ip(text, v6) {
            Some(ip) => (Some(ip), None),
            None => {
                let family = if v6 { "IPv6" } else { "IPv4" };
                let why = format!(
                    "the annotation {} is {}, which is no {family} address: it is passed over",
                    self.key(name),
                    brief(text)
                );
                (None, Some(why))
            }
        }
    }

    /// The annotations that this node has to have, in all families of its lease; what its operator wishes to be
    /// published instead of an address comes from the Node itself.
    ///
    /// # Errors
    /// A part is missing. Half a node is never published: flanneld drops it as a whole, and tries for most of a minute
    /// at each event of one without a MAC.
    pub fn wanted(
        &self,
        lease: &Lease,
        me: &Me,
        found: &Node,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut wanted = BTreeMap::new();
        let mut put = |name: &str, value: String| wanted.insert(self.key(name), value);
        put(GATE, "true".into());
        put(TYPE, me.kind.as_str().into());
        for (v6, subnet, end) in [(false, lease.v4, me.v4), (true, lease.v6, me.v6)] {
            if subnet.is_none() {
                continue;
            }
            let family = if v6 { "IPv6" } else { "IPv4" };
            let end = end.ok_or_else(|| {
                format!("the network has {family}, and this node has no {family} address to be reached at")
            })?;
            let data = match end.vtep {
                Some(vtep) => flannel::backend_data(&vtep),
                None if me.kind == Kind::Vxlan => {
                    return Err(format!("this node has no MAC of its {family} tunnel's end"));
                }
                None => "null".into(),
            };
            let (instead, _) = self.read_ip(found, OVERWRITE.of(v6), v6);
            put(DATA.of(v6), data);
            put(
                PUBLIC_IP.of(v6),
                instead.unwrap_or(end.public_ip).to_string(),
            );
        }
        Ok(wanted)
    }

    /// Those of the wanted ones that a Node does not have.
    pub fn missing<'a>(
        &self,
        wanted: &'a BTreeMap<String, String>,
        found: &Node,
    ) -> BTreeMap<&'a str, &'a str> {
        let has = |wanted: (&str, &str)| {
            let mut found = found.annotations.iter();
            found.any(|(key, value)| (key.as_str(), value.as_deref()) == (wanted.0, Ok(wanted.1)))
        };
        let wanted = wanted
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        wanted.filter(|wanted| !has(*wanted)).collect()
    }
}

#[cfg(test)]
mod tests;
