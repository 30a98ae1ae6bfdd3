//! ADD: which addresses, which files, which result.

use super::*;

#[test]
fn files_are_the_references() {
    let net = Net::new(DUAL);
    assert_eq!(net.add("cont1").unwrap(), ["10.1.2.2", "fd00:1::2"]);
    assert_eq!(
        net.files(),
        [
            ".podwire",
            "10.1.2.2",
            "fd00:1::2",
            "last_reserved_ip.0",
            "last_reserved_ip.1",
            "lock"
        ]
    );
    for ip in ["10.1.2.2", "fd00:1::2"] {
        assert_eq!(net.read(ip), b"cont1\r\neth0");
        assert_eq!(mode(&net.dir().join(ip)), 0o600);
    }
    assert_eq!(net.read("last_reserved_ip.0"), b"10.1.2.2");
    assert_eq!(net.read("last_reserved_ip.1"), b"fd00:1::2");
    assert_eq!(mode(&net.dir().join("last_reserved_ip.0")), 0o600);
    assert_eq!(net.read("lock"), b"");
    assert_eq!(mode(&net.dir().join("lock")) & 0o700, 0o700);
    assert_eq!(mode(&net.dir()), 0o755);
    // The reference reads what is below, too, and must find nobody there.
    for entry in fs::read_dir(net.dir().join(".podwire")).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap();
        assert_eq!(owner::Owner::read(&content), None);
    }
    assert_eq!(net.del("cont1"), ["10.1.2.2", "fd00:1::2"]);
    assert_eq!(
        net.files(),
        [
            ".podwire",
            "last_reserved_ip.0",
            "last_reserved_ip.1",
            "lock"
        ]
    );
}

#[test]
fn result_has_prefix_gateway_routes_and_dns() {
    let net = Net::new(
        r#""ranges": [[{"subnet": "10.1.0.0/16", "gateway": "10.1.255.1"}]], "routes": [{"dst": "0.0.0.0/0"}]"#,
    );
    let resolv = net.root.path().join("resolv.conf");
    fs::write(&resolv, "nameserver 192.0.2.1\n").unwrap();
    let mut conf = net.conf();
    conf.resolv_conf = Some(resolv);
    let lease = conf.add(&attachment("a")).unwrap();
    assert_eq!(
        lease
            .result
            .to_node(Version::V1_1_0)
            .unwrap()
            .write_compact(),
        r#"{"cniVersion":"1.1.0","dns":{"nameservers":["192.0.2.1"]},"ips":[{"address":"10.1.0.1/16","gateway":"10.1.255.1"}],"routes":[{"dst":"0.0.0.0/0"}]}"#
    );
    conf.resolv_conf = Some("/nonexistent/resolv.conf".into());
    let error = CniError::from(conf.add(&attachment("b")).unwrap_err());
    assert_eq!(error.code, Code::Io);
    assert!(
        error.to_string().contains("/nonexistent/resolv.conf"),
        "{error}"
    );
    assert!(net.held("b").is_empty());
}

#[test]
fn addresses_go_round() {
    let net = Net::new(SMALL);
    for (id, ip) in [("a", "10.1.2.2"), ("b", "10.1.2.3"), ("c", "10.1.2.4")] {
        assert_eq!(net.add(id).unwrap(), [ip]);
    }
    net.del("a");
    net.del("b");
    // Not the lowest free one: the one after the last given.
    for (id, ip) in [
        ("d", "10.1.2.5"),
        ("e", "10.1.2.6"),
        ("f", "10.1.2.2"),
        ("g", "10.1.2.3"),
    ] {
        assert_eq!(net.add(id).unwrap(), [ip]);
    }
    let error = net.add("h").unwrap_err();
    assert_eq!(
        error.msg,
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.6"
    );
    assert_eq!(error.code, Code::TryAgain);
    assert!(
        error.details.contains("all 5 addresses") && error.details.contains("GC"),
        "{error}"
    );
    net.del("c");
    assert_eq!(net.add("h").unwrap(), ["10.1.2.4"]);
}

/// Waiting, DEL or GC would not help, so the error speaks of none.
#[test]
fn nothing_but_a_gateway_is_the_configurations_fault() {
    let net = Net::new(r#""ranges": [[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.1"}]]"#);
    let error = net.add("a").unwrap_err();
    assert_eq!(
        error.msg,
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.1"
    );
    let status = CniError::from(net.conf().status().unwrap_err());
    for (error, code) in [(error, Code::InvalidConfig), (status, Code::NotAvailable)] {
        assert_eq!(error.code, code);
        let told = &error.details;
        assert!(
            told.contains("gateway") && told.contains("rangeEnd") && !told.contains("GC"),
            "{error}"
        );
    }
    assert!(net.held("a").is_empty());
    net.del("a");
}

#[test]
fn cursor_of_another_range_or_garbage_starts_anew() {
    let net = Net::new(SMALL);
    fs::create_dir(net.dir()).unwrap();
    for (content, wanted) in [
        ("10.1.2.4", "10.1.2.5"),
        ("10.9.9.9", "10.1.2.2"),
        ("junk", "10.1.2.2"),
        ("", "10.1.2.2"),
    ] {
        fs::write(net.dir().join("last_reserved_ip.0"), content).unwrap();
        assert_eq!(net.add("a").unwrap(), [wanted], "{content:?}");
        net.del("a");
    }
}

#[test]
fn several_ranges_of_a_set_are_used_up_in_turn() {
    let net = Net::new(
        r#""ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.10"},
                       {"subnet": "10.1.3.0/24", "rangeStart": "10.1.3.0", "rangeEnd": "10.1.3.2", "gateway": "10.1.2.9"}]]"#,
    );
    let got: Vec<_> = ["a", "b", "c", "d", "e"]
        .iter()
        .map(|id| net.add(id).unwrap().remove(0))
        .collect();
    assert_eq!(
        got,
        ["10.1.2.9", "10.1.2.10", "10.1.3.0", "10.1.3.1", "10.1.3.2"]
    );
    assert!(net.add("f").is_err());
}

#[test]
fn second_add_is_refused_and_leaves_the_first() {
    let net = Net::new(DUAL);
    net.add("a").unwrap();
    let error = net.add("a").unwrap_err();
    assert_eq!(
        error.msg,
        "failed to allocate for range 0: 10.1.2.2 has been allocated to a, duplicate allocation is not allowed"
    );
    assert_eq!(net.held("a"), ["10.1.2.2", "fd00:1::2"]);
    // The reference gives an attachment as many requested addresses as it asks for.
    let error = add(&net.requesting(&["10.1.2.9"]), "a").unwrap_err();
    assert!(
        error.msg.contains("duplicate allocation is not allowed"),
        "{error}"
    );
    assert_eq!(net.held("a"), ["10.1.2.2", "fd00:1::2"]);
}

/// The reference releases every address of the attachment when its second set fails.
#[test]
fn failed_add_takes_back_what_it_took_and_nothing_else() {
    let net = Net::new(r#""ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/24"}]]"#);
    fs::create_dir(net.dir()).unwrap();
    net.reserve_as_reference("10.1.3.7", "a\r\neth0");
    net.reserve_as_reference("10.99.0.1", "a\r\neth0");
    let error = net.add("a").unwrap_err();
    assert!(
        error
            .msg
            .starts_with("failed to allocate for range 1: 10.1.3.7 has been allocated"),
        "{error}"
    );
    let mut held = net.held("a");
    held.sort();
    assert_eq!(held, ["10.1.3.7", "10.99.0.1"]);
    assert!(net.index_is_fresh());
    assert_eq!(net.add("b").unwrap()[0], "10.1.2.3", "the lap goes on");
}

#[test]
fn requested_addresses() {
    let net = Net::new(DUAL);
    assert_eq!(
        add(&net.requesting(&["fd00:1::77", "10.1.2.77"]), "a").unwrap(),
        ["10.1.2.77", "fd00:1::77"]
    );
    assert_eq!(net.read("last_reserved_ip.0"), b"10.1.2.77");
    assert_eq!(
        add(&net.requesting(&["fd00:1::5"]), "b").unwrap(),
        ["10.1.2.78", "fd00:1::5"]
    );
    for (ips, text) in [
        (
            &["10.1.2.77"][..],
            "failed to allocate for range 0: requested IP address 10.1.2.77 is not available in range set 10.1.2.1-10.1.2.254",
        ),
        (
            &["10.1.2.1"],
            "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway",
        ),
        (
            &["10.1.2.9", "10.1.2.8", "192.0.2.1"],
            "failed to allocate all requested IPs: 10.1.2.8 192.0.2.1",
        ),
    ] {
        let error = add(&net.requesting(ips), "c").unwrap_err();
        assert_eq!(error.msg, text);
        assert!(net.held("c").is_empty());
    }
    let error = add(&net.requesting(&["10.1.2.77"]), "c").unwrap_err();
    assert_eq!(
        (error.code, error.details.as_str()),
        (Code::TryAgain, "held by a eth0")
    );
}

#[test]
fn reused_tells_a_second_holder() {
    let net = Net::new(SMALL);
    let reused = |id: &str| net.conf().add(&attachment(id)).unwrap().reused;
    for id in ["a", "b", "c", "d", "e"] {
        assert!(!reused(id), "{id}");
    }
    net.del("c");
    assert!(reused("f"));
    // Somebody else was here: then it cannot be known.
    net.del("d");
    net.reserve_as_reference("10.1.2.5", "x\r\neth0");
    fs::remove_file(net.dir().join("10.1.2.5")).unwrap();
    assert!(reused("g"));
}

#[test]
fn reused_is_unknown_where_the_reference_was_before() {
    let net = Net::new(V4);
    fs::create_dir(net.dir()).unwrap();
    fs::write(net.dir().join("last_reserved_ip.0"), "10.1.2.9").unwrap();
    assert!(net.conf().add(&attachment("a")).unwrap().reused);
}

#[test]
fn ipv6_host_range_ends_at_its_last_address() {
    let net = Net::new(
        r#""ranges": [[{"subnet": "fd00::/64", "rangeStart": "fd00::ffff:ffff:ffff:fffe"}]]"#,
    );
    assert_eq!(net.add("a").unwrap(), ["fd00::ffff:ffff:ffff:fffe"]);
    assert_eq!(net.add("b").unwrap(), ["fd00::ffff:ffff:ffff:ffff"]);
    assert!(net.add("c").is_err());
    let all = Net::new(
        r#""ranges": [[{"subnet": "8000::/1", "rangeStart": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}]]"#,
    );
    assert_eq!(
        all.add("a").unwrap(),
        ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
    );
    assert!(all.add("b").is_err());
}

/// A directory where unnamed files are not to be had.
#[test]
fn without_unnamed_files() {
    let net = Net::new(SMALL);
    net.add("x").unwrap();
    let conf = net.conf();
    let dir = dir::Dir::create(conf.dir.path()).unwrap();
    let mut locked = locked::Locked::open(&conf.dir, dir, locked::Intent::Change).unwrap();
    let owner = owner::Owner::of(&attachment("slow"));
    let pending = locked::Pending {
        owner: &owner,
        draft: None,
    };
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    assert!(matches!(
        locked.claim(&pending, ip("10.1.2.2")).unwrap(),
        locked::Claim::Taken(_)
    ));
    assert!(matches!(
        locked.claim(&pending, ip("10.1.2.3")).unwrap(),
        locked::Claim::Done { .. }
    ));
    fs::write(net.dir().join("10.1.2.4"), "").unwrap();
    assert!(matches!(
        locked.claim(&pending, ip("10.1.2.4")).unwrap(),
        locked::Claim::Done { .. }
    ));
    locked.finish();
    assert_eq!(net.read("10.1.2.4"), b"slow\r\neth0");
    assert!(!net.dir().join(".podwire/new").exists());
    assert_eq!(net.del("slow"), ["10.1.2.3", "10.1.2.4"]);
}
