//! Entries for the fuzz targets.

use std::collections::BTreeMap;
use std::convert::Infallible;

use fabric::{NetConf, Peer};

use super::annotation::{DATA, GATE, Prefix};
use super::book;
use super::node::{Event, Node};
use super::objects::Objects;
use super::subnet;
use crate::directory::{Lease, Me};

/// A Node as a peer.
///
/// # Errors
/// Why it is none.
pub fn peer(prefix: &str, conf: &NetConf, json: &[u8]) -> Result<Peer, String> {
    let prefix = Prefix::parse(prefix).map_err(|e| e.to_string())?;
    let node = Node::parse(json).map_err(|(_, why)| why)?;
    book::read(&prefix, conf, &node)
}

/// The subnets Kubernetes gave a Node, if they lie in the network.
///
/// # Errors
/// Why it has none.
pub fn lease(conf: &NetConf, json: &[u8]) -> Result<Lease, String> {
    let node = Node::parse(json).map_err(|(_, why)| why)?;
    let lease = subnet::pick(&node, conf)?;
    subnet::check(&lease, conf)?;
    Ok(lease)
}

/// The annotations that a node writes of itself, over those that its Node has.
///
/// # Errors
/// A part is missing.
pub fn annotations(
    prefix: &str,
    lease: &Lease,
    me: &Me,
    json: &[u8],
) -> Result<BTreeMap<String, String>, String> {
    let prefix = Prefix::parse(prefix).map_err(|e| e.to_string())?;
    let node = Node::parse(json).map_err(|(_, why)| why)?;
    prefix.wanted(lease, me, &node)
}

/// The names of the gate and of both families' backend data.
///
/// # Errors
/// The prefix is none.
pub fn names(prefix: &str) -> Result<[String; 3], String> {
    let prefix = Prefix::parse(prefix).map_err(|e| e.to_string())?;
    Ok([GATE, DATA.of(false), DATA.of(true)].map(|name| prefix.key(name)))
}

/// The objects of a list or a watch that comes in pieces of so many bytes: each as an event or a Node, in words.
pub fn stream(bytes: &[u8], watch: bool, piece: usize) -> Vec<String> {
    let mut objects = if watch {
        Objects::of_watch()
    } else {
        Objects::of_list()
    };
    let mut seen = Vec::new();
    for part in bytes.chunks(piece.max(1)) {
        let Ok(()) = objects.push(part, |object| {
            seen.push(match object {
                None => "too long".to_owned(),
                Some(json) if watch => format!("{:?}", Event::parse(json)),
                Some(json) => format!("{:?}", Node::parse(json)),
            });
            Ok::<(), Infallible>(())
        });
    }
    seen.push(format!("{} bytes around", objects.rest().len()));
    seen
}
