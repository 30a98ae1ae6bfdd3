use super::*;
use crate::spec::IpNetwork;

fn parse_as(version: Version, args: &str, config: &str) -> Result<IpamConf, CniError> {
    IpamConf::parse(&Node::parse(config.as_bytes()).unwrap(), args, version)
}

fn parse(config: &str) -> Result<IpamConf, CniError> {
    parse_as(Version::V1_1_0, "", config)
}

/// A config with this `ipam` and these other keys.
fn ipam(ipam: &str, rest: &str) -> String {
    format!(r#"{{"name": "n", "ipam": {{"type": "host-local", {ipam}}}{rest}}}"#)
}

#[test]
fn every_key() {
    let conf = parse(
        r#"{"Name": "cbr0", "IPAM": {"type": "host-local", "DataDir": "/d", "resolvConf": "/r",
            "Subnet": "10.1.0.0/16", "rangeStart": "10.1.2.3", "rangeEnd": "10.1.2.9", "gateway": "10.1.9.9",
            "ranges": [[{"subnet": "fd00::/64"}, {"subnet": "fd00:1::/64", "gateway": ""}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.7/24", "gw": "10.1.9.8", "mtu": 1400}]},
          "runtimeConfig": {"ipRanges": [[{"subnet": "192.0.2.0/24"}]], "ips": ["fd00::7/64", "10.1.2.4"]},
          "args": {"cni": {"ips": ["10.1.2.4/16", "::ffff:10.1.2.5"]}}}"#,
    )
    .unwrap();
    assert_eq!(conf.dir.path(), std::path::Path::new("/d/cbr0"));
    let sets: Vec<_> = conf.sets.iter().map(ToString::to_string).collect();
    assert_eq!(
        sets,
        [
            "192.0.2.1-192.0.2.254",
            "10.1.2.3-10.1.2.9",
            "fd00::1-fd00::ffff:ffff:ffff:ffff,fd00:1::1-fd00:1::ffff:ffff:ffff:ffff"
        ]
    );
    assert_eq!(conf.resolv_conf, Some("/r".into()));
    let requested: Vec<_> = conf.requested.iter().map(ToString::to_string).collect();
    assert_eq!(requested, ["10.1.2.4", "10.1.2.5", "fd00::7"]);
    assert_eq!(conf.routes.len(), 2);
    assert_eq!(
        conf.routes[1].dst,
        "192.0.2.7/24".parse::<IpNetwork>().unwrap()
    );
    let subnets: Vec<_> = conf.subnets().iter().map(ToString::to_string).collect();
    assert_eq!(
        subnets,
        ["192.0.2.0/24", "10.1.0.0/16", "fd00::/64", "fd00:1::/64"]
    );
}

#[test]
fn defaults() {
    let conf =
        parse(r#"{"name": "n", "ipam": {"subnet": "10.1.2.0/24", "dataDir": "", "routes": null}}"#)
            .unwrap();
    assert_eq!(
        conf.dir.path(),
        std::path::Path::new("/var/lib/cni/networks/n")
    );
    assert!(conf.routes.is_empty() && conf.requested.is_empty() && conf.resolv_conf.is_none());
}

#[test]
fn requested_by_environment() {
    let config = ipam(r#""subnet": "10.1.2.0/24""#, "");
    let requested = |args| parse_as(Version::V1_1_0, args, &config).map(|conf| conf.requested);
    let ip: IpAddr = "10.1.2.7".parse().unwrap();
    assert_eq!(requested("IP=10.1.2.7").unwrap(), [ip]);
    assert_eq!(
        requested("IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.2.7/24").unwrap(),
        [ip]
    );
    assert_eq!(requested("IP=").unwrap(), [] as [IpAddr; 0]);
    let bad = requested("IP=10.1.2").unwrap_err();
    assert_eq!(bad.code, Code::InvalidEnvironment);
    assert_eq!(
        bad.msg,
        r#"ARGS: error parsing value of pair "IP=10.1.2": invalid IP address 10.1.2"#
    );
    assert_eq!(
        requested("FOO=x").unwrap_err().code,
        Code::InvalidEnvironment
    );
}

#[test]
fn refusals_have_the_reference_texts() {
    for (config, text) in [
        (
            r#"{"name": "n"}"#.to_owned(),
            "IPAM config missing 'ipam' key",
        ),
        (
            r#"{"name": "n", "ipam": null}"#.to_owned(),
            "IPAM config missing 'ipam' key",
        ),
        (ipam(r#""ranges": []"#, ""), "no IP ranges specified"),
        // Without a subnet the other keys of the inline range say nothing.
        (
            ipam(r#""rangeStart": "10.0.0.3""#, ""),
            "no IP ranges specified",
        ),
        (
            ipam(r#""ranges": [[]]"#, ""),
            "invalid range set 0: empty range set",
        ),
        (
            ipam(r#""ranges": [[{}]]"#, ""),
            "invalid range set 0: IP <nil> not v4 nor v6",
        ),
        (
            ipam(
                r#""subnet": "10.0.0.0/24", "ranges": [[{"subnet": "10.1.0.0/31"}]]"#,
                "",
            ),
            "invalid range set 1: Network 10.1.0.0/31 too small to allocate from",
        ),
        (
            ipam(
                r#""ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/16"}]]"#,
                "",
            ),
            "range set 0 overlaps with 1",
        ),
        (
            ipam(
                r#""subnet": "10.0.0.0/24""#,
                r#", "args": {"cni": {"ips": [""]}}"#,
            ),
            "cannot understand ip: IP <nil> not v4 nor v6",
        ),
    ] {
        let error = parse(&config).unwrap_err();
        assert_eq!(
            (error.code, error.msg.as_str()),
            (Code::InvalidConfig, text),
            "{config}"
        );
    }
}

#[test]
fn wrong_types_name_the_key() {
    for (config, path) in [
        (ipam(r#""ranges": {}"#, ""), "ipam.ranges"),
        (ipam(r#""ranges": [{}]"#, ""), "ipam.ranges[0]"),
        (ipam(r#""ranges": [[7]]"#, ""), "ipam.ranges[0][0]"),
        (
            ipam(r#""ranges": [[{"subnet": "10.0.0.0"}]]"#, ""),
            "ipam.ranges[0][0].subnet",
        ),
        (
            ipam(r#""subnet": "10.0.0.0/24", "gateway": 1"#, ""),
            "ipam.gateway",
        ),
        (
            ipam(r#""subnet": "10.0.0.0/24", "routes": [{"dst": "x"}]"#, ""),
            "ipam.routes[0].dst",
        ),
        (
            ipam(r#""subnet": "10.0.0.0/24", "dataDir": 1"#, ""),
            "ipam.dataDir",
        ),
        (
            ipam(
                r#""subnet": "10.0.0.0/24""#,
                r#", "runtimeConfig": {"ips": ["10.0.0.1", "x"]}"#,
            ),
            "runtimeConfig.ips[1]",
        ),
    ] {
        let error = parse(&config).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig, "{config}");
        assert!(
            error.msg.contains(&format!("\"{path}\"")),
            "{config}: {error}"
        );
    }
}

#[test]
fn old_versions_have_one_address_per_family() {
    let two = ipam(
        r#""ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/24"}]]"#,
        "",
    );
    let error = parse_as(Version::V0_2_0, "", &two).unwrap_err();
    assert_eq!(
        error.msg,
        "CNI version 0.2.0 does not support more than 1 address per family"
    );
    parse_as(Version::V0_3_0, "", &two).unwrap();
    let dual = ipam(
        r#""ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]"#,
        "",
    );
    parse_as(Version::V0_1_0, "", &dual).unwrap();
}
