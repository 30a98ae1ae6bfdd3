//! Section 2.4, rule 8 and item 12.4: which Nodes are peers, and why others are none.

use super::*;

/// Runs with these Nodes and `n7`, an honest one; answers the view, and that `n7` came to no harm.
async fn view_of(api: &ApiServer, text: &str, nodes: Vec<Value>) -> Arc<View> {
    api.put(apiserver::node(
        "me",
        &["10.244.1.0/24", "fd00:10:0:1::/64"],
    ));
    for node in nodes {
        api.put(node);
    }
    let mut running = run(api, text).await;
    running.until_complete().await
}

fn changed(mut node: Value, key: &str, value: Value) -> Value {
    let annotations = node["metadata"]["annotations"].as_object_mut().unwrap();
    match value {
        Value::Null => drop(annotations.remove(&format!("{PREFIX}/{key}"))),
        value => drop(annotations.insert(format!("{PREFIX}/{key}"), value)),
    }
    node
}

#[test]
fn rule_8_and_item_12_4_nodes_without_a_vni_and_nodes_that_are_no_machines() {
    scene(|api| async move {
        let data = |number: u8, data: &str| changed(peer(number), "backend-data", data.into());
        let mut not_ready = peer(14);
        not_ready["status"]["conditions"] = json!([{ "type": "Ready", "status": "Unknown" }]);
        let mut three = peer(15);
        three["spec"]["podCIDRs"] = json!(["10.244.15.0/24", "fd00:10:0:f::/64", "10.244.16.0/24"]);
        let mut appliance = changed(data(12, "not even JSON"), "public-ip", "10.9.9.9".into());
        appliance.as_object_mut().unwrap().remove("status");
        let mut bare = apiserver::node("n19", &[]);
        bare["spec"] = Value::Null;
        bare["metadata"]["annotations"] = Value::Null;
        let nodes = vec![
            peer(7),
            data(8, r#"{"VtepMAC":"12:c6:65:89:b4:08"}"#),
            data(9, "null"),
            data(10, r#"{"VNI":4096,"VtepMAC":""}"#),
            data(11, r#"{"VNI":4096,"VtepMAC":"0E-2A-0A-F4-0B-00"}"#),
            appliance,
            changed(data(13, "null"), "backend-type", "host-gw".into()),
            not_ready,
            three,
            changed(peer(16), "kube-subnet-manager", "True".into()),
            changed(peer(17), "public-ip", Value::Null),
            changed(peer(18), "public-ip", "2001:db8::1".into()),
            bare,
        ];
        let view = view_of(&api, V4, nodes).await;
        assert_eq!(names(&view), ["n11", "n14", "n7", "n8"]);
        let vtep = |name: &str| view.peers[name].v4.unwrap().vtep.unwrap();
        assert_eq!(
            (vtep("n7").vni, vtep("n8").vni, vtep("n11").vni),
            (Some(1), None, Some(4096))
        );
        assert_eq!(vtep("n11").mac.to_string(), "0e:2a:0a:f4:0b:00");
        let site = view.peers["n7"].v4.unwrap();
        assert_eq!(site.subnet, "10.244.7.0/24".parse().unwrap());
        assert_eq!(site.public_ip.to_string(), "192.0.2.7");
        for (name, part) in [
            ("n9", "backend-data"),
            ("n10", "backend-data"),
            ("n12", "backend-data"),
            ("n13", "host-gw"),
            ("n15", "3 podCIDRs"),
            ("n16", "kube-subnet-manager=true"),
            ("n17", "public-ip"),
            ("n18", "public-ip"),
            ("n19", "kube-subnet-manager=true"),
        ] {
            assert!(
                view.skipped[name].contains(part),
                "{name}: {}",
                view.skipped[name]
            );
        }
        assert_eq!(view.skipped.len(), 9);
    });
}

#[test]
fn rule_7_keys_of_backend_data_in_any_case() {
    scene(|api| async move {
        let data = r#"{"vni":7,"vtepmac":"12:C6:65:89:B4:08","More":{}}"#;
        let view = view_of(
            &api,
            V4,
            vec![changed(peer(8), "backend-data", data.into())],
        )
        .await;
        let vtep = view.peers["n8"].v4.unwrap().vtep.unwrap();
        assert_eq!((vtep.vni, vtep.mac.to_string()), (Some(7), mac(8)));
    });
}

#[test]
fn rule_4_a_node_is_a_peer_in_both_families_or_not_at_all() {
    scene(|api| async move {
        let dual = |number: u8| {
            let mut node = peer(number);
            node["spec"]["podCIDRs"] = json!([
                format!("10.244.{number}.0/24"),
                format!("fd00:10:0:{number:x}::/64")
            ]);
            let node = changed(node, "backend-v6-data", DATA_V6.into());
            changed(node, "public-ipv6", format!("2001:db8::{number:x}").into())
        };
        let nodes = vec![
            dual(7),
            changed(dual(8), "public-ipv6", Value::Null),
            changed(dual(9), "backend-v6-data", "null".into()),
            peer(10),
        ];
        let view = view_of(&api, DUAL, nodes).await;
        assert_eq!(names(&view), ["n7"]);
        assert_eq!(
            view.peers["n7"].v6.unwrap().subnet,
            "fd00:10:0:7::/64".parse().unwrap()
        );
        for (name, part) in [
            ("n8", "public-ipv6"),
            ("n9", "backend-v6-data"),
            ("n10", "IPv6"),
        ] {
            assert!(view.skipped[name].contains(part), "{}", view.skipped[name]);
        }
    });
}

#[test]
fn host_gw_peers_need_no_mac() {
    scene(|api| async move {
        let gw = changed(
            changed(peer(8), "backend-data", "null".into()),
            "backend-type",
            "host-gw".into(),
        );
        let view = view_of(&api, HOST_GW, vec![peer(7), gw]).await;
        assert_eq!(names(&view), ["n8"]);
        assert_eq!(view.peers["n8"].v4.unwrap().vtep, None);
    });
}

#[test]
fn hostile_peers_annotations_are_bounded_and_never_repeated_in_full() {
    scene(|api| async move {
        let huge = "A".repeat(200 << 10);
        let vt = "\u{1b}[2J\n\r\0\u{7f}".repeat(100);
        let mut odd = peer(13);
        odd["metadata"]["annotations"][format!("{PREFIX}/public-ip")] = json!({ "an": ["object"] });
        let mut worse = peer(14);
        worse["spec"]["podCIDRs"] = json!([huge]);
        let nodes = vec![
            peer(7),
            changed(peer(8), "backend-data", huge.as_str().into()),
            changed(peer(9), "public-ip", huge.as_str().into()),
            changed(peer(10), "backend-type", vt.as_str().into()),
            changed(peer(11), "kube-subnet-manager", huge.as_str().into()),
            changed(peer(12), "unknown", huge.as_str().into()),
            odd,
            worse,
        ];
        let view = view_of(&api, V4, nodes).await;
        assert_eq!(names(&view), ["n12", "n7"], "{:?}", view.skipped.keys());
        assert_eq!(view.skipped.len(), 6);
        for (name, why) in &view.skipped {
            assert!(
                why.len() < 500 && !why.contains(char::is_control),
                "{name}: {why}"
            );
        }
    });
}

#[test]
fn what_upstream_misses_is_seen() {
    scene(|api| async move {
        api.put(apiserver::node(
            "me",
            &["10.244.1.0/24", "fd00:10:0:1::/64"],
        ));
        let mut node = peer(7);
        node["spec"]["podCIDRs"] = json!(["10.244.7.0/24", "fd00:10:0:7::/64"]);
        let node = changed(node, "backend-v6-data", DATA_V6.into());
        api.put(changed(node, "public-ipv6", "2001:db8::7".into()));
        let mut running = run(&api, DUAL).await;
        let mut step = async |patch: &Value, what: &dyn Fn(&View) -> bool| {
            api.edit("n7", patch);
            running.until(|view| what(view)).await;
        };
        let site = |view: &View| view.peers.get("n7").and_then(|peer| peer.v4);
        // Of a node with two families, only IPv4 changes.
        let data = annotation(
            "backend-data",
            r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:77"}"#.into(),
        );
        step(&data, &|view| {
            site(view).is_some_and(|site| site.vtep.unwrap().mac.to_string().ends_with(":77"))
        })
        .await;
        let ip = annotation("public-ip", "192.0.2.77".into());
        step(&ip, &|view| {
            site(view).is_some_and(|site| site.public_ip.to_string() == "192.0.2.77")
        })
        .await;
        let spec = json!({ "spec": { "podCIDRs": ["10.244.77.0/24", "fd00:10:0:7::/64"] } });
        step(&spec, &|view| {
            site(view).is_some_and(|site| site.subnet == "10.244.77.0/24".parse().unwrap())
        })
        .await;
        step(&annotation("backend-type", "host-gw".into()), &|view| {
            view.peers.is_empty() && view.skipped["n7"].contains("host-gw")
        })
        .await;
        step(&annotation("backend-type", "vxlan".into()), &|view| {
            site(view).is_some()
        })
        .await;
        step(&annotation("kube-subnet-manager", Value::Null), &|view| {
            site(view).is_none()
        })
        .await;
        step(&annotation("kube-subnet-manager", "true".into()), &|view| {
            site(view).is_some() && view.skipped.is_empty()
        })
        .await;
    });
}

#[test]
fn rule_16_a_deleted_node_leaves() {
    scene(|api| async move {
        api.put(apiserver::node("me", &["10.244.1.0/24"]));
        api.put(peer(7));
        api.put(peer(8));
        let mut running = run(&api, V4).await;
        let view = running.until_complete().await;
        assert_eq!(names(&view), ["n7", "n8"], "and never this node itself");
        api.delete("n7");
        running.until(|view| names(view) == ["n8"]).await;
    });
}
