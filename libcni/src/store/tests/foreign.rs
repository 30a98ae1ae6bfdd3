//! Changes by others: seen, whenever they come.
use super::*;

const V4: &str = r#""subnet": "10.1.2.0/24""#;

#[test]
fn our_own_changes_keep_the_index_fresh() {
    let net = Net::new(V4);
    net.add("a").unwrap();
    assert!(net.index_is_fresh());
    net.add("b").unwrap();
    assert!(net.index_is_fresh());
    net.del("a");
    assert!(net.index_is_fresh());
    let inode = |net: &Net| {
        fs::metadata(net.dir().join(".podwire/index"))
            .map(|m| std::os::unix::fs::MetadataExt::ino(&m))
            .unwrap()
    };
    let before = inode(&net);
    net.add("c").unwrap();
    net.add("c").unwrap_err();
    net.del("nobody");
    net.held("c");
    assert_eq!(inode(&net), before, "never made anew");
}

/// The kernel stamps with its tick, 1 to 4 ms wide: both changes get the same time from it.
#[test]
fn a_foreign_change_in_the_same_tick_is_seen() {
    let net = Net::new(V4);
    for n in 0..200 {
        net.add("a").unwrap();
        let path = net.dir().join("10.9.9.9");
        fs::File::create_new(&path).unwrap();
        fs::write(&path, "b\r\neth0").unwrap();
        assert_eq!(net.held("b"), ["10.9.9.9"], "round {n}");
        net.del("a");
        fs::remove_file(&path).unwrap();
        assert!(net.held("b").is_empty(), "round {n}");
    }
}

/// Written without the lock between our change and our stamp: nothing in the index says so.
#[test]
fn a_change_the_index_cannot_know_does_no_harm() {
    let net = Net::new(r#""subnet": "10.1.2.0/29""#);
    for id in ["a", "b", "c", "d"] {
        net.add(id).unwrap();
    }
    let conceal = |net: &Net| {
        let dir = dir::Dir::open(net.conf().dir.path()).unwrap().unwrap();
        let mut index = index::Index::open(&dir.side(false).unwrap()).unwrap();
        index.commit(dir.restamp().unwrap().unwrap()).unwrap();
        assert!(net.index_is_fresh());
    };
    net.reserve_as_reference("10.1.2.6", "x\r\neth0");
    conceal(&net);
    let error = net.add("e").unwrap_err();
    assert!(error.msg.contains("no IP addresses available"), "{error}");
    assert_eq!(net.held("x"), ["10.1.2.6"], "found out");
    // One that is gone: found out before the pool is called exhausted.
    fs::remove_file(net.dir().join("10.1.2.4")).unwrap();
    conceal(&net);
    assert_eq!(net.add("f").unwrap(), ["10.1.2.4"]);
    // One that changed hands.
    fs::write(net.dir().join("10.1.2.2"), "y\r\neth0").unwrap();
    conceal(&net);
    assert!(net.del("a").is_empty());
    assert_eq!(net.held("y"), ["10.1.2.2"]);
}

#[test]
fn a_directory_removed_while_waiting_is_made_again() {
    let net = Net::new(V4);
    net.add("a").unwrap();
    let conf = net.conf();
    let lock = fs::File::open(net.dir().join("lock")).unwrap();
    lock.lock().unwrap();
    let waiter = std::thread::spawn(move || conf.add(&attachment("b")));
    let inode = std::os::unix::fs::MetadataExt::ino(&lock.metadata().unwrap());
    while !fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .any(|l| l.contains("->") && l.contains(&format!(":{inode} ")))
    {
        std::thread::yield_now();
    }
    fs::remove_dir_all(net.dir()).unwrap();
    drop(lock);
    let lease = waiter.join().unwrap().unwrap();
    assert_eq!(lease.result.ips[0].address.ip().to_string(), "10.1.2.2");
    assert_eq!(net.read("10.1.2.2"), b"b\r\neth0");
}

/// Many at once, as threads; `ipam/host-local/tests` does it with processes.
#[test]
fn forty_at_once_get_forty_addresses() {
    let net = Net::new(V4);
    let conf = net.conf();
    let mut got: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..40)
            .map(|n| {
                let conf = &conf;
                scope.spawn(move || add(conf, &format!("c{n}")).unwrap().remove(0))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 40);
    assert!(net.index_is_fresh());
    std::thread::scope(|scope| {
        for n in 0..40 {
            let conf = &conf;
            scope.spawn(move || {
                conf.dir
                    .release(&attachment(&format!("c{n}")), || ())
                    .unwrap()
            });
        }
    });
    assert_eq!(net.files(), [".podwire", "last_reserved_ip.0", "lock"]);
}
