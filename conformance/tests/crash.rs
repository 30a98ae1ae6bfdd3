//! What the search for residue sees, and what the crash harness catches.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use conformance::crash::{Fault, Finding, Options, Report, Verb};
use conformance::node::Node;
use conformance::residue::Moment;
use tempfile::TempDir;

/// A thing to make, and what must be said of it.
const THINGS: [(&str, &[&str]); 14] = [
    (
        "ip link add cni0 type bridge; ip addr add 10.1.0.1/24 dev cni0; ip link set cni0 up",
        &[
            "link cni0",
            "addr cni0 10.1.0.1/24",
            "route 10.1.0.0/24 dev cni0 prefsrc 10.1.0.1",
        ],
    ),
    (
        "ip link add v0 type veth peer name e0 netns a; ip -n a addr add 10.2.0.2/24 dev e0; ip -n a link set e0 up; \
         ip link set v0 up",
        &[
            "link v0",
            "pod a: link e0",
            "pod a: addr e0 10.2.0.2/24",
            "pod a: route 10.2.0.0/24 dev e0 prefsrc 10.2.0.2",
        ],
    ),
    (
        "ip route add 10.3.0.0/16 dev lo table 7",
        &["route 10.3.0.0/16 dev lo table 7"],
    ),
    (
        "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:01 dev d0 nud permanent",
        &["neigh 10.9.0.2 dev d0"],
    ),
    (
        "bridge fdb add 02:00:00:00:00:02 dev d0 dst 10.9.0.3",
        &["fdb 02:00:00:00:00:02 dev d0 dst 10.9.0.3"],
    ),
    ("ip link set d0 mtu 1300", &["link d0 mtu: 1300 (was 1400)"]),
    (
        "ip link property add dev d0 altname other",
        &["altname d0 other"],
    ),
    (
        "ip rule add from 10.1.0.2 lookup 7",
        &["ip-rule priority 32765 src 10.1.0.2 table 7"],
    ),
    (
        "ip -6 rule add from fd00::2 lookup 7",
        &["ip-rule -6 priority 32765 src fd00::2 table 7"],
    ),
    (
        "nft 'table inet t { set s { type ipv4_addr; elements = { 10.1.0.1, 10.1.0.2 } }; chain c { tcp dport 80 counter accept; }; }'",
        &[
            "table inet t",
            "set inet t s",
            "element inet t s 10.1.0.1",
            "element inet t s 10.1.0.2",
            "chain inet t c",
            "rule inet t c tcp dport 80 counter accept",
        ],
    ),
    (
        "iptables-legacy -t nat -A POSTROUTING -s 10.1.0.2 -m comment --comment 'of a pod' -j MASQUERADE",
        &["rule ip nat POSTROUTING -s 10.1.0.2/32 -m comment --comment \"of a pod\" -j MASQUERADE"],
    ),
    (
        "conntrack -I -s 10.1.0.2 -d 10.9.0.1 -p udp --sport 4 --dport 53 -t 60",
        &[
            "conntrack udp src=10.1.0.2 dst=10.9.0.1 sport=4 dport=53 src=10.9.0.1 dst=10.1.0.2 sport=53 dport=4 mark=0",
        ],
    ),
    (
        "touch /run/netns/b; mkdir -p /run/x; mount -t tmpfs none /run/x; rm -rf /run/mount",
        &["mount /run/x", "file /run/netns/b", "file /run/x/"],
    ),
    (
        "mkdir -p /var/lib/cni/networks/x; echo c1 > /var/lib/cni/networks/x/10.1.0.2; echo 2 > /run/there",
        &[
            "file /var/lib/cni/networks/",
            "file /var/lib/cni/networks/x/",
            "file /var/lib/cni/networks/x/10.1.0.2",
            "file /run/there: \"2\\n\" (was \"1\\n\")",
        ],
    ),
];

/// Each is found, by itself, and nothing else is.
#[test]
fn residue_is_seen() {
    testkit::in_netns(|| {
        for (script, wanted) in THINGS {
            let seen = std::thread::spawn(move || {
                let node = Node::enter(Path::new("/usr"), &["a".to_owned()], false).unwrap();
                node.sh("ip link add d0 mtu 1400 type vxlan id 7 local 10.9.0.1 dstport 8472 nolearning; \
                         ip link set d0 up; echo 1 > /run/there").unwrap();
                let before = Moment::now(&node).unwrap();
                node.sh(script).unwrap();
                let began = Instant::now();
                let after = Moment::now(&node).unwrap();
                println!("{script}: {:?}", began.elapsed());
                assert_eq!(after.missing(&before), before.left_over(&after).into_iter().filter(|l| !l.contains(" (was ")).collect::<Vec<_>>());
                assert_eq!(before.left_over(&Moment::now(&node).unwrap()), before.left_over(&after), "{script}");
                before.left_over(&after)
            })
            .join()
            .unwrap();
            // Addresses a link has by itself are random.
            let told: Vec<&String> = seen.iter().filter(|l| !l.contains("fe80:")).collect();
            let mut wanted = wanted.to_vec();
            wanted.sort_by_key(|l| (l.contains(" (was "), *l));
            assert_eq!(told, wanted, "{script}: {seen:#?}");
        }
    });
}

/// A directory with one plugin in it, a shell script.
fn script(body: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("loopback");
    let versions = r#"{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}"#;
    let result = r#"{"cniVersion":"1.0.0","interfaces":[],"ips":[]}"#;
    let whole = format!(
        "conf=$(cat)\ncase $CNI_COMMAND in\nVERSION) echo '{versions}';;\n{}\nesac",
        body.replace("RESULT", result)
    );
    testkit::script(&path, &whole);
    dir
}

fn judged(options: &Options) -> Report {
    let report = options.report().unwrap_or_else(|e| panic!("{e:#}"));
    println!("{report}");
    report
}

/// It writes down what it made after it has made it.
const LEAKS: &str = "ADD) echo 1 > /run/made; echo /run/made > /run/list; echo 'RESULT';;
DEL) test ! -e /run/list || { rm -f $(cat /run/list); rm /run/list; };;";

#[test]
fn a_plugin_that_leaks_when_it_is_killed_is_found_out() {
    testkit::in_netns(|| {
        let dir = script(LEAKS);
        let report = judged(
            &Options::of(dir.path())
                .kill()
                .only(&["loopback"], &[Verb::Add]),
        );
        assert!(!report.is_clean());
        let leak = |f: &&Finding| f.residue && f.what.contains("after DEL: file /run/made");
        let leaks: Vec<_> = report.findings.iter().filter(leak).collect();
        assert!(!leaks.is_empty());
        // Between the two writes, nowhere else: neither at the first points nor at the last.
        let total = report.total();
        assert!(
            leaks.len() < total.points / 2,
            "{} of {}",
            leaks.len(),
            total.points
        );
        assert_eq!(total.faults, 0);
        // Each can be tried by itself.
        let point = leaks[0].repeat.rsplit(' ').next().unwrap().parse().unwrap();
        let options = Options::of(dir.path())
            .kill()
            .only(&["loopback"], &[Verb::Add]);
        let report = judged(&options.point(point));
        assert_eq!(report.total().points, 1);
        assert_eq!(report.total().residues, 1);
    });
}

#[test]
fn a_plugin_that_removes_what_it_may_have_made_passes() {
    testkit::in_netns(|| {
        let dir = script("ADD) echo 1 > /run/made; echo 'RESULT';;\nDEL) rm -f /run/made;;");
        let kill = Options::of(dir.path())
            .kill()
            .only(&["loopback"], &[Verb::Add, Verb::Del]);
        let report = judged(&kill);
        assert!(report.is_clean());
        assert!(report.total().points > 50);
    });
}

/// Whatever goes wrong, it says it in words of its own, and leaves what it made.
const GARBLED: &str = "ADD) echo 1 > /run/made || { echo oops; exit 1; }; echo 1 > /run/more || \
    { echo '{\"code\":5,\"msg\":\"no room\"}'; exit 1; }; echo 'RESULT';;
DEL) rm -f /run/made /run/more;;";

#[test]
fn a_plugin_that_answers_a_full_disk_with_garbage_is_found_out() {
    testkit::in_netns(|| {
        let dir = script(GARBLED);
        let report = judged(
            &Options::of(dir.path())
                .fail(Fault::Enospc)
                .only(&["loopback"], &[Verb::Add]),
        );
        let said = |residue: bool, text: &str| {
            let mut findings = report.findings.iter();
            findings.any(|f| {
                f.residue == residue
                    && f.what.contains(text)
                    && f.point.contains("ENOSPC from openat")
            })
        };
        assert!(said(false, "what it printed is not JSON: status 1 oops"));
        assert!(said(true, "after the ADD that failed: file /run/made"));
        assert_eq!(report.total().points, 0);
    });
}

/// The part of `conformance crash` that is small enough for each change.
#[test]
fn ours_leave_nothing() {
    testkit::in_netns(|| {
        let plugins = ["bridge", "host-local", "loopback"];
        let report = judged(
            &Options::of(&testkit::bin_dir())
                .every(10)
                .only(&plugins, &[]),
        );
        assert!(report.is_clean());
        let total = report.total();
        assert!(total.points > 100 && total.faults > 20, "{total:?}");
    });
}
