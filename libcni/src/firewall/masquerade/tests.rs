use std::net::IpAddr;

use testkit::{in_netns, sh};

use super::*;
use crate::spec::Attachment;
use crate::store::RawRange;

mod packets;
mod pods;
mod processes;

fn net(name: &str) -> NetName {
    NetName::parse(name).unwrap()
}

fn attachment(id: &str, ifname: &str) -> Attachment {
    Attachment {
        container_id: id.try_into().unwrap(),
        ifname: ifname.try_into().unwrap(),
    }
}

/// `subnet` alone or `subnet first last`, defaults as host-local fills them in.
fn range(text: &str) -> Range {
    let mut words = text.split(' ');
    let subnet = words.next().map(|w| w.parse().unwrap());
    let mut ip = || words.next().map(|w| w.parse().unwrap());
    Range::new(&RawRange {
        subnet,
        start: ip(),
        end: ip(),
        gateway: ip(),
    })
    .unwrap()
}

fn ranges(texts: &[&str]) -> Vec<Range> {
    texts.iter().map(|t| range(t)).collect()
}

fn ruleset() -> String {
    sh("nft list ruleset")
}

fn ensure(name: &str, texts: &[&str]) {
    ensure_network(
        &mut Netfilter::unopened(),
        &net(name),
        &ranges(texts),
        &Vec::new,
    )
    .unwrap();
}

fn remove(name: &str) {
    remove_network(&mut Netfilter::unopened(), &net(name)).unwrap();
}

fn addresses(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

#[test]
fn a_network_is_one_chain() {
    in_netns(|| {
        ensure("cbr0", &["10.88.0.0/16", "fd00:10::/64"]);
        let want = r#"table inet podwire {
	comment "made by the podwire CNI plugins, changed with every pod: do not edit"
	chain net/cbr0 {
		comment "network cbr0, rules 2, ranges 3dfacd12d78b"
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.88.0.2-10.88.255.254 ip daddr != 10.88.0.0/16 ip daddr != 224.0.0.0/4 masquerade comment "network cbr0"
		ip6 saddr fd00:10::2-fd00:10::ffff:ffff:ffff:ffff ip6 daddr != fd00:10::/64 ip6 daddr != ff00::/8 masquerade comment "network cbr0"
	}
}
"#;
        assert_eq!(ruleset(), want);
        // Saved by nft, loaded by nft, it is still what ADD looks for.
        sh("nft list ruleset > /run/saved; nft flush ruleset; nft -f /run/saved");
        let generation = Netfilter::unopened().generation().unwrap();
        ensure("cbr0", &["10.88.0.0/16", "fd00:10::/64"]);
        check_network(
            &mut Netfilter::unopened(),
            &net("cbr0"),
            &ranges(&["10.88.0.0/16", "fd00:10::/64"]),
        )
        .unwrap();
        assert_eq!(
            Netfilter::unopened().generation().unwrap(),
            generation,
            "something was written"
        );
        assert_eq!(ruleset(), want);
        remove("cbr0");
        assert_eq!(ruleset(), "");
        remove("cbr0");
    });
}

/// Masquerading lines only, without indent.
fn rules() -> Vec<String> {
    let wanted = |line: &&str| {
        line.contains("masquerade") || line.contains("saddr") || line.contains("return")
    };
    ruleset()
        .lines()
        .filter(wanted)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[test]
fn ranges_become_rules() {
    let cases: [(&[&str], &[&str]); 6] = [
        // The gateway in the middle, at the end, outside, all there is.
        (
            &["10.1.0.0/24 10.1.0.10 10.1.0.20 10.1.0.15"],
            &[
                "10.1.0.10-10.1.0.14 ip daddr != 10.1.0.0/24",
                "10.1.0.16-10.1.0.20 ip daddr != 10.1.0.0/24",
            ],
        ),
        (
            &["10.1.0.0/20 10.1.0.10 10.1.0.12 10.1.0.12"],
            &["10.1.0.10-10.1.0.11 ip daddr != 10.1.0.0/20"],
        ),
        (
            &["10.0.0.0/8 10.1.0.10 10.1.0.10"],
            &["10.1.0.10 ip daddr != 10.0.0.0/8"],
        ),
        (&["10.1.0.0/30 10.1.0.1 10.1.0.1"], &[]),
        (
            &["10.1.0.0/30", "10.2.0.0/29"],
            &[
                "10.1.0.2 ip daddr != 10.1.0.0/30",
                "10.2.0.2-10.2.0.6 ip daddr != 10.2.0.0/29",
            ],
        ),
        (
            &["fd00::/61 fd00::5 fd00::6"],
            &["fd00::5-fd00::6 ip6 daddr != fd00::/61"],
        ),
    ];
    in_netns(|| {
        for (texts, want) in cases {
            ensure("n", texts);
            check_network(&mut Netfilter::unopened(), &net("n"), &ranges(texts)).unwrap();
            let line = |rule: &&str| match rule.contains("ip6") {
                true => format!(
                    "ip6 saddr {rule} ip6 daddr != ff00::/8 masquerade comment \"network n\""
                ),
                false => format!(
                    "ip saddr {rule} ip daddr != 224.0.0.0/4 masquerade comment \"network n\""
                ),
            };
            assert_eq!(
                rules(),
                want.iter().map(line).collect::<Vec<_>>(),
                "{texts:?}"
            );
        }
    });
}

/// Same range, split range, overlapping ranges, another subnet: each network has its chain and keeps it.
#[test]
fn networks_do_not_mind_each_other() {
    let networks: [(&str, &[&str]); 4] = [
        ("a", &["10.88.0.0/16", "fd00:10::/64"]),
        ("b", &["10.88.0.0/16", "fd00:10::/64"]),
        ("c", &["10.88.0.0/16 10.88.1.0 10.88.1.255"]),
        ("d", &["10.88.1.128/25"]),
    ];
    in_netns(|| {
        for (name, texts) in networks {
            ensure(name, texts);
        }
        for (n, (name, _)) in networks.into_iter().enumerate() {
            for (other, texts) in &networks[n..] {
                check_network(&mut Netfilter::unopened(), &net(other), &ranges(texts)).unwrap();
            }
            remove(name);
        }
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn changed_ranges_take_effect() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let mut ensure = |texts: &[&str], in_use: &[&str]| {
            let in_use = || in_use.iter().map(|ip| ip.parse().unwrap()).collect();
            ensure_network(&mut netfilter, &net("n"), &ranges(texts), &in_use).unwrap();
            check_network(&mut netfilter, &net("n"), &ranges(texts)).unwrap();
            rules()
                .iter()
                .map(|rule| rule.split(' ').nth(2).unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        // Wider, with overlap; the pods of before are in the new range.
        assert_eq!(
            ensure(&["10.1.0.0/24 10.1.0.10 10.1.0.20"], &[]),
            ["10.1.0.10-10.1.0.20"]
        );
        assert_eq!(
            ensure(&["10.1.0.0/24 10.1.0.15 10.1.0.30"], &["10.1.0.15"]),
            ["10.1.0.15-10.1.0.30"]
        );
        // Elsewhere, with a pod left, whose range's rule stays.
        let both = ["10.2.0.2-10.2.0.254", "10.1.0.15-10.1.0.30"];
        assert_eq!(ensure(&["10.2.0.0/24"], &["10.1.0.16", "10.2.0.9"]), both);
        assert_eq!(
            ensure(&["10.2.0.0/24"], &[]),
            both,
            "nothing changed, nobody asked"
        );
        // And again, first with it, then without.
        assert_eq!(
            ensure(&["10.3.0.0/24"], &["10.1.0.16"]),
            ["10.3.0.2-10.3.0.254", "10.1.0.15-10.1.0.30"]
        );
        assert_eq!(
            ensure(&["10.3.0.0/25"], &["10.3.0.200"]),
            ["10.3.0.2-10.3.0.126", "10.3.0.2-10.3.0.254"]
        );
        assert_eq!(
            ensure(&["fd00::/64"], &[]),
            ["fd00::2-fd00::ffff:ffff:ffff:ffff"]
        );
    });
}

/// `nft` commands an administrator (or an attacker) may have run; CHECK sees it, the next ADD repairs it.
#[test]
fn tampering_with_a_network_is_seen_and_repaired() {
    let texts: &[&str] = &["10.88.0.0/16", "fd00:10::/64"];
    in_netns(|| {
        ensure("n", texts);
        let whole = ruleset();
        for command in [
            "delete table inet podwire",
            "flush chain inet podwire net/n",
            "add rule inet podwire net/n ip saddr 10.88.0.0/16 masquerade",
            "insert rule inet podwire net/n return",
            "delete rule inet podwire net/n handle $(nft -a list ruleset | sed -n 's/.*fd00.*handle //p')",
            "delete chain inet podwire net/n; nft add chain inet podwire net/n",
        ] {
            sh(&format!("nft {command}"));
            let error = check_network(&mut Netfilter::unopened(), &net("n"), &ranges(texts))
                .expect_err(command);
            assert_eq!(
                error.to_string(),
                "masquerade network n: chain net/n in table inet podwire is missing or was changed",
                "{command}"
            );
            ensure("n", texts);
            check_network(&mut Netfilter::unopened(), &net("n"), &ranges(texts)).unwrap();
            assert_eq!(ruleset(), whole, "{command}");
        }
    });
}
