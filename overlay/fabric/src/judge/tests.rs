//! Honest peers keep what they have, whatever others say.

use std::net::IpAddr;

use libcni::kernel::Mac;
use libcni::spec::IpNetwork;
use proptest::prelude::*;

use super::*;
use crate::own::{OwnSide, Parent};
use crate::peer::{Kind, Vtep};
use crate::{Backend, Peers, Vxlan};

fn own() -> Own {
    let side = |network: &str, subnet: &str, local: &str| OwnSide {
        network: network.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        local: local.parse().unwrap(),
        mac: mac(0),
    };
    Own {
        backend: Backend::Vxlan(Vxlan::default()),
        parent: Parent {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            v4: Some("192.0.2.200".parse().unwrap()),
            v6: None,
        },
        v4: Some(side("10.244.0.0/16", "10.244.0.0/24", "192.0.2.200")),
        v6: Some(side("fd00::/48", "fd00::/64", "2001:db8::1")),
    }
}

fn mac(n: u8) -> Mac {
    Mac([0x2a, 0, 0, 0, 0, n])
}

fn site(subnet: &str, ip: &str, mac: Mac) -> Site {
    Site {
        subnet: subnet.parse().unwrap(),
        public_ip: ip.parse().unwrap(),
        vtep: Some(Vtep { mac, vni: Some(1) }),
    }
}

fn peer(v4: Option<Site>, v6: Option<Site>) -> Arc<Peer> {
    Arc::new(Peer {
        name: "n".into(),
        kind: Kind::Vxlan,
        v4,
        v6,
    })
}

fn honest_site(n: u8) -> Site {
    site(&format!("10.244.{n}.0/24"), &format!("192.0.2.{n}"), mac(n))
}

fn honest(n: u8) -> Arc<Peer> {
    let v6 = site(
        &format!("fd00:0:0:{n:x}::/64"),
        &format!("2001:db8::ff:{n:x}"),
        mac(n),
    );
    peer(Some(honest_site(n)), Some(v6))
}

fn listed(peers: &Peers) -> impl Iterator<Item = (&str, &Arc<Peer>)> {
    peers.iter().map(|(key, peer)| (key.as_str(), peer))
}

fn verdict<'a>(standing: &Standing, peers: &'a Peers) -> Judged<'a> {
    judge(&own(), standing, listed(peers))
}

/// What a peer beside honest number 1 is refused for.
fn refusal(hostile: Site) -> Option<Reason> {
    // Its key comes first; the other stands.
    let mut peers: Peers = [("b".to_owned(), honest(1))].into();
    let mut standing = Standing::default();
    standing.update(&verdict(&standing, &peers).peers);
    peers.insert("a".into(), peer(Some(hostile), None));
    let judged = verdict(&standing, &peers);
    let kept = judged.peers.iter().find(|p| p.key == "b").unwrap();
    assert_eq!(kept.v4, Some(honest_site(1)));
    judged.refused.first().map(|refusal| refusal.reason.clone())
}

#[test]
fn each_lie_has_its_name() {
    let with = |subnet: &str, ip: &str, mac| refusal(site(subnet, ip, mac)).map(|r| r.label());
    for (subnet, ip, n, label) in [
        ("10.244.0.0/24", "192.0.2.9", 9, "own-subnet"),
        ("10.244.0.128/25", "192.0.2.9", 9, "own-subnet"),
        ("10.244.0.0/20", "192.0.2.9", 9, "own-subnet"),
        ("10.245.1.0/24", "192.0.2.9", 9, "outside-network"),
        ("10.244.0.0/16", "192.0.2.9", 9, "outside-network"),
        ("10.0.0.0/8", "192.0.2.9", 9, "outside-network"),
        ("0.0.0.0/0", "192.0.2.9", 9, "outside-network"),
        ("fd00:0:0:9::/64", "192.0.2.9", 9, "outside-network"),
        ("10.244.128.0/19", "192.0.2.9", 9, "too-wide"),
        ("10.244.1.0/24", "192.0.2.9", 9, "overlap"),
        ("10.244.1.64/26", "192.0.2.9", 9, "overlap"),
        ("10.244.0.0/23", "192.0.2.9", 9, "own-subnet"),
        ("10.244.9.0/24", "0.0.0.0", 9, "bad-address"),
        ("10.244.9.0/24", "0.1.2.3", 9, "bad-address"),
        ("10.244.9.0/24", "224.0.0.1", 9, "bad-address"),
        ("10.244.9.0/24", "127.0.0.1", 9, "bad-address"),
        ("10.244.9.0/24", "255.255.255.255", 9, "bad-address"),
        ("10.244.9.0/24", "2001:db8::9", 9, "bad-address"),
        ("10.244.9.0/24", "192.0.2.200", 9, "own-address"),
        ("10.244.9.0/24", "10.244.0.7", 9, "address-in-subnet"),
        ("10.244.9.0/24", "10.244.1.7", 9, "address-in-subnet"),
        ("10.244.9.0/24", "10.244.9.7", 9, "address-in-subnet"),
        ("10.244.9.0/24", "192.0.2.9", 0, "own-mac"),
        ("10.244.9.0/24", "192.0.2.9", 1, "same-mac"),
    ] {
        assert_eq!(with(subnet, ip, mac(n)), Some(label), "{subnet} {ip} {n}");
    }
    assert_eq!(
        with("10.244.9.0/24", "192.0.2.9", Mac::default()),
        Some("bad-mac")
    );
    assert_eq!(
        with("10.244.9.0/24", "192.0.2.9", Mac([1, 0, 0, 0, 0, 1])),
        Some("bad-mac")
    );
    assert_eq!(with("10.244.9.0/24", "192.0.2.9", mac(9)), None);
    // Another's address is his to say: it harms nobody but those who say it.
    assert_eq!(with("10.244.9.0/24", "192.0.2.1", mac(9)), None);
    assert_eq!(with("10.244.16.0/20", "192.0.2.9", mac(9)), None);

    let no_vtep = Site {
        vtep: None,
        ..honest_site(9)
    };
    assert_eq!(refusal(no_vtep), Some(Reason::NoVtep));
    let around = IpNetwork::new("192.0.2.0".parse().unwrap(), 24).unwrap();
    let mut wide = own();
    wide.v4.as_mut().unwrap().network = "0.0.0.0/1".parse().unwrap();
    let side = OwnSide {
        network: "128.0.0.0/1".parse().unwrap(),
        ..wide.v4.unwrap()
    };
    let own = Own {
        v4: Some(side),
        ..wide
    };
    let peers: Peers = [(
        "a".to_owned(),
        peer(
            Some(Site {
                subnet: around,
                ..honest_site(9)
            }),
            None,
        ),
    )]
    .into();
    let judged = judge(&own, &Standing::default(), listed(&peers));
    assert_eq!(judged.refused[0].reason.label(), "underlay");
}

/// Old agents and appliances.
#[test]
fn rule_8_a_peer_without_a_vni_is_believed() {
    let mut site = honest_site(9);
    site.vtep.as_mut().unwrap().vni = None;
    assert_eq!(refusal(site), None);
}

#[test]
fn rule_14_two_with_one_mac_the_first_stays() {
    let clone = Site {
        vtep: honest_site(1).vtep,
        ..honest_site(9)
    };
    assert_eq!(refusal(clone), Some(Reason::SameMac(mac(1), "b".into())));
    assert_eq!(
        Reason::SameMac(mac(1), "b".into()).to_string(),
        "its MAC 2a:00:00:00:00:01 is that of \"b\" (a cloned machine? give one of them another)"
    );
}

#[test]
fn rule_18_a_peers_vni_is_noted_and_no_more() {
    let mut site = honest_site(9);
    site.vtep.as_mut().unwrap().vni = Some(4096);
    let peers: Peers = [
        ("a".to_owned(), peer(Some(site), None)),
        ("b".to_owned(), honest(1)),
    ]
    .into();
    let judged = verdict(&Standing::default(), &peers);
    let noted: Vec<_> = judged.peers.iter().map(|peer| peer.other_vni(1)).collect();
    assert_eq!((noted, judged.refused.len()), (vec![Some(4096), None], 0));
}

#[test]
fn another_backend_is_another_network() {
    let mut other = Peer::clone(&honest(1));
    other.kind = Kind::Other("wireguard".into());
    let peers: Peers = [("a".to_owned(), Arc::new(other))].into();
    let judged = verdict(&Standing::default(), &peers);
    assert_eq!(
        judged.refused[0].reason.to_string(),
        "its backend is \"wireguard\", not ours"
    );
    assert_eq!((judged.refused[0].v6, judged.peers.len()), (None, 0));
}

#[test]
fn rule_4_each_family_is_judged_by_itself() {
    let mut half = Peer::clone(&honest(1));
    half.v6.as_mut().unwrap().public_ip = "ff02::1".parse().unwrap();
    let peers: Peers = [("a".to_owned(), Arc::new(half))].into();
    let judged = verdict(&Standing::default(), &peers);
    assert_eq!(
        (judged.peers[0].v4, judged.peers[0].v6),
        (Some(honest_site(1)), None)
    );
    assert_eq!(
        (judged.refused[0].v6, judged.refused[0].reason.label()),
        (Some(true), "bad-address")
    );
}

/// Between two that are new: the one of the usual size; then the one whose key comes first.
#[test]
fn newcomers_are_heard_in_a_certain_order() {
    let wide = peer(Some(site("10.244.0.0/22", "192.0.2.9", mac(9))), None);
    let wide = Arc::new(Peer {
        v4: wide.v4.map(|s| Site {
            subnet: "10.244.4.0/22".parse().unwrap(),
            ..s
        }),
        ..Peer::clone(&wide)
    });
    let peers: Peers = [
        ("a".to_owned(), wide),
        ("b".to_owned(), honest(5)),
        ("c".to_owned(), honest(5)),
    ]
    .into();
    let keys = |standing: &Standing| {
        let judged = verdict(standing, &peers);
        judged
            .peers
            .iter()
            .map(|peer| peer.key.to_owned())
            .collect::<Vec<_>>()
    };
    let mut standing = Standing::default();
    assert_eq!(keys(&standing), ["b"]);
    standing.insert(false, "c", honest_site(5));
    assert_eq!(
        keys(&standing),
        ["b", "c"],
        "b has IPv6, which c has not stood for"
    );
}

/// What it had becomes free, and who waited gets it.
#[test]
fn who_waited_comes_next() {
    let both: Peers = [("a".to_owned(), honest(5)), ("b".to_owned(), honest(5))].into();
    let mut standing = Standing::default();
    let judged = verdict(&standing, &both);
    assert_eq!((judged.peers[0].key, judged.refused.len()), ("a", 2));
    standing.update(&judged.peers);
    let one: Peers = [("b".to_owned(), honest(5))].into();
    assert_eq!(verdict(&standing, &one).peers[0].key, "b");
}

#[test]
fn standing_by_a_lie_that_fits_another_own_is_looked_at_again() {
    let peers: Peers = [("a".to_owned(), honest(5))].into();
    let mut standing = Standing::default();
    standing.update(&verdict(&standing, &peers).peers);
    let mut own = own();
    own.v4.as_mut().unwrap().mac = mac(5);
    own.v6.as_mut().unwrap().mac = mac(5);
    standing.look_again();
    assert_eq!(judge(&own, &standing, listed(&peers)).peers.len(), 0);
}

fn hostile_site() -> impl Strategy<Value = Option<Site>> {
    let subnet = (
        prop_oneof![4 => Just(244_u8), 1 => any::<u8>()],
        0..60_u8,
        any::<u8>(),
        prop_oneof![4 => 19..=30_u8, 1 => 0..=32_u8],
    )
        .prop_map(|(b, c, d, prefix)| IpNetwork::new([10, b, c, d].into(), prefix).unwrap());
    let ip = prop_oneof![
        any::<u8>().prop_map(|n| IpAddr::from([192, 0, 2, n])),
        any::<[u8; 2]>().prop_map(|[c, d]| IpAddr::from([10, 244, c % 60, d])),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        Just(IpAddr::from([0; 4])),
        Just(IpAddr::from([224, 0, 0, 1])),
    ];
    let vtep = prop_oneof![
        (0..60_u8).prop_map(|n| Some(mac(n))),
        any::<[u8; 6]>().prop_map(|bytes| Some(Mac(bytes))),
        Just(None),
    ];
    let site = (subnet, ip, vtep).prop_map(|(subnet, public_ip, mac)| Site {
        subnet,
        public_ip,
        vtep: mac.map(|mac| Vtep { mac, vni: None }),
    });
    proptest::option::weighted(0.9, site)
}

fn hostile_peers() -> impl Strategy<Value = Vec<(String, Arc<Peer>)>> {
    let kind = prop_oneof![6 => Just(Kind::Vxlan), 1 => Just(Kind::HostGw)];
    let one = (
        "[a-z\u{0}\u{e9}]{0,4}",
        hostile_site(),
        hostile_site(),
        kind,
    )
        .prop_map(|(key, v4, v6, kind)| {
            let name = key.clone();
            (key, Arc::new(Peer { name, kind, v4, v6 }))
        });
    proptest::collection::vec(one, 0..40)
}

fn accepted(judged: &Judged<'_>, honest: &Peers) -> Vec<(String, Option<Site>, Option<Site>)> {
    let of = judged
        .peers
        .iter()
        .filter(|peer| honest.contains_key(peer.key));
    of.map(|peer| (peer.key.to_owned(), peer.v4, peer.v6))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The promise of the whole module.
    #[test]
    fn hostile_peers_change_nothing_for_honest_ones(
        number in 1..50_u8,
        changed in 0..50_u8,
        hostile in proptest::collection::vec(hostile_peers(), 1..3),
    ) {
        let mut peers: Peers = (1..=number).map(|n| (format!("HONEST-{n:02}"), honest(n))).collect();
        let mut standing = Standing::default();
        let alone = accepted(&verdict(&standing, &peers), &peers);
        prop_assert_eq!(alone.len(), usize::from(number));
        standing.update(&verdict(&standing, &peers).peers);
        let honest_ones = peers.clone();
        let mut last = Vec::new();
        // They come, and come again as others.
        for wave in hostile {
            peers.retain(|key, _| honest_ones.contains_key(key));
            peers.extend(wave);
            let judged = verdict(&standing, &peers);
            prop_assert_eq!(&accepted(&judged, &honest_ones), &alone);
            last = judged.peers.iter().map(|peer| (peer.key.to_owned(), peer.v4, peer.v6)).collect();
            standing.update(&judged.peers);
        }
        // What is remembered spares work and changes no verdict.
        let mut fresh = standing.clone();
        fresh.look_again();
        let again = verdict(&fresh, &peers);
        let again: Vec<_> = again.peers.iter().map(|peer| (peer.key.to_owned(), peer.v4, peer.v6)).collect();
        prop_assert_eq!(&again, &last);
        // An honest one may say something new that nobody else has.
        let key = format!("HONEST-{changed:02}");
        if let Some(peer) = peers.get_mut(&key) {
            let mut moved = Peer::clone(peer);
            let v4 = moved.v4.as_mut().unwrap();
            v4.vtep = Some(Vtep { mac: Mac([0x2e, 0xff, 1, 2, 3, changed]), vni: None });
            let wanted = Some(*v4);
            *peer = Arc::new(moved);
            let judged = verdict(&standing, &peers);
            let found = judged.peers.iter().find(|peer| peer.key == key).unwrap();
            prop_assert_eq!(found.v4, wanted);
        }
    }

    /// Nor does it matter in which order they are told.
    #[test]
    fn the_order_of_telling_changes_nothing(hostile in hostile_peers(), number in 0..20_u8) {
        let mut peers: Peers = (0..number).map(|n| (format!("k{n}"), honest(n))).collect();
        peers.extend(hostile);
        let standing = Standing::default();
        let sites = |judged: Judged<'_>| -> Vec<_> {
            judged.peers.iter().map(|peer| (peer.key.to_owned(), peer.v4, peer.v6)).collect()
        };
        let forth = sites(judge(&own(), &standing, listed(&peers)));
        let backwards: Vec<_> = listed(&peers).collect();
        let back = sites(judge(&own(), &standing, backwards.into_iter().rev()));
        prop_assert_eq!(&forth, &back);
        // No two of them have the same, and nobody has what is ours.
        let all: Vec<Site> = forth.iter().filter_map(|(_, v4, _)| *v4).collect();
        for (at, one) in all.iter().enumerate() {
            prop_assert!(!one.subnet.contains("192.0.2.200".parse().unwrap()));
            prop_assert!(one.vtep.is_some_and(|vtep| vtep.mac != mac(0)));
            for other in all.iter().skip(at + 1) {
                prop_assert!(!one.subnet.contains(other.subnet.network()) && !other.subnet.contains(one.subnet.network()));
                prop_assert!(!one.subnet.contains(other.public_ip) && !other.subnet.contains(one.public_ip));
                prop_assert_ne!(one.vtep.map(|v| v.mac), other.vtep.map(|v| v.mac));
            }
        }
    }
}
