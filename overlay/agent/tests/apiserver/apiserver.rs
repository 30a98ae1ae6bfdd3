//! A small Kubernetes API server, for tests: Nodes to list (in pages), get, watch (with bookmarks) and patch, Pods to
//! get. Versions, events, 410 Gone and the merging of patches are as with the real one; what goes wrong can be chosen.
//!
//! It runs on a thread of its own, until dropped.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use store::{Asked, Fault, Store, line};

mod answer;
mod patch;
mod serve;
mod store;

/// A free port.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The running server.
pub struct ApiServer {
    store: Arc<Mutex<Store>>,
    /// Whether it listens; connections end when it stops.
    up: watch::Sender<bool>,
    pub address: SocketAddr,
}

// === impl ApiServer ===

impl ApiServer {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_at(LOOPBACK)
    }

    /// Listens there.
    pub fn start_at(address: SocketAddr) -> Self {
        Self::start_with(address, None)
    }

    /// With TLS: a certificate and its key, both PEM.
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        Self::start_with(LOOPBACK, Some(serve::acceptor(certificate, key)))
    }

    fn start_with(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let (up, listening) = watch::channel(true);
        let its = Arc::clone(&store);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve::serve(listener, tls, its, listening));
        });
        Self { store, up, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Stops to listen, and breaks all connections.
    pub fn down(&self) {
        self.store().watches.clear();
        self.up.send_replace(false);
    }

    pub fn up(&self) {
        self.up.send_replace(true);
    }

    /// Makes or replaces a Node; its version is the server's to set.
    pub fn put(&self, node: Value) {
        self.store().put(node);
    }

    pub fn delete(&self, name: &str) {
        self.store().delete(name);
    }

    /// Changes a Node as its owner would.
    pub fn edit(&self, name: &str, patch: &Value) {
        self.store().edit(name, patch);
    }

    pub fn node(&self, name: &str) -> Value {
        self.store().nodes[name].as_ref().clone()
    }

    pub fn annotations(&self, name: &str) -> BTreeMap<String, String> {
        let found = self.node(name)["metadata"]["annotations"].clone();
        serde_json::from_value(found).unwrap_or_default()
    }

    pub fn condition(&self, name: &str) -> Value {
        let node = self.node(name);
        let all = node["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        all.into_iter()
            .find(|c| c["type"] == "NetworkUnavailable")
            .unwrap_or(Value::Null)
    }

    /// What was asked so far by this method (of any, if empty), with this in path or query.
    pub fn asked(&self, method: &str, part: &str) -> Vec<Asked> {
        let store = self.store();
        let all = store.asked.iter();
        all.filter(|asked| {
            (method.is_empty() || asked.method == method) && asked.uri.contains(part)
        })
        .cloned()
        .collect()
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        let mut store = self.store();
        store.watches.retain(|watch| !watch.to.is_closed());
        store.watches.len()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.up.send_replace(false);
    }
}

/// A Node as kubelet registers it.
pub fn node(name: &str, pod_cidrs: &[&str]) -> Value {
    json!({
        "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": { "kubernetes.io/os": "linux" } },
        "spec": { "podCIDR": pod_cidrs.first().unwrap_or(&""), "podCIDRs": pod_cidrs },
        "status": {
            "addresses": [
                { "type": "Hostname", "address": name },
                { "type": "InternalIP", "address": "192.0.2.10" },
            ],
            "conditions": [ { "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "" } ],
        },
    })
}
