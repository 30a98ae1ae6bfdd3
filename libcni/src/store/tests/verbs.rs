//! What each verb does and leaves on disk.
use super::*;

const V4: &str = r#""subnet": "10.1.2.0/24""#;
const SMALL: &str = r#""subnet": "10.1.2.0/29""#; // .2 to .6
const DUAL: &str = r#""ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1::/64"}]]"#;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

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
fn del_and_check_before_anything_create_nothing() {
    let net = Net::new(V4);
    assert!(net.del("a").is_empty());
    let error = CniError::from(net.conf().dir.check(&attachment("a")).unwrap_err());
    assert_eq!(
        error.msg,
        "host-local: Failed to find address added by container a"
    );
    net.conf().status().unwrap();
    assert_eq!(net.conf().dir.gc(&[], |_| (), || ()).unwrap(), 0);
    assert!(!net.dir().exists());
}

#[test]
fn del_frees_one_attachment_only_and_twice_is_fine() {
    let net = Net::new(V4);
    let conf = net.conf();
    conf.add(&on("a", "eth0")).unwrap();
    conf.add(&on("a", "eth1")).unwrap();
    conf.add(&on("b", "eth0")).unwrap();
    let mut empty = 0;
    for (id, ifname, freed) in [
        ("a", "eth1", 1),
        ("a", "eth1", 0),
        ("c", "eth0", 0),
        ("b", "eth0", 1),
    ] {
        assert_eq!(
            conf.dir
                .release(&on(id, ifname), || empty += 1)
                .unwrap()
                .len(),
            freed
        );
    }
    assert_eq!(empty, 0);
    conf.dir.check(&on("a", "eth0")).unwrap();
    assert!(conf.dir.check(&on("a", "eth1")).is_err());
    assert_eq!(
        conf.dir
            .release(&on("a", "eth0"), || empty += 1)
            .unwrap()
            .len(),
        1
    );
    assert_eq!(empty, 1);
    conf.dir.release(&on("a", "eth0"), || empty += 1).unwrap();
    assert_eq!(
        empty, 2,
        "what a killed DEL left undone is done by the next"
    );
}

#[test]
fn when_sole_runs_only_for_the_last_attachment() {
    let net = Net::new(DUAL);
    let dir = net.conf().dir;
    assert_eq!(
        dir.when_sole(&attachment("a"), || 1).unwrap(),
        Some(1),
        "no directory yet"
    );
    net.add("a").unwrap();
    assert_eq!(dir.when_sole(&attachment("a"), || 1).unwrap(), Some(1));
    assert_eq!(dir.when_sole(&attachment("b"), || 1).unwrap(), None);
    net.add("b").unwrap();
    assert_eq!(dir.when_sole(&attachment("a"), || 1).unwrap(), None);
    net.del("b");
    assert_eq!(dir.when_sole(&attachment("a"), || 1).unwrap(), Some(1));
    net.del("a");
    assert_eq!(dir.when_sole(&attachment("a"), || 1).unwrap(), Some(1));
}

#[test]
fn taking_an_add_back_leaves_earlier_addresses() {
    let net = Net::new(V4);
    fs::create_dir(net.dir()).unwrap();
    net.reserve_as_reference("10.99.0.1", "a\r\neth0");
    net.add("a").unwrap();
    net.add("b").unwrap();
    let ips: Vec<IpAddr> = ["10.1.2.2", "10.1.2.3", "10.1.2.9"]
        .map(|ip| ip.parse().unwrap())
        .to_vec();
    net.conf().dir.release_only(&attachment("a"), &ips).unwrap();
    assert_eq!(net.held("a"), ["10.99.0.1"]);
    assert_eq!(net.held("b"), ["10.1.2.3"]);
}

#[test]
fn del_works_when_the_ranges_are_gone_or_broken() {
    let net = Net::new(V4);
    net.add("a").unwrap();
    let root = net.root.path().display();
    let config = format!(
        r#"{{"name": "n", "ipam": {{"dataDir": "{root}", "ranges": [[{{"subnet": "x"}}]]}}}}"#
    );
    let dir = NetDir::of(&Node::parse(config.as_bytes()).unwrap()).unwrap();
    assert_eq!(dir.release(&attachment("a"), || ()).unwrap().len(), 1);
}

#[test]
fn files_of_old_releases_count() {
    let net = Net::new(V4);
    fs::create_dir(net.dir()).unwrap();
    net.reserve_as_reference("10.1.2.50", "old");
    net.reserve_as_reference("10.1.2.51", "old\n");
    assert_eq!(net.held("old").len(), 2);
    assert!(
        net.add("old")
            .unwrap_err()
            .msg
            .contains("has been allocated to old")
    );
    net.reserve_as_reference("10.1.2.60", "old\r\neth0");
    assert_eq!(net.del("old"), ["10.1.2.60"], "the exact owner first");
    assert_eq!(net.del("old").len(), 2);
    assert!(net.del("old").is_empty());
}

#[test]
fn torn_reservations_are_none() {
    let net = Net::new(SMALL);
    fs::create_dir(net.dir()).unwrap();
    for (ip, content) in [
        ("10.1.2.2", ""),
        ("10.1.2.3", "\0\0\0\0\0"),
        ("10.1.2.4", "../x\r\neth0"),
        ("10.1.2.5", "x\r\neth0"),
    ] {
        net.reserve_as_reference(ip, content);
    }
    net.conf().status().unwrap();
    let got: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|id| net.add(id).unwrap().remove(0))
        .collect();
    assert_eq!(got, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.6"]);
    assert!(net.add("e").is_err());
    assert_eq!(net.read("10.1.2.3"), b"b\r\neth0");
    assert!(!net.dir().join(".podwire/new").exists());
    // Requested, one that a full lap has not met.
    net.reserve_as_reference("10.1.2.1", "");
    fs::write(net.dir().join("10.1.2.2"), "").unwrap();
    assert_eq!(
        add(&net.requesting(&["10.1.2.2"]), "f").unwrap(),
        ["10.1.2.2"]
    );
}

#[test]
fn names_that_are_not_ours_are_left_alone() {
    let net = Net::new(SMALL);
    fs::create_dir_all(net.dir().join("sub")).unwrap();
    for name in [
        "10.1.2.02",
        "10.1.2.2.bak",
        "note",
        "sub/10.1.2.3",
        "::ffff:10.1.2.4",
        "FD00::1",
    ] {
        net.reserve_as_reference(name, "a\r\neth0");
    }
    fs::create_dir(net.dir().join("10.1.2.2")).unwrap();
    std::os::unix::fs::symlink("note", net.dir().join("10.1.2.3")).unwrap();
    assert!(net.held("a").is_empty());
    assert_eq!(
        net.add("b").unwrap(),
        ["10.1.2.4"],
        "in the way: a directory, a link"
    );
    net.conf().dir.gc(&[], |_| (), || ()).unwrap();
    assert!(net.dir().join("note").exists() && net.dir().join("10.1.2.2").exists());
}

#[test]
fn gc_frees_exactly_what_is_not_valid() {
    let net = Net::new(V4);
    let conf = net.conf();
    for id in ["a", "b", "c"] {
        conf.add(&on(id, "eth0")).unwrap();
        conf.add(&on(id, "eth1")).unwrap();
    }
    net.reserve_as_reference("10.1.2.100", "b"); // stays: some interface of b is valid
    net.reserve_as_reference("10.1.2.101", "c");
    net.reserve_as_reference("10.1.2.102", "");
    net.reserve_as_reference("10.9.9.9", "gone\r\neth0"); // of a range the config has no more
    let mut freed = Vec::new();
    let valid = [on("a", "eth0"), on("b", "eth1"), on("never", "eth0")];
    let n = conf
        .dir
        .gc(
            &valid,
            |ip: IpAddr| freed.push(ip.to_string()),
            || panic!("not empty"),
        )
        .unwrap();
    freed.sort();
    assert_eq!(
        freed,
        [
            "10.1.2.101",
            "10.1.2.102",
            "10.1.2.3",
            "10.1.2.4",
            "10.1.2.6",
            "10.1.2.7",
            "10.9.9.9"
        ]
    );
    assert_eq!(n, freed.len());
    assert!(net.index_is_fresh());
    assert_eq!(net.held("a"), ["10.1.2.2"]);
    assert_eq!(conf.dir.held(&on("b", "eth1")).unwrap().len(), 1);
    let mut empty = false;
    assert_eq!(conf.dir.gc(&[], |_| (), || empty = true).unwrap(), 3);
    assert!(empty);
    assert_eq!(net.files(), [".podwire", "last_reserved_ip.0", "lock"]);
}

#[test]
fn gc_in_many_batches() {
    let net = Net::new(r#""subnet": "10.1.0.0/16""#);
    for n in 0..300 {
        net.add(&format!("c{n}")).unwrap();
    }
    let valid: Vec<_> = (0..300)
        .step_by(3)
        .map(|n| attachment(&format!("c{n}")))
        .collect();
    assert_eq!(net.conf().dir.gc(&valid, |_| (), || ()).unwrap(), 200);
    assert!(net.index_is_fresh());
    for n in 0..300 {
        assert_eq!(
            net.held(&format!("c{n}")).len(),
            usize::from(n % 3 == 0),
            "c{n}"
        );
    }
}

#[test]
fn status_says_full() {
    let net = Net::new(
        r#""ranges": [[{"subnet": "fd00::/64"}], [{"subnet": "10.1.2.0/29", "rangeEnd": "10.1.2.3"}]]"#,
    );
    net.add("a").unwrap();
    net.conf().status().unwrap();
    net.add("b").unwrap();
    let error = CniError::from(net.conf().status().unwrap_err());
    assert_eq!(error.code, Code::NotAvailable);
    assert_eq!(
        error.msg,
        "host-local: no IP addresses available in range set: 10.1.2.1-10.1.2.3"
    );
    // Without an index, by the files alone.
    fs::remove_dir_all(net.dir().join(".podwire")).unwrap();
    assert!(net.conf().status().is_err());
    fs::write(net.dir().join("10.1.2.2"), "").unwrap();
    net.conf().status().unwrap();
    assert!(
        !net.dir().join(".podwire").exists(),
        "STATUS changes nothing"
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
        r#""ranges": [[{"subnet": "::/0", "rangeStart": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}]]"#,
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

#[test]
fn all_reservations_are_listed() {
    let net = Net::new(DUAL);
    assert_eq!(net.conf().dir.reservations().unwrap(), []);
    net.add("a").unwrap();
    fs::write(net.dir().join("10.1.2.9"), b"old-one").unwrap();
    fs::write(net.dir().join("10.1.2.10"), b"").unwrap();
    fs::write(net.dir().join("10.1.2.11"), b"../etc\r\neth0").unwrap();
    let since = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let file = fs::File::open(net.dir().join("10.1.2.9")).unwrap();
    file.set_modified(since).unwrap();
    let mut all = net.conf().dir.reservations().unwrap();
    all.sort_by_key(|r| r.ip);
    let shown: Vec<_> = all
        .iter()
        .map(|r| {
            (
                r.ip.to_string(),
                r.container_id.as_str(),
                r.ifname.is_some(),
            )
        })
        .collect();
    let wanted = [
        ("10.1.2.2".to_owned(), "a", true),
        ("10.1.2.9".to_owned(), "old-one", false),
        ("fd00:1::2".to_owned(), "a", true),
    ];
    assert_eq!(shown, wanted);
    assert_eq!(all[1].since, since);
}
