//! Nodes as Kubernetes knows them: flannel's annotations on Node objects, subnets from `spec.podCIDRs`.
//!
//! ```yaml
//! metadata:
//!   annotations:
//!     flannel.alpha.coreos.com/kube-subnet-manager: "true"
//!     flannel.alpha.coreos.com/backend-type: vxlan
//!     flannel.alpha.coreos.com/backend-data: '{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}'
//!     flannel.alpha.coreos.com/public-ip: 192.0.2.3
//! spec:
//!   podCIDRs: [10.244.1.0/24]
//! ```
//! Source: flannel, `pkg/subnet/kube/kube.go`. What it needs of the API server: nodes list, watch; nodes/status patch;
//! pods get, if the node's name is to be found out.

use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fabric::{NetConf, lease as flannel};
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Directory, DirectoryError, Hints, Lease, Links, Me};
use access::Access;
use annotation::{DATA, NODE_PUBLIC_IP, OVERWRITE, Prefix, brief};
use book::{Book, News};
use feed::{Feed, Word};
use keep::Keeper;
use node::Node;
use pause::{Complaint, Pause};

mod access;
mod annotation;
mod book;
mod condition;
mod feed;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod keep;
mod node;
mod objects;
mod pause;
mod subnet;

/// How the API server is reached, and who this node is.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--kubeconfig-file`; without it and without `api_url`, what a pod is given.
    pub kubeconfig: Option<PathBuf>,
    /// `--kube-api-url`; overrides the kubeconfig's.
    pub api_url: Option<String>,
    /// `--kube-annotation-prefix`
    pub annotation_prefix: String,
    /// `--net-config-path`. Read at the start; a change is seen after a restart only, as with flannel.
    pub net_conf: PathBuf,
    /// `NODE_NAME`
    pub node_name: Option<String>,
    /// `POD_NAMESPACE` and `POD_NAME`: the pod whose node this is, if `node_name` does not say.
    pub pod: Option<(String, String)>,
    /// `--set-node-network-unavailable`
    pub set_network_unavailable: bool,
    /// How patient it is.
    pub pace: Pace,
}

/// How long it waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The pause before the first new try.
    pub first: Duration,
    /// The longest pause; each is twice the one before it.
    pub longest: Duration,
    /// For a connection.
    pub connect: Duration,
    /// For an answer to a request, or for its next bytes.
    pub patience: Duration,
    /// For the next word of a watch; bookmarks come each minute or so.
    pub idle: Duration,
    /// How long a network that was up may be down before the Node says so. A restart is shorter.
    pub grace: Duration,
}

/// Nodes as Kubernetes knows them.
#[derive(Debug)]
pub struct Kubernetes {
    access: Access,
    prefix: Prefix,
    options: Options,
    /// This node's name, once it is known.
    name: Option<String>,
    /// Its Node, as it was when the lease was published.
    own: Option<Arc<Node>>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            api_url: None,
            annotation_prefix: "flannel.alpha.coreos.com".into(),
            net_conf: "/etc/kube-flannel/net-conf.json".into(),
            node_name: None,
            pod: None,
            set_network_unavailable: true,
            pace: Pace::default(),
        }
    }
}

// === impl Pace ===

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(15),
            connect: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            idle: Duration::from_secs(150),
            grace: Duration::from_secs(5),
        }
    }
}

// === impl Kubernetes ===

impl Kubernetes {
    /// Checks the options, reads kubeconfig and certificates; connects to nothing yet. Wants a runtime of tokio's.
    ///
    /// # Errors
    /// An option that makes no sense, a file that cannot be read.
    pub async fn open(options: Options) -> Result<Self, DirectoryError> {
        let prefix = Prefix::parse(&options.annotation_prefix)?;
        let name = options.node_name.clone().filter(|name| !name.is_empty());
        let of_pod = options
            .pod
            .iter()
            .flat_map(|(namespace, name)| [namespace, name]);
        for name in name.iter().chain(of_pod) {
            let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
            if name.is_empty() || name.len() > 253 || !name.bytes().all(letter) {
                let name = brief(name);
                return Err(DirectoryError(format!(
                    "{name} is no name of a node or a pod"
                )));
            }
        }
        if name.is_none() && options.pod.is_none() {
            return Err(DirectoryError(
                "this node's name is not known: set NODE_NAME (fieldRef spec.nodeName), or POD_NAME and POD_NAMESPACE"
                    .into(),
            ));
        }
        Ok(Self {
            access: Access::open(&options).await?,
            prefix,
            options,
            name,
            own: None,
        })
    }

    /// This node's name; asks the API server, if it must, until it says.
    pub async fn name(&mut self) -> String {
        let mut pause = Pause::of(&self.options.pace);
        let mut complaint = Complaint::default();
        loop {
            if let Some(name) = &self.name {
                return name.clone();
            }
            let (namespace, pod) = self.options.pod.clone().unwrap_or_default();
            match self.access.node_of_pod(&namespace, &pod).await {
                Ok(name) => self.name = Some(name),
                Err(trouble) => {
                    let what = format!("the node of pod {namespace}/{pod} cannot be found out yet");
                    complaint.say(&what, &trouble.why);
                    pause.make().await;
                }
            }
        }
    }

    /// Waits until this node's Node is as wanted: `what` tells what is missing.
    async fn await_own<T>(
        &self,
        name: &str,
        mut what: impl FnMut(&Node) -> Result<T, String>,
    ) -> (Node, T) {
        const UNHEARD: &str = "the API server has not answered yet";
        let (reason, mut heard) = watch::channel(UNHEARD.to_owned());
        let feed = Feed::of_one(&self.access, &self.options.pace, name);
        let mut there = false;
        let found = feed.follow(|word| {
            match word {
                Word::Node(node) => match what(&node) {
                    Ok(found) => return ControlFlow::Break((node, found)),
                    Err(why) => {
                        there = true;
                        reason.send_replace(why);
                    }
                },
                Word::Unreadable { why, .. } | Word::Away(why) => drop(reason.send_replace(why)),
                Word::Listing => there = false,
                Word::Listed if !there => {
                    reason.send_replace("there is no such Node yet; kubelet registers it".into());
                }
                Word::Gone(_) => drop(reason.send_replace("it was deleted".into())),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        let remind = async {
            let mut complaint = Complaint::default();
            loop {
                // In time for the complaint to be due.
                let _ = tokio::time::timeout(Duration::from_secs(61), heard.changed()).await;
                let why = heard.borrow_and_update().clone();
                complaint.say(&format!("waiting for the Node {name}"), &why);
            }
        };
        tokio::select! {
            found = found => found,
            never = remind => never,
        }
    }
}

impl Directory for Kubernetes {
    async fn net_conf(&mut self) -> Result<NetConf, DirectoryError> {
        let path = &self.options.net_conf;
        let what = format!("the network configuration {}", path.display());
        let mut complaint = Complaint::default();
        loop {
            match fs::read(path) {
                Ok(text) => {
                    return NetConf::parse(&text)
                        .map_err(|e| DirectoryError(format!("{what}: {e}")));
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    complaint.say(&what, "it is not there yet");
                    tokio::time::sleep(self.options.pace.first).await;
                }
                Err(e) => return Err(DirectoryError(format!("{what}: {e}"))),
            }
        }
    }

    async fn hints(&mut self) -> Result<Hints, DirectoryError> {
        let name = self.name().await;
        let (node, ()) = self.await_own(&name, |_| Ok(())).await;
        let wish = |key: annotation::Pair, v6| {
            let (ip, trouble) = self.prefix.read_ip(&node, key.of(v6), v6);
            if let Some(why) = trouble {
                warn!("the Node {name}: {why}");
            }
            ip
        };
        // Only to tell of a wish that cannot be fulfilled.
        let _ = (wish(OVERWRITE, false), wish(OVERWRITE, true));
        let mac = |v6| {
            let data = self.prefix.read(&node, DATA.of(v6)).ok().flatten()?;
            Some(flannel::parse_backend_data(data.as_bytes())?.mac)
        };
        Ok(Hints {
            public_ip: wish(NODE_PUBLIC_IP, false),
            public_ipv6: wish(NODE_PUBLIC_IP, true),
            internal_ips: node.internal_ips.clone(),
            mac: mac(false),
            mac_v6: mac(true),
        })
    }

    async fn lease(
        &mut self,
        conf: &NetConf,
        me: &Me,
        before: Option<&Lease>,
    ) -> Result<Lease, DirectoryError> {
        let name = self.name().await;
        let mut pause = Pause::of(&self.options.pace);
        let mut complaint = Complaint::default();
        loop {
            let subnets = |node: &Node| {
                let lease = subnet::pick(node, conf)?;
                subnet::check(&lease, conf).map(|()| lease)
            };
            let (node, lease) = self.await_own(&name, subnets).await;
            let wanted = self.prefix.wanted(&lease, me, &node);
            let wanted = wanted.map_err(|why| DirectoryError(format!("not published: {why}")))?;
            let missing = self.prefix.missing(&wanted, &node);
            let mut node = node;
            if !missing.is_empty() {
                let body = json!({ "metadata": { "annotations": missing } });
                node = match self.access.patch(&name, &body).await {
                    Ok(node) => node,
                    Err(trouble) => {
                        complaint.say(&format!("cannot write the Node {name}"), &trouble.why);
                        pause.make().await;
                        continue;
                    }
                };
            }
            self.own = Some(Arc::new(node));
            let has = subnet::show(&lease);
            match before.filter(|before| **before != lease) {
                Some(before) => warn!(
                    "the Node {name} has {has} now, and had {}: pods that are left from then cannot be reached",
                    subnet::show(before)
                ),
                None => info!("the Node {name} has {has}"),
            }
            return Ok(lease);
        }
    }

    async fn run(self, links: Links) -> DirectoryError {
        let Some(name) = self.name else {
            return DirectoryError("run before lease: the node's name is not known".into());
        };
        let (seen, own) = watch::channel(self.own);
        let mut book = Book {
            name: name.clone(),
            prefix: self.prefix.clone(),
            conf: links.conf,
            lease: links.lease,
            view: links.view,
            own: seen,
            news: News::default(),
        };
        let keeper = Keeper {
            access: self.access.clone(),
            name,
            lease: links.lease,
            prefix: self.prefix,
            condition: self.options.set_network_unavailable,
            pace: self.options.pace,
            own,
            me: links.me,
            ready: links.ready,
        };
        let nodes = Feed::of_all(&self.access, &self.options.pace);
        tokio::select! {
            never = nodes.follow(|word| book.hear::<DirectoryError>(word)) => never,
            never = keeper.keep() => match never {},
        }
    }
}
