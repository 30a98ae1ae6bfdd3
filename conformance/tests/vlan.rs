//! VLANs of the bridge, in a virtual machine: few kernels that run tests filter VLANs. It is also an older one, of before
//! what our kernel of choice tells and does by itself.
//!
//! The tests that are ignored here run there, all at once: see [`in_a_kernel_that_filters_vlans`].
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{eventually, in_netns, ip_json, sh};

#[path = "vlan/machine.rs"]
mod machine;
#[path = "bed/network.rs"]
mod network;
#[path = "bed/raw.rs"]
mod raw;

use network::{Attached, Network, node_reaches};

#[test]
fn in_a_kernel_that_filters_vlans() {
    run_there(true, "--skip without_netfilter", 6);
}

#[test]
fn in_a_kernel_without_netfilter() {
    run_there(false, "without_netfilter_all_is_well", 1);
}

fn run_there(netfilter: bool, tests: &str, count: usize) {
    if !cfg!(target_arch = "x86_64") {
        return testkit::skip("the virtual machine is of x86-64");
    }
    let console = machine::run_ignored(netfilter, tests).unwrap_or_else(|e| panic!("{e:#}"));
    // A choice that matches no test passes, too.
    let count = format!("test result: ok. {count} passed");
    assert!(
        console.contains("machine: passed") && console.contains(&count),
        "{console}"
    );
    eprintln!("{console}");
}

/// A network of one subnet for all VLANs, so that only these keep pods apart.
fn network(name: &str, first: u8, more: Value) -> Network {
    let (start, end) = (format!("10.40.1.{first}"), format!("10.40.1.{}", first + 9));
    let ipam = json!({"subnet": "10.40.1.0/24", "rangeStart": start, "rangeEnd": end});
    let mut conf = more;
    conf["isDefaultGateway"] = false.into();
    Network::bridge("cni0", &ipam, &conf).named(name)
}

/// The VLANs of a port as `bridge vlan` shows them: `100 PVID Egress Untagged`.
fn vlans(port: &str) -> Vec<String> {
    let shown: Value =
        serde_json::from_str(&sh(&format!("bridge -j vlan show dev {port}"))).unwrap();
    let text = |vlan: &Value| {
        let end = vlan
            .get("vlanEnd")
            .map(|end| format!("-{end}"))
            .unwrap_or_default();
        let flags = vlan["flags"].as_array().into_iter().flatten();
        let flags: String = flags
            .map(|flag| format!(" {}", flag.as_str().unwrap()))
            .collect();
        format!("{}{end}{flags}", vlan["vlan"])
    };
    shown[0]["vlans"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect()
}

fn filters(bridge: &str) -> bool {
    let link = &ip_json(&["-d", "link", "show", bridge])[0];
    link["linkinfo"]["info_data"]["vlan_filtering"] == 1
}

fn passes(pod: &Attached) {
    let check = pod.check();
    assert!(check.status.success(), "{check:?}");
}

fn fails(pod: &Attached, wanted: &str) {
    let check = pod.check();
    assert!(!check.status.success(), "CHECK did not notice: {wanted}");
    let error = check.json();
    assert_eq!(error["code"], 103, "{error}");
    assert!(error["msg"].as_str().unwrap().contains(wanted), "{error}");
}

/// Nothing of the pods on the node.
fn nothing_is_left() {
    assert_eq!(sh("ip -o link show type veth"), "");
    let ports: Value = serde_json::from_str(&sh("bridge -j vlan show")).unwrap();
    let ports: Vec<&Value> = ports
        .as_array()
        .unwrap()
        .iter()
        .map(|port| &port["ifname"])
        .collect();
    assert_eq!(ports, ["cni0"]);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn pods_of_one_vlan_talk_and_those_of_two_do_not() {
    in_netns(|| {
        let (hundred, other) = (
            network("hundred", 10, json!({"vlan": 100})),
            network("other", 20, json!({"vlan": 200})),
        );
        let (a, b, c) = (hundred.attach("a"), hundred.attach("b"), other.attach("c"));
        assert!(filters("cni0"));
        assert_eq!(vlans(a.host_end()), ["100 PVID Egress Untagged"]);
        assert_eq!(vlans(c.host_end()), ["200 PVID Egress Untagged"]);
        assert_eq!(vlans("cni0"), ["1 PVID Egress Untagged"]);
        assert!(a.reaches(b.ip(0)) && b.reaches(a.ip(0)), "in one VLAN");
        assert!(!a.reaches(c.ip(0)) && !c.reaches(b.ip(0)), "in two VLANs");
        for pod in [&a, &b, &c] {
            passes(pod);
        }
        for pod in [a, b, c] {
            pod.detach();
        }
        nothing_is_left();
    });
}

#[test]
#[ignore = "runs in the virtual machine"]
fn the_default_vlan_stays_if_it_is_to() {
    in_netns(|| {
        let network = network(
            "both",
            10,
            json!({"vlan": 100, "preserveDefaultVlan": true}),
        );
        let pod = network.attach("pod");
        assert_eq!(
            vlans(pod.host_end()),
            ["1 Egress Untagged", "100 PVID Egress Untagged"]
        );
        passes(&pod);
        pod.detach();
        nothing_is_left();
    });
}

#[test]
#[ignore = "runs in the virtual machine"]
fn a_trunk_carries_its_vlans_tagged() {
    in_netns(|| {
        let trunk = json!([{"id": 20}, {"minID": 30, "maxID": 32}, {"id": 31}]);
        let trunks = network("trunk", 10, json!({"vlanTrunk": trunk}));
        let (router, peer) = (trunks.attach("router"), trunks.attach("peer"));
        assert_eq!(
            vlans(router.host_end()),
            ["1 PVID Egress Untagged", "20", "30", "31", "32"]
        );
        assert!(router.reaches(peer.ip(0)), "untagged, in VLAN 1");
        passes(&router);

        let (twenty, forty) = (
            network("twenty", 30, json!({"vlan": 20})),
            network("forty", 40, json!({"vlan": 40})),
        );
        let (inside, outside) = (twenty.attach("inside"), forty.attach("outside"));
        router.pod.sh(
            "ip link add link eth0 eth0.20 type vlan id 20; ip link set eth0.20 up; ip addr add 10.20.0.1/24 dev eth0.20
             ip link add link eth0 eth0.40 type vlan id 40; ip link set eth0.40 up; ip addr add 10.20.1.1/24 dev eth0.40",
        );
        inside.pod.sh("ip addr add 10.20.0.2/24 dev eth0");
        outside.pod.sh("ip addr add 10.20.1.2/24 dev eth0");
        assert!(
            router.reaches("10.20.0.2") && inside.reaches("10.20.0.1"),
            "tagged, in VLAN 20"
        );
        assert!(
            !router.reaches("10.20.1.2") && !outside.reaches("10.20.1.1"),
            "not in the trunk"
        );

        let native = network(
            "native",
            50,
            json!({"vlan": 5, "vlanTrunk": [{"minID": 5, "maxID": 7}]}),
        );
        let pod = native.attach("pod");
        assert_eq!(vlans(pod.host_end()), ["5 PVID Egress Untagged", "6", "7"]);
        passes(&pod);
        sh(&format!("bridge vlan del dev {} vid 6", pod.host_end()));
        fails(&pod, "is not in VLAN 6");
        for pod in [router, peer, inside, outside, pod] {
            pod.detach();
        }
        nothing_is_left();
    });
}

#[test]
#[ignore = "runs in the virtual machine"]
fn check_notices_a_vlan_that_is_gone() {
    in_netns(|| {
        let hundred = network("hundred", 10, json!({"vlan": 100}));
        let pod = hundred.attach("pod");
        let port = pod.host_end();
        passes(&pod);
        sh(&format!("bridge vlan del dev {port} vid 100"));
        fails(&pod, "is not in VLAN 100");
        // There, but tagged.
        sh(&format!("bridge vlan add dev {port} vid 100"));
        fails(&pod, "is not in VLAN 100");
        sh(&format!("bridge vlan add dev {port} vid 100 pvid untagged"));
        passes(&pod);
        pod.detach();
        nothing_is_left();
    });
}

/// `cni0.100` holds the gateway, whom pods of the VLAN reach at once, and through it those of another one. It is as
/// deaf to router advertisements as the bridge: CVE-2020-10749.
#[test]
#[ignore = "runs in the virtual machine"]
fn the_gateway_of_a_vlan_is_an_interface_of_its_own() {
    in_netns(|| {
        let of = |vlan: u16| {
            let ranges = json!([[{"subnet": format!("10.40.{vlan}.0/24")}]]);
            Network::bridge("cni0", &json!({"ranges": ranges}), &json!({"vlan": vlan}))
                .named(&format!("net{vlan}"))
        };
        let (hundred, other) = (of(100), of(200));
        let a = hundred.attach("a");
        assert!(
            a.reaches("10.40.100.1") && node_reaches("10.40.100.2"),
            "the first packets"
        );
        let named: Vec<&Value> = a.result["interfaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| &i["name"])
            .collect();
        assert_eq!(named, ["cni0", a.host_end(), "eth0", "cni0.100"]);
        let gateway = &ip_json(&["-4", "addr", "show", "dev", "cni0.100"])[0];
        assert_eq!(
            (
                &gateway["addr_info"][0]["local"],
                &gateway["addr_info"][0]["prefixlen"]
            ),
            (&json!("10.40.100.1"), &json!(24))
        );
        assert_eq!(
            a.result["interfaces"][3]["mac"],
            ip_json(&["link", "show", "cni0.100"])[0]["address"]
        );
        assert_eq!(sh("ip -4 addr show dev cni0"), "");
        let port = ip_json(&["link", "show", "cni0.100"])[0]["link"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(vlans(&port), ["100 PVID Egress Untagged"]);

        let (b, c) = (hundred.attach("b"), other.attach("c"));
        assert!(a.reaches(b.ip(0)), "in the VLAN");
        let through = a.pod.exec(&["ping", "-n", "-c1", "-W1", c.ip(0)]);
        assert!(
            through.contains("ttl=63"),
            "through the gateways: {through}"
        );
        for pod in [&a, &b, &c] {
            passes(pod);
        }

        sh("sysctl -qw net.ipv6.conf.all.forwarding=0");
        eventually(Duration::from_secs(60), || {
            sh("ip -6 addr show tentative").is_empty()
                && a.pod.sh("ip -6 addr show tentative").is_empty()
        });
        sh(&format!(
            "ip link add control type veth peer eth1 netns {}; ip link set control up",
            a.pod.netns()
        ));
        a.pod.sh("ip link set eth1 up");
        eventually(Duration::from_secs(60), || {
            sh("ip -6 addr show tentative").is_empty()
                && a.pod.sh("ip -6 addr show tentative").is_empty()
        });
        a.pod.run(|| raw::advertise("eth0"));
        a.pod.run(|| raw::advertise("eth1"));
        eventually(Duration::from_secs(60), || {
            sh("ip -6 route").contains("default via fe80")
        });
        let fooled = sh("ip -6 route show default");
        assert!(
            fooled.contains("dev control") && !fooled.contains("cni0"),
            "{fooled}"
        );
        assert!(
            !sh("ip -6 addr")
                .split("control")
                .next()
                .unwrap()
                .contains("2001:db8:bad"),
            "{}",
            sh("ip -6 addr")
        );
        sh("ip link del control");

        for pod in [a, b, c] {
            pod.detach();
        }
        // The gateways stay, as the bridge does, and the next pod finds them.
        assert_eq!(sh("ip -o link show type veth | wc -l").trim(), "4");
        let again = hundred.attach("again");
        assert!(again.reaches("10.40.100.1"));
        again.detach();
        sh("ip link del cni0.100; ip link del cni0.200");
        nothing_is_left();
    });
}

/// On a node without netfilter, in a kernel that (before 6.2) does not tell what link it made.
#[test]
#[ignore = "runs in the virtual machine"]
fn without_netfilter_all_is_well() {
    in_netns(|| an_address_that_is_given_again_answers_at_once(&json!({})));
}

/// In a kernel that (before 6.8) does not filter the connections it forgets.
#[test]
#[ignore = "runs in the virtual machine"]
fn an_older_kernel_does() {
    in_netns(|| {
        an_address_that_is_given_again_answers_at_once(
            &json!({"ipMasq": true, "macspoofchk": true}),
        )
    });
}

/// No VLANs.
fn an_address_that_is_given_again_answers_at_once(more: &Value) {
    let set = |subnet: &str, first: &str, last: &str| json!([{"subnet": subnet, "rangeStart": first, "rangeEnd": last}]);
    let (v4, v6) = ("10.40.1.0/24", "fd00:40:1::/64");
    let ranges = [
        set(v4, "10.40.1.5", "10.40.1.5"),
        set(v6, "fd00:40:1::5", "fd00:40:1::5"),
    ];
    let network = Network::bridge("cni0", &json!({"ranges": ranges}), more);
    let ranges = [
        set(v4, "10.40.1.8", "10.40.1.9"),
        set(v6, "fd00:40:1::8", "fd00:40:1::9"),
    ];
    let bystanders = Network::bridge("cni0", &json!({"ranges": ranges}), more).named("bystanders");
    let bystander = bystanders.attach("bystander");
    for round in 0..4 {
        let pod = network.attach(&format!("pod{round}"));
        for (family, gateway) in [(0, "10.40.1.1"), (1, "fd00:40:1::1")] {
            assert!(
                bystander.reaches(pod.ip(family)),
                "round {round}: {}",
                pod.ip(family)
            );
            assert!(
                node_reaches(pod.ip(family)) && pod.reaches(gateway),
                "round {round}: {gateway}"
            );
        }
        passes(&pod);
        pod.detach();
    }
    bystander.detach();
    assert_eq!(sh("ip -o link show type veth"), "");
}
