//! TLS, client certificates, users.

use std::path::PathBuf;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, TlsOptions};
use overlayd::directory::etcd::{Etcd, Login, Options};

use crate::node::*;
use crate::server::*;

/// An authority, etcd's certificate, a client's, and one of another authority, in /run.
const CERTIFICATES: &str = r#"
cd /run
authority() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout $1.key -out $1.pem -subj /CN=$1 2>/dev/null; }
signed() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -out $1.csr -subj /CN=$1 2>/dev/null
    printf "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth" > $1.ext
    openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 2 -out $1.pem -extfile $1.ext 2>/dev/null; }
authority ca; authority other; signed etcd ca; signed node ca
"#;

fn run(file: &str) -> Option<PathBuf> {
    Some(PathBuf::from("/run").join(file))
}

fn tls() -> Options {
    Options {
        endpoints: vec!["https://127.0.0.1:2379".into()],
        ca_file: run("ca.pem"),
        ..options()
    }
}

/// The administrator, who has every certificate there is.
async fn tls_admin() -> Client {
    let pem = |file: &str| std::fs::read(format!("/run/{file}")).unwrap();
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(pem("ca.pem")))
        .identity(Identity::from_pem(pem("node.pem"), pem("node.key")));
    admin_with(
        "https://127.0.0.1:2379",
        ConnectOptions::new().with_tls(tls),
    )
    .await
}

fn with_tls(more: &[&str], body: impl AsyncFnOnce()) {
    testkit::in_netns(|| {
        testkit::sh(CERTIFICATES);
        let mut args = vec![
            "--cert-file",
            "/run/etcd.pem",
            "--key-file",
            "/run/etcd.key",
        ];
        args.extend(more);
        block_on(async {
            let _server = Server::start("https", &args);
            put(&mut tls_admin().await, "config", V4).await;
            body().await;
        });
    });
}

#[test]
fn section_1_8_a_ca_alone_is_enough_for_tls() {
    with_tls(&[], async || {
        let before = Some(lease("10.5.1.0/24"));
        let mut node = Node::start(tls(), me(1), before).await;
        node.sees_peers(&[]).await;
        // "host:port" is HTTPS when there are files for it.
        let bare = Options {
            endpoints: vec!["127.0.0.1:2379".into()],
            ..tls()
        };
        let mut other = Node::start(bare, me(2), None).await;
        other.sees_peers(&["10.5.1.0-24"]).await;
        // Whom we do not trust, we do not talk to; waiting says why.
        let foreign = Options {
            ca_file: run("other.pem"),
            ..tls()
        };
        let mut node = Node::run(
            Etcd::open(foreign).unwrap(),
            conf(V4),
            me(3),
            lease("10.5.3.0/24"),
        );
        let view = node.sees("the reason", |view| view.away.is_some()).await;
        let why = view.away.as_ref().unwrap();
        assert!(why.contains("certificate"), "{why}");
    });
}

#[test]
fn section_1_8_client_certificates() {
    let wanted = ["--client-cert-auth", "--trusted-ca-file", "/run/ca.pem"];
    with_tls(&wanted, async || {
        let mut anonymous = Node::run(
            Etcd::open(tls()).unwrap(),
            conf(V4),
            me(3),
            lease("10.5.3.0/24"),
        );
        anonymous.sees("away", |view| view.away.is_some()).await;
        let known = Options {
            cert_file: run("node.pem"),
            key_file: run("node.key"),
            ..tls()
        };
        let before = Some(lease("10.5.1.0/24"));
        let mut node = Node::start(known, me(1), before).await;
        node.sees_peers(&[]).await;
        assert!(anonymous.now().away.is_some());
    });
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused_at_once() {
    testkit::in_netns(|| {
        testkit::sh(CERTIFICATES);
        let text = |options: Options| Etcd::open(options).unwrap_err().to_string();
        let (cert_file, key_file) = (run("node.pem"), run("node.key"));
        assert!(Etcd::open(tls()).is_ok());
        let error = text(Options {
            cert_file: cert_file.clone(),
            ..tls()
        });
        assert!(error.contains("without its key"), "{error}");
        let error = text(Options {
            key_file: key_file.clone(),
            ..tls()
        });
        assert!(error.contains("without its certificate"), "{error}");
        let error = text(Options {
            ca_file: run("none.pem"),
            ..tls()
        });
        assert!(
            error.contains("/run/none.pem") && error.contains("No such file"),
            "{error}"
        );
        let error = text(Options {
            ca_file: run("ca.key"),
            ..tls()
        });
        assert!(error.contains("CERTIFICATE"), "{error}");
        let error = text(Options {
            cert_file: key_file.clone(),
            key_file: key_file.clone(),
            ..tls()
        });
        assert!(error.contains("certificate file"), "{error}");
        let error = text(Options {
            cert_file,
            key_file: run("other.key"),
            ..tls()
        });
        assert!(error.contains("TLS"), "{error}");
        let error = text(Options {
            endpoints: options().endpoints,
            ..tls()
        });
        assert!(error.contains("https://"), "{error}");
    });
}

async fn role(admin: &mut Client) {
    admin.role_add("overlay").await.unwrap();
    let read = Permission::read(key("config"));
    admin.role_grant_permission("overlay", read).await.unwrap();
    let write = Permission::read_write(key("subnets")).with_prefix();
    admin.role_grant_permission("overlay", write).await.unwrap();
}

/// A user who may read the configuration and write leases needs no more.
#[test]
fn section_1_8_users_with_the_rights_of_the_handbook() {
    scene(V4, async |mut server, mut admin| {
        role(&mut admin).await;
        for (user, password, roles) in [("root", "r", "root"), ("node", "n", "overlay")] {
            admin.user_add(user, password, None).await.unwrap();
            if user == "root" {
                admin.role_add("root").await.unwrap();
            }
            admin.user_grant_role(user, roles).await.unwrap();
        }
        admin.auth_enable().await.unwrap();
        let login = |password: &str| {
            Some(Login {
                user: "node".into(),
                password: password.into(),
            })
        };
        let known = Options {
            login: login("n"),
            ..options()
        };
        assert!(!format!("{known:?}").contains("\"n\""), "{known:?}");
        let mut node = Node::start(known, me(1), Some(lease("10.5.1.0/24"))).await;
        node.sees_peers(&[]).await;
        // A wrong password is waited out, and told.
        let wrong = Options {
            login: login("x"),
            ..options()
        };
        let mut other = Node::run(
            Etcd::open(wrong).unwrap(),
            conf(V4),
            me(2),
            lease("10.5.2.0/24"),
        );
        let view = other.sees("the reason", |view| view.away.is_some()).await;
        let why = view.away.as_ref().unwrap();
        assert!(
            why.contains("authentication failed") && !why.contains("\"x\""),
            "{why}"
        );
        // Tokens do not survive etcd; the node logs in again.
        server.kill();
        node.sees("away", |view| view.away.is_some()).await;
        server.revive();
        node.sees_peers(&[]).await;
        let mut changed = me(1);
        changed.v4.as_mut().unwrap().vtep = me(3).v4.unwrap().vtep;
        node.me.send_replace(changed);
        let root = ConnectOptions::new().with_user("root", "r");
        let mut root = Client::connect([URL], Some(root)).await.unwrap();
        until("the new MAC", async || {
            let kv = get(&mut root, "subnets/10.5.1.0-24").await.unwrap();
            kv.value_str().unwrap().contains("02:04:00:00:00:03")
        })
        .await;
        // Rights are taken away: the others are followed all the same.
        let revoke = etcd_client::RoleRevokePermissionOptions::new().with_prefix();
        root.role_revoke_permission("overlay", key("subnets"), Some(revoke))
            .await
            .unwrap();
        let read = Permission::read(key("subnets")).with_prefix();
        root.role_grant_permission("overlay", read).await.unwrap();
        node.me.send_replace(me(1));
        put(&mut root, "subnets/10.5.9.0-24", value(9)).await;
        node.sees_peers(&["10.5.9.0-24"]).await;
        let write = Permission::read_write(key("subnets")).with_prefix();
        root.role_grant_permission("overlay", write).await.unwrap();
        until("the old MAC", async || {
            let kv = get(&mut root, "subnets/10.5.1.0-24").await.unwrap();
            kv.value_str().unwrap() == value(1)
        })
        .await;
    });
}
