use std::net::IpAddr;

use testkit::{in_netns, sh};

use super::*;
use crate::spec::Attachment;
use crate::store::RawRange;

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
