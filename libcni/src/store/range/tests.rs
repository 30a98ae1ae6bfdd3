use super::*;

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn raw(subnet: &str, start: &str, end: &str, gateway: &str) -> RawRange {
    let ip = |s: &str| (!s.is_empty()).then(|| s.parse().unwrap());
    RawRange {
        subnet: (!subnet.is_empty()).then(|| subnet.parse().unwrap()),
        start: ip(start),
        end: ip(end),
        gateway: ip(gateway),
    }
}

fn set(ranges: &[(&str, &str, &str, &str)]) -> Result<RangeSet, String> {
    let raw: Vec<_> = ranges.iter().map(|r| raw(r.0, r.1, r.2, r.3)).collect();
    RangeSet::new(&raw).map_err(|e| e.to_string())
}

#[test]
fn defaults() {
    let v4 = Range::new(&raw("10.1.2.0/24", "", "", "")).unwrap();
    assert_eq!(v4.to_string(), "10.1.2.1-10.1.2.254");
    assert_eq!(v4.gateway, ip("10.1.2.1"));
    assert_eq!(v4.capacity(), 253);
    let v6 = Range::new(&raw("fd00:1::/64", "", "", "")).unwrap();
    assert_eq!(v6.to_string(), "fd00:1::1-fd00:1::ffff:ffff:ffff:ffff");
    assert_eq!(v6.capacity(), (1 << 64) - 2);
    let half = Range::new(&raw("8000::/1", "", "", "")).unwrap();
    assert_eq!(number(half.last), u128::MAX);
    let outside = Range::new(&raw("10.1.2.0/24", "10.1.2.0", "10.1.2.3", "10.9.9.9")).unwrap();
    assert_eq!(outside.capacity(), 4);
}

#[test]
fn capacity_at_its_ends() {
    let gateway_alone = ("10.1.2.0/24", "", "10.1.2.1", "");
    assert_eq!(set(&[gateway_alone]).unwrap().capacity(), 0);
    let another = ("10.1.3.0/24", "10.1.3.9", "10.1.3.9", "10.1.3.9");
    assert_eq!(set(&[gateway_alone, another]).unwrap().capacity(), 0);
    let room = ("10.1.4.0/30", "", "", "");
    assert_eq!(set(&[gateway_alone, room]).unwrap().capacity(), 1);
    let half = set(&[("8000::/1", "8000::", "", "10.1.2.3")]).unwrap();
    assert_eq!(half.capacity(), 1 << 127);
}

#[test]
fn refusals_have_the_reference_texts() {
    for (ranges, text) in [
        (vec![], "empty range set"),
        (vec![("", "", "", "")], "IP <nil> not v4 nor v6"),
        (
            vec![("10.0.0.0/31", "", "", "")],
            "Network 10.0.0.0/31 too small to allocate from",
        ),
        (
            vec![("fd00::1/127", "", "", "")],
            "Network fd00::1/127 too small to allocate from",
        ),
        (
            vec![("::/80", "", "", "")],
            "Network ::/80 contains the IPv4-mapped addresses ::ffff:0:0/96: take one of fd00::/8, say",
        ),
        (
            vec![("::/0", "::9", "::99", "")],
            "Network ::/0 contains the IPv4-mapped addresses ::ffff:0:0/96: take one of fd00::/8, say",
        ),
        (
            vec![("10.0.0.7/24", "", "", "")],
            "Network has host bits set. For a subnet mask of length 24 the network address is 10.0.0.0",
        ),
        (
            vec![("10.0.0.0/24", "10.0.1.1", "", "")],
            "RangeStart 10.0.1.1 not in network 10.0.0.0/24",
        ),
        (
            vec![("10.0.0.0/24", "10.0.0.9", "10.0.0.8", "")],
            "RangeStart 10.0.0.9 not in network 10.0.0.0/24",
        ),
        (
            vec![("10.0.0.0/24", "", "10.0.0.0", "")],
            "RangeEnd 10.0.0.0 not in network 10.0.0.0/24",
        ),
        (
            vec![("10.0.0.0/24", "", "fd00::1", "")],
            "RangeEnd fd00::1 not in network 10.0.0.0/24",
        ),
        (
            vec![("10.0.0.0/24", "", "", ""), ("fd00::/64", "", "", "")],
            "mixed address families",
        ),
        (
            vec![
                ("10.0.0.0/24", "", "10.0.0.9", ""),
                ("10.0.0.0/24", "10.0.0.9", "", ""),
            ],
            "subnets 10.0.0.1-10.0.0.9 and 10.0.0.9-10.0.0.254 overlap",
        ),
    ] {
        assert_eq!(set(&ranges).unwrap_err(), text);
    }
}

#[test]
fn lap_starts_after_the_cursor_and_ends_on_it() {
    let set = set(&[
        ("10.0.0.0/24", "", "10.0.0.3", ""),
        ("10.0.1.0/24", "10.0.1.8", "10.0.1.9", ""),
    ])
    .unwrap();
    let lap = |cursor: Option<&str>| -> Vec<String> {
        set.lap(cursor.map(ip))
            .iter()
            .flat_map(|s| s.first..=s.last)
            .map(|n| address(n).to_string())
            .collect()
    };
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.8", "10.0.1.9"];
    assert_eq!(lap(None), all);
    assert_eq!(lap(Some("10.0.0.200")), all); // not of this set any more
    assert_eq!(lap(Some("10.0.1.9")), all);
    assert_eq!(
        lap(Some("10.0.0.1")),
        ["10.0.0.2", "10.0.0.3", "10.0.1.8", "10.0.1.9", "10.0.0.1"]
    );
    assert_eq!(
        lap(Some("10.0.0.3")),
        ["10.0.1.8", "10.0.1.9", "10.0.0.1", "10.0.0.2", "10.0.0.3"]
    );
    assert_eq!(
        lap(Some("10.0.1.8")),
        ["10.0.1.9", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.8"]
    );
}

#[test]
fn one_address_is_a_range() {
    let set = set(&[("10.0.0.0/24", "10.0.0.5", "10.0.0.5", "")]).unwrap();
    assert_eq!(set.lap(Some(ip("10.0.0.5"))).len(), 1);
    assert_eq!(set.lap(None).len(), 1);
}
