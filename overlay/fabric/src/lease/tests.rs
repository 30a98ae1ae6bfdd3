//! Section 12.1 and rules 1, 6, 7, 8, 13 of flannel's contract.

use super::*;

const GOLDEN: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;
const GOLDEN_DUAL: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":"fd00:9::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}}"#;

fn subnets(key: &str) -> Subnets {
    Subnets::parse(key).unwrap()
}

#[test]
fn rule_6_keys_are_flannels() {
    for key in ["10.5.52.0-24", "10.5.1.0-24&fc00:0:0:5::-64", "0.0.0.0-0"] {
        assert_eq!(subnets(key).key(), key);
    }
    for key in [
        "",
        "10.5.52.0",
        "10.5.52.0-",
        "10.5.52.0-33",
        "10.5.52.1-32",
        "10.5.52.0-024",
        "10.5.52.0-+24",
        "fc00::-64",
        "10.5.52.0-24&",
        "10.5.52.0-24&10.5.53.0-24",
        "10.5.52.0-24&fc00::-128",
        "config",
        "10.05.52.0-24",
        "..-24",
    ] {
        assert_eq!(Subnets::parse(key), Err(LeaseError::Key), "{key}");
    }
    assert_eq!(
        subnets("10.5.52.7-24").key(),
        "10.5.52.0-24",
        "host bits are dropped"
    );
}

#[test]
fn rule_1_values_are_flannels_to_the_byte() {
    for (key, golden) in [
        ("10.5.52.0-24", GOLDEN),
        ("10.5.1.0-24&fc00:0:0:5::-64", GOLDEN_DUAL),
    ] {
        let peer = parse("n", &subnets(key), golden.as_bytes()).unwrap();
        assert_eq!(value(&peer), golden);
    }
    let host_gw = Peer {
        name: String::new(),
        kind: Kind::HostGw,
        v4: Some(Site {
            subnet: "10.5.52.0/24".parse().unwrap(),
            public_ip: "192.0.2.1".parse().unwrap(),
            vtep: None,
        }),
        v6: None,
    };
    assert_eq!(
        value(&host_gw),
        r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw"}"#
    );
}

#[test]
fn rule_7_keys_in_any_case_and_unknown_ones() {
    let text = br#"{"publicip":"192.0.2.1","x":[],"backendtype":"vxlan","BACKENDDATA":{"vni":7,"vtepmac":"C6:D2:32:6F:8F:44"}}"#;
    let peer = parse("n", &subnets("10.5.52.0-24"), text).unwrap();
    let vtep = peer.v4.unwrap().vtep.unwrap();
    assert_eq!(
        (vtep.vni, vtep.mac.to_string().as_str()),
        (Some(7), "c6:d2:32:6f:8f:44")
    );
}

#[test]
fn rule_8_peers_without_a_vni_and_appliances() {
    let of = |data: &str| parse_backend_data(data.as_bytes());
    assert_eq!(of(r#"{"VtepMAC":"c6:d2:32:6f:8f:44"}"#).unwrap().vni, None);
    assert_eq!(
        of(r#"{"VNI":4096,"VtepMAC":"c6:d2:32:6f:8f:44"}"#)
            .unwrap()
            .vni,
        Some(4096)
    );
    for none in [
        "null",
        "{}",
        "",
        "{",
        "[]",
        "7",
        r#"{"VNI":4096,"VtepMAC":""}"#,
        r#"{"VtepMAC":7}"#,
    ] {
        assert_eq!(of(none), None, "{none}");
    }
    let long = format!(
        r#"{{"VtepMAC":"c6:d2:32:6f:8f:44","x":"{}"}}"#,
        "x".repeat(MAX_VALUE_BYTES)
    );
    assert_eq!(of(&long), None);
}

#[test]
fn values_that_are_no_leases() {
    for (key, text) in [
        ("10.5.52.0-24", ""),
        ("10.5.52.0-24", "{"),
        ("10.5.52.0-24", "[]"),
        ("10.5.52.0-24", r#"{"PublicIP":null}"#),
        ("10.5.52.0-24", r#"{"PublicIP":""}"#),
        ("10.5.52.0-24", r#"{"PublicIP":"fd00::1"}"#),
        ("10.5.52.0-24&fc00::-64", GOLDEN),
    ] {
        assert!(
            parse("n", &subnets(key), text.as_bytes()).is_err(),
            "{text}"
        );
    }
}
