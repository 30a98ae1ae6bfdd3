use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fabric::NetConf;
use proptest::prelude::*;

use super::*;

fn v4(text: &str) -> Network {
    let conf = NetConf::parse(text.as_bytes()).unwrap();
    conf.v4.unwrap()
}

fn v6(text: &str) -> Network {
    let conf = NetConf::parse(text.as_bytes()).unwrap();
    conf.v6.unwrap()
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.is_ipv6() == b.is_ipv6() && (a.contains(b.network()) || b.contains(a.network()))
}

#[test]
fn the_one_before_is_kept_while_it_is_free_and_leasable() {
    let network = v4(r#"{"Network":"10.5.0.0/16"}"#);
    let before = net("10.5.52.0/24");
    assert_eq!(pick(&network, [], Some(&before), "n1"), Some(before));
    for hostile in ["10.5.52.128/25", "10.5.48.0/20", "10.5.52.0/24"] {
        let taken = [net(hostile)];
        let got = pick(&network, &taken, Some(&before), "n1").unwrap();
        assert!(!overlap(&got, &taken[0]), "{got}");
    }
    // The network's first subnet, another length, another network.
    for not_ours in ["10.5.0.0/24", "10.5.52.0/25", "10.6.52.0/24", "fd00::/64"] {
        let got = pick(&network, [], Some(&net(not_ours)), "n1").unwrap();
        assert!(network.leases(&got), "{got}");
    }
}

#[test]
fn names_wish_the_same_again_and_differ() {
    let network = v4(r#"{"Network":"10.0.0.0/8"}"#);
    let wishes: BTreeSet<_> = (0..1000)
        .map(|n| pick(&network, [], None, &format!("node-{n}")).unwrap())
        .collect();
    // 1000 of 65535: some 8 pairs meet.
    assert!(wishes.len() > 970, "{}", wishes.len());
    assert_eq!(
        pick(&network, [], None, "node-1"),
        pick(&network, [], None, "node-1")
    );
    assert_eq!(pick(&network, [], None, ""), Some(net("10.72.223.0/24")));
}

#[test]
fn the_last_one_is_found_and_then_none() {
    let network = v4(r#"{"Network":"10.0.0.0/8"}"#);
    let mut taken: Vec<IpNetwork> = network.subnets().collect();
    assert_eq!(taken.len(), 65_535);
    let last = taken.remove(40_000);
    let begun = Instant::now();
    assert_eq!(pick(&network, &taken, None, "n"), Some(last));
    taken.push(last);
    assert_eq!(pick(&network, &taken, Some(&last), "n"), None);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn ipv6_is_counted_not_enumerated() {
    let conf = |network: &str| {
        v6(&format!(
            r#"{{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"{network}"}}"#
        ))
    };
    for network in ["fd00:5::/48", "fc00::/7", "::/0"] {
        let network = conf(network);
        // The lower quarter is gone in one entry. More than that is no node's.
        let quarter = IpNetwork::new(network.net.network(), network.net.prefix() + 2).unwrap();
        let got = pick(&network, [&quarter, &network.net], None, "n").unwrap();
        assert!(network.leases(&got) && !overlap(&got, &quarter), "{got}");
    }
}

#[test]
fn all_nodes_of_a_full_network_have_one_each() {
    let network = v4(r#"{"Network":"10.5.0.0/16"}"#);
    let mut taken = BTreeSet::new();
    for n in 0..255 {
        let got = pick(&network, &taken, None, &format!("node-{n}")).unwrap();
        assert!(taken.insert(got), "{got} twice");
    }
    assert!(
        taken
            .iter()
            .eq(network.subnets().collect::<Vec<_>>().iter())
    );
    assert_eq!(pick(&network, &taken, None, "one more"), None);
}

fn any_v4() -> impl Strategy<Value = IpNetwork> {
    (any::<u16>(), 14_u8..=32).prop_map(|(low, len)| {
        let ip = IpNetwork::new(address(0x0a05_0000 | u128::from(low), false), len).unwrap();
        IpNetwork::new(ip.network(), len).unwrap()
    })
}

proptest! {
    /// Against the plain way: enumerate, filter, look whether it is in there.
    #[test]
    fn what_is_picked_is_free_and_nothing_is_picked_only_if_nothing_is(
        taken in prop::collection::vec(any_v4(), 0..40),
        before in prop::option::of(any_v4()),
        bounds in (0_u8..=63, 0_u8..=63),
        name in ".{0,12}",
    ) {
        let (min, max) = (bounds.0.min(bounds.1) * 4, bounds.0.max(bounds.1) * 4);
        let network = v4(&format!(
            r#"{{"Network":"10.5.0.0/16","SubnetLen":22,"SubnetMin":"10.5.{min}.0","SubnetMax":"10.5.{max}.0"}}"#
        ));
        let free: Vec<IpNetwork> = network
            .subnets()
            .filter(|subnet| !taken.iter().any(|t| t.prefix() >= 18 && overlap(subnet, t)))
            .collect();
        let got = pick(&network, &taken, before.as_ref(), &name);
        prop_assert_eq!(got.is_none(), free.is_empty());
        if let Some(got) = got {
            prop_assert!(free.contains(&got), "{} of {:?}", got, free);
        }
        if let Some(before) = before.filter(|b| free.contains(b)) {
            prop_assert_eq!(got, Some(before));
        }
    }
}
