//! STATUS, and what else only asks.

use super::*;

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
