use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use proptest::prelude::*;
use testkit::{in_netns, sh};

use super::matching::Match;
use super::*;
use crate::nl::Reply;

const INET: Table<'static> = Table::new(Family::Inet, "t");
const BRIDGE: Table<'static> = Table::new(Family::Bridge, "t");

fn commit(changes: impl IntoIterator<Item = crate::nl::Message>) -> Result<(), crate::nl::NlError> {
    let mut transaction = Transaction::new();
    for change in changes {
        transaction.push(change);
    }
    transaction.commit(&mut Netfilter::unopened())
}

fn ruleset() -> String {
    sh("nft list ruleset")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// Each rule in our words and in nft's: printed by nft as meant, and the same bytes nft itself would send.
#[test]
fn rules_are_what_nft_would_write() {
    let rules = [
        (
            matching::source_range(ip("10.1.0.2"), ip("10.1.0.9")).masquerade(),
            "ip saddr 10.1.0.2-10.1.0.9 masquerade",
        ),
        (
            matching::source_range(ip("10.1.0.2"), ip("10.1.0.2")).masquerade(),
            "ip saddr 10.1.0.2 masquerade",
        ),
        (
            matching::source_range(ip("fd00::2"), ip("fd00::ffff"))
                .not_to(prefix("fd00::/64"))
                .masquerade(),
            "ip6 saddr fd00::2-fd00::ffff ip6 daddr != fd00::/64 masquerade",
        ),
        (
            matching::source(prefix("10.1.0.0/20"))
                .not_to(prefix("224.0.0.0/4"))
                .verdict(Verdict::Accept),
            "ip saddr 10.1.0.0/20 ip daddr != 224.0.0.0/4 accept",
        ),
        (
            matching::destination(prefix("fd00::/61")).verdict(Verdict::Return),
            "ip6 daddr fd00::/61 return",
        ),
        (matching::source_vmap(true, "four"), "ip saddr vmap @four"),
        (matching::source_vmap(false, "six"), "ip6 saddr vmap @six"),
        (
            matching::input_in("ports").verdict(Verdict::Drop),
            "iifname @ports drop",
        ),
        (
            matching::input_in("ports")
                .input_and_mac_not_in("macs")
                .verdict(Verdict::Drop),
            "iifname @ports iifname . ether saddr != @macs drop",
        ),
        (
            Match::all().verdict(Verdict::Jump("other/chain".into())),
            "jump other/chain",
        ),
        (
            Match::all().verdict(Verdict::Goto("other/chain".into())),
            "goto other/chain",
        ),
        (
            matching::marked(0x4000).counted().verdict(Verdict::Return),
            "meta mark & 0x00004000 == 0x00004000 counter packets 0 bytes 0 return",
        ),
        (
            matching::protocol(true)
                .not_from(prefix("10.1.0.0/20"))
                .to(prefix("10.1.2.0/24"))
                .masquerade_fully_random(),
            "ip saddr != 10.1.0.0/20 ip daddr 10.1.2.0/24 masquerade fully-random",
        ),
        (
            matching::protocol(false)
                .from(prefix("fd00::/48"))
                .not_to(prefix("ff00::/8"))
                .counted()
                .masquerade_fully_random(),
            "ip6 saddr fd00::/48 ip6 daddr != ff00::/8 counter packets 0 bytes 0 masquerade fully-random",
        ),
    ];
    in_netns(|| {
        let set = |table: Table<'_>, name, key, verdicts| {
            table.add_set(&SetSpec {
                name,
                key,
                verdicts,
                comment: "a set",
            })
        };
        commit([
            INET.add("a table"),
            set(INET, "four", KeyType::IPV4_ADDR, true),
            set(INET, "six", KeyType::IPV6_ADDR, true),
            INET.add_chain("other/chain", None, "a chain"),
            INET.add_chain("ours", Some(Base::POSTROUTING_NAT), ""),
            INET.add_chain("theirs", Some(Base::POSTROUTING_NAT), ""),
            BRIDGE.add(""),
            set(BRIDGE, "ports", KeyType::IFNAME, false),
            set(BRIDGE, "macs", KeyType::IFNAME_ETHER, false),
            BRIDGE.add_chain("ours", Some(Base::BRIDGE_PREROUTING), ""),
            BRIDGE.add_chain("theirs", Some(Base::BRIDGE_PREROUTING), ""),
        ])
        .unwrap();
        let mut netfilter = Netfilter::unopened();
        for (exprs, text) in rules {
            let (table, family) = match text.contains("iifname") {
                true => (BRIDGE, "bridge"),
                false => (INET, "inet"),
            };
            let rule = Rule::new(exprs, "whose it is");
            commit([table.add_rule("ours", &rule)]).unwrap();
            sh(&format!(
                "nft 'add rule {family} t theirs {text} comment \"whose it is\"'"
            ));
            for chain in ["ours", "theirs"] {
                let read = table.rules(&mut netfilter, chain).unwrap();
                assert_eq!(read.last().unwrap().rule, rule, "{text} in {chain}");
            }
            let listed = sh(&format!("nft list chain {family} t ours"));
            let line = format!("{text} comment \"whose it is\"");
            assert!(listed.contains(&line), "{text}\n{listed}");
        }
        assert!(
            ruleset().contains("comment \"a set\"") && ruleset().contains("comment \"a chain\"")
        );
    });
}

/// Every prefix length, compared with what nft makes of the same text.
#[test]
fn prefixes_are_what_nft_would_write() {
    in_netns(|| {
        commit([
            INET.add(""),
            INET.add_chain("c", None, ""),
            INET.add_chain("d", None, ""),
        ])
        .unwrap();
        let v4 = (1..=32).map(|bits| IpNetwork::new(ip("10.85.170.85"), bits).unwrap());
        let v6 = (1..=128).map(|bits| IpNetwork::new(ip("fd55:aa55:aa55::aa55"), bits).unwrap());
        let mut script = String::new();
        let mut transaction = Transaction::new();
        for prefix in v4.chain(v6) {
            let prefix = IpNetwork::new(prefix.network(), prefix.prefix()).unwrap();
            transaction.push(INET.add_rule(
                "c",
                &Rule::new(matching::destination(prefix).masquerade(), ""),
            ));
            let ip = if prefix.is_ipv4() { "ip" } else { "ip6" };
            script += &format!("add rule inet t d {ip} daddr {prefix} masquerade\n");
        }
        transaction.commit(&mut Netfilter::unopened()).unwrap();
        std::fs::write("/run/script", script).unwrap();
        sh("nft -f /run/script");
        let mut netfilter = Netfilter::unopened();
        let [ours, theirs] = ["c", "d"].map(|chain| INET.rules(&mut netfilter, chain).unwrap());
        assert_eq!(ours.len(), 160);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours.rule, theirs.rule);
        }
    });
}

#[test]
fn a_prefix_of_no_bits_is_everything() {
    in_netns(|| {
        let everything = matching::destination(prefix("0.0.0.0/0")).verdict(Verdict::Accept);
        commit([
            INET.add(""),
            INET.add_chain("c", None, ""),
            INET.add_rule("c", &Rule::new(everything, "")),
        ])
        .unwrap();
        assert!(
            ruleset().contains("ip daddr 0.0.0.0/0 accept"),
            "{}",
            ruleset()
        );
    });
}

#[test]
fn source_of_a_rule_of_iptables() {
    in_netns(|| {
        sh("iptables-nft -t nat -A POSTROUTING -s 10.1.2.3 -j ACCEPT
            iptables-nft -t nat -A POSTROUTING -s 10.2.0.0/16 -j ACCEPT
            iptables-nft -t nat -A POSTROUTING -s 10.3.16.0/20 -m comment --comment 'name: \"n\"' -j ACCEPT
            iptables-nft -t nat -A POSTROUTING -d 10.4.0.1 -j ACCEPT
            ip6tables-nft -t nat -A POSTROUTING -s fd00::1 -j ACCEPT");
        let mut netfilter = Netfilter::unopened();
        let mut passes = |family, address: &str| {
            let rules = Table::new(family, "nat")
                .rules(&mut netfilter, "POSTROUTING")
                .unwrap();
            let passes = |l: &ListedRule| matching::source_passes(&l.rule.exprs, ip(address));
            rules.iter().map(passes).collect::<Vec<_>>()
        };
        for (address, want) in [
            ("10.1.2.3", [true, false, false, false]),
            ("10.1.2.4", [false; 4]),
            ("10.2.255.1", [false, true, false, false]),
            ("10.3.31.1", [false, false, true, false]),
            ("10.3.32.1", [false; 4]),
            ("10.4.0.1", [false; 4]),
            ("fd00::1", [false; 4]),
        ] {
            assert_eq!(passes(Family::Ip, address), want, "{address}");
        }
        assert_eq!(passes(Family::Ip6, "fd00::1"), [true]);
        assert_eq!(passes(Family::Ip6, "10.1.2.3"), [false]);
        let listed = Table::new(Family::Ip, "nat")
            .rules(&mut netfilter, "POSTROUTING")
            .unwrap();
        assert!(
            listed[2]
                .rule
                .exprs
                .contains(&Expr::XtComment("name: \"n\"".into()))
        );
        assert_eq!(
            matching::source_bounds(&listed[0].rule.exprs),
            None,
            "another table's rule is none of ours"
        );
    });
}

#[test]
fn source_bounds_are_those_of_the_rule() {
    for (first, last) in [
        ("10.1.0.2", "10.1.0.9"),
        ("10.1.0.2", "10.1.0.2"),
        ("fd00::1", "fd00::2"),
    ] {
        let bounds = (ip(first), ip(last));
        assert_eq!(
            matching::source_bounds(&matching::source_range(bounds.0, bounds.1).masquerade()),
            Some(bounds)
        );
    }
    assert_eq!(
        matching::source_bounds(&matching::destination(prefix("10.1.0.2/32")).masquerade()),
        None
    );
    assert_eq!(matching::source_bounds(&[]), None);
}

#[test]
fn elements_and_maps() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let element = |last: u8| Element {
            key: vec![10, 0, 0, last],
            verdict: Some(Verdict::Goto("c".into())),
            comment: format!("number {last}"),
        };
        let map = SetSpec {
            name: "m",
            key: KeyType::IPV4_ADDR,
            verdicts: true,
            comment: "",
        };
        assert_eq!(
            INET.element(&mut netfilter, "m", &[10, 0, 0, 1]),
            Ok(None),
            "no table"
        );
        assert_eq!(INET.elements(&mut netfilter, "m"), Ok(vec![]), "no table");
        commit([
            INET.add(""),
            INET.add_set(&map),
            INET.add_chain("c", None, ""),
        ])
        .unwrap();
        assert_eq!(
            INET.element(&mut netfilter, "m", &[10, 0, 0, 1]),
            Ok(None),
            "no element"
        );
        commit((0..=255).map(|n| INET.add_element("m", &element(n)))).unwrap();
        assert_eq!(
            INET.element(&mut netfilter, "m", &[10, 0, 0, 7]),
            Ok(Some(element(7)))
        );
        // More than one datagram of them.
        let mut all = INET.elements(&mut netfilter, "m").unwrap();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(all, (0..=255).map(element).collect::<Vec<_>>());
        let again = commit([INET.add_element("m", &element(7))]).unwrap_err();
        assert!(again.is(Errno::EEXIST), "{again}");
        assert_eq!(again.step, "add an element to set m: number 7");
        let used = commit([INET.del_chain("c")]).unwrap_err();
        assert!(used.is(Errno::EBUSY), "{used}");
        assert_eq!(INET.chain(&mut netfilter, "c").unwrap().unwrap().uses, 256);
        commit([INET.del_element("m", &element(7).key)]).unwrap();
        let gone = commit([INET.del_element("m", &element(7).key)]).unwrap_err();
        assert!(gone.is(Errno::ENOENT), "{gone}");
    });
}

#[test]
fn chains_and_tables() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        assert_eq!(INET.chain(&mut netfilter, "c"), Ok(None));
        assert_eq!(INET.rules(&mut netfilter, "c"), Ok(vec![]));
        assert_eq!(INET.uses(&mut netfilter), Ok(None));
        let long = "x".repeat(300);
        commit([
            INET.add(&long),
            INET.add_chain("c", Some(Base::POSTROUTING_NAT), &long),
            INET.add_chain("d", None, ""),
            INET.add_rule(
                "c",
                &Rule::new(Match::all().verdict(Verdict::Return), &long),
            ),
            BRIDGE.add(""),
            BRIDGE.add_chain("c", Some(Base::BRIDGE_PREROUTING), ""),
        ])
        .unwrap();
        sh("nft 'add table inet other; add chain inet other e'");
        let chain = INET.chain(&mut netfilter, "c").unwrap().unwrap();
        assert!(chain.is_base(Base::POSTROUTING_NAT) && !chain.is_base(Base::BRIDGE_PREROUTING));
        assert_eq!(
            (chain.uses, chain.comment.as_str()),
            (1, &long[..COMMENT_MAX_BYTES])
        );
        assert!(
            !INET
                .chain(&mut netfilter, "d")
                .unwrap()
                .unwrap()
                .is_base(Base::POSTROUTING_NAT)
        );
        assert!(
            BRIDGE
                .chain(&mut netfilter, "c")
                .unwrap()
                .unwrap()
                .is_base(Base::BRIDGE_PREROUTING)
        );
        assert_eq!(INET.chains(&mut netfilter).unwrap(), ["c", "d"]);
        assert_eq!(INET.uses(&mut netfilter), Ok(Some(2)));
        // What nft prints, nft reads.
        sh("nft list ruleset > /run/saved; nft flush ruleset; nft -f /run/saved");

        let handle = INET.rules(&mut netfilter, "c").unwrap()[0].handle;
        commit([INET.del_rule("c", handle)]).unwrap();
        let error = commit([INET.del_if_empty()]).unwrap_err();
        assert!(error.is(Errno::EBUSY), "{error}");
        commit([INET.del_chain("c"), INET.del_chain("d")]).unwrap();
        commit([INET.del_if_empty(), BRIDGE.del()]).unwrap();
        assert_eq!(ruleset(), "table inet other {\n\tchain e {\n\t}\n}\n");
    });
}

#[test]
fn a_transaction_is_all_or_nothing() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        Transaction::new().commit(&mut netfilter).unwrap();
        assert!(!netfilter.is_open(), "an empty transaction needs no socket");
        let error = commit([
            INET.add(""),
            INET.add_chain("c", None, ""),
            INET.del_chain("missing"),
            INET.add_chain("d", None, ""),
        ])
        .unwrap_err();
        assert_eq!(error.step, "delete chain missing");
        assert!(error.is(Errno::ENOENT), "{error}");
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_transaction_can_insist_on_what_was_seen() {
    const ERESTART: i32 = 85;
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let generation = netfilter.generation().unwrap();
        let mut add = |name: &str, generation| {
            let mut transaction = Transaction::at_generation(generation);
            transaction.push(INET.add(""));
            transaction.push(INET.add_chain(name, None, ""));
            transaction.commit(&mut netfilter)
        };
        add("c", generation).unwrap();
        let error = add("d", generation).unwrap_err();
        assert_eq!(error.errno, ERESTART, "{error}");
        assert_eq!(error.step, "begin an nf_tables transaction");
        assert!(!ruleset().contains("chain d"));
        add("d", generation + 1).unwrap();
    });
}

proptest! {
    /// Whatever the kernel, or somebody who is not, sends: no panic.
    #[test]
    fn hostile_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = expr::read_list(&bytes);
        let _ = userdata::comment(Some(&bytes));
        let _ = Verdict::read(&bytes);
        let _ = socket::attributes(&Reply { msg_type: 0, flags: 0, payload: &bytes }).count();
        let _ = Element::read_list(Reply { msg_type: 0, flags: 0, payload: &bytes });
    }
}

/// What iptables-nft keeps in its own tables is read and written in its own form, so that it lists our rules as its own.
#[test]
fn a_chain_of_iptables_takes_a_rule() {
    in_netns(|| {
        sh("iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.9.0.0/16 -j ACCEPT
            iptables-nft -A FORWARD -j REJECT; nft add chain ip filter mine '{ type filter hook forward priority 5; }'");
        let filter = Table::new(Family::Ip, "filter");
        let mut netfilter = Netfilter::unopened();
        let all = chains(&mut netfilter, Family::Ip).unwrap();
        let dropping = all
            .iter()
            .filter(|(_, _, chain)| chain.is_at_hook_of(Base::FORWARD));
        let dropping: Vec<_> = dropping
            .map(|(t, name, chain)| (t.as_str(), name.as_str(), chain.drops))
            .collect();
        assert_eq!(
            dropping,
            [("filter", "FORWARD", true), ("filter", "mine", false)]
        );
        assert!(
            filter
                .chain(&mut netfilter, "FORWARD")
                .unwrap()
                .unwrap()
                .is_base(Base::FORWARD)
        );

        let listed = filter.rules(&mut netfilter, "FORWARD").unwrap();
        assert_eq!(
            listed[1].rule.exprs,
            [Expr::Counter, Expr::XtTarget("REJECT".into())]
        );
        let rule = Rule::new(
            Match::all()
                .to(prefix("10.1.0.0/18"))
                .counted()
                .verdict(Verdict::Accept),
            "ours",
        );
        commit([filter.insert_rule("FORWARD", listed[1].handle, &rule)]).unwrap();
        assert_eq!(
            sh("iptables-nft -S FORWARD"),
            "-P FORWARD DROP\n-A FORWARD -s 10.9.0.0/16 -j ACCEPT\n\
             -A FORWARD -d 10.1.0.0/18 -m comment --comment ours -j ACCEPT\n\
             -A FORWARD -j REJECT --reject-with icmp-port-unreachable\n"
        );
        let read = filter.rules(&mut netfilter, "FORWARD").unwrap();
        assert_eq!(read[1].rule, rule);
    });
}
