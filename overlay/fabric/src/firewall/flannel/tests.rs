use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use testkit::{eventually, in_netns, in_netns_as_root, sh};

use super::*;
use crate::firewall::tests::node::{NODE, Node, PATIENCE, POD, REMOTE, WORLD, send};
use crate::firewall::tests::rules;
use crate::firewall::{check, table};

/// What flannel 0.20 and later writes in its iptables mode, as `iptables -S` shows it.
const CHAINS: [[&str; 2]; 2] = [
    [
        r#"-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 192.168.132.0/24 -d 192.168.128.0/18 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 192.168.128.0/18 -d 192.168.132.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 192.168.128.0/18 -d 192.168.132.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 192.168.128.0/18 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 192.168.128.0/18 -d 192.168.128.0/18 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
"#,
        r#"-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 192.168.128.0/18 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 192.168.128.0/18 -m comment --comment "flanneld forward" -j ACCEPT
"#,
    ],
    [
        r#"-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s fd00:128:0:132::/64 -d fd00:128::/48 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s fd00:128::/48 -d fd00:128:0:132::/64 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s fd00:128::/48 -d fd00:128:0:132::/64 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s fd00:128::/48 ! -d ff00::/8 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s fd00:128::/48 -d fd00:128::/48 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
"#,
        r#"-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s fd00:128::/48 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d fd00:128::/48 -m comment --comment "flanneld forward" -j ACCEPT
"#,
    ],
];

/// What it wrote before, straight into the built-in chains.
const DIRECT: &str = r#"*nat
-A POSTROUTING -s 192.168.128.0/18 -d 192.168.128.0/18 -m comment --comment "flanneld masq" -j RETURN
-A POSTROUTING -s 192.168.128.0/18 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A POSTROUTING ! -s 192.168.128.0/18 -d 192.168.132.0/24 -m comment --comment "flanneld masq" -j RETURN
-A POSTROUTING ! -s 192.168.128.0/18 -d 192.168.128.0/18 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
-A FORWARD -s 192.168.128.0/18 -m comment --comment "flanneld forward" -j ACCEPT
-A FORWARD -d 192.168.128.0/18 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"#;

/// Its `EnableNFTables` mode, bugs included.
const TABLES: &str = "table ip flannel-ipv4 {
    comment \"rules for flannel-ipv4\"
    chain forward {
        type filter hook forward priority filter; policy accept;
        ip saddr 192.168.128.0/18 accept
        ip daddr 192.168.128.0/18 accept
    }
    chain postrtg {
        type nat hook postrouting priority srcnat; policy accept;
        meta mark 0x00004000 return
        ip saddr 192.168.132.0/24 ip daddr 192.168.128.0/18 return
        ip saddr 192.168.128.0/18 ip daddr 192.168.132.0/24 return
        ip saddr != 192.168.132.0/24 ip daddr 192.168.128.0/18 return
        ip saddr 192.168.128.0/18 ip daddr != 224.0.0.0/4 masquerade fully-random
        ip saddr != 192.168.128.0/18 ip daddr 192.168.128.0/18 masquerade fully-random
    }
}
table ip6 flannel-ipv6 {
    chain postrtg {
        type nat hook postrouting priority srcnat; policy accept;
        ip6 saddr fd00:128:0:132::/64 ip6 daddr fd00:128::/48 return
        ip6 saddr fd00:128::/48 ip6 daddr fd00:128:0:132::/64 return
        ip6 saddr fd00:128::/48 ip6 daddr != ff00::/8 masquerade fully-random
    }
}
";

const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// Loads flannel's chains, beside a rule of somebody else in each table.
fn flannel_was_here(kind: &str) {
    for (program, [nat, filter]) in PROGRAMS.iter().zip(CHAINS) {
        let text = format!(
            "*nat\n:FLANNEL-POSTRTG - [0:0]\n-A POSTROUTING -o x -j ACCEPT\n{nat}COMMIT\n\
             *filter\n:FLANNEL-FWD - [0:0]\n-A FORWARD -i x -j ACCEPT\n{filter}COMMIT\n"
        );
        std::fs::write("/run/flannel", text).unwrap();
        sh(&format!(
            "{program}-{kind}-restore --noflush < /run/flannel"
        ));
    }
}

/// All rules of one kind of iptables, chains first.
fn listed(kind: &str) -> String {
    PROGRAMS
        .map(|program| {
            sh(&format!(
                "for t in nat filter; do {program}-{kind} -t $t -S | grep -v '^-P' || true; done"
            ))
        })
        .concat()
}

const STRANGERS: &str = "-A POSTROUTING -o x -j ACCEPT\n-A FORWARD -i x -j ACCEPT\n\
                         -A POSTROUTING -o x -j ACCEPT\n-A FORWARD -i x -j ACCEPT\n";

fn takes_over(want: &[&str]) {
    let mut netfilter = Netfilter::unopened();
    let taken = take_over(&mut netfilter, &rules()).unwrap();
    assert_eq!(taken.removed, want);
    assert_eq!(taken.left, [""; 0]);
    assert_eq!(check(&mut netfilter, &rules()).unwrap(), [""; 0]);
    let generation = netfilter.generation().unwrap();
    assert_eq!(
        take_over(&mut netfilter, &rules()).unwrap(),
        TakenOver::default()
    );
    assert_eq!(
        netfilter.generation().unwrap(),
        generation,
        "a second time changed something"
    );
}

fn chains_are_taken_over(kind: &str) {
    flannel_was_here(kind);
    let place = |place: &Place, program: &str| {
        format!(
            "{} in table {} of {program}-{kind}",
            place.chain, place.table
        )
    };
    let want: Vec<String> = PROGRAMS
        .iter()
        .flat_map(|program| PLACES.each_ref().map(|p| place(p, program)))
        .collect();
    takes_over(&want.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(listed(kind), STRANGERS);

    std::fs::write("/run/direct", DIRECT).unwrap();
    sh(&format!("iptables-{kind}-restore --noflush < /run/direct"));
    takes_over(&[&want[0], &want[1]]);
    assert_eq!(listed(kind), STRANGERS);
}

#[test]
fn rule_17_chains_of_iptables_nft_are_taken_over() {
    in_netns(|| chains_are_taken_over("nft"));
}

#[test]
fn rule_17_chains_of_iptables_legacy_are_taken_over() {
    in_netns_as_root(|| chains_are_taken_over("legacy"));
}

#[test]
fn rule_17_tables_are_taken_over() {
    in_netns(|| {
        std::fs::write("/run/tables", TABLES).unwrap();
        sh("nft -f /run/tables; nft add table ip flannel-ipv44");
        takes_over(&["table ip flannel-ipv4", "table ip6 flannel-ipv6"]);
        assert_eq!(
            sh("nft list tables"),
            "table ip flannel-ipv44\ntable inet podwire-overlay\n"
        );
    });
}

/// What a flanneld does at its start, in either mode: it clears its chains, and deletes its tables.
#[test]
fn rule_17_a_flanneld_that_starts_touches_nothing_of_ours() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        flannel_was_here("nft");
        std::fs::write("/run/tables", TABLES).unwrap();
        sh("nft -f /run/tables; iptables-nft -P FORWARD DROP");
        ensure(&mut netfilter, &rules()).unwrap();
        sh("for p in iptables-nft ip6tables-nft; do
                $p -t nat -F FLANNEL-POSTRTG; $p -t nat -D POSTROUTING 2; $p -t nat -X FLANNEL-POSTRTG
                $p -F FLANNEL-FWD; $p -D FORWARD 2; $p -X FLANNEL-FWD
            done; nft delete table ip flannel-ipv4; nft delete table ip6 flannel-ipv6");
        assert!(!listed("nft").contains("flannel"));
        assert_eq!(check(&mut netfilter, &rules()).unwrap(), [""; 0]);
        assert!(!ensure(&mut netfilter, &rules()).unwrap());
    });
}

fn gives_back(style: Style) -> Given {
    let mut netfilter = Netfilter::unopened();
    ensure(&mut netfilter, &rules()).unwrap();
    let given = give_back(&mut netfilter, &rules(), style).unwrap();
    assert!(
        !sh("nft list ruleset").contains("podwire"),
        "something of ours is left"
    );
    given
}

/// Rule by rule what flannel writes itself, to the byte as the program lists it.
fn chains_are_given_back(kind: &str) {
    let want: String = CHAINS
        .iter()
        .map(|[nat, filter]| {
            format!(
                "-N FLANNEL-POSTRTG\n{}-N FLANNEL-FWD\n{}",
                in_order(nat),
                in_order(filter)
            )
        })
        .collect();
    for _ in 0..2 {
        let asked = Given {
            style: Style::Iptables,
            because: None,
        };
        assert_eq!(gives_back(Style::Iptables), asked);
        assert_eq!(listed(kind), want);
    }
    takes_over(&[
        &format!("FLANNEL-POSTRTG in table nat of iptables-{kind}"),
        &format!("FLANNEL-FWD in table filter of iptables-{kind}"),
        &format!("FLANNEL-POSTRTG in table nat of ip6tables-{kind}"),
        &format!("FLANNEL-FWD in table filter of ip6tables-{kind}"),
    ]);
}

/// `iptables -S` lists chains by name, of which the built-in one may be before or behind flannel's.
fn in_order(rules: &str) -> String {
    let (base, of_flannel): (Vec<&str>, Vec<&str>) = rules
        .lines()
        .partition(|line| !line.starts_with("-A FLANNEL"));
    [base, of_flannel]
        .concat()
        .iter()
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn chains_of_iptables_nft_are_given_back() {
    in_netns(|| chains_are_given_back("nft"));
}

/// Where the old tables are in use, they are what flannel uses, too.
#[test]
fn chains_of_iptables_legacy_are_given_back() {
    in_netns_as_root(|| {
        sh("iptables-legacy -t nat -L >/dev/null; ip6tables-legacy -t nat -L > /dev/null");
        chains_are_given_back("legacy");
    });
}

#[test]
fn tables_are_given_back() {
    in_netns(|| {
        let given = gives_back(Style::Nftables);
        assert_eq!((given.style, given.because), (Style::Nftables, None));
        let four = sh("nft --stateless list table ip flannel-ipv4");
        // As flannel's, but for the mark's other bits and the two prefixes it has exchanged.
        let want = TABLES
            .split("table ip6")
            .next()
            .unwrap()
            .replace("    ", "\t")
            .replace("accept\n\t}\n", "accept\n\t}\n\n")
            .replace(
                "meta mark 0x00004000",
                "meta mark & 0x00004000 == 0x00004000",
            )
            .replace(
                "!= 192.168.132.0/24 ip daddr 192.168.128.0/18 r",
                "!= 192.168.128.0/18 ip daddr 192.168.132.0/24 r",
            );
        assert_eq!(four.replace(" counter", ""), want);
        let six = sh("nft list table ip6 flannel-ipv6");
        assert!(
            six.contains("ip6 saddr fd00:128::/48 ip6 daddr != ff00::/8"),
            "{six}"
        );
        takes_over(&["table ip flannel-ipv4", "table ip6 flannel-ipv6"]);
    });
}

/// Without a usable iptables flannel's rules take its other form, and are never missing.
#[test]
fn a_node_without_iptables_gets_tables_back() {
    in_netns_as_root(|| {
        sh(
            "cp /usr/sbin/nft /bin/mount /run; /run/mount -t tmpfs none /usr/sbin; cp /run/nft /usr/sbin/nft",
        );
        let given = gives_back(Style::Iptables);
        assert_eq!(given.style, Style::Nftables);
        assert_eq!(given.because.unwrap(), "iptables is not installed");
        assert!(sh("nft list tables").contains("flannel-ipv4"));
    });
}

/// A connection that carries one byte at a time, there and back, for as long as it lives.
struct Stream {
    stop: AtomicBool,
    rounds: AtomicU64,
}

/// Runs `body` while pods' connections to the world and from another node's pod are open, and fails if one of their packets was
/// lost, or none was sent.
fn with_open_streams(node: &Node, body: impl FnOnce()) {
    let streams = [0, 1].map(|_| Stream {
        stop: AtomicBool::new(false),
        rounds: AtomicU64::new(0),
    });
    let ends = [
        (&node.pod, &node.world, WORLD[0]),
        (&node.remote, &node.pod, POD[1]),
    ];
    thread::scope(|scope| {
        // Also if this thread fails: the scope waits for the others.
        let _end = End(&streams);
        for (stream, (from, to, ip)) in streams.iter().zip(ends) {
            let server = to.run(|| TcpListener::bind((ip, 7002)).unwrap());
            scope.spawn(move || {
                let (mut end, peer) = server.accept().unwrap();
                // Masqueraded to the world, and not between pods.
                let seen = if ip == WORLD[0] { NODE[0] } else { REMOTE[1] };
                assert_eq!(peer.ip().to_string(), seen);
                end.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut byte = [0];
                while end.read(&mut byte).unwrap() > 0 {
                    end.write_all(&byte).unwrap();
                }
            });
            let target = SocketAddr::new(ip.parse().unwrap(), 7002);
            let mut client = from.run(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap());
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            scope.spawn(move || {
                while !stream.stop.load(Ordering::Relaxed) {
                    client.write_all(b"x").unwrap();
                    client.read_exact(&mut [0]).unwrap();
                    stream.rounds.fetch_add(1, Ordering::Relaxed);
                    // Without a pause two processors do nothing but this, and the kernel's grace periods, which each
                    // change of rules waits for, take seconds.
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let all_went_on = || {
            for stream in &streams {
                let before = stream.rounds.load(Ordering::Relaxed);
                eventually(Duration::from_secs(5), || {
                    stream.rounds.load(Ordering::Relaxed) > before + 20
                });
            }
        };
        all_went_on();
        body();
        all_went_on();
        for pod in [&node.pod, &node.world, &node.remote] {
            // What was sent twice was late, not lost, if the other end says that it had it: here a thread may wait long.
            eventually(Duration::from_secs(5), || {
                let counts = pod.sh("nstat -asz TcpRetransSegs TcpExtTCPDSACKRecv");
                let count = |name| {
                    let line = counts.lines().find(|line| line.starts_with(name)).unwrap();
                    line.split_whitespace().nth(1).unwrap().to_owned()
                };
                count("TcpRetransSegs") == count("TcpExtTCPDSACKRecv")
            });
        }
    });
}

/// Ends the streams.
struct End<'a>(&'a [Stream]);

impl Drop for End<'_> {
    fn drop(&mut self) {
        for stream in self.0 {
            stream.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// flannel's to ours to flannel's, while connections are open; new ones find rules at each step.
fn no_packet_is_lost(kind: &str, style: Style) {
    let node = Node::new();
    match style {
        Style::Iptables => {
            flannel_was_here(kind);
            // Only flannel's chain accepts, until ours does.
            sh(&format!(
                "iptables-{kind} -P FORWARD DROP; ip6tables-{kind} -P FORWARD DROP"
            ));
        }
        Style::Nftables => {
            std::fs::write("/run/tables", TABLES).unwrap();
            sh("nft -f /run/tables");
        }
    }
    let new_ones_are_masqueraded = || {
        let source = node.source(&node.world, WORLD[0], |to| node.pod.run(|| send(None, to)));
        assert_eq!(source, NODE[0]);
    };
    new_ones_are_masqueraded();
    with_open_streams(&node, || {
        let mut netfilter = Netfilter::unopened();
        for _ in 0..3 {
            assert!(
                !take_over(&mut netfilter, &rules())
                    .unwrap()
                    .removed
                    .is_empty()
            );
            new_ones_are_masqueraded();
            let given = give_back(&mut netfilter, &rules(), style).unwrap();
            assert_eq!(given.because, None);
            assert!(!table::check(&mut netfilter, &rules()).unwrap().is_empty());
            new_ones_are_masqueraded();
        }
    });
}

#[test]
fn no_packet_is_lost_between_chains_of_iptables_nft_and_ours() {
    in_netns(|| no_packet_is_lost("nft", Style::Iptables));
}

#[test]
fn no_packet_is_lost_between_chains_of_iptables_legacy_and_ours() {
    in_netns_as_root(|| no_packet_is_lost("legacy", Style::Iptables));
}

#[test]
fn no_packet_is_lost_between_tables_of_flannel_and_ours() {
    in_netns(|| no_packet_is_lost("nft", Style::Nftables));
}
