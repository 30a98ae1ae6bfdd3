use std::os::unix::fs::PermissionsExt;

use super::*;

fn key(network: &str, id: &str) -> Key {
    Key::of(network, &Attach::new(id, "", "eth0")).unwrap()
}

fn node(text: &str) -> Node {
    Node::parse(text.as_bytes()).unwrap()
}

/// As containerd 1.6 (libcni 1.1.1) wrote it, and 1.2 with its namespace; both also with arguments.
const FILE: &str = r#"{"kind":"cniCacheV1","containerId":"c1","config":"eyJuYW1lIjoibmV0IiwicGx1Z2lucyI6W3sidHlwZSI6ImJyaWRnZSJ9XX0=","ifName":"eth0","networkName":"net","netns":"/run/netns/x","cniArgs":[["IgnoreUnknown","1"],["A","\u003c\u0026\u003e"]],"capabilityArgs":{"mac":"x","portMappings":[{"containerPort":80,"hostPort":8080}]},"result":{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24","interface":1}]}}"#;

#[test]
fn bytes_are_the_references() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let at = Attach {
        container_id: "c1".into(),
        netns: "/run/netns/x".into(),
        ifname: "eth0".into(),
        args: vec![
            ("IgnoreUnknown".into(), "1".into()),
            ("A".into(), "<&>".into()),
        ],
        capability_args: node(
            r#"{"portMappings":[{"hostPort":8080,"containerPort":80.0}],"mac":"x"}"#,
        ),
    };
    let result = node(r#"{"ips":[{"interface":1,"address":"10.1.0.2/24"}],"cniVersion":"1.0.0"}"#);
    let config = br#"{"name":"net","plugins":[{"type":"bridge"}]}"#;
    let key = key("net", "c1");
    cache
        .write(Saved {
            key: &key,
            at: &at,
            config,
            result: Some(&result),
        })
        .unwrap();
    let file = dir.path().join("results/net-c1-eth0");
    assert_eq!(fs::read_to_string(&file).unwrap(), FILE);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode(&file), mode(&dir.path().join("results"))),
        (0o600, 0o700)
    );

    let read = cache.read(&key).unwrap();
    assert_eq!(read.config, config);
    assert_eq!(read.args, at.args);
    assert_eq!(read.netns.as_deref(), Some("/run/netns/x"));
    assert_eq!(read.to_bytes(), FILE.as_bytes());
    assert_eq!(cache.entries().unwrap(), [read]);
    cache.remove(&key).unwrap();
    cache.remove(&key).unwrap();
    assert!(cache.entries().unwrap().is_empty());
}

/// A write that was cut short anywhere, as the reference may leave it.
#[test]
fn torn_anywhere_it_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let file = dir.path().join("results/net-c1-eth0");
    fs::create_dir(file.parent().unwrap()).unwrap();
    for length in 0..FILE.len() {
        fs::write(&file, &FILE[..length]).unwrap();
        assert_eq!(cache.read(&key("net", "c1")), None, "{length}");
        assert!(cache.entries().unwrap().is_empty(), "{length}");
    }
    fs::write(&file, FILE).unwrap();
    assert!(cache.read(&key("net", "c1")).is_some());
    fs::write(&file, "\0".repeat(FILE.len())).unwrap();
    cache.remove(&key("net", "c1")).unwrap();
    assert!(!file.exists());
}

/// Libraries before 0.8 kept the bare result.
#[test]
fn a_bare_result_is_one_but_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    fs::create_dir(dir.path().join("results")).unwrap();
    let result = r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.1.0.2/24"}]}"#;
    fs::write(dir.path().join("results/net-c1-eth0"), result).unwrap();
    fs::write(
        dir.path().join("results/net-c2-eth0"),
        r#"{"kind":"cniCacheV2"}"#,
    )
    .unwrap();
    assert_eq!(
        cache.read(&key("net", "c1")).unwrap().result,
        Some(node(result))
    );
    assert_eq!(cache.read(&key("net", "c2")), None);
    assert!(cache.entries().unwrap().is_empty());
}

/// Two attachments may have one file name; the reference takes one for the other.
#[test]
fn anothers_entry_is_neither_read_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let nothing = Attach::new("b-c", "", "eth0");
    let theirs = key("a", "b-c");
    let saved = Saved {
        key: &theirs,
        at: &nothing,
        config: b"{}",
        result: None,
    };
    cache.write(saved).unwrap();
    let ours = key("a-b", "c");
    assert_eq!(ours.file_name(), theirs.file_name());
    assert_eq!(cache.read(&ours), None);
    cache.remove(&ours).unwrap();
    assert!(cache.read(&theirs).is_some());
}

#[test]
fn names_cannot_lead_elsewhere() {
    let of = |network: &str, id: &str, ifname: &str| {
        Key::of(network, &Attach::new(id, "", ifname)).map_err(|e| e.code.as_u32())
    };
    assert!(of("net", "c1", "eth0").is_ok());
    assert_eq!(of("net", "../c1", "eth0"), Err(4));
    assert_eq!(of("net", "", "eth0"), Err(3));
    assert_eq!(of("../net", "c1", "eth0"), Err(7));
    assert_eq!(of("net", "c1", "../eth0"), Err(4));
    assert_eq!(of("net", "c1", ""), Err(4));
    // As long as a file name may be, and one byte more.
    assert!(of("n", &"c".repeat(248), "eth0").is_ok());
    assert_eq!(of("n", &"c".repeat(249), "eth0"), Err(4));
}
