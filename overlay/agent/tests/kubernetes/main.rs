//! The Kubernetes directory against a small real API server over loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fabric::{Kind, NetConf, Vtep};
use overlayd::directory::kubernetes::{Kubernetes, Options, Pace};
use overlayd::directory::{Directory, End, Lease, Links, Me, Ready, View};
use serde_json::{Value, json};
use tokio::sync::watch;

use apiserver::ApiServer;

mod access;
#[path = "../apiserver/apiserver.rs"]
mod apiserver;
mod lease;
mod manifest;
mod own;
mod peers;
mod scale;
mod watching;

const V4: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
const DUAL: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10::/48",
    "Backend": {"Type": "vxlan"}}"#;
const V6: &str = r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10::/48",
    "Backend": {"Type": "vxlan"}}"#;
const HOST_GW: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}"#;

const PREFIX: &str = "flannel.alpha.coreos.com";
const DATA: &str = r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}"#;
const DATA_V6: &str = r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e4"}"#;

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stays open while a directory runs.
struct Running {
    me: watch::Sender<Me>,
    ready: watch::Sender<Ready>,
    view: watch::Receiver<Arc<View>>,
    task: tokio::task::JoinHandle<()>,
}

/// In a namespace, with a server.
fn scene<F: Future<Output = ()>>(body: impl FnOnce(Arc<ApiServer>) -> F) {
    testkit::in_netns(|| {
        let log = tracing_subscriber::fmt().with_env_filter("overlayd=debug");
        log.with_writer(std::io::stderr).init();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let body = body(Arc::new(ApiServer::start()));
            let limit = tokio::time::timeout(3 * PATIENCE, body);
            limit.await.expect("an end");
        });
    });
}

fn conf(text: &str) -> NetConf {
    NetConf::parse(text.as_bytes()).unwrap()
}

/// Of the node `me`, quick to try again.
fn options(url: &str) -> Options {
    Options {
        api_url: Some(url.to_owned()),
        node_name: Some("me".into()),
        pace: Pace {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(50),
            grace: Duration::from_millis(100),
            ..Pace::default()
        },
        ..Options::default()
    }
}

async fn open(api: &ApiServer) -> Kubernetes {
    Kubernetes::open(options(&api.url())).await.unwrap()
}

/// This node, in the families of a configuration.
fn me(conf: &NetConf) -> Me {
    let vxlan = conf.backend.kind() == Kind::Vxlan;
    let end = |ip: &str, data: &str| End {
        public_ip: ip.parse().unwrap(),
        vtep: vxlan.then(|| vtep(data)),
    };
    Me {
        kind: conf.backend.kind(),
        v4: conf.v4.map(|_| end("192.0.2.10", DATA)),
        v6: conf.v6.map(|_| end("2001:db8::10", DATA_V6)),
    }
}

fn vtep(data: &str) -> Vtep {
    fabric::lease::parse_backend_data(data.as_bytes()).unwrap()
}

/// A Node with annotations, under flannel's prefix.
fn annotated(name: &str, pod_cidrs: &[&str], annotations: &[(&str, &str)]) -> Value {
    let mut node = apiserver::node(name, pod_cidrs);
    for (key, value) in annotations {
        node["metadata"]["annotations"][format!("{PREFIX}/{key}")] = (*value).into();
    }
    node
}

/// A peer as flanneld leaves it: number 7 has 10.244.7.0/24.
fn peer(number: u8) -> Value {
    let data = format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(number));
    annotated(
        &format!("n{number}"),
        &[&format!("10.244.{number}.0/24")],
        &[
            ("kube-subnet-manager", "true"),
            ("backend-type", "vxlan"),
            ("backend-data", &data),
            ("public-ip", &format!("192.0.2.{number}")),
        ],
    )
}

fn mac(number: u8) -> String {
    format!("12:c6:65:89:b4:{number:02x}")
}

/// A change of one annotation; `null` takes it away.
fn annotation(key: &str, value: Value) -> Value {
    json!({ "metadata": { "annotations": { format!("{PREFIX}/{key}"): value } } })
}

/// Leases, and runs from there.
async fn run(api: &ApiServer, text: &str) -> Running {
    run_with(options(&api.url()), text).await
}

async fn run_with(options: Options, text: &str) -> Running {
    let mut directory = Kubernetes::open(options).await.unwrap();
    let conf = conf(text);
    let of_me = me(&conf);
    let lease = directory.lease(&conf, &of_me, None).await.unwrap();
    follow(directory, conf, of_me, lease)
}

fn follow(directory: Kubernetes, conf: NetConf, of_me: Me, lease: Lease) -> Running {
    let (me, me_seen) = watch::channel(of_me);
    let (ready, ready_seen) = watch::channel(Ready::No("starting".into()));
    let (view_told, view) = watch::channel(Arc::default());
    let links = Links {
        conf,
        lease,
        me: me_seen,
        ready: ready_seen,
        view: view_told,
    };
    let task = tokio::spawn(async move {
        let error = directory.run(links).await;
        panic!("it ended: {error}");
    });
    Running {
        me,
        ready,
        view,
        task,
    }
}

// === impl Running ===

impl Running {
    /// Waits for a view of which this is true.
    async fn until(&mut self, what: impl FnMut(&Arc<View>) -> bool) -> Arc<View> {
        if let Ok(found) = tokio::time::timeout(PATIENCE, self.view.wait_for(what)).await {
            return found.unwrap().clone();
        }
        panic!("not within {PATIENCE:?}: {:#?}", self.view.borrow())
    }

    async fn until_complete(&mut self) -> Arc<View> {
        self.until(|view| view.complete).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for something that the server sees.
async fn eventually(mut what: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !what() {
        let now = tokio::time::Instant::now();
        assert!(now < end, "not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn names(view: &View) -> Vec<&str> {
    view.peers.keys().map(String::as_str).collect()
}
