//! Ours against Debian's reference plugins, in every spec version both know.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use conformance::differential::{Cases, Report, Sides, VERSIONS, Wrong, compare};

const REFERENCE: &str = "/usr/lib/cni";
/// Runs of both sides at a time. Most of a run is waiting: for RCU when a veth goes, for a carrier to come.
const AT_ONCE: usize = 8;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn cases() -> Cases {
    Cases::read(&here("cases/differential")).unwrap_or_else(|e| panic!("{e:#}"))
}

fn against_reference(ours: &Path) -> Sides {
    Sides {
        reference: REFERENCE.into(),
        ours: ours.to_owned(),
    }
}

/// `DIFFERENTIAL_ONLY=bridge/mtu` runs just the cases whose name contains it.
#[test]
fn ours_does_what_the_reference_does() {
    testkit::in_netns(|| {
        let only = std::env::var("DIFFERENTIAL_ONLY").unwrap_or_default();
        let sides = against_reference(&testkit::bin_dir());
        let report = compare(&cases().only(&only, &VERSIONS), &sides, AT_ONCE);
        println!("{report}\n{:?}", report.occurred);
        report.assert_right(200);
        let document = fs::read_to_string(here("../docs/differences.md")).unwrap();
        let missing = report.ids.missing_in(&document);
        assert!(missing.is_empty(), "docs/differences.md: {missing:#?}");
        assert!(report.in_all_versions >= 60 || !only.is_empty(), "{report}");
    });
}

/// What differs between two runs of one program is no difference. So nothing that depends on chance or time is compared.
#[test]
fn the_reference_does_what_the_reference_does() {
    testkit::in_netns(|| {
        let sides = against_reference(Path::new(REFERENCE));
        let cases = cases().only("bridge/", &["1.0.0"]).without_differences();
        let report = compare(&cases, &sides, AT_ONCE);
        println!("{report}");
        report.assert_right(50);
    });
}

/// The reference, but for one shell command after an ADD (or instead of another verb): the fact that must be seen to differ.
const PLANTED: [(&str, &str); 22] = [
    ("ADD) ip link set cni0 mtu 1400", "add/host/link/cni0/mtu"),
    (
        "ADD) ip link set cni0 type bridge ageing_time 1000",
        "add/host/link/cni0/linkinfo.info_data.ageing_time",
    ),
    (
        "ADD) ip link set cni0 promisc on",
        "add/host/link/cni0/flags",
    ),
    (
        "ADD) bridge link set dev $veth hairpin on",
        "add/host/link/VETH(a/eth0)/linkinfo.info_slave_data.hairpin",
    ),
    (
        "ADD) bridge link set dev $veth isolated on",
        "add/host/link/VETH(a/eth0)/linkinfo.info_slave_data.isolated",
    ),
    (
        "ADD) ip link set $veth nomaster",
        "add/host/link/VETH(a/eth0)/master",
    ),
    (
        "ADD) ip link set $veth alias x",
        "add/host/link/VETH(a/eth0)/ifalias",
    ),
    (
        "ADD) ip link set $veth name veth0BADCAFE",
        "add/host/link/VETH(a/eth0)",
    ),
    (
        "ADD) ip link add left type veth peer name right",
        "add/host/link/left",
    ),
    (
        "ADD) in_pod ip link set eth0 address 02:01:02:03:04:05",
        "add/macs",
    ),
    (
        "ADD) in_pod ip addr add 10.9.9.9/32 dev eth0",
        "add/a/addr/eth0/10.9.9.9/32",
    ),
    (
        "ADD) in_pod ip addr change fd00:1::2/64 dev eth0 preferred_lft 1000 valid_lft 2000",
        "add/a/addr/eth0/fd00:1::2/64",
    ),
    (
        "ADD) in_pod ip route add 192.0.2.0/24 dev eth0",
        "add/a/route/main/eth0/192.0.2.0/24",
    ),
    (
        "ADD) in_pod ip -6 route add 2001:db8::/32 dev eth0 table 77",
        "add/a/route/77/eth0/2001:db8::/32",
    ),
    (
        "ADD) echo 1 >/proc/sys/net/ipv4/conf/cni0/proxy_arp",
        "add/host/sysctl/ipv4/conf/cni0/proxy_arp",
    ),
    (
        "ADD) in_pod sh -c 'echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_dad'",
        "add/a/sysctl/ipv6/conf/eth0/accept_dad",
    ),
    (
        "ADD) echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
        "add/host/sysctl/ipv6/conf/all/forwarding",
    ),
    (
        "ADD) echo >>/var/lib/cni/networks/mynet/10.1.2.2",
        "add/files/var/lib/cni/networks/mynet/10.1.2.2",
    ),
    (
        "ADD) chmod 640 /var/lib/cni/networks/mynet/fd00:1::2",
        "add/files/var/lib/cni/networks/mynet/fd00:1::2",
    ),
    ("ADD) printf ' '", "add/stdout"),
    ("CHECK) exit 1", "check/exit"),
    ("DEL) touch /var/lib/cni/left", "del/files/var/lib/cni/left"),
];

#[test]
fn a_planted_difference_is_seen() {
    testkit::in_netns(|| {
        let case = "bridge/gateway/dual";
        for (planted, want) in PLANTED {
            let dir = tempfile::tempdir().unwrap();
            let script = format!(
                "out=$({REFERENCE}/bridge) || exit\nprintf %s \"$out\"\n\
                 in_pod() {{ nsenter --net=$CNI_NETNS \"$@\"; }}\n\
                 veth=$(ls /proc/sys/net/ipv4/conf | grep ^veth)\n\
                 case $CNI_COMMAND in {planted};; esac"
            );
            testkit::script(&dir.path().join("bridge"), &script);
            let host_local = Path::new(REFERENCE).join("host-local");
            symlink(host_local, dir.path().join("host-local")).unwrap();
            let cases = cases().only(case, &["1.0.0"]).without_differences();
            let report = compare(&cases, &against_reference(dir.path()), 1);
            let seen = paths(&report);
            assert!(seen.contains(want), "{planted}: {seen:#?}");
        }
    });
}

/// And one that is declared, but does not occur.
#[test]
fn a_declared_difference_must_occur() {
    testkit::in_netns(|| {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put(
            "differences.json",
            r#"{"everywhere": [{"id": "X1", "paths": ["*/stdout"], "ref": "x"}],
                "named": [{"id": "X2", "paths": ["add/exit"], "ref": "0", "ours": "1"}]}"#,
        );
        put(
            "cases.json",
            r#"[{"name": "one", "plugin": "loopback", "versions": ["1.0.0"], "config": {}, "differs": ["X2"]}]"#,
        );
        let report = compare(
            &Cases::read(dir.path()).unwrap(),
            &against_reference(Path::new(REFERENCE)),
            1,
        );
        let unused: Vec<&str> = report
            .wrong
            .iter()
            .filter_map(|w| match w {
                Wrong::Unused { what, .. } => Some(what.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(unused.len(), report.wrong.len(), "{:?}", report.wrong);
        for id in ["X1", "X2"] {
            assert!(unused.iter().any(|u| u.contains(id)), "{id}: {unused:?}");
        }
        assert_eq!(report.ids.missing_in("| X1 | told |\n").len(), 1);
    });
}

fn paths(report: &Report) -> BTreeSet<&str> {
    let differing = report.wrong.iter().map(|wrong| match wrong {
        Wrong::Differs { path, .. } => path.as_str(),
        other => panic!("{other:?}"),
    });
    differing.collect()
}
