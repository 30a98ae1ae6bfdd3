//! What the server has: objects, versions, what happened, who watches.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::patch;

/// The objects, and what to do wrong.
#[derive(Default)]
pub struct Store {
    pub version: u64,
    pub nodes: BTreeMap<String, Arc<Value>>,
    /// `namespace/name` of a Pod, and its node.
    pub pods: BTreeMap<String, String>,
    /// What happened since `forgotten`.
    pub history: Vec<(u64, String, Bytes)>,
    /// Versions before this one are not known any more.
    pub forgotten: u64,
    pub watches: Vec<Watch>,
    pub asked: Vec<Asked>,
    pub faults: Vec<Fault>,
    /// Whoever does not say this gets 401.
    pub token: Option<String>,
    /// Most items of a page, whatever the limit.
    pub page: Option<usize>,
    /// Lists that go on, by their token.
    pub snapshots: BTreeMap<String, Vec<Arc<Value>>>,
    /// Members of every Node that nobody looks at, as JSON text: `"a":1,"b":[]`. Real Nodes have 10 KB and more of it.
    pub filler: Option<String>,
}

pub type Line = Result<Bytes, io::Error>;

/// An open watch.
pub struct Watch {
    pub name: Option<String>,
    pub bookmarks: bool,
    pub to: UnboundedSender<Line>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub uri: String,
    pub content_type: String,
    pub body: Value,
}

/// What to do instead of answering.
#[derive(Debug, Clone)]
pub struct Fault {
    pub method: &'static str,
    /// In path or query.
    pub part: &'static str,
    pub times: usize,
    /// A status, or one of those below.
    pub code: u16,
}

// === impl Fault ===

impl Fault {
    /// The connection breaks.
    pub const BREAK: u16 = 0;
    /// No answer comes.
    pub const HANG: u16 = 1;
    /// Of a list, one half comes.
    pub const HALF: u16 = 2;
}

// === impl Store ===

impl Store {
    pub fn put(&mut self, mut node: Value) {
        let name = node["metadata"]["name"].as_str().unwrap().to_owned();
        let what = if self.nodes.contains_key(&name) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.version += 1;
        node["kind"] = "Node".into();
        node["apiVersion"] = "v1".into();
        node["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell(what, &name, &node);
        self.nodes.insert(name, Arc::new(node));
    }

    pub fn delete(&mut self, name: &str) {
        self.version += 1;
        let mut node = self.nodes.remove(name).unwrap().as_ref().clone();
        node["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell("DELETED", name, &node);
    }

    /// A strategic merge of everything.
    pub fn edit(&mut self, name: &str, by: &Value) {
        let mut node = self.nodes[name].as_ref().clone();
        patch::strategic(&mut node, by);
        self.put(node);
    }

    /// Something else in the cluster changes.
    pub fn pass(&mut self, versions: u64) {
        self.version += versions;
    }

    /// Tells those who want to know that nothing happened to Nodes.
    pub fn bookmark(&mut self) {
        let object = json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": { "resourceVersion": self.version.to_string(), "creationTimestamp": null },
            "spec": {}, "status": { "nodeInfo": {} },
        });
        let line = line("BOOKMARK", &object.to_string());
        for watch in self.watches.iter().filter(|watch| watch.bookmarks) {
            let _ = watch.to.send(Ok(line.clone()));
        }
    }

    /// etcd's compaction.
    pub fn compact(&mut self) {
        self.history.clear();
        self.snapshots.clear();
        self.forgotten = self.version;
    }

    /// Says the same to all watches, and ends them.
    pub fn say_and_end(&mut self, what: &str, object: &Value) {
        let line = line(what, &object.to_string());
        for watch in self.watches.drain(..) {
            let _ = watch.to.send(Ok(line.clone()));
        }
    }

    /// Breaks the connections of all watches.
    pub fn cut_watches(&mut self) {
        for watch in self.watches.drain(..) {
            let _ = watch.to.send(Err(io::Error::other("cut")));
        }
    }

    /// A Node as it is sent.
    pub fn text(&self, node: &Value) -> String {
        let text = node.to_string();
        match &self.filler {
            Some(filler) => format!("{{{filler},{}", &text[1..]),
            None => text,
        }
    }

    fn tell(&mut self, what: &str, name: &str, node: &Value) {
        let line = line(what, &self.text(node));
        self.watches.retain(|watch| !watch.to.is_closed());
        for watch in &self.watches {
            if watch.name.as_ref().is_none_or(|only| only == name) {
                let _ = watch.to.send(Ok(line.clone()));
            }
        }
        self.history.push((self.version, name.to_owned(), line));
    }
}

/// An event, as the real server writes it.
pub fn line(what: &str, object: &str) -> Bytes {
    format!("{{\"type\":\"{what}\",\"object\":{object}}}\n").into()
}
