//! Who the others are, by their Nodes. What cannot be used is kept by name, with the reason, and changes nothing for
//! the others.
//!
//! flannel passes over a Node whose gate goes away, whose podCIDR, type or, with two families, IPv4 side changes. Here
//! a Node always counts as what it says now.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use fabric::{Kind, NetConf, Peer, Site, lease};
use tokio::sync::watch;
use tracing::debug;

use super::annotation::{DATA, GATE, PUBLIC_IP, Prefix, TYPE, brief};
use super::feed::Word;
use super::node::Node;
use super::subnet;
use crate::directory::{Lease, View};

/// Takes in what the feed says, sends what is to be known of it.
#[derive(Debug)]
pub struct Book {
    /// This node's name.
    pub name: String,
    pub prefix: Prefix,
    pub conf: NetConf,
    pub lease: Lease,
    pub view: watch::Sender<Arc<View>>,
    /// This node's Node, as it is in the API.
    pub own: watch::Sender<Option<Arc<Node>>>,
    pub news: News,
}

/// What was heard and not told of yet.
#[derive(Debug, Default)]
pub struct News {
    /// A list that is coming in.
    list: Option<Entries>,
    changes: Vec<(String, Option<Entry>)>,
    events: u64,
}

type Entry = Result<Peer, String>;

#[derive(Debug, Default)]
struct Entries {
    peers: BTreeMap<String, Arc<Peer>>,
    skipped: BTreeMap<String, String>,
    own: bool,
}

/// A Node as a peer.
///
/// # Errors
/// Why it is none.
pub fn read(prefix: &Prefix, conf: &NetConf, node: &Node) -> Entry {
    if prefix.read(node, GATE)? != Some("true") {
        let key = prefix.key(GATE);
        return Err(format!(
            "its agent has not told where it is: no annotation {key}=true"
        ));
    }
    let kind = Kind::parse(prefix.read(node, TYPE)?.unwrap_or_default());
    let spoken = conf.backend.kind();
    if kind != spoken {
        let (its, ours) = (brief(kind.as_str()), spoken.as_str());
        return Err(format!(
            "its backend is {its}; only {ours} is spoken in this network"
        ));
    }
    let subnets = subnet::pick(node, conf)?;
    let site = |v6: bool, net: Option<_>| -> Result<Option<Site>, String> {
        let Some(subnet) = net else { return Ok(None) };
        let ip_name = PUBLIC_IP.of(v6);
        let text = prefix.read(node, ip_name)?.unwrap_or_default();
        let public_ip = lease::public_ip(text, v6).ok_or_else(|| {
            format!(
                "its annotation {ip_name} is {}, no address of its family",
                brief(text)
            )
        })?;
        let data = prefix.read(node, DATA.of(v6))?.unwrap_or_default();
        let vtep = lease::parse_backend_data(data.as_bytes());
        if vtep.is_none() && spoken == Kind::Vxlan {
            let (name, data) = (DATA.of(v6), brief(data));
            return Err(format!(
                "its annotation {name} is {data}, without the MAC of its tunnel's end"
            ));
        }
        Ok(Some(Site {
            subnet,
            public_ip,
            vtep: vtep.filter(|_| spoken == Kind::Vxlan),
        }))
    };
    Ok(Peer {
        name: node.name.clone(),
        v4: site(false, subnets.v4)?,
        v6: site(true, subnets.v6)?,
        kind,
    })
}

// === impl Book ===

impl Book {
    /// Takes one word in.
    pub fn hear<B>(&mut self, word: Word) -> ControlFlow<B> {
        match word {
            Word::Listing => {
                self.news = News {
                    list: Some(Entries::default()),
                    ..News::default()
                };
            }
            Word::Node(node) => self.node(node),
            Word::Unreadable { name, why } => self.entry(name, Err(why)),
            Word::Gone(name) => self.gone(name),
            Word::Listed => self.listed(),
            Word::Quiet => {
                self.news.events += 1;
            }
            Word::Pause => self.flush(),
            Word::Away(why) => self.away(Some(why)),
            Word::Back => self.away(None),
        }
        ControlFlow::Continue(())
    }

    fn node(&mut self, node: Node) {
        if node.name != self.name {
            let entry = read(&self.prefix, &self.conf, &node);
            return self.entry(node.name, entry);
        }
        self.news.events += 1;
        if let Some(list) = &mut self.news.list {
            list.own = true;
            // The first list comes from the server's memory, which may lag behind what the lease was given by.
            let known = self.own.borrow().clone();
            if known.is_some_and(|known| node.is_before(&known)) && !self.view.borrow().complete {
                return;
            }
        }
        self.see(Some(node));
    }

    fn entry(&mut self, name: String, entry: Entry) {
        self.news.events += 1;
        if name == self.name {
            return;
        }
        match &mut self.news.list {
            None => self.news.changes.push((name, Some(entry))),
            Some(list) => {
                let known = self.view.borrow().peers.get(&name).cloned();
                match entry {
                    Ok(peer) => {
                        list.peers.insert(name, keep(known, peer));
                    }
                    Err(why) => {
                        list.skipped.insert(name, why);
                    }
                }
            }
        }
    }

    fn gone(&mut self, name: String) {
        self.news.events += 1;
        if name == self.name {
            self.see(None);
        } else {
            self.news.changes.push((name, None));
        }
    }

    /// The list replaces what was known: who is not in it has left.
    fn listed(&mut self) {
        let News { list, events, .. } = std::mem::take(&mut self.news);
        let list = list.unwrap_or_default();
        if !list.own {
            self.see(None);
        }
        debug!(
            "{} nodes, {} of them no peers of this one",
            list.peers.len() + list.skipped.len(),
            list.skipped.len()
        );
        self.view.send_if_modified(|view| {
            let view = Arc::make_mut(view);
            let changed =
                !view.complete || view.peers != list.peers || view.skipped != list.skipped;
            (view.peers, view.skipped) = (list.peers, list.skipped);
            view.complete = true;
            view.heard = Some(Instant::now());
            view.events += events;
            changed
        });
    }

    /// Tells what has changed. What only was heard is noted, but wakes nobody.
    fn flush(&mut self) {
        let changes = std::mem::take(&mut self.news.changes);
        let events = std::mem::take(&mut self.news.events);
        self.view.send_if_modified(|view| {
            let view = Arc::make_mut(view);
            view.heard = Some(Instant::now());
            view.events += events;
            let mut changed = false;
            for (name, entry) in changes {
                changed |= enter(view, name, entry);
            }
            changed
        });
    }

    fn away(&self, why: Option<String>) {
        self.view.send_if_modified(|view| {
            if view.away == why {
                return false;
            }
            Arc::make_mut(view).away = why;
            true
        });
    }

    /// What became of this node's own Node.
    fn see(&self, node: Option<Node>) {
        let lost = match &node {
            None => Some(format!(
                "the Node {} was deleted, and its podCIDR may be given to another; the pods here keep their addresses. \
                 If it is to stay, restart kubelet: it registers the Node again",
                self.name
            )),
            Some(node) => match subnet::pick(node, &self.conf) {
                Ok(now) if now == self.lease => None,
                Ok(now) => Some(format!(
                    "the Node's podCIDR is {} now; the pods here have {} and are not renumbered. Drain the node and \
                     restart the agent, or give the podCIDR back",
                    subnet::show(&now),
                    subnet::show(&self.lease)
                )),
                Err(why) => Some(format!(
                    "the Node {} changed under the pods here: {why}",
                    self.name
                )),
            },
        };
        self.own.send_if_modified(|own| {
            let node = node.map(Arc::new);
            let changed = *own != node;
            *own = node;
            changed
        });
        self.view.send_if_modified(|view| {
            if view.lost == lost {
                return false;
            }
            Arc::make_mut(view).lost = lost;
            true
        });
    }
}

/// Puts one Node's entry into a view. Does it change it?
fn enter(view: &mut View, name: String, entry: Option<Entry>) -> bool {
    let (peer, why) = match entry {
        Some(Ok(peer)) => (Some(peer), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let mut changed = false;
    match why {
        Some(why) if view.skipped.get(&name) != Some(&why) => {
            changed = true;
            view.skipped.insert(name.clone(), why);
        }
        Some(_) => {}
        None => changed |= view.skipped.remove(&name).is_some(),
    }
    match peer {
        Some(peer) if view.peers.get(&name).is_none_or(|known| **known != peer) => {
            changed = true;
            view.peers.insert(name, Arc::new(peer));
        }
        Some(_) => {}
        None => changed |= view.peers.remove(&name).is_some(),
    }
    changed
}

/// The one that is known already, if it is the same.
fn keep(known: Option<Arc<Peer>>, peer: Peer) -> Arc<Peer> {
    match known {
        Some(known) if *known == peer => known,
        _ => Arc::new(peer),
    }
}
