//! Sections 1.3 to 1.6: how a subnet is leased.

use std::collections::BTreeSet;

use overlayd::directory::etcd::{Etcd, Options};
use overlayd::directory::{Directory, Lease};

use crate::node::*;
use crate::server::*;

#[test]
fn item_1_key_and_value_of_ipv4_to_the_byte() {
    scene(V4, async |_server, mut admin| {
        let before = lease("10.5.52.0/24");
        assert_eq!(take(V4, me(515), Some(before)).await, before);
        let kvs = dump(&mut admin, "").await;
        let keys: Vec<&str> = kvs.iter().map(|kv| kv.key_str().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "/coreos.com/network/config",
                "/coreos.com/network/subnets/10.5.52.0-24"
            ]
        );
        assert_eq!(
            kvs[1].value_str().unwrap(),
            r#"{"PublicIP":"192.0.2.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:04:00:00:02:03"}}"#
        );
    });
}

#[test]
fn item_1_key_and_value_of_both_families_to_the_byte() {
    scene(DUAL, async |_server, mut admin| {
        let before = lease_dual("10.5.1.0/24", "fc00:0:0:5::/64");
        assert_eq!(take(DUAL, me_dual(515), Some(before)).await, before);
        assert_eq!(leases(&mut admin).await, ["10.5.1.0-24&fc00:0:0:5::-64"]);
        let kv = dump(&mut admin, "subnets").await.remove(0);
        assert_eq!(
            kv.value_str().unwrap(),
            r#"{"PublicIP":"192.0.2.3","PublicIPv6":"fd00:9::203","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:04:00:00:02:03"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:06:00:00:02:03"}}"#
        );
    });
}

#[test]
fn rule_6_the_key_has_an_etcd_lease_of_a_day() {
    scene(V4, async |_server, mut admin| {
        take(V4, me(1), None).await;
        let kv = dump(&mut admin, "subnets").await.remove(0);
        let ttl = admin.lease_time_to_live(kv.lease(), None).await.unwrap();
        assert_eq!(ttl.granted_ttl(), 86_400);
    });
}

#[test]
fn item_5_a_prefix_with_slashes_is_the_same_network() {
    scene(V4, async |_server, mut admin| {
        let prefix = "//coreos.com//network/".to_owned();
        let node = Node::start(
            Options {
                prefix,
                ..options()
            },
            me(1),
            None,
        )
        .await;
        let mut other = Node::start(options(), me(2), None).await;
        assert_eq!(leases(&mut admin).await.len(), 2);
        let name = node.lease.v4.unwrap().to_string().replace('/', "-");
        other.sees_peers(&[&name]).await;
    });
}

#[test]
fn section_1_9_a_node_is_known_by_its_address_and_writes_once_at_each_start() {
    scene(V4, async |_server, mut admin| {
        let first = Node::start(options(), me(1), None).await;
        let (lease, name) = (first.lease, leases(&mut admin).await);
        let before = dump(&mut admin, "subnets").await.remove(0);
        drop(first);
        // Not even what it remembers counts more than what etcd knows of its address.
        let other = Lease {
            v4: Some("10.5.77.0/24".parse().unwrap()),
            v6: None,
        };
        let mut node = Node::start(options(), me(1), Some(other)).await;
        assert_eq!((node.lease, leases(&mut admin).await), (lease, name));
        node.sees_peers(&[]).await;
        let after = dump(&mut admin, "subnets").await.remove(0);
        assert_eq!(after.create_revision(), before.create_revision());
        assert_eq!(after.version(), before.version() + 1);
        assert_ne!(after.lease(), before.lease());
    });
}

#[test]
fn section_1_4_the_subnet_of_before_unless_somebody_has_it() {
    scene(V4, async |_server, mut admin| {
        let conf = conf(V4);
        let before = lease("10.5.52.0/24");
        assert_eq!(take(V4, me(1), Some(before)).await, before);
        assert_ne!(take(V4, me(2), Some(before)).await, before);
        // A subnet of another network, and one that overlaps with an odd neighbour.
        put(&mut admin, "subnets/10.5.64.0-20", value(9)).await;
        for (n, gone) in [(3, "10.99.1.0/24"), (4, "10.5.70.0/24"), (5, "10.5.0.0/24")] {
            let got = take(V4, me(n), Some(lease(gone))).await;
            assert_ne!(got, lease(gone));
            assert!(conf.v4.unwrap().leases(&got.v4.unwrap()));
        }
    });
}

#[test]
fn rule_12_a_network_of_ipv6_alone_is_refused() {
    let alone = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48","Backend":{"Type":"vxlan"}}"#;
    scene(alone, async |_server, mut admin| {
        let error = etcd().net_conf().await.unwrap_err().to_string();
        assert!(error.contains("EnableIPv4"), "{error}");
        let v6_only = overlayd::directory::Me {
            v4: None,
            ..me_dual(1)
        };
        let lease = etcd().lease(&conf(alone), &v6_only, None).await;
        assert!(lease.is_err());
        assert!(leases(&mut admin).await.is_empty());
    });
}

/// flanneld would drop such a node as a whole, or stall.
#[test]
fn rule_4_rule_13_half_a_node_is_not_published() {
    scene(DUAL, async |_server, mut admin| {
        let mut bare = me_dual(1);
        bare.v6.as_mut().unwrap().vtep = None;
        let headless = overlayd::directory::Me {
            v4: None,
            ..me_dual(1)
        };
        for (half, why) in [
            (me(1), "IPv6 address"),
            (bare.clone(), "VTEP"),
            (headless, "IPv4 address"),
        ] {
            let error = etcd().lease(&conf(DUAL), &half, None).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(leases(&mut admin).await.is_empty());
        // Nor while running; what is whole again is.
        let mut node = Node::start(options(), me_dual(1), None).await;
        let name = leases(&mut admin).await.remove(0);
        let before = get(&mut admin, &format!("subnets/{name}")).await.unwrap();
        node.sees_peers(&[]).await;
        for (n, half) in [(2, me(1)), (3, bare)] {
            node.me.send_replace(half);
            put(
                &mut admin,
                &format!("subnets/10.5.{n}.0-24&fc00:0:0:{n}::-64"),
                dual_value(n),
            )
            .await;
            let peers = usize::from(n) - 1;
            node.sees("a peer", |view| view.peers.len() == peers).await;
        }
        let after = get(&mut admin, &format!("subnets/{name}")).await.unwrap();
        assert_eq!(after.mod_revision(), before.mod_revision());
        let mut whole = me_dual(1);
        whole.v6 = me_dual(7).v6;
        node.me.send_replace(whole);
        until("both families", async || {
            let kv = get(&mut admin, &format!("subnets/{name}")).await.unwrap();
            kv.value_str().unwrap().contains("fd00:9::7")
        })
        .await;
    });
}

fn dual_value(n: u16) -> String {
    format!(r#"{{"PublicIP":"192.0.0.{n}","PublicIPv6":"fd00:9::{n}"}}"#)
}

/// As many nodes as subnets, all at once: each gets one, none is fatal (flanneld's end in exit 1).
#[test]
fn item_5_cas_loss_twenty_nodes_race_for_twenty_subnets() {
    let text = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.29.0","Backend":{"Type":"vxlan"}}"#;
    scene(text, async |_server, mut admin| {
        let race = (1..=20).map(|n| {
            // All believe that they had the same one.
            tokio::spawn(take(text, me(n), Some(lease("10.5.15.0/24"))))
        });
        let race: Vec<_> = race.collect();
        let mut got = BTreeSet::new();
        for node in race {
            let lease = node.await.unwrap();
            assert!(got.insert(lease.v4.unwrap()), "{lease:?} twice");
        }
        assert_eq!(got.len(), 20);
        assert_eq!(leases(&mut admin).await.len(), 20);
    });
}

/// Keys of two families differ as soon as one family does; still no subnet is leased twice.
#[test]
fn item_5_cas_loss_with_two_families_no_subnet_is_given_twice() {
    let text = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.21.0","EnableIPv6":true,
        "IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00:0:0:10::","IPv6SubnetMax":"fc00:0:0:1b::","Backend":{"Type":"vxlan"}}"#;
    scene(text, async |_server, mut admin| {
        let race = (1..=12).map(|n| {
            let wish = lease_dual(&format!("10.5.{}.0/24", 10 + n % 3), "fc00:0:0:12::/64");
            tokio::spawn(take(text, me_dual(n), Some(wish)))
        });
        let race: Vec<_> = race.collect();
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for node in race {
            let lease = node.await.unwrap();
            assert!(v4.insert(lease.v4.unwrap()), "{lease:?} twice");
            assert!(v6.insert(lease.v6.unwrap()), "{lease:?} twice");
        }
        assert_eq!(leases(&mut admin).await.len(), 12);
    });
}

#[test]
fn a_full_network_is_waited_for() {
    let text = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.11.0","Backend":{"Type":"vxlan"}}"#;
    scene(text, async |_server, mut admin| {
        for n in 1..=2 {
            take(text, me(n), None).await;
        }
        let third = tokio::spawn(take(text, me(3), None));
        put(&mut admin, "subnets/10.5.12.0-24", value(9)).await;
        assert!(!third.is_finished());
        delete(&mut admin, "subnets/10.5.10.0-24").await;
        assert_eq!(third.await.unwrap(), lease("10.5.10.0/24"));
    });
}

#[test]
fn the_configuration_is_waited_for_and_then_read_at_once() {
    testkit::in_netns(|| {
        block_on(async {
            // Not even etcd is there yet, and the first endpoint never is.
            let endpoints = vec!["http://127.0.0.1:1".into(), URL.into()];
            let mut etcd = Etcd::open(Options {
                endpoints,
                ..options()
            })
            .unwrap();
            let waiting = tokio::spawn(async move { etcd.net_conf().await });
            tokio::task::yield_now().await;
            let _server = Server::start("http", &[]);
            let mut admin = admin().await;
            put(&mut admin, "configs", "{}").await;
            assert!(!waiting.is_finished());
            put(&mut admin, "config", DUAL).await;
            assert_eq!(waiting.await.unwrap().unwrap(), conf(DUAL));
        });
    });
}

#[test]
fn a_configuration_that_makes_no_sense_is_an_error_with_its_key() {
    scene(r#"{"Network":"10.5.0.0"}"#, async |_server, _admin| {
        let error = etcd().net_conf().await.unwrap_err().to_string();
        assert!(error.contains("/coreos.com/network/config"), "{error}");
        assert!(error.contains("Network"), "{error}");
    });
}
