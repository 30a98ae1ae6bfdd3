use testkit::{in_netns, sh};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn found(id: &str) -> Found {
    Found {
        network: "net".into(),
        container_id: id.into(),
        ifname: "eth0".into(),
        ..Found::default()
    }
}

fn life(containers: Option<&[&str]>) -> Life {
    Life {
        containers: containers.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()),
        live: Live::default(),
        within: None,
    }
}

fn is_alive(verdict: &Verdict, why: &str) -> bool {
    matches!(verdict, Verdict::Alive(told) if told.contains(why))
}

fn list(dir: &Path) -> NetworkList {
    let conf = format!(
        r#"{{"cniVersion": "1.0.0", "name": "net", "plugins": [
            {{"type": "bridge", "ipam": {{"type": "host-local", "dataDir": "{}", "subnet": "10.1.0.0/24"}}}}]}}"#,
        dir.display()
    );
    NetworkList::parse(conf.as_bytes(), None).unwrap()
}

#[test]
fn dead_is_what_nobody_knows_and_is_in_for_long_enough() {
    let now = SystemTime::now();
    let old = Some(now - 10 * MINUTE);
    let mut one = found("c1");
    let judge = |life: &Life, found: &Found, since| life.judge(found, since, now, 5 * MINUTE);

    assert!(is_alive(&judge(&life(Some(&["c1"])), &one, old), "knows"));
    assert!(matches!(
        judge(&life(Some(&["c2"])), &one, old),
        Verdict::Dead(_)
    ));
    assert!(matches!(
        judge(&life(Some(&[])), &one, old),
        Verdict::Dead(_)
    ));
    // Of the same age to the second.
    let exactly = Some(now - 5 * MINUTE);
    assert!(matches!(
        judge(&life(Some(&[])), &one, exactly),
        Verdict::Dead(_)
    ));
    for (since, left) in [
        (Some(now - 4 * MINUTE), MINUTE),
        (Some(now), 5 * MINUTE),
        (Some(now + 60 * MINUTE), 5 * MINUTE), // the clock was set back
        (None, 5 * MINUTE),
    ] {
        assert_eq!(judge(&life(Some(&[])), &one, since), Verdict::Young(left));
    }

    one.addresses = vec!["10.1.0.2".parse().unwrap()];
    let mut occupied = life(Some(&[]));
    occupied.live.addresses.insert("10.1.0.2".parse().unwrap());
    assert!(is_alive(&judge(&occupied, &one, old), "10.1.0.2 is in use"));

    // A host end says that the namespace stands; whether its pod does, only the runtime knows.
    one.links = vec!["veth1".into()];
    assert!(is_alive(&judge(&life(None), &one, old), "veth1"));
    assert!(matches!(
        judge(&life(Some(&[])), &one, old),
        Verdict::Dead(_)
    ));
}

#[test]
fn a_namespace_in_use_is_alive() {
    let here = Path::new("/proc/self/ns/net");
    let entry = CacheEntry {
        network: "net".into(),
        container_id: "c1".into(),
        ifname: "eth0".into(),
        netns: Some(here.to_str().unwrap().into()),
        args: Vec::new(),
        capability_args: None,
        config: Vec::new(),
        result: None,
        file: PathBuf::new(),
        modified: SystemTime::UNIX_EPOCH,
    };
    let mut one = found("c1");
    one.cached = Some(entry);
    let mut life = life(Some(&[]));
    let now = SystemTime::now();
    let old = Some(SystemTime::UNIX_EPOCH);
    assert!(matches!(
        life.judge(&one, old, now, MINUTE),
        Verdict::Dead(_)
    ));
    life.live
        .namespaces
        .insert(fs::metadata(here).unwrap().ino());
    assert!(is_alive(&life.judge(&one, old, now, MINUTE), "in use"));
}

#[test]
fn what_has_no_date_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deep/first-seen");
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let mut dated = found("dated");
    dated.files.push((PathBuf::from("/x"), then));
    let all = [found("a"), dated];
    let mut memory = Memory::read(&file);
    assert_eq!(memory.since(&all[0]), None);
    assert_eq!(memory.since(&all[1]), Some(then));
    memory.update(&all, then);
    memory.write(&file).unwrap();

    let mut memory = Memory::read(&file);
    assert_eq!(memory.since(&all[0]), Some(then));
    memory.update(&all, then + MINUTE);
    assert_eq!(memory.since(&all[0]), Some(then), "not seen anew");
    memory.update(&[], then + MINUTE);
    memory.write(&file).unwrap();
    assert!(!file.exists(), "nothing to remember");
    memory.write(&file).unwrap();

    fs::write(&file, "{\"net/a/eth0\": 12").unwrap();
    assert_eq!(Memory::read(&file).since(&all[0]), None, "torn");
}

#[test]
fn traces_of_all_kinds_come_together() {
    in_netns(|| {
        let dir = tempfile::tempdir().unwrap();
        let (store, cache) = (dir.path().join("store"), dir.path().join("cache"));
        let list = list(&store);
        fs::create_dir_all(store.join("net")).unwrap();
        fs::create_dir_all(cache.join("results")).unwrap();
        let reserve = |ip: &str, owner: &str| fs::write(store.join("net").join(ip), owner).unwrap();
        reserve("10.1.0.2", "both\r\neth0");
        reserve("10.1.0.3", "reserved\r\neth1");
        reserve("10.1.0.4", "old-release");
        reserve("10.1.0.5", ""); // torn
        sh("ip link add v0 type veth peer name p0; ip link set v0 alias podwire:net/both/eth0");
        sh("ip link add v1 type veth peer name p1; ip link set v1 alias podwire:net/linked/net1");
        sh("ip link add v2 type veth peer name p2; ip link set v2 alias podwire:other/linked/net1");
        let entry = |network: &str, id: &str| {
            let text = format!(
                r#"{{"kind":"cniCacheV1","containerId":"{id}","config":"e30=","ifName":"eth0","networkName":"{network}"}}"#
            );
            fs::write(cache.join(format!("results/{network}-{id}-eth0")), text).unwrap();
        };
        entry("net", "both");
        entry("net", "cached");
        entry("other", "cached");

        let runtime = Runtime::new([]).cache_dir(&cache);
        let all = find(&runtime, &[&list]).unwrap();
        let keys: Vec<String> = all.iter().map(Found::key).collect();
        assert_eq!(
            keys,
            [
                "net/both/eth0",
                "net/cached/eth0",
                "net/linked/net1",
                "net/old-release/eth0",
                "net/reserved/eth1"
            ]
        );
        let both = &all[0];
        assert!(both.cached.is_some() && both.links == ["v0"] && both.files.len() == 2);
        assert_eq!(both.addresses, ["10.1.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(all[2].since(), None, "an alias has no date");

        assert!(!both.has_changed());
        let reservation = fs::File::open(store.join("net/10.1.0.2")).unwrap();
        reservation
            .set_modified(SystemTime::now() + MINUTE)
            .unwrap();
        assert!(both.has_changed(), "written again");
        fs::remove_file(cache.join("results/net-cached-eth0")).unwrap();
        assert!(all[1].has_changed(), "gone");
    });
}

#[test]
fn a_name_that_is_none_is_not_looked_for() {
    in_netns(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut list = list(dir.path());
        list.name = "../net".into();
        let error = find(&Runtime::new([]).cache_dir(dir.path()), &[&list]).unwrap_err();
        assert!(matches!(error, FindError::Conf(_)), "{error}");
    });
}
