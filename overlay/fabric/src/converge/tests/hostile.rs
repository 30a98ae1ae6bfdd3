//! "Done when" 6: hostile peers change nothing for honest ones, in the kernel's own tables. And what strangers do to those.

use std::collections::BTreeSet;

use libcni::kernel::Mac;
use testkit::{in_netns, sh};

use super::fixture::{
    NOTHING, Node, OWN_MAC, converge, counts, follow, mac, peer, peers, site_at, tables,
};
use crate::{Peer, Peers, Site};

fn lies() -> Vec<Peer> {
    let with = |change: &dyn Fn(&mut Site)| {
        let mut lie = peer(60_000);
        change(lie.v4.as_mut().unwrap());
        lie
    };
    let mut lies = Vec::new();
    for subnet in [
        "10.255.255.0/24",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "0.0.0.0/0",
        "192.0.2.0/24",
        "10.0.1.0/24",
        "10.0.1.128/25",
        "10.0.0.0/22",
        "10.0.1.7/32",
    ] {
        lies.push(with(&|site| site.subnet = subnet.parse().unwrap()));
    }
    for ip in [
        "0.0.0.0",
        "224.0.0.1",
        "127.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "10.0.1.1",
        "10.255.255.1",
        "2001:db8::9",
    ] {
        lies.push(with(&|site| site.public_ip = ip.parse().unwrap()));
    }
    for lie in [
        Mac::default(),
        Mac([0xff; 6]),
        Mac([1, 0, 0, 0, 0, 1]),
        OWN_MAC,
        mac(1),
    ] {
        lies.push(site_at(60_000, "198.18.66.66".parse().unwrap(), lie));
    }
    lies.push(with(&|site| site.vtep = None));
    // Another's address with a MAC of his own: his packets go astray, nobody else's.
    lies.push(with(&|site| site.public_ip = "198.18.0.1".parse().unwrap()));
    lies
}

#[test]
fn lies_change_no_line_of_the_others() {
    in_netns(|| {
        let node = Node::new();
        let mut fabric = node.fabric();
        let honest = peers(1..20);
        converge(&mut fabric, &honest);
        let before: BTreeSet<String> = tables("flannel.1").into_iter().collect();
        let lies = lies();
        for (at, lie) in lies.iter().enumerate() {
            // Its key comes before all others.
            let mut all: Peers = honest.clone();
            all.insert("a".into(), lie.clone().into());
            let report = follow(&mut fabric, &all);
            let believed = at + 1 == lies.len();
            assert_eq!(report.refused.len(), usize::from(!believed), "{lie:?}");
            assert_eq!(report.messages, if believed { 3 } else { 0 }, "{lie:?}");
            let now: BTreeSet<String> = tables("flannel.1").into_iter().collect();
            assert!(now.is_superset(&before), "{lie:?}");
            // Nor after a restart, when nobody is remembered.
            let report = converge(&mut node.fabric(), &all);
            assert_eq!(counts(&report), NOTHING, "{lie:?}");
        }
        follow(&mut fabric, &honest);
        assert_eq!(
            tables("flannel.1").into_iter().collect::<BTreeSet<_>>(),
            before
        );
    });
}

/// Several things at once, in an order that is the same in every run.
#[test]
fn whatever_strangers_do_is_undone_at_once() {
    const DEEDS: [&str; 14] = [
        "ip route flush dev flannel.1",
        "ip route del 10.0.3.0/24",
        "ip route replace 10.0.4.0/24 via 192.0.2.9 dev eth0",
        "ip route replace 10.0.4.0/24 via 192.0.2.9 dev eth0 proto 112",
        "ip route add 10.0.200.0/24 via 192.0.2.9 dev eth0 proto 112",
        "ip route append 10.0.5.0/24 via 10.0.6.0 dev flannel.1 onlink",
        "ip neigh flush dev flannel.1 nud permanent",
        "ip neigh replace 10.0.7.0 lladdr 2:0:0:0:0:9 dev flannel.1 nud reachable",
        "bridge fdb del 2a:1:0:0:0:8 dev flannel.1",
        "bridge fdb replace 2a:1:0:0:0:9 dev flannel.1 dst 192.0.2.66",
        "ip link set flannel.1 down",
        "ip link set flannel.1 address 02:00:00:00:00:99",
        "ip link set flannel.1 mtu 1280",
        "ip link del flannel.1",
    ];
    in_netns(|| {
        let node = Node::new();
        let mut fabric = node.fabric();
        let ten = peers(1..11);
        converge(&mut fabric, &ten);
        let before = tables("flannel.1");
        let mut random = 0x9e37_79b9_u32;
        for _ in 0..60 {
            let mut done = Vec::new();
            for _ in 0..4 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let deed = DEEDS[random as usize / 7 % DEEDS.len()];
                sh(&format!("{deed} 2> /dev/null || true"));
                done.push(deed);
            }
            fabric.doubt();
            let report = follow(&mut fabric, &ten);
            assert_eq!(tables("flannel.1"), before, "{done:#?}\n{report:?}");
            assert_eq!(counts(&converge(&mut fabric, &ten)), NOTHING, "{done:#?}");
        }
    });
}
