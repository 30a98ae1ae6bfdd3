//! Section 1.2 and rules 7 and 9 of flannel's contract.

use super::*;

fn conf(text: &str) -> NetConf {
    NetConf::parse(text.as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    NetConf::parse(text.as_bytes()).unwrap_err().to_string()
}

fn bounds(net: &Network) -> (u8, String, String) {
    (
        net.subnet_len,
        net.subnet_min.to_string(),
        net.subnet_max.to_string(),
    )
}

#[test]
fn defaults_are_flannels() {
    let conf = conf(r#"{"network":"192.168.130.5/18","BACKEND":{"type":"VXLAN"}}"#);
    let v4 = conf.v4.unwrap();
    assert_eq!(
        v4.net.to_string(),
        "192.168.128.0/18",
        "host bits are dropped"
    );
    assert_eq!(
        bounds(&v4),
        (24, "192.168.129.0".into(), "192.168.191.0".into())
    );
    assert_eq!((conf.v6, conf.nftables), (None, false));
    assert_eq!(conf.backend, Backend::Vxlan(Vxlan::default()));
    assert_eq!(conf.warnings, [""; 0]);
}

#[test]
fn short_networks_have_small_subnets() {
    for (net, len) in [
        ("10.0.0.0/22", 24),
        ("10.0.0.0/23", 25),
        ("10.0.0.0/28", 30),
    ] {
        let conf = conf(&format!(
            r#"{{"Network":"{net}","Backend":{{"Type":"host-gw"}}}}"#
        ));
        assert_eq!(conf.v4.unwrap().subnet_len, len);
        assert_eq!(conf.backend, Backend::HostGw);
    }
    assert!(refused(r#"{"Network":"10.0.0.0/29"}"#).contains("SubnetLen"));
}

#[test]
fn both_families_with_everything() {
    let conf = conf(
        r#"{"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0","SubnetMax":"10.99.0.0","EnableIPv6":true,
        "IPv6Network":"fc00::/48","EnableNFTables":true,"Backend":{"Type":"vxlan","vni":4096,"Port":4789,"MTU":1400,
        "GBP":true,"Learning":true,"DirectRouting":true,"Name":"windows only"}}"#,
    );
    assert_eq!(
        bounds(&conf.v4.unwrap()),
        (20, "10.10.0.0".into(), "10.99.0.0".into())
    );
    assert_eq!(
        bounds(&conf.v6.unwrap()),
        (64, "fc00:0:0:1::".into(), "fc00:0:0:ffff::".into())
    );
    let Backend::Vxlan(vxlan) = conf.backend else {
        panic!()
    };
    assert_eq!(
        (vxlan.vni, vxlan.port, vxlan.mtu),
        (4096, Some(4789), Some(1400))
    );
    assert!(conf.nftables && vxlan.gbp && vxlan.learning && vxlan.direct_routing);
}

#[test]
fn an_absent_backend_is_vxlan_with_a_warning() {
    let conf = conf(r#"{"Network":"10.0.0.0/16"}"#);
    assert_eq!(conf.backend, Backend::Vxlan(Vxlan::default()));
    assert!(conf.warnings[0].contains("udp"), "{:?}", conf.warnings);
}

#[test]
fn what_cannot_be_used_is_named() {
    for (text, word) in [
        ("", "not JSON"),
        ("{}", "Network"),
        (r#"{"Network":7}"#, "Network"),
        (r#"{"Network":"fc00::/16"}"#, "Network"),
        (r#"{"EnableIPv4":false}"#, "EnableIPv6"),
        (
            r#"{"Network":"10.0.0.0/16","EnableIPv6":true}"#,
            "IPv6Network",
        ),
        (r#"{"Network":"10.0.0.0/16","SubnetLen":17}"#, "18 to 30"),
        (r#"{"Network":"10.0.0.0/16","SubnetLen":31}"#, "SubnetLen"),
        (
            r#"{"Network":"10.0.0.0/16","SubnetMin":"10.0.1.1"}"#,
            "SubnetMin",
        ),
        (
            r#"{"Network":"10.0.0.0/16","SubnetMax":"10.1.0.0"}"#,
            "SubnetMax",
        ),
        (
            r#"{"Network":"10.0.0.0/16","SubnetMin":"10.0.9.0","SubnetMax":"10.0.8.0"}"#,
            "SubnetMin",
        ),
        (r#"{"Network":"10.0.0.0/16","Backend":{}}"#, "Backend.Type"),
        (
            r#"{"Network":"10.0.0.0/16","Backend":{"Type":"wireguard"}}"#,
            "wireguard",
        ),
        (
            r#"{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#,
            "VNI",
        ),
        (
            r#"{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan","Port":-1}}"#,
            "Port",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn subnets_to_lease() {
    let net = conf(r#"{"Network":"10.0.0.0/22"}"#).v4.unwrap();
    let all: Vec<String> = net.subnets().map(|net| net.to_string()).collect();
    assert_eq!(all, ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]);
    for (subnet, leases) in [
        ("10.0.1.0/24", true),
        ("10.0.0.0/24", false),
        ("10.0.1.0/25", false),
        ("10.1.1.0/24", false),
    ] {
        assert_eq!(net.leases(&subnet.parse().unwrap()), leases, "{subnet}");
    }
    let wide = conf(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::/0"}"#)
        .v6
        .unwrap();
    assert_eq!(
        wide.subnets()
            .take(2)
            .map(|net| net.to_string())
            .collect::<Vec<_>>(),
        ["0:0:0:1::/64", "0:0:0:2::/64"]
    );
}
