//! Nodes of the tests: what they are, and what they see.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use fabric::{Kind, NetConf, Vtep};
use libcni::kernel::Mac;
use overlayd::directory::etcd::{Etcd, Options};
use overlayd::directory::{Directory, End, Lease, Links, Me, Ready, View};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::server::{PREFIX, Server, URL, admin, put};

pub const V4: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
pub const DUAL: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48","Backend":{"Type":"vxlan"}}"#;

/// Nothing takes longer, except what is meant to.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A test with an etcd that has this configuration.
pub fn scene<F: Future<Output = ()>>(conf: &str, body: impl FnOnce(Server, Client) -> F) {
    testkit::in_netns(|| {
        block_on(async {
            let server = Server::start("http", &[]);
            let mut admin = admin().await;
            put(&mut admin, "config", conf).await;
            body(server, admin).await;
        });
    });
}

pub fn block_on(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(body);
}

pub fn options() -> Options {
    Options {
        endpoints: vec![URL.into()],
        prefix: PREFIX.into(),
        ..Options::default()
    }
}

pub fn etcd() -> Etcd {
    Etcd::open(options()).unwrap()
}

/// Leases for a node that does not run.
pub async fn take(network: &str, me: Me, before: Option<Lease>) -> Lease {
    let lease = etcd().lease(&conf(network), &me, before.as_ref()).await;
    lease.unwrap()
}

pub fn conf(text: &str) -> NetConf {
    NetConf::parse(text.as_bytes()).unwrap()
}

fn end(ip: &str, mac: &str) -> End {
    End {
        public_ip: ip.parse::<IpAddr>().unwrap(),
        vtep: Some(Vtep {
            mac: Mac::parse(mac).unwrap(),
            vni: Some(1),
        }),
    }
}

/// Node `n` of IPv4.
pub fn me(n: u16) -> Me {
    let [high, low] = n.to_be_bytes();
    Me {
        kind: Kind::Vxlan,
        v4: Some(end(
            &format!("192.0.{high}.{low}"),
            &format!("02:04:00:00:{high:02x}:{low:02x}"),
        )),
        v6: None,
    }
}

/// Node `n` of both families.
pub fn me_dual(n: u16) -> Me {
    let [high, low] = n.to_be_bytes();
    Me {
        v6: Some(end(
            &format!("fd00:9::{n:x}"),
            &format!("02:06:00:00:{high:02x}:{low:02x}"),
        )),
        ..me(n)
    }
}

pub fn lease(v4: &str) -> Lease {
    Lease {
        v4: Some(v4.parse().unwrap()),
        v6: None,
    }
}

pub fn lease_dual(v4: &str, v6: &str) -> Lease {
    Lease {
        v6: Some(v6.parse().unwrap()),
        ..lease(v4)
    }
}

/// What node `n` publishes in a network of IPv4.
pub fn value(n: u16) -> String {
    let [high, low] = n.to_be_bytes();
    format!(
        r#"{{"PublicIP":"192.0.{high}.{low}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:04:00:00:{high:02x}:{low:02x}"}}}}"#
    )
}

/// A node that runs.
pub struct Node {
    pub lease: Lease,
    pub me: watch::Sender<Me>,
    pub view: watch::Receiver<Arc<View>>,
    _ready: watch::Sender<Ready>,
    task: JoinHandle<()>,
}

impl Node {
    /// Leases and runs.
    pub async fn start(options: Options, me: Me, before: Option<Lease>) -> Self {
        let mut etcd = Etcd::open(options).unwrap();
        let conf = etcd.net_conf().await.unwrap();
        let lease = etcd.lease(&conf, &me, before.as_ref()).await.unwrap();
        Self::run(etcd, conf, me, lease)
    }

    /// Node `n` of IPv4, with a wish.
    pub async fn v4(n: u16, subnet: &str) -> Self {
        let node = Self::start(options(), me(n), Some(lease(subnet))).await;
        assert_eq!(node.lease, lease(subnet));
        node
    }

    /// Only the second half, as after a start without etcd.
    pub fn run(etcd: Etcd, conf: NetConf, me: Me, lease: Lease) -> Self {
        let (me, told) = watch::channel(me);
        let (ready, readiness) = watch::channel(Ready::Yes);
        let (seen, view) = watch::channel(Arc::default());
        let links = Links {
            conf,
            lease,
            me: told,
            ready: readiness,
            view: seen,
        };
        let task = tokio::spawn(async move {
            let error = etcd.run(links).await;
            panic!("a directory ended: {error}");
        });
        Self {
            lease,
            me,
            view,
            _ready: ready,
            task,
        }
    }

    /// Waits for a view.
    pub async fn sees(&mut self, what: &str, is: impl Fn(&View) -> bool) -> Arc<View> {
        let seen = tokio::time::timeout(PATIENCE, self.view.wait_for(|view| is(view))).await;
        if let Ok(seen) = &seen {
            return Arc::clone(seen.as_ref().unwrap());
        }
        drop(seen);
        panic!("not seen: {what}; {:#?}", *self.view.borrow());
    }

    /// Waits for exactly these peers.
    pub async fn sees_peers(&mut self, names: &[&str]) -> Arc<View> {
        self.sees(&format!("{names:?}"), |view| {
            view.complete && view.away.is_none() && view.peers.keys().eq(names)
        })
        .await
    }

    pub fn now(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    pub fn runs(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Node {
    /// As the agent ends.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until a question about etcd is answered with yes.
pub async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("never: {what}");
    }
}
