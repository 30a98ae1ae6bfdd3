//! Start-up: configuration, hints, the lease and what is published with it.

use super::*;

/// Leases as a node with these subnets; answers what stands in the Node then.
async fn published(api: &ApiServer, text: &str, pod_cidrs: &[&str]) -> Vec<(String, String)> {
    api.put(apiserver::node("me", pod_cidrs));
    let conf = conf(text);
    let of_me = me(&conf);
    open(api).await.lease(&conf, &of_me, None).await.unwrap();
    let found = api.annotations("me").into_iter();
    found
        .map(|(key, value)| (key.strip_prefix(PREFIX).unwrap().to_owned(), value))
        .collect()
}

fn golden(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (format!("/{key}"), (*value).to_owned()))
        .collect()
}

#[test]
fn rule_1_and_5_annotations_of_vxlan_are_flannels_to_the_byte() {
    scene(|api| async move {
        let found = published(&api, V4, &["10.244.1.0/24"]).await;
        let wanted = golden(&[
            ("backend-data", r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}"#),
            ("backend-type", "vxlan"),
            ("kube-subnet-manager", "true"),
            ("public-ip", "192.0.2.10"),
        ]);
        assert_eq!(found, wanted);
        let patches = api.asked("PATCH", "");
        assert_eq!(patches.len(), 1, "one write");
        assert!(
            patches[0].uri.starts_with("/api/v1/nodes/me/status?"),
            "{}",
            patches[0].uri
        );
        assert_eq!(
            patches[0].content_type,
            "application/strategic-merge-patch+json"
        );
        assert!(patches[0].body.get("status").is_none() && patches[0].body.get("spec").is_none());
    });
}

#[test]
fn rule_4_both_families_in_one_write() {
    scene(|api| async move {
        let found = published(&api, DUAL, &["10.244.1.0/24", "fd00:10:0:1::/64"]).await;
        let wanted = golden(&[
            ("backend-data", DATA),
            ("backend-type", "vxlan"),
            ("backend-v6-data", DATA_V6),
            ("kube-subnet-manager", "true"),
            ("public-ip", "192.0.2.10"),
            ("public-ipv6", "2001:db8::10"),
        ]);
        assert_eq!(found, wanted);
        assert_eq!(api.asked("PATCH", "").len(), 1);
    });
}

#[test]
fn item_12_1_annotations_of_ipv6_alone() {
    scene(|api| async move {
        let found = published(&api, V6, &["fd00:10:0:1::/64"]).await;
        let wanted = golden(&[
            ("backend-type", "vxlan"),
            ("backend-v6-data", DATA_V6),
            ("kube-subnet-manager", "true"),
            ("public-ipv6", "2001:db8::10"),
        ]);
        assert_eq!(found, wanted);
    });
}

#[test]
fn item_12_1_annotations_of_host_gw() {
    scene(|api| async move {
        let found = published(&api, HOST_GW, &["10.244.1.0/24"]).await;
        let wanted = golden(&[
            ("backend-data", "null"),
            ("backend-type", "host-gw"),
            ("kube-subnet-manager", "true"),
            ("public-ip", "192.0.2.10"),
        ]);
        assert_eq!(found, wanted);
    });
}

#[test]
fn rule_3_a_restart_publishes_the_same_and_writes_nothing() {
    scene(|api| async move {
        published(&api, V4, &["10.244.1.0/24"]).await;
        let conf = conf(V4);
        let lease = open(&api)
            .await
            .lease(&conf, &me(&conf), None)
            .await
            .unwrap();
        assert_eq!(lease.v4, Some("10.244.1.0/24".parse().unwrap()));
        assert_eq!((api.asked("PATCH", "").len(), lease.v6), (1, None));
    });
}

#[test]
fn an_overwrite_changes_what_is_published_and_nothing_else() {
    scene(|api| async move {
        let wishes = [
            ("public-ip-overwrite", "203.0.113.7"),
            ("public-ipv6-overwrite", "no address"),
        ];
        let cidrs = ["10.244.1.0/24", "fd00:10:0:1::/64"];
        api.put(annotated("me", &cidrs, &wishes));
        let conf = conf(DUAL);
        let mut directory = open(&api).await;
        assert_eq!(directory.hints().await.unwrap().public_ip, None);
        directory.lease(&conf, &me(&conf), None).await.unwrap();
        let found = api.annotations("me");
        assert_eq!(found[&format!("{PREFIX}/public-ip")], "203.0.113.7");
        assert_eq!(found[&format!("{PREFIX}/public-ipv6")], "2001:db8::10");
    });
}

#[test]
fn pain_5_the_mac_is_found_again_also_with_a_slash_in_it() {
    scene(|api| async move {
        for (prefix, key) in [
            ("x.y", "x.y/"),
            ("x.y/", "x.y/"),
            ("x.y/foo", "x.y/foo-"),
            ("x.y/foo-", "x.y/foo-"),
        ] {
            let mut node = apiserver::node("me", &["10.244.1.0/24", "fd00:10:0:1::/64"]);
            for (name, value) in [
                ("backend-data", DATA),
                ("backend-v6-data", DATA_V6),
                ("node-public-ip", "192.0.2.77"),
                ("node-public-ipv6", "2001:db8::77"),
            ] {
                node["metadata"]["annotations"][format!("{key}{name}")] = value.into();
            }
            node["metadata"]["annotations"]["other/node-public-ip"] = "192.0.2.99".into();
            api.put(node);
            let options = Options {
                annotation_prefix: prefix.into(),
                ..options(&api.url())
            };
            let mut directory = Kubernetes::open(options).await.unwrap();
            let hints = directory.hints().await.unwrap();
            assert_eq!(hints.mac, Some(vtep(DATA).mac), "{prefix}");
            assert_eq!(hints.mac_v6, Some(vtep(DATA_V6).mac));
            assert_eq!(hints.public_ip, Some("192.0.2.77".parse().unwrap()));
            assert_eq!(hints.public_ipv6, Some("2001:db8::77".parse().unwrap()));
            assert_eq!(
                hints.internal_ips,
                ["192.0.2.10".parse::<std::net::IpAddr>().unwrap()]
            );
            let conf = conf(V4);
            directory.lease(&conf, &me(&conf), None).await.unwrap();
            assert_eq!(
                api.annotations("me")[&format!("{key}kube-subnet-manager")],
                "true"
            );
        }
    });
}

#[test]
fn pain_12_it_waits_for_the_pod_cidr_on_a_watch() {
    scene(|api| async move {
        let conf = conf(DUAL);
        let of_me = me(&conf);
        let mut directory = open(&api).await;
        let lease = directory.lease(&conf, &of_me, None);
        let story = async {
            let step = async |cidrs: &[&str]| {
                api.put(apiserver::node("me", cidrs));
                eventually(|| api.asked("GET", "watch=true").len() == 1).await;
                assert!(api.asked("PATCH", "").is_empty(), "{cidrs:?}");
            };
            eventually(|| api.asked("GET", "watch=true").len() == 1).await;
            step(&[]).await;
            step(&["10.244.1.0/24"]).await;
            step(&["10.244.1.0/24", "fd00:10:0:1::/64", "10.244.2.0/24"]).await;
            step(&["10.9.1.0/24", "fd00:10:0:1::/64"]).await;
            step(&["nonsense", "fd00:10:0:1::/64"]).await;
            // A barrier: the watch has told of all of the above when it is not asked anew.
            api.put(apiserver::node(
                "me",
                &["10.244.1.7/24", "fd00:10:0:1::/64"],
            ));
        };
        let (lease, ()) = tokio::join!(lease, story);
        let lease = lease.unwrap();
        assert_eq!(lease.v4, Some("10.244.1.0/24".parse().unwrap()));
        assert_eq!(lease.v6, Some("fd00:10:0:1::/64".parse().unwrap()));
        assert_eq!(
            api.asked("GET", "watch=true").len(),
            1,
            "a watch, no polling"
        );
        assert_eq!(
            api.asked("PATCH", "").len(),
            1,
            "nothing was published before"
        );
    });
}

#[test]
fn a_lone_pod_cidr_is_enough() {
    scene(|api| async move {
        let mut node = apiserver::node("me", &[]);
        node["spec"] = json!({ "podCIDR": "10.244.3.0/24" });
        api.put(node);
        let conf = conf(V4);
        let lease = open(&api)
            .await
            .lease(&conf, &me(&conf), None)
            .await
            .unwrap();
        assert_eq!(lease.v4, Some("10.244.3.0/24".parse().unwrap()));
    });
}

#[test]
fn rule_4_and_13_half_a_node_is_never_published() {
    scene(|api| async move {
        api.put(apiserver::node(
            "me",
            &["10.244.1.0/24", "fd00:10:0:1::/64"],
        ));
        let conf = conf(DUAL);
        let whole = me(&conf);
        let mut no_mac = whole.clone();
        no_mac.v4.as_mut().unwrap().vtep = None;
        let mut no_v6 = whole.clone();
        no_v6.v6 = None;
        for (half, part) in [(&no_mac, "MAC"), (&no_v6, "no IPv6 address")] {
            let error = open(&api).await.lease(&conf, half, None).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(api.asked("PATCH", "").is_empty());
        }
        // Nor later: what was said before stands until there is a whole again.
        let mut running = run(&api, DUAL).await;
        running.until_complete().await;
        let before = api.annotations("me");
        no_v6.v4.as_mut().unwrap().public_ip = "192.0.2.11".parse().unwrap();
        running.me.send_replace(no_v6.clone());
        running.ready.send_replace(Ready::Yes);
        eventually(|| api.condition("me")["status"] == "False").await;
        assert_eq!(api.annotations("me"), before);
        running.me.send_replace(Me {
            v6: whole.v6,
            ..no_v6
        });
        let key = format!("{PREFIX}/public-ip");
        eventually(|| api.annotations("me")[&key] == "192.0.2.11").await;
    });
}

#[test]
fn the_network_configuration_may_come_later() {
    scene(|api| async move {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net-conf.json");
        let options = Options {
            net_conf: path.clone(),
            ..options(&api.url())
        };
        let mut directory = Kubernetes::open(options).await.unwrap();
        let put = async {
            tokio::task::yield_now().await;
            std::fs::write(dir.path().join("new"), V4).unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
        };
        let (found, ()) = tokio::join!(directory.net_conf(), put);
        assert_eq!(found.unwrap(), conf(V4));
        std::fs::write(&path, "{").unwrap();
        let error = directory.net_conf().await.unwrap_err().to_string();
        assert!(error.contains("net-conf.json"), "{error}");
    });
}
