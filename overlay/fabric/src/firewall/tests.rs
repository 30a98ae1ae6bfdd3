use testkit::{in_netns, sh};

use super::*;

pub(super) mod node;
mod packets;

/// Both families of a node, as the documents number it.
pub(super) fn rules() -> Rules {
    let prefixes = |network: &str, subnet: &str| Prefixes {
        network: network.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
    };
    Rules {
        name: String::new(),
        v4: Some(prefixes("192.168.128.0/18", "192.168.132.0/24")),
        v6: Some(prefixes("fd00:128::/48", "fd00:128:0:132::/64")),
        masquerade: true,
        forward: true,
        random_fully: true,
    }
}

const TABLE: &str = r#"table inet podwire-overlay {
	comment "made by podwire for the overlay network, restored when changed: do not edit"
	chain masquerading {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 counter return comment "overlay: kube-proxy masquerades it"
		ip saddr 192.168.132.0/24 ip daddr 192.168.128.0/18 counter return comment "overlay: pods of this node to pods"
		ip saddr 192.168.128.0/18 ip daddr 192.168.132.0/24 counter return comment "overlay: pods to pods of this node"
		ip saddr != 192.168.128.0/18 ip daddr 192.168.132.0/24 counter return comment "overlay: to pods of this node, as who it is"
		ip saddr 192.168.128.0/18 ip daddr != 224.0.0.0/4 counter masquerade fully-random comment "overlay: pods to the world"
		ip saddr != 192.168.128.0/18 ip daddr 192.168.128.0/18 counter masquerade fully-random comment "overlay: to pods of other nodes"
		ip6 saddr fd00:128:0:132::/64 ip6 daddr fd00:128::/48 counter return comment "overlay: pods of this node to pods"
		ip6 saddr fd00:128::/48 ip6 daddr fd00:128:0:132::/64 counter return comment "overlay: pods to pods of this node"
		ip6 saddr != fd00:128::/48 ip6 daddr fd00:128:0:132::/64 counter return comment "overlay: to pods of this node, as who it is"
		ip6 saddr fd00:128::/48 ip6 daddr != ff00::/8 counter masquerade fully-random comment "overlay: pods to the world"
		ip6 saddr != fd00:128::/48 ip6 daddr fd00:128::/48 counter masquerade fully-random comment "overlay: to pods of other nodes"
	}

	chain forwarding {
		type filter hook forward priority filter; policy accept;
		ip saddr 192.168.128.0/18 accept comment "overlay: pods"
		ip daddr 192.168.128.0/18 accept comment "overlay: pods"
		ip6 saddr fd00:128::/48 accept comment "overlay: pods"
		ip6 daddr fd00:128::/48 accept comment "overlay: pods"
	}
}
"#;

/// Rule 17: a table of our own, no chain and no table of flannel's.
#[test]
fn rule_17_a_table_of_our_own_as_the_documents_have_it() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let faults = check(&mut netfilter, &rules()).unwrap();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(ensure(&mut netfilter, &rules()).unwrap());
        assert_eq!(sh("nft --stateless list ruleset"), TABLE);
        assert_eq!(check(&mut netfilter, &rules()).unwrap(), [""; 0]);

        // It can be saved and restored, and is still the same then.
        sh("nft list ruleset > /run/saved; nft flush ruleset; nft -f /run/saved");
        assert!(!ensure(&mut netfilter, &rules()).unwrap());

        assert!(remove(&mut netfilter, "").unwrap());
        assert_eq!(sh("nft list ruleset"), "");
        assert!(!remove(&mut netfilter, "").unwrap());
    });
}

#[test]
fn what_is_not_wanted_is_not_there() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let listed = |rules: &Rules, netfilter: &mut Netfilter| {
            assert!(ensure(netfilter, rules).unwrap(), "{rules:?}");
            assert!(!ensure(netfilter, rules).unwrap(), "{rules:?}");
            sh("nft --stateless list ruleset")
        };
        let v4 = Rules {
            v6: None,
            random_fully: false,
            ..rules()
        };
        let want: String = TABLE
            .lines()
            .filter(|line| !line.contains("ip6"))
            .map(|line| line.replace(" fully-random", "") + "\n")
            .collect();
        assert_eq!(listed(&v4, &mut netfilter), want);
        let only = |masquerade, forward| Rules {
            masquerade,
            forward,
            ..rules()
        };
        let text = listed(&only(true, false), &mut netfilter);
        assert!(text.contains("chain masquerading") && !text.contains("chain forwarding"));
        let text = listed(&only(false, true), &mut netfilter);
        assert!(!text.contains("chain masquerading") && text.contains("chain forwarding"));
        assert_eq!(listed(&only(false, false), &mut netfilter), "");
    });
}

/// What is right is left alone, down to its counters; what another tool did to it is undone.
#[test]
fn the_table_is_restored_and_otherwise_not_touched() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        ensure(&mut netfilter, &rules()).unwrap();
        let generation = netfilter.generation().unwrap();
        assert!(!ensure(&mut netfilter, &rules()).unwrap());
        assert_eq!(netfilter.generation().unwrap(), generation);

        for damage in [
            "flush ruleset",
            "flush table inet podwire-overlay",
            "add table inet podwire-overlay { flags dormant; }",
            "flush chain inet podwire-overlay forwarding",
            "delete chain inet podwire-overlay masquerading",
            "insert rule inet podwire-overlay masquerading accept",
            "add rule inet podwire-overlay forwarding drop",
            "add chain inet podwire-overlay forwarding { policy drop; }",
            "add chain inet podwire-overlay other",
            "replace rule inet podwire-overlay forwarding handle HANDLE ip saddr 10.0.0.0/8 accept comment \"overlay: pods\"",
        ] {
            let listed = sh("nft -a list chain inet podwire-overlay forwarding");
            let first = listed
                .lines()
                .find(|line| line.contains("ip saddr"))
                .unwrap();
            let handle = first.rsplit(' ').next().unwrap();
            sh(&format!("nft '{}'", damage.replace("HANDLE", handle)));
            assert!(
                !check(&mut netfilter, &rules()).unwrap().is_empty(),
                "{damage}"
            );
            assert!(ensure(&mut netfilter, &rules()).unwrap(), "{damage}");
            assert_eq!(sh("nft --stateless list ruleset"), TABLE, "{damage}");
        }
    });
}

/// One network's coming and going is nothing to another.
#[test]
fn each_network_has_its_own() {
    in_netns(|| {
        sh("iptables-nft -P FORWARD DROP");
        let mut netfilter = Netfilter::unopened();
        let named = |name: &str| Rules {
            name: name.to_owned(),
            ..rules()
        };
        let (node, blue, long) = (rules(), named("blue"), named(&"n".repeat(200)));
        for rules in [&node, &blue, &long] {
            assert!(ensure(&mut netfilter, rules).unwrap());
        }
        for rules in [&node, &blue, &long] {
            assert!(!ensure(&mut netfilter, rules).unwrap());
            assert_eq!(check(&mut netfilter, rules).unwrap(), [""; 0]);
        }
        assert_eq!(
            sh("nft list table inet podwire-overlay/blue | grep -c ip6"),
            "7\n"
        );
        let chain = sh("iptables-nft -S FORWARD");
        assert_eq!(
            chain
                .matches("podwire overlay blue: pods are forwarded")
                .count(),
            2,
            "{chain}"
        );
        assert_eq!(
            chain.matches("podwire overlay: pods are forwarded").count(),
            2,
            "{chain}"
        );

        assert!(remove(&mut netfilter, "blue").unwrap());
        assert!(!ensure(&mut netfilter, &node).unwrap() && !ensure(&mut netfilter, &long).unwrap());
        assert!(remove(&mut netfilter, "").unwrap() && remove(&mut netfilter, &long.name).unwrap());
        assert!(!sh("nft list ruleset").contains("podwire"));
    });
}

/// Many at once, while a stranger changes rules without a pause.
#[test]
fn agents_and_plugins_may_do_it_at_once() {
    in_netns(|| {
        let stranger = std::thread::spawn(|| {
            sh("for i in $(seq 60); do nft 'add table ip x; delete table ip x'; done");
        });
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut netfilter = Netfilter::unopened();
                    for _ in 0..20 {
                        ensure(&mut netfilter, &rules()).unwrap();
                    }
                });
            }
        });
        stranger.join().unwrap();
        assert_eq!(sh("nft --stateless list table inet podwire-overlay"), TABLE);
    });
}

/// Another's base chain decides for itself; we say which it is.
#[test]
fn a_chain_of_others_that_drops_is_named() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        assert_eq!(obstacles(&mut netfilter).unwrap(), [""; 0]);
        sh("nft add table inet firewalld
            nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy drop; }'
            nft add chain inet firewalld filter_INPUT '{ type filter hook input priority 10; policy drop; }'
            nft add chain inet firewalld open '{ type filter hook forward priority 11; }'
            iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP");
        assert_eq!(
            obstacles(&mut netfilter).unwrap(),
            ["chain filter_FORWARD of table inet firewalld drops what it does not accept itself"]
        );
    });
}

/// Not a test: `cargo test -p fabric --release firewall::tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        for ground in ["nothing else", "iptables that drop", "iptables-legacy, too"] {
            let mut all = [Vec::new(), Vec::new()];
            for _ in 0..100 {
                let start = std::time::Instant::now();
                ensure(&mut netfilter, &rules()).unwrap();
                all[0].push(start.elapsed());
                let start = std::time::Instant::now();
                ensure(&mut netfilter, &rules()).unwrap();
                all[1].push(start.elapsed());
                sh("nft delete table inet podwire-overlay");
            }
            all.iter_mut().for_each(|times| times.sort());
            eprintln!(
                "{ground}: made in {:?}, found in {:?}",
                all[0][50], all[1][50]
            );
            sh(match ground {
                "nothing else" => "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP",
                _ => "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP",
            });
        }
    });
}
