//! The result cache: what ADD was given and what it made, kept for CHECK and DEL.
//!
//! The files are the reference's (C: `libcni/api.go`, kind `cniCacheV1`): same place, names, keys in the same order and
//! the same bytes. Two things differ in how they are handled: an entry is put in its place whole, and one that is torn
//! or belongs to another attachment of the same file name (`a-b` + `c` and `a` + `b-c`) reads as absent.

mod base64;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::file::{self, Key};
use super::request::as_go_map;
use super::{Attach, RuntimeError};
use crate::spec::json::{Fields, Node, ObjBuilder};
use crate::spec::{CniResult, Version};

pub(super) use file::write_atomically;

/// An attachment as its ADD left it.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheEntry {
    /// The network's name.
    pub network: String,
    /// The container.
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
    /// The namespace's path. Libraries before 1.2 did not keep it.
    pub netns: Option<String>,
    /// `CNI_ARGS`.
    pub args: Vec<(String, String)>,
    /// What the runtime gave by capability, an object.
    pub capability_args: Option<Node>,
    /// The list's bytes: good for [`NetworkList::parse`](super::NetworkList::parse).
    pub config: Vec<u8>,
    /// The final result, in the version the last plugin gave it.
    pub result: Option<Node>,
    /// Where it is kept.
    pub file: PathBuf,
    /// When it was written.
    pub modified: SystemTime,
}

/// The directory `results` of a cache directory.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    /// The reference lists whatever is in `dir`.
    draft_dir: PathBuf,
}

const KIND: &str = "cniCacheV1";

/// What an entry is written from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) key: &'a Key,
    pub(super) at: &'a Attach,
    pub(super) config: &'a [u8],
    pub(super) result: Option<&'a Node>,
}

// === impl Cache ===

impl Cache {
    /// Of `/var/lib/cni`, say. Nothing is made before it is needed.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.join("results"),
            draft_dir: dir.join("podwire"),
        }
    }

    /// Every attachment, in the order of the file names. What is torn, of another kind or from libraries that kept the
    /// bare result is passed over.
    ///
    /// # Errors
    /// The directory cannot be read. A missing one is an empty one.
    pub fn entries(&self) -> io::Result<Vec<CacheEntry>> {
        let mut entries = Vec::new();
        for path in file::list(&self.dir)? {
            // It may be gone by now.
            entries.extend(read(&path).and_then(|(node, at)| CacheEntry::of(&node, &path, at)));
        }
        Ok(entries)
    }

    /// The entry of an attachment; none also if it cannot be read.
    pub(super) fn read(&self, key: &Key) -> Option<CacheEntry> {
        let path = self.path(key);
        let (node, modified) = read(&path)?;
        if Fields::of(&node, "").ok()?.node("kind").is_some() {
            let entry = CacheEntry::of(&node, &path, modified)?;
            return entry.is_of(key).then_some(entry);
        }
        // Before 0.8 the file was the bare result.
        CniResult::parse(&node, Version::V0_1_0).ok()?;
        Some(CacheEntry {
            network: key.network.clone(),
            container_id: key.container_id.clone(),
            ifname: key.ifname.clone(),
            netns: None,
            args: Vec::new(),
            capability_args: None,
            config: Vec::new(),
            result: Some(node),
            file: path,
            modified,
        })
    }

    pub(super) fn write(&self, saved: Saved<'_>) -> Result<(), RuntimeError> {
        let text = encode(KIND, saved).build().write_compact();
        let path = self.path(saved.key);
        file::place(&path, &self.draft_dir)
            .replace(text.as_bytes(), |_| Ok(()))
            .map(drop)
            .map_err(|e| file::failed("write", &path, e))
    }

    /// Removes an entry, torn or not, unless it is another attachment's.
    pub(super) fn remove(&self, key: &Key) -> Result<(), RuntimeError> {
        let path = self.path(key);
        let others = read(&path)
            .and_then(|(node, modified)| CacheEntry::of(&node, &path, modified))
            .is_some_and(|entry| !entry.is_of(key));
        if others { Ok(()) } else { file::remove(&path) }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(key.file_name())
    }
}

fn read(path: &Path) -> Option<(Node, SystemTime)> {
    let modified = fs::symlink_metadata(path).and_then(|m| m.modified()).ok()?;
    Some((Node::parse(&fs::read(path).ok()?).ok()?, modified))
}

// === impl CacheEntry ===

impl CacheEntry {
    fn of(node: &Node, path: &Path, modified: SystemTime) -> Option<Self> {
        Self::read(node, KIND, path, modified)
    }

    /// Reads a file that [`encode`] wrote, or the reference.
    pub(super) fn read(node: &Node, kind: &str, path: &Path, modified: SystemTime) -> Option<Self> {
        let fields = Fields::of(node, "").ok()?;
        let text = |key| {
            fields
                .str(key)
                .ok()
                .flatten()
                .filter(|text| !text.is_empty())
        };
        if text("kind")? != kind {
            return None;
        }
        Some(Self {
            network: text("networkName")?,
            container_id: text("containerId")?,
            ifname: text("ifName")?,
            netns: text("netns"),
            args: args(&fields),
            capability_args: fields.node("capabilityArgs").map(|node| node.into_owned()),
            config: text("config")
                .and_then(|text| base64::decode(&text))
                .unwrap_or_default(),
            result: fields.node("result").map(|node| node.into_owned()),
            file: path.to_owned(),
            modified,
        })
    }

    /// The attachment as it was given to ADD.
    #[must_use]
    pub fn attach(&self) -> Attach {
        let nothing = || Node::obj().build();
        Attach {
            container_id: self.container_id.clone(),
            netns: self.netns.clone().unwrap_or_default(),
            ifname: self.ifname.clone(),
            args: self.args.clone(),
            capability_args: self.capability_args.clone().unwrap_or_else(nothing),
        }
    }

    /// The file's content, as either library would write it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let saved = Saved {
            key: &self.key(),
            at: &self.attach(),
            config: &self.config,
            result: self.result.as_ref(),
        };
        encode(KIND, saved).build().write_compact().into_bytes()
    }

    /// The names of its file; good for comparing and looking up only, for nobody checked them.
    pub(super) fn key(&self) -> Key {
        Key {
            network: self.network.clone(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }

    pub(super) fn is_of(&self, key: &Key) -> bool {
        self.key() == *key
    }
}

/// `[["K","V"],...]`; a pair that is none is left out.
fn args(fields: &Fields<'_>) -> Vec<(String, String)> {
    let pairs = fields.array("cniArgs").ok().flatten().unwrap_or_default();
    let pair = |node: &&Node| match node {
        Node::Array(pair) => match pair.as_slice() {
            [key, value] => Some((key.as_str()?.to_owned(), value.as_str()?.to_owned())),
            _ => None,
        },
        _ => None,
    };
    pairs.iter().filter_map(pair).collect()
}

/// The file's object, keys in the reference's order.
pub(super) fn encode(kind: &str, saved: Saved<'_>) -> ObjBuilder {
    let Saved { key, at, .. } = saved;
    let pair = |(key, value): &(String, String)| {
        Node::Array(vec![key.as_str().into(), value.as_str().into()])
    };
    let args: Vec<Node> = at.args.iter().map(pair).collect();
    let sorted = |node: &Node| {
        let mut node = node.clone();
        as_go_map(&mut node);
        node
    };
    Node::obj()
        .put("kind", kind)
        .put("containerId", key.container_id.as_str())
        .put("config", base64::encode(saved.config))
        .put("ifName", key.ifname.as_str())
        .put("networkName", key.network.as_str())
        .put_filled("netns", at.netns.as_str())
        .put_filled("cniArgs", args)
        .put_filled("capabilityArgs", sorted(&at.capability_args))
        .put_some("result", saved.result.map(sorted))
}

#[cfg(test)]
mod tests;
