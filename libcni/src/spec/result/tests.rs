//! The golden documents are what the reference prints (v1.9.1; those of 0.x also seen from Debian's 1.1.1).

use proptest::prelude::*;

use super::*;

fn node(text: &str) -> Node {
    Node::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

// One source document per group, rich in everything that could get lost, and what each becomes in each group.
// `@` stands for the version. Spec section 5, "Success"; the older shapes are those of the spec's tags v0.2.0 and v0.4.0.

const FROM_IP4_IP6: &str = r#"{"cniVersion":"@",
    "ip4":{"ip":"10.2.3.4/24","gateway":"10.2.3.1","routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.2.3.9"}]},
    "ip6":{"ip":"fd00::2/64","routes":[{"dst":"fd01::/64","gw":"fd00::1"}]},
    "dns":{"nameservers":["1.1.1.1"],"domain":"a<b","search":["s"],"options":["o"]},
    "interfaces":[{"name":"ignored"}]}"#;

const FROM_LISTS: &str = r#"{"cniVersion":"@",
    "interfaces":[{"name":"br0","mac":"AA:bb","mtu":9,"socketPath":"/s","pciID":"p"},{"name":"eth0","sandbox":"/n"}],
    "ips":[{"version":"6","address":"fd00::2/64","interface":1},{"version":"4","address":"10.2.3.4/24","gateway":"10.2.3.1","interface":0},
           {"version":"4","address":"10.2.4.4/24"}],
    "routes":[{"dst":"fd01::/64","gw":"fd00::1","mtu":1400,"advmss":1300,"priority":5,"table":0,"scope":0},{"dst":"0.0.0.0/0"}]}"#;

const FROM_SORTED: &str = r#"{"cniVersion":"@",
    "interfaces":[{"name":"br0","mac":"AA:bb","mtu":1500,"socketPath":"/s","pciID":"p"},{"name":"","sandbox":"/n","mtu":0}],
    "ips":[{"address":"::ffff:10.2.3.4/120","gateway":"::ffff:10.2.3.1","interface":1},{"address":"fd00::2/64","gateway":""}],
    "routes":[{"dst":"10.9.0.0/16","gw":"10.2.3.9","mtu":1400,"advmss":1300,"priority":5,"table":100,"scope":253},
              {"dst":"::/0","priority":0,"table":null}],
    "dns":{"options":[],"search":["s"],"domain":"","nameservers":["fd00::53"]},
    "vendor":{"dropped":true}}"#;

const GOLDEN: [(&str, Group, &str); 9] = [
    (
        FROM_IP4_IP6,
        Group::Ip4Ip6,
        r#"{"cniVersion":"@","ip4":{"ip":"10.2.3.4/24","gateway":"10.2.3.1","routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.2.3.9"}]},"ip6":{"ip":"fd00::2/64","routes":[{"dst":"fd01::/64","gw":"fd00::1"}]},"dns":{"nameservers":["1.1.1.1"],"domain":"a\u003cb","search":["s"],"options":["o"]}}"#,
    ),
    (
        FROM_IP4_IP6,
        Group::Lists,
        r#"{"cniVersion":"@","ips":[{"version":"4","address":"10.2.3.4/24","gateway":"10.2.3.1"},{"version":"6","address":"fd00::2/64"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.2.3.9"},{"dst":"fd01::/64","gw":"fd00::1"}],"dns":{"nameservers":["1.1.1.1"],"domain":"a\u003cb","search":["s"],"options":["o"]}}"#,
    ),
    (
        FROM_IP4_IP6,
        Group::Sorted,
        r#"{"cniVersion":"@","dns":{"domain":"a\u003cb","nameservers":["1.1.1.1"],"options":["o"],"search":["s"]},"ips":[{"address":"10.2.3.4/24","gateway":"10.2.3.1"},{"address":"fd00::2/64"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.2.3.9"},{"dst":"fd01::/64","gw":"fd00::1"}]}"#,
    ),
    (
        FROM_LISTS,
        Group::Ip4Ip6,
        r#"{"cniVersion":"@","ip4":{"ip":"10.2.3.4/24","gateway":"10.2.3.1","routes":[{"dst":"0.0.0.0/0"}]},"ip6":{"ip":"fd00::2/64","routes":[{"dst":"fd01::/64","gw":"fd00::1"}]},"dns":{}}"#,
    ),
    (
        FROM_LISTS,
        Group::Lists,
        r#"{"cniVersion":"@","interfaces":[{"name":"br0","mac":"AA:bb"},{"name":"eth0","sandbox":"/n"}],"ips":[{"version":"6","interface":1,"address":"fd00::2/64"},{"version":"4","interface":0,"address":"10.2.3.4/24","gateway":"10.2.3.1"},{"version":"4","address":"10.2.4.4/24"}],"routes":[{"dst":"fd01::/64","gw":"fd00::1","mtu":1400,"advmss":1300,"priority":5,"table":0,"scope":0},{"dst":"0.0.0.0/0"}],"dns":{}}"#,
    ),
    (
        FROM_LISTS,
        Group::Sorted,
        r#"{"cniVersion":"@","interfaces":[{"mac":"AA:bb","name":"br0"},{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"fd00::2/64","interface":1},{"address":"10.2.3.4/24","gateway":"10.2.3.1","interface":0},{"address":"10.2.4.4/24"}],"routes":[{"advmss":1300,"dst":"fd01::/64","gw":"fd00::1","mtu":1400,"priority":5,"scope":0,"table":0},{"dst":"0.0.0.0/0"}]}"#,
    ),
    (
        FROM_SORTED,
        Group::Ip4Ip6,
        r#"{"cniVersion":"@","ip4":{"ip":"10.2.3.4/24","gateway":"10.2.3.1","routes":[{"dst":"10.9.0.0/16","gw":"10.2.3.9"}]},"ip6":{"ip":"fd00::2/64","routes":[{"dst":"::/0"}]},"dns":{"nameservers":["fd00::53"],"search":["s"]}}"#,
    ),
    (
        FROM_SORTED,
        Group::Lists,
        r#"{"cniVersion":"@","interfaces":[{"name":"br0","mac":"AA:bb"},{"name":"","sandbox":"/n"}],"ips":[{"version":"4","interface":1,"address":"10.2.3.4/24","gateway":"10.2.3.1"},{"version":"6","address":"fd00::2/64"}],"routes":[{"dst":"10.9.0.0/16","gw":"10.2.3.9","mtu":1400,"advmss":1300,"priority":5,"table":100,"scope":253},{"dst":"::/0"}],"dns":{"nameservers":["fd00::53"],"search":["s"]}}"#,
    ),
    (
        FROM_SORTED,
        Group::Sorted,
        r#"{"cniVersion":"@","dns":{"nameservers":["fd00::53"],"search":["s"]},"interfaces":[{"mac":"AA:bb","mtu":1500,"name":"br0","pciID":"p","socketPath":"/s"},{"name":"","sandbox":"/n"}],"ips":[{"address":"10.2.3.4/24","gateway":"10.2.3.1","interface":1},{"address":"fd00::2/64"}],"routes":[{"advmss":1300,"dst":"10.9.0.0/16","gw":"10.2.3.9","mtu":1400,"priority":5,"scope":253,"table":100},{"dst":"::/0"}]}"#,
    ),
];

#[test]
fn every_version_converts_to_every_version() {
    let mut arrows = 0;
    for from in Version::ALL {
        for to in Version::ALL {
            let source = match from.group() {
                Group::Ip4Ip6 => FROM_IP4_IP6,
                Group::Lists => FROM_LISTS,
                Group::Sorted => FROM_SORTED,
            };
            let (.., want) = GOLDEN
                .iter()
                .find(|(text, group, _)| *text == source && *group == to.group())
                .unwrap();
            let result =
                CniResult::parse(&node(&source.replace('@', from.as_str())), Version::V0_1_0)
                    .unwrap();
            let got = result.to_node(to).unwrap().write_compact();
            assert_eq!(got, want.replace('@', to.as_str()), "{from} to {to}");
            arrows += 1;
        }
    }
    assert_eq!(arrows, 49);
}

/// The white space too, once per shape.
#[test]
fn printed_bytes() {
    let result = CniResult::parse(
        &node(r#"{"ips":[{"address":"10.2.3.4/24","interface":0}]}"#),
        Version::V1_0_0,
    )
    .unwrap();
    for (version, want) in [
        (
            Version::V0_2_0,
            "{\n    \"cniVersion\": \"0.2.0\",\n    \"ip4\": {\n        \"ip\": \"10.2.3.4/24\"\n    },\n    \"dns\": {}\n}",
        ),
        (
            Version::V0_3_1,
            "{\n    \"cniVersion\": \"0.3.1\",\n    \"ips\": [\n        {\n            \"version\": \"4\",\n            \
             \"interface\": 0,\n            \"address\": \"10.2.3.4/24\"\n        }\n    ],\n    \"dns\": {}\n}",
        ),
        (
            Version::V1_1_0,
            "{\n    \"cniVersion\": \"1.1.0\",\n    \"ips\": [\n        {\n            \"address\": \"10.2.3.4/24\",\n            \
             \"interface\": 0\n        }\n    ]\n}",
        ),
    ] {
        assert_eq!(result.to_json(version).unwrap(), want);
    }
    let empty = CniResult::default();
    assert_eq!(
        empty.to_json(Version::V1_0_0).unwrap(),
        "{\n    \"cniVersion\": \"1.0.0\"\n}"
    );
    assert_eq!(
        empty.to_json(Version::V0_4_0).unwrap(),
        "{\n    \"cniVersion\": \"0.4.0\",\n    \"dns\": {}\n}"
    );
}

#[test]
fn the_oldest_shape_needs_an_address() {
    let mut result = CniResult {
        interfaces: vec![Interface::default()],
        ..CniResult::default()
    };
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let error = result.to_node(version).unwrap_err();
        assert_eq!(
            (error.code, error.msg.as_str()),
            (Code::Internal, "cannot convert: no valid IP addresses")
        );
    }
    // One family is enough; the other's routes have nowhere to go.
    result.ips.push(IpConfig {
        interface: None,
        address: "fd00::2/64".parse().unwrap(),
        gateway: None,
    });
    result
        .routes
        .push(Route::new("0.0.0.0/0".parse().unwrap(), None));
    result
        .routes
        .push(Route::new("::/0".parse().unwrap(), None));
    assert_eq!(
        result.to_node(Version::V0_2_0).unwrap().write_compact(),
        r#"{"cniVersion":"0.2.0","ip6":{"ip":"fd00::2/64","routes":[{"dst":"::/0"}]},"dns":{}}"#
    );
}

#[test]
fn a_delegate_may_name_no_version_or_its_own() {
    let lists = r#""ips":[{"version":"4","address":"10.0.0.2/8"}]"#;
    for text in [
        format!("{{{lists}}}"),
        format!("{{\"cniVersion\":\"\",{lists}}}"),
        format!("{{\"CNIVersion\":null,{lists}}}"),
    ] {
        let got = CniResult::parse(&node(&text), Version::V1_1_0).unwrap();
        assert_eq!(got.ips.len(), 1, "{text}");
        // Read as 0.2.0 these are unknown keys.
        assert_eq!(
            CniResult::parse(&node(&text), Version::V0_2_0).unwrap(),
            CniResult::default(),
            "{text}"
        );
    }
    let own = node(r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/8"}}"#);
    assert_eq!(
        CniResult::parse(&own, Version::V1_1_0).unwrap().ips.len(),
        1
    );
    assert_eq!(
        CniResult::parse(&Node::Null, Version::V1_1_0).unwrap(),
        CniResult::default()
    );
    let error = CniResult::parse(&node(r#"{"cniVersion":"2.0.0"}"#), Version::V1_1_0).unwrap_err();
    assert_eq!(
        error.to_node().write_compact(),
        r#"{"code":6,"msg":"could not parse the result: \"cniVersion\" is \"2.0.0\"","details":"allowed: a version from 0.1.0 to 1.1.0"}"#
    );
}

/// Spec section 2: prevResult is in the version of the config. Between groups it is refused, as by the reference; within
/// one it is relabelled, and `""` is the config's version (which the reference refuses from 0.3.0 on).
#[test]
fn prev_result_is_of_the_configs_group() {
    for config in Version::ALL {
        for label in Version::ALL {
            let prev = Node::obj().put("cniVersion", label.as_str()).build();
            let got = CniResult::parse_prev(&prev, config);
            assert_eq!(
                got.is_ok(),
                label.group() == config.group(),
                "{label} in {config}"
            );
        }
        for text in [
            "{}",
            r#"{"cniVersion":""}"#,
            r#"{"cniVersion":null}"#,
            r#"{"CniVersion":""}"#,
        ] {
            assert_eq!(
                CniResult::parse_prev(&node(text), config),
                Ok(CniResult::default()),
                "{text} in {config}"
            );
        }
    }
    for (config, label, supported) in [
        (Version::V1_1_0, "0.4.0", "[1.0.0 1.1.0]"),
        (Version::V0_3_1, "1.0.0", "[0.3.0 0.3.1 0.4.0]"),
        (Version::V0_1_0, "abc", "[ 0.1.0 0.2.0]"),
    ] {
        let error = CniResult::parse_prev(&Node::obj().put("cniVersion", label).build(), config)
            .unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig);
        assert_eq!(
            error.msg,
            format!(
                "could not parse prevResult: result type supports {supported} but unmarshalled CNIVersion is \"{label}\""
            )
        );
    }
}

#[test]
fn what_cannot_be_meant_names_its_key() {
    for (text, want) in [
        (
            r#"{"ips":[{}]}"#,
            r#""prevResult.ips[0].address" is missing"#,
        ),
        (
            r#"{"ips":[{"address":"10.0.0.1"}]}"#,
            r#""prevResult.ips[0].address" is "10.0.0.1""#,
        ),
        (
            r#"{"ips":[{"address":"10.0.0.1/8","interface":"0"}]}"#,
            r#""prevResult.ips[0].interface" is a string ("0")"#,
        ),
        (
            r#"{"ips":[{"address":"10.0.0.1/8","gateway":"x"}]}"#,
            r#""prevResult.ips[0].gateway" is "x""#,
        ),
        (r#"{"ips":{}}"#, r#""prevResult.ips" is an object"#),
        (
            r#"{"routes":[{"dst":"0.0.0.0/0"},{"gw":"1.1.1.1"}]}"#,
            r#""prevResult.routes[1].dst" is missing"#,
        ),
        (
            r#"{"routes":[{"dst":"0.0.0.0/0","scope":256}]}"#,
            r#""prevResult.routes[0].scope" is a number (256)"#,
        ),
        (
            r#"{"routes":[{"dst":"0.0.0.0/0","table":-1}]}"#,
            r#""prevResult.routes[0].table" is a number (-1)"#,
        ),
        (
            r#"{"interfaces":["x"]}"#,
            r#""prevResult.interfaces[0]" is a string ("x")"#,
        ),
        (
            r#"{"interfaces":[{"mtu":"1"}]}"#,
            r#""prevResult.interfaces[0].mtu" is a string ("1")"#,
        ),
        (r#"{"dns":[]}"#, r#""prevResult.dns" is an array"#),
        (
            r#"{"cniVersion":1}"#,
            r#""prevResult.cniVersion" is a number (1)"#,
        ),
        ("[]", r#""prevResult" is an array"#),
    ] {
        let error = CniResult::parse_prev(&node(text), Version::V1_1_0).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig, "{text}");
        assert_eq!(
            error.msg,
            format!("could not parse prevResult: {want}"),
            "{text}"
        );
        assert!(error.details.starts_with("allowed: "), "{error}");
    }
    // A null element is an empty one, so that indices keep their meaning.
    let got = CniResult::parse(
        &node(r#"{"interfaces":[null,{"name":"a"}]}"#),
        Version::V1_1_0,
    )
    .unwrap();
    assert_eq!(got.interfaces.len(), 2);
}

// === properties ===

fn any_ip() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|ip| ip.to_canonical())
}

fn any_net() -> impl Strategy<Value = IpNetwork> {
    (any_ip(), 0..=128u8).prop_map(|(ip, len)| {
        IpNetwork::new(ip, if ip.is_ipv4() { len % 33 } else { len }).unwrap()
    })
}

fn any_positive() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(1..=u32::MAX)
}

prop_compose! {
    fn any_interface()(
        name in any::<String>(), mac in any::<String>(), mtu in any_positive(), sandbox in any::<String>(),
        socket_path in any::<String>(), pci_id in any::<String>(),
    ) -> Interface {
        Interface { name, mac, mtu, sandbox, socket_path, pci_id }
    }
}

prop_compose! {
    fn any_ip_config()(
        interface in any::<Option<i64>>(), address in any_net(), gateway in prop::option::of(any_ip()),
    ) -> IpConfig {
        IpConfig { interface, address, gateway }
    }
}

prop_compose! {
    fn any_route()(
        dst in any_net(), gw in prop::option::of(any_ip()), mtu in any_positive(), advmss in any_positive(),
        priority in any_positive(), table in any::<Option<u32>>(), scope in any::<Option<u8>>(),
    ) -> Route {
        Route { dst, gw, mtu, advmss, priority, table, scope }
    }
}

prop_compose! {
    fn any_dns()(
        nameservers in prop::collection::vec(any::<String>(), 0..3), domain in any::<String>(),
        search in prop::collection::vec(any::<String>(), 0..3), options in prop::collection::vec(any::<String>(), 0..3),
    ) -> Dns {
        Dns { nameservers, domain, search, options }
    }
}

prop_compose! {
    fn any_result()(
        interfaces in prop::collection::vec(any_interface(), 0..4), ips in prop::collection::vec(any_ip_config(), 0..4),
        routes in prop::collection::vec(any_route(), 0..4), dns in any_dns(),
    ) -> CniResult {
        CniResult { interfaces, ips, routes, dns }
    }
}

/// Printed in `version`, read from those bytes.
fn through(result: &CniResult, version: Version) -> CniResult {
    CniResult::parse_prev(&node(&result.to_json(version).unwrap()), version).unwrap()
}

proptest! {
    #[test]
    fn nothing_is_lost_in_the_newest_shape(result in any_result()) {
        prop_assert_eq!(&through(&result, Version::V1_1_0), &result);
        prop_assert_eq!(&through(&result, Version::V1_0_0), &result);
    }

    #[test]
    fn lists_lose_what_interfaces_gained(mut result in any_result()) {
        let got = through(&result, Version::V0_4_0);
        for interface in &mut result.interfaces {
            (interface.mtu, interface.socket_path, interface.pci_id) = (None, String::new(), String::new());
        }
        prop_assert_eq!(got, result);
    }

    #[test]
    fn the_oldest_shape_keeps_one_address_a_family(result in any_result()) {
        let first = |v4: bool| result.ips.iter().find(|ip| ip.address.is_ipv4() == v4);
        let ips: Vec<_> = [first(true), first(false)].into_iter().flatten()
            .map(|ip| IpConfig { interface: None, ..ip.clone() }).collect();
        prop_assume!(!ips.is_empty());
        let got = through(&result, Version::V0_2_0);
        prop_assert!(got.interfaces.is_empty());
        prop_assert_eq!(&got.dns, &result.dns);
        for route in &got.routes {
            prop_assert!(ips.iter().any(|ip| ip.address.is_ipv4() == route.dst.is_ipv4()));
        }
        prop_assert_eq!(&got.ips, &ips);
        // Once there, it stays as it is.
        prop_assert_eq!(&through(&got, Version::V0_2_0), &got);
    }
}
