use super::*;

fn list(text: &str) -> NetworkList {
    NetworkList::parse(text.as_bytes(), None).unwrap()
}

fn chain(now: &str, then: &str) -> Vec<String> {
    let of = |plugins: &str| list(&format!(r#"{{"name":"n","plugins":[{plugins}]}}"#));
    let merged = chain_of_add(&of(now), Some(of(then)));
    // What is recorded gives the same chain back.
    let again = NetworkList::parse(merged.bytes(), None).unwrap();
    assert_eq!(again.plugins, merged.plugins);
    let shown = |p: &PluginConf| {
        let name = p.name.as_deref().unwrap_or_default();
        format!("{}{name}", p.kind)
    };
    merged.plugins.iter().map(shown).collect()
}

/// Capital letters are configurations of today, small ones of the day of ADD.
#[test]
fn del_runs_what_add_ran_as_it_is_configured_now() {
    let plugins = |names: &[&str]| -> String {
        let plugin = |name: &&str| {
            let (kind, name) = name.split_at(1);
            format!(r#"{{"type":"{kind}","name":"{name}"}}"#)
        };
        names.iter().map(plugin).collect::<Vec<_>>().join(",")
    };
    for (now, then, want) in [
        (&["aA", "bB"][..], &["aa", "bb"][..], &["aA", "bB"][..]),
        // Taken from the chain, it is still to be deleted.
        (&["aA"], &["aa", "bb"], &["aA", "bb"]),
        (&["bB"], &["aa", "bb"], &["aa", "bB"]),
        // Added since, or of the network's folder, which the cached bytes do not have.
        (&["aA", "cC"], &["aa", "bb"], &["aA", "bb", "cC"]),
        // The same plugin twice.
        (&["aA", "aB"], &["aa", "bb", "ab"], &["aA", "bb", "aB"]),
        (&["aA"], &["aa", "ab"], &["aA", "ab"]),
        // In another order: that of ADD counts.
        (&["bB", "aA"], &["aa", "bb"], &["aA", "bB"]),
    ] {
        assert_eq!(chain(&plugins(now), &plugins(then)), want);
    }
}

#[test]
fn arguments_of_add_stand_in_for_none() {
    let entry = CacheEntry {
        network: "n".into(),
        container_id: "c".into(),
        ifname: "eth0".into(),
        netns: Some("/gone".into()),
        args: vec![("A".into(), "1".into())],
        capability_args: Some(Node::obj().put("mac", "x").build()),
        config: Vec::new(),
        result: None,
        file: "/f".into(),
        modified: std::time::SystemTime::UNIX_EPOCH,
    };
    let bare = Attach::new("c", "", "eth0");
    let filled = with_args_of(&bare, Some(&entry));
    assert_eq!(
        (&filled.args, Some(&filled.capability_args)),
        (&entry.args, entry.capability_args.as_ref())
    );
    // An empty namespace says that there is none, and is not filled in.
    assert_eq!(filled.netns, "");
    assert_eq!(with_args_of(&bare, None), bare);
    let own = Attach {
        args: vec![("B".into(), "2".into())],
        capability_args: Node::obj().put("mac", "y").build(),
        ..bare
    };
    assert_eq!(with_args_of(&own, Some(&entry)), own);
}

/// The cache keeps what the last plugin printed; plugins get it in the version they are spoken to in.
#[test]
fn the_cached_result_is_converted() {
    let entry = |version: &str| CacheEntry {
        network: "n".into(),
        container_id: "c".into(),
        ifname: "eth0".into(),
        netns: None,
        args: Vec::new(),
        capability_args: None,
        config: Vec::new(),
        result: Some(
            Node::obj()
                .put("cniVersion", version)
                .put(
                    "ips",
                    vec![Node::obj().put("address", "10.1.0.2/24").build()],
                )
                .build(),
        ),
        file: "/f".into(),
        modified: std::time::SystemTime::UNIX_EPOCH,
    };
    let prev = |version: &str, cached: &str| {
        let list = list(&format!(
            r#"{{"cniVersion":"{version}","name":"n","plugins":[{{"type":"t"}}]}}"#
        ));
        prev_result(&list, &entry(cached)).map(|node| node.write_compact())
    };
    assert_eq!(
        prev("0.4.0", "1.1.0").unwrap(),
        r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.0.2/24"}],"dns":{}}"#
    );
    assert_eq!(
        prev("1.1.0", "0.3.1").unwrap(),
        r#"{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.2/24"}]}"#
    );
    assert_eq!(prev("0.3.1", "0.3.1"), None, "DEL has none before 0.4.0");
    assert_eq!(prev("1.1.0", "9.9.9"), None, "unreadable is absent");
}
