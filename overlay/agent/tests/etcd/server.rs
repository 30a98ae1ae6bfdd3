//! A real etcd, and its administrator.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, ConnectOptions, GetOptions, KeyValue, Txn, TxnOp};

const DATA: &str = "/run/etcd";
pub const URL: &str = "http://127.0.0.1:2379";
pub const PREFIX: &str = "/coreos.com/network";

/// etcd. It dies with the test.
pub struct Server {
    child: Option<Child>,
    url: String,
    args: Vec<String>,
}

impl Server {
    /// A new one, with more arguments and the scheme of clients' URLs.
    pub fn start(scheme: &str, args: &[&str]) -> Self {
        let mut server = Self {
            child: None,
            url: format!("{scheme}://127.0.0.1:2379"),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        };
        server.revive();
        server
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// On the same data.
    pub fn revive(&mut self) {
        let peers = "http://127.0.0.1:2380";
        // setpriv: also a test that is killed takes its etcd with it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "/usr/bin/etcd"])
            .args([
                "--data-dir",
                DATA,
                "--log-level",
                "error",
                "--logger",
                "zap",
            ])
            .args(["--heartbeat-interval", "10", "--election-timeout", "100"])
            .args(["--listen-client-urls", &self.url])
            .args(["--advertise-client-urls", &self.url])
            .args(["--listen-peer-urls", peers])
            .args(["--initial-advertise-peer-urls", peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("etcd (Debian: etcd-server)");
        self.child = Some(child);
    }

    /// All is gone; the next one is another etcd.
    pub fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(DATA).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The administrator.
pub async fn admin() -> Client {
    admin_at(URL).await
}

pub async fn admin_at(url: &str) -> Client {
    admin_with(url, ConnectOptions::new()).await
}

pub async fn admin_with(url: &str, options: ConnectOptions) -> Client {
    loop {
        let client = Client::connect([url], Some(options.clone())).await.unwrap();
        let mut kv = client.kv_client();
        let hello = tokio::time::timeout(Duration::from_millis(300), kv.get("hello", None));
        if matches!(hello.await, Ok(Ok(_))) {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A key of the network.
pub fn key(rest: &str) -> String {
    format!("{PREFIX}/{rest}")
}

pub async fn put(admin: &mut Client, rest: &str, value: impl Into<Vec<u8>>) -> i64 {
    let put = admin.put(key(rest), value, None).await.unwrap();
    put.header().unwrap().revision()
}

pub async fn delete(admin: &mut Client, rest: &str) {
    let deleted = admin.delete(key(rest), None).await.unwrap();
    assert_eq!(deleted.deleted(), 1, "{rest}");
}

pub async fn get(admin: &mut Client, rest: &str) -> Option<KeyValue> {
    admin.get(key(rest), None).await.unwrap().take_kvs().pop()
}

/// Every key below the network's prefix, with all that etcd knows of it.
pub async fn dump(admin: &mut Client, rest: &str) -> Vec<KeyValue> {
    let all = GetOptions::new().with_prefix();
    admin.get(key(rest), Some(all)).await.unwrap().take_kvs()
}

/// The names of all leases.
pub async fn leases(admin: &mut Client) -> Vec<String> {
    let prefix = key("subnets/");
    let name = |kv: &KeyValue| kv.key_str().unwrap()[prefix.len()..].to_owned();
    dump(admin, "subnets/").await.iter().map(name).collect()
}

/// Forgets all history up to now.
pub async fn compact(admin: &mut Client) {
    let now = admin.put("compact", "", None).await.unwrap();
    let revision = now.header().unwrap().revision();
    admin.compact(revision, None).await.unwrap();
}

/// Many keys, a hundred in each step.
pub async fn put_all(admin: &mut Client, entries: &[(String, String)]) {
    for some in entries.chunks(100) {
        let puts: Vec<TxnOp> = some
            .iter()
            .map(|(rest, value)| TxnOp::put(key(rest), value.as_str(), None))
            .collect();
        let txn = Txn::new()
            .when([Compare::version("none", CompareOp::Equal, 0)])
            .and_then(puts);
        assert!(admin.txn(txn).await.unwrap().succeeded());
    }
}

/// Does something while nothing else of this test runs: our nodes learn of it afterwards, all at once.
pub fn meanwhile<F: Future<Output = ()>>(what: impl FnOnce(Client) -> F + Send) {
    let there = || crate::node::block_on(async { what(admin().await).await });
    std::thread::scope(|scope| scope.spawn(there).join().unwrap());
}

/// The same data on another port: what happens is not seen on the usual one.
pub struct Aside {
    pub admin: Client,
}

impl Aside {
    pub async fn start(server: &mut Server) -> Self {
        server.url = "http://127.0.0.1:2390".into();
        server.revive();
        let admin = admin_at(&server.url).await;
        Self { admin }
    }

    pub fn end(self, server: &mut Server) {
        server.kill();
        server.url = URL.into();
        server.revive();
    }
}
