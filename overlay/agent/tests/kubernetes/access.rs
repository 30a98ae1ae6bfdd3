//! The way to the API server, and who this node is.

use super::*;
use apiserver::Fault;

/// Gives up on what does not answer soon; an answer that comes is never so late.
fn impatient(options: Options) -> Options {
    let pace = Pace {
        patience: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        ..options.pace
    };
    Options { pace, ..options }
}

#[test]
fn the_nodes_name_is_found_out_by_the_pod() {
    scene(|api| async move {
        api.store().faults.push(Fault {
            method: "GET",
            part: "/pods/",
            times: 2,
            code: 403,
        });
        api.store()
            .pods
            .insert("kube-system/overlayd-x".into(), "me".into());
        let options = Options {
            node_name: None,
            pod: Some(("kube-system".into(), "overlayd-x".into())),
            ..options(&api.url())
        };
        let mut directory = Kubernetes::open(options).await.unwrap();
        assert_eq!(directory.name().await, "me");
        assert_eq!(
            api.asked("GET", "/pods/").len(),
            3,
            "flanneld exits at the first refusal"
        );
    });
}

#[test]
fn options_that_make_no_sense_are_named() {
    scene(|api| async move {
        let good = options(&api.url());
        let no_name = Options {
            node_name: None,
            ..good.clone()
        };
        let strange_name = Options {
            node_name: Some("a&b".into()),
            ..good.clone()
        };
        let no_url = Options {
            api_url: Some("127.0.0.1".into()),
            ..good.clone()
        };
        let no_file = Options {
            kubeconfig: Some("/nowhere/config".into()),
            ..good.clone()
        };
        let no_way = Options {
            api_url: None,
            ..good.clone()
        };
        let prefix = Options {
            annotation_prefix: "a/b/c".into(),
            ..good
        };
        for (options, part) in [
            (no_name, "NODE_NAME"),
            (strange_name, "a&b"),
            (no_url, "127.0.0.1"),
            (no_file, "/nowhere/config"),
            (no_way, "--kubeconfig-file"),
            (prefix, "a/b/c"),
        ] {
            let error = Kubernetes::open(options).await.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    });
}

#[test]
fn a_kubeconfig_and_its_token_and_an_address_that_overrides_it() {
    scene(|api| async move {
        api.store().token = Some("secret".into());
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let text = |server: &str| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
                 clusters: [{{name: c, cluster: {{server: \"{server}\"}}}}]\n\
                 users: [{{name: u, user: {{token: secret}}}}]\n\
                 contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
            )
        };
        for (server, url) in [
            (api.url(), None),
            ("http://127.0.0.1:1".into(), Some(api.url())),
        ] {
            std::fs::write(&path, text(&server)).unwrap();
            let options = Options {
                kubeconfig: Some(path.clone()),
                api_url: url,
                ..options("")
            };
            let mut directory = Kubernetes::open(options).await.unwrap();
            let hints = directory.hints().await.unwrap();
            assert_eq!(hints.internal_ips.len(), 1);
        }
    });
}

#[test]
fn refusals_and_broken_connections_are_tried_again() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        for (method, part, code) in [
            ("GET", "/nodes?", 401),
            ("GET", "/nodes?", 403),
            ("GET", "/nodes?", 500),
            ("GET", "/nodes?", Fault::BREAK),
            ("GET", "/nodes?", Fault::HANG),
            ("GET", "/nodes?", Fault::HALF),
            ("PATCH", "/status", 409),
            ("PATCH", "/status", 503),
            ("PATCH", "/status", Fault::BREAK),
            ("PATCH", "/status", Fault::HANG),
        ] {
            api.store().faults.push(Fault {
                method,
                part,
                times: 2,
                code,
            });
        }
        let conf = conf(V4);
        let options = impatient(options(&api.url()));
        let mut directory = Kubernetes::open(options).await.unwrap();
        let lease = directory.lease(&conf, &me(&conf), None).await.unwrap();
        assert_eq!(lease.v4, Some("10.244.1.0/24".parse().unwrap()));
        assert_eq!(api.asked("PATCH", "").len(), 9);
        assert_eq!(api.annotations("me").len(), 4);
    });
}

#[test]
fn pain_21_a_server_that_is_not_there_yet() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        api.down();
        let conf = conf(V4);
        let of_me = me(&conf);
        let mut directory = open(&api).await;
        let later = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            api.up();
        };
        let (lease, ()) = tokio::join!(directory.lease(&conf, &of_me, None), later);
        assert!(lease.unwrap().v4.is_some());
    });
}

#[test]
fn a_watch_that_falls_silent_is_opened_anew() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        let mut running = run_with(impatient(options(&api.url())), V4).await;
        running.until_complete().await;
        // Nothing is said, not even a bookmark: a connection may be dead without a word.
        eventually(|| api.asked("GET", "watch=true").len() >= 3).await;
        assert_eq!(running.view.borrow().away, None);
        api.put(peer(7));
        running.until(|view| view.peers.len() == 1).await;
    });
}

/// An authority, and a server's certificate of it, both in a directory.
fn certificates(dir: &std::path::Path) {
    testkit::sh(&format!(
        "cd {}
         key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
         openssl req -x509 $key -days 2 -keyout ca.key -out ca.pem -subj /CN=ca 2>&1
         openssl req $key -keyout server.key -out server.csr -subj /CN=server 2>&1
         echo subjectAltName=IP:127.0.0.1 > server.ext
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem \
             -extfile server.ext 2>&1",
        dir.display()
    ));
}

#[test]
fn tls_and_the_token_of_a_pod() {
    scene(|_| async move {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let file = |name: &str| dir.path().join(name);
        let api = ApiServer::start_tls(&file("server.pem"), &file("server.key"));
        api.store().token = Some("secret".into());
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        let options = options(&format!("https://{}", api.address));

        // Whose certificate is not known is not told anything.
        let mut stranger = Kubernetes::open(options.clone()).await.unwrap();
        let refused = tokio::time::timeout(Duration::from_millis(300), stranger.hints()).await;
        assert!(refused.is_err() && api.asked("", "").is_empty());

        // /run is the test's own, and what a pod is given is found there.
        let account = std::path::Path::new("/run/secrets/kubernetes.io/serviceaccount");
        std::fs::create_dir_all(account).unwrap();
        std::fs::copy(file("ca.pem"), account.join("ca.crt")).unwrap();
        std::fs::write(account.join("token"), "secret").unwrap();
        std::fs::write(account.join("namespace"), "podwire").unwrap();
        let mut running = run_with(options, V4).await;
        running.until_complete().await;
        api.put(peer(7));
        running.until(|view| view.peers.len() == 1).await;
    });
}
