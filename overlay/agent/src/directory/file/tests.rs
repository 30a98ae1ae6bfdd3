use fabric::{Kind, Vtep};
use libcni::kernel::Mac;
use tokio::sync::watch;

use super::*;
use crate::directory::{End, Ready};

const CONF: &str = r#"{"Network":"192.168.128.0/18","Backend":{"Type":"vxlan"}}"#;

fn me(n: u8) -> Me {
    let vtep = Vtep {
        mac: Mac([2, 0, 0, 0, 0, n]),
        vni: Some(1),
    };
    Me {
        kind: Kind::Vxlan,
        v4: Some(End {
            public_ip: [192, 0, 2, n].into(),
            vtep: Some(vtep),
        }),
        v6: None,
    }
}

struct Node {
    view: watch::Receiver<Arc<View>>,
    me: watch::Sender<Me>,
    _ready: watch::Sender<Ready>,
    lease: Lease,
    task: tokio::task::JoinHandle<DirectoryError>,
}

async fn node(dir: &Path, n: u8) -> Node {
    let mut files = Files::open(dir, &format!("node{n}")).unwrap();
    let conf = files.net_conf().await.unwrap();
    let lease = files.lease(&conf, &me(n), None).await.unwrap();
    let (view_sender, view) = watch::channel(Arc::default());
    let (me_sender, me) = watch::channel(me(n));
    let (_ready, ready) = watch::channel(Ready::Yes);
    let links = Links {
        conf,
        lease,
        me,
        ready,
        view: view_sender,
    };
    let task = tokio::spawn(files.run(links));
    Node {
        view,
        me: me_sender,
        _ready,
        lease,
        task,
    }
}

impl Node {
    /// Waits until the view is as wanted.
    async fn sees(&mut self, what: impl Fn(&View) -> bool) {
        let limit = Duration::from_secs(5);
        let seen = tokio::time::timeout(limit, self.view.wait_for(|view| what(view)))
            .await
            .is_ok();
        assert!(seen, "{:?}", self.view.borrow());
    }

    fn key(&self) -> String {
        Subnets {
            v4: self.lease.v4.unwrap(),
            v6: None,
        }
        .key()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config"), CONF).unwrap();
    dir
}

#[test]
fn nodes_see_each_other_come_change_and_go() {
    run(async {
        let dir = dir();
        let mut one = node(dir.path(), 1).await;
        one.sees(|view| view.complete && view.peers.is_empty())
            .await;
        let two = node(dir.path(), 2).await;
        assert_ne!(one.lease, two.lease);
        let key = two.key();
        one.sees(|view| view.peers.len() == 1 && view.peers.contains_key(&key))
            .await;
        // Another MAC, and another address: the same lease.
        two.me.send(me(9)).unwrap();
        one.sees(|view| view.peers[&key].v4.unwrap().public_ip.to_string() == "192.0.2.9")
            .await;
        two.task.abort();
        fs::remove_file(dir.path().join("subnets").join(&key)).unwrap();
        one.sees(|view| view.peers.is_empty()).await;
    });
}

#[test]
fn a_restarted_node_has_its_subnet_again() {
    run(async {
        let dir = dir();
        let first = node(dir.path(), 1).await;
        first.task.abort();
        let again = node(dir.path(), 1).await;
        assert_eq!(first.lease, again.lease);
        assert_eq!(
            fs::read_dir(dir.path().join("subnets")).unwrap().count(),
            1,
            "nothing is left of drafts"
        );
    });
}

#[test]
fn what_is_no_lease_is_named_and_changes_nothing() {
    run(async {
        let dir = dir();
        let subnets = dir.path().join("subnets");
        let mut one = node(dir.path(), 1).await;
        let two = node(dir.path(), 2).await;
        one.sees(|view| view.peers.len() == 1).await;
        fs::write(subnets.join("192.168.190.0-24"), "{").unwrap();
        fs::write(subnets.join("192.168.189.0-24"), vec![b'x'; 1 << 20]).unwrap();
        fs::create_dir(subnets.join("192.168.188.0-24")).unwrap();
        nix::unistd::mkfifo(
            &subnets.join("192.168.187.0-24"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        std::os::unix::fs::symlink(two.key(), subnets.join("192.168.186.0-24")).unwrap();
        fs::write(subnets.join("notes.txt"), "not a key").unwrap();
        one.sees(|view| view.skipped.len() == 5 && view.peers.len() == 1)
            .await;
        fs::write(
            subnets.join("192.168.190.0-24"),
            lease::value(&me(7).peer("", &one.lease)),
        )
        .unwrap();
        one.sees(|view| view.skipped.len() == 4 && view.peers.len() == 2)
            .await;
    });
}

#[test]
fn the_own_file_is_put_back_and_a_thief_is_told() {
    run(async {
        let dir = dir();
        let mut one = node(dir.path(), 1).await;
        one.sees(|view| view.complete).await;
        let file = dir.path().join("subnets").join(one.key());
        let text = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let back = tokio::time::timeout(Duration::from_secs(5), async {
            while fs::read(&file).ok().as_ref() != Some(&text) {
                tokio::task::yield_now().await;
            }
        });
        assert!(back.await.is_ok(), "the file is back");
        fs::write(&file, lease::value(&me(2).peer("", &one.lease))).unwrap();
        one.sees(|view| {
            view.lost
                .as_ref()
                .is_some_and(|why| why.contains("192.0.2.2"))
        })
        .await;
    });
}

#[test]
fn twenty_nodes_at_once_and_one_too_many() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let conf = r#"{"Network":"10.0.0.0/19","SubnetMin":"10.0.1.0","SubnetMax":"10.0.20.0"}"#;
        fs::write(dir.path().join("config"), conf).unwrap();
        let mut files: Vec<_> = (1..=20)
            .map(|n| Files::open(dir.path(), &format!("n{n}")).unwrap())
            .collect();
        let conf = NetConf::parse(conf.as_bytes()).unwrap();
        let leases = files.iter_mut().zip(1..).map(|(files, n)| {
            let conf = conf.clone();
            async move { files.lease(&conf, &me(n), None).await.unwrap().v4.unwrap() }
        });
        let leases: BTreeSet<_> = futures_util::future::join_all(leases)
            .await
            .into_iter()
            .collect();
        assert_eq!(leases.len(), 20);
        let mut late = Files::open(dir.path(), "late").unwrap();
        let other = me(99);
        let waits =
            tokio::time::timeout(Duration::from_millis(50), late.lease(&conf, &other, None));
        assert!(waits.await.is_err(), "it waits for one to be free");
    });
}

#[test]
fn a_network_of_ipv6_alone_is_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let conf =
            NetConf::parse(br#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}"#)
                .unwrap();
        let mut files = Files::open(dir.path(), "n").unwrap();
        let refused = files.lease(&conf, &me(1), None).await.unwrap_err();
        assert!(refused.to_string().contains("Kubernetes"), "{refused}");
    });
}

/// The agent takes a complete view at its word, and removes who is not in it.
#[test]
fn no_view_is_complete_before_all_was_read() {
    run(async {
        let dir = dir();
        let two = node(dir.path(), 2).await;
        // Changes come while it begins.
        for n in 0..20 {
            let mut one = node(dir.path(), 1).await;
            one.me.send(me(1)).unwrap();
            fs::write(dir.path().join("subnets/note"), n.to_string()).unwrap();
            one.sees(|view| view.complete).await;
            assert!(one.view.borrow().peers.contains_key(&two.key()));
            one.task.abort();
        }
    });
}
