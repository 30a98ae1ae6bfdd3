use serde_json::{Value, json};

use super::shape;

fn good(version: &str) -> Value {
    match version {
        "0.2.0" => json!({"cniVersion": version, "dns": {},
            "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::2/64"}}),
        "0.4.0" => {
            json!({"cniVersion": version, "interfaces": [{"name": "eth0", "mac": "x", "sandbox": "/x"}],
            "ips": [{"version": "4", "interface": 0, "address": "10.1.0.2/24", "gateway": "10.1.0.1"}],
            "routes": [{"dst": "::/0", "gw": "fd00::1"}], "dns": {"nameservers": ["10.1.0.1"]}})
        }
        _ => json!({"cniVersion": version, "ips": [{"address": "fd00::2/64"}]}),
    }
}

#[test]
fn good_results() {
    for version in ["0.2.0", "0.4.0", "1.0.0", "1.1.0"] {
        let wrong = shape(&good(version), version);
        assert!(wrong.is_empty(), "{version}: {wrong:?}");
    }
    assert!(shape(&json!({"ip4": {"ip": "10.0.0.1/8"}}), "0.1.0").is_empty());
}

#[test]
fn each_mistake_is_seen() {
    for (version, pointer, value) in [
        ("0.2.0", "/cniVersion", json!("0.1.0")),
        ("0.2.0", "/ip4/ip", json!("fd00::1/64")),
        ("0.2.0", "/ip6/ip", json!("fd00::1/129")),
        ("0.2.0", "/ip4/routes/0/dst", json!("0.0.0.0")),
        ("0.4.0", "/cniVersion", json!(null)),
        ("0.4.0", "/ips/0/version", json!("6")),
        ("0.4.0", "/ips/0/version", json!(4)),
        ("0.4.0", "/ips/0/interface", json!(1)),
        ("0.4.0", "/ips/0/interface", json!(-1)),
        ("0.4.0", "/ips/0/address", json!("10.1.0.2")),
        ("0.4.0", "/ips/0/gateway", json!("fd00::1")),
        ("0.4.0", "/routes/0/gw", json!("10.0.0.1")),
        ("0.4.0", "/routes", json!({})),
        ("0.4.0", "/interfaces/0/name", json!("")),
        ("0.4.0", "/interfaces/0/mac", json!(1)),
        ("0.4.0", "/dns/nameservers/0", json!(1)),
        ("0.4.0", "/dns", json!([])),
        (
            "1.0.0",
            "/ips",
            json!([{"address": "10.0.0.1/8", "version": "4"}]),
        ),
        ("1.0.0", "/ips", json!("10.0.0.1/8")),
    ] {
        let mut result = good(version);
        *result.pointer_mut(pointer).unwrap() = value.clone();
        assert_eq!(
            shape(&result, version).len(),
            1,
            "{version} {pointer} {value}"
        );
    }
    let mut result = good("1.0.0");
    result["ip4"] = json!({});
    assert_eq!(shape(&result, "1.0.0").len(), 1);
    assert_eq!(shape(&json!([]), "1.0.0").len(), 1);
}
