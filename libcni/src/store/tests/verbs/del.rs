//! DEL and CHECK, on whatever is there.

use super::*;

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
