//! GC.

use super::*;

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
