use testkit::{in_netns_as_root, sh};

use super::*;

fn prefix(text: &str) -> Option<IpNetwork> {
    Some(text.parse().unwrap())
}

/// The old tables' names are readable only for root of the machine's own user namespace.
#[test]
fn a_table_is_read_as_its_program_wrote_it() {
    in_netns_as_root(|| {
        for (family, program, net, unreachable) in [
            (Family::V4, "iptables-legacy", "10.1.0.0/18", "REJECT"),
            (Family::V6, "ip6tables-legacy", "fd00:a::/47", "REJECT"),
        ] {
            assert!(family.table("filter").unwrap().is_none());
            sh(&format!(
                "p={program}; $p -A FORWARD -s {net} -m comment --comment 'a b' -j ACCEPT
                 $p -A FORWARD ! -s {net} -d {net} -j DROP
                 $p -N mine; $p -A FORWARD -j mine; $p -A FORWARD -p tcp -j DROP
                 $p -A FORWARD -i x+ -j DROP; $p -A FORWARD -m mark --mark 1 -j DROP
                 $p -A FORWARD -m comment --comment c -j REJECT; $p -A FORWARD -j DROP"
            ));
            let table = family.table("filter").unwrap().unwrap();
            assert!(table.has_chain("mine") && !table.has_chain("min"));
            let chain = table.base_chain(FORWARD).unwrap();
            assert!(!chain.drops);
            let rule = |from, to, plain, comment: &str, target| Rule {
                from,
                to,
                plain,
                comment: comment.into(),
                target,
            };
            let want = [
                rule(prefix(net), None, true, "a b", Target::Accept),
                rule(None, prefix(net), false, "", Target::Drop),
                rule(None, None, true, "", Target::Elsewhere),
                rule(None, None, false, "", Target::Drop),
                rule(None, None, false, "", Target::Drop),
                rule(None, None, false, "", Target::Drop),
                rule(None, None, true, "c", Target::Module(unreachable.into())),
                rule(None, None, true, "", Target::Drop),
            ];
            assert_eq!(chain.rules, want);
            assert!(table.base_chain(1).unwrap().rules.is_empty());
            assert!(table.base_chain(9).is_none());

            sh(&format!("{program} -P FORWARD DROP"));
            let table = family.table("filter").unwrap().unwrap();
            assert!(table.base_chain(FORWARD).unwrap().drops);
            assert!(family.table("nat").unwrap().is_none());
            assert!(
                family
                    .program("-restore")
                    .unwrap()
                    .ends_with("-legacy-restore")
            );
        }
    });
}
