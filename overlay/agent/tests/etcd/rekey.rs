//! A key that has to change, and keys that must not.

use etcd_client::{Client, EventType, KeyValue, PutOptions, WatchOptions};
use overlayd::directory::etcd::Options;

use crate::node::*;
use crate::server::*;

/// All changes below the prefix since a revision: what, key, revision.
async fn history(admin: &mut Client, since: i64) -> Vec<(EventType, String, i64)> {
    let end = put(admin, "end", "").await;
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(since + 1);
    let mut watch = admin.watch(PREFIX, Some(options)).await.unwrap();
    let mut events = Vec::new();
    loop {
        let heard = watch.message().await.unwrap().unwrap();
        for event in heard.events() {
            let kv = event.kv().unwrap();
            if kv.mod_revision() == end {
                return events;
            }
            let key = kv.key_str().unwrap().replace(&key("subnets/"), "");
            events.push((event.event_type(), key, kv.mod_revision()));
        }
    }
}

/// flanneld would take a new random IPv4 subnet here, and its pods would lose their network.
#[test]
fn rule_12_enabling_ipv6_later_keeps_the_ipv4_subnet() {
    scene(V4, async |_server, mut admin| {
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        assert_eq!(
            take(V4, me(1), Some(lease("10.5.52.0/24"))).await,
            lease("10.5.52.0/24")
        );
        let since = put(&mut admin, "config", DUAL).await;
        let node = Node::start(options(), me_dual(1), Some(lease("10.5.52.0/24"))).await;
        assert_eq!(node.lease.v4, lease("10.5.52.0/24").v4);
        let v6 = node.lease.v6.unwrap();
        assert!(conf(DUAL).v6.unwrap().leases(&v6));
        let name = format!("10.5.52.0-24&{}-64", v6.network());
        assert_eq!(leases(&mut admin).await, [name.as_str(), "10.5.9.0-24"]);
        // One step; the former key goes first, or a flanneld would take the route away again.
        let events = history(&mut admin, since).await;
        let step = events[0].2;
        assert_eq!(
            events,
            [
                (EventType::Delete, "10.5.52.0-24".to_owned(), step),
                (EventType::Put, name, step)
            ]
        );
    });
}

#[test]
fn disabling_ipv6_later_keeps_the_ipv4_subnet() {
    scene(V4, async |_server, mut admin| {
        let before = lease_dual("10.5.52.0/24", "fc00:0:0:5::/64");
        take(DUAL, me_dual(1), Some(before)).await;
        assert_eq!(take(V4, me(1), None).await, lease("10.5.52.0/24"));
        assert_eq!(leases(&mut admin).await, ["10.5.52.0-24"]);
    });
}

#[test]
fn a_network_that_moved_leases_anew_and_leaves_nothing_behind() {
    let moved = r#"{"Network":"10.7.0.0/16","Backend":{"Type":"vxlan"}}"#;
    scene(moved, async |_server, mut admin| {
        take(V4, me(1), Some(lease("10.5.52.0/24"))).await;
        let got = take(moved, me(1), Some(lease("10.5.52.0/24"))).await;
        assert!(conf(moved).v4.unwrap().leases(&got.v4.unwrap()), "{got:?}");
        let name = got.v4.unwrap().to_string().replace('/', "-");
        assert_eq!(leases(&mut admin).await, [name]);
    });
}

async fn the_only(admin: &mut Client, name: &str) -> KeyValue {
    assert_eq!(leases(admin).await, [name]);
    get(admin, &format!("subnets/{name}")).await.unwrap()
}

/// flanneld makes ordinary leases of reservations the first time it uses them.
#[test]
fn section_1_6_a_reservation_stays_one() {
    scene(V4, async |_server, mut admin| {
        put(
            &mut admin,
            "subnets/10.5.200.0-24",
            r#"{"PublicIP":"192.0.0.1"}"#,
        )
        .await;
        let mut node = Node::start(options(), me(1), Some(lease("10.5.52.0/24"))).await;
        assert_eq!(node.lease, lease("10.5.200.0/24"));
        node.sees_peers(&[]).await;
        let kv = the_only(&mut admin, "10.5.200.0-24").await;
        assert_eq!(
            (kv.lease(), kv.value_str().unwrap()),
            (0, value(1).as_str())
        );
        // Also when it is written again, while running and after.
        let mut changed = me(1);
        changed.v4.as_mut().unwrap().vtep = me(2).v4.unwrap().vtep;
        node.me.send_replace(changed);
        until("the new MAC", async || {
            let kv = the_only(&mut admin, "10.5.200.0-24").await;
            kv.value_str().unwrap().contains("02:04:00:00:00:02")
        })
        .await;
        assert_eq!(the_only(&mut admin, "10.5.200.0-24").await.lease(), 0);
        drop(node);
        // And when it gets a second family.
        let dual = take(DUAL, me_dual(1), None).await;
        let name = format!("10.5.200.0-24&{}-64", dual.v6.unwrap().network());
        assert_eq!(the_only(&mut admin, &name).await.lease(), 0);
    });
}

#[test]
fn section_1_6_a_reservation_that_does_not_fit_is_its_operators() {
    scene(V4, async |_server, mut admin| {
        put(
            &mut admin,
            "subnets/10.99.1.0-24",
            r#"{"PublicIP":"192.0.0.1"}"#,
        )
        .await;
        let before = get(&mut admin, "subnets/10.99.1.0-24").await.unwrap();
        let got = take(V4, me(1), Some(lease("10.5.52.0/24"))).await;
        assert_eq!(got, lease("10.5.52.0/24"));
        let after = get(&mut admin, "subnets/10.99.1.0-24").await.unwrap();
        assert_eq!(before.mod_revision(), after.mod_revision());
    });
}

/// A whole life - start, publish, be robbed, restart, IPv6 - between keys of all kinds.
#[test]
fn rule_11_no_key_but_our_own_is_ever_written() {
    scene(V4, async |_server, mut admin| {
        let day = admin.lease_grant(86_400, None).await.unwrap().id();
        for (rest, value) in [
            ("subnets/10.5.9.0-24", value(9)),
            ("subnets/10.5.10.0-24", "no JSON".to_owned()),
            ("subnets/10.5.11.0-24", String::new()),
            ("subnets/deep/10.5.12.0-24", value(12)),
            ("subnets-old/10.5.13.0-24", value(13)),
            ("subnets", "stray".to_owned()),
            ("subnet", "another's".to_owned()),
        ] {
            let leased = Some(PutOptions::new().with_lease(day));
            admin.put(key(rest), value, leased).await.unwrap();
        }
        let since = put(&mut admin, "config", V4).await;
        let mut node = Node::v4(1, "10.5.52.0/24").await;
        let mut changed = me(1);
        changed.v4.as_mut().unwrap().vtep = me(2).v4.unwrap().vtep;
        node.me.send_replace(changed);
        until("the new MAC", async || {
            let kv = get(&mut admin, "subnets/10.5.52.0-24").await.unwrap();
            kv.value_str().unwrap().contains("02:04:00:00:00:02")
        })
        .await;
        node.sees("the one that can be read", |view| view.peers.len() == 1)
            .await;
        drop(node);
        take(DUAL, me_dual(1), None).await;
        for (_, key, _) in history(&mut admin, since).await {
            assert!(key.starts_with("10.5.52.0-24"), "{key} was written");
        }
    });
}

/// To flanneld a lease in a deeper place is a lease, too: its subnet is not free.
#[test]
fn what_takes_a_place_for_flannel_takes_it_for_us() {
    let text = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.13.0","Backend":{"Type":"vxlan"}}"#;
    scene(text, async |_server, mut admin| {
        put(&mut admin, "subnets/deep/10.5.10.0-24", value(9)).await;
        put(&mut admin, "subnets/10.5.12.0-23", "no JSON").await;
        for before in ["10.5.10.0/24", "10.5.12.0/24", "10.5.13.0/24"] {
            let got = take(text, me(1), Some(lease(before))).await;
            assert_eq!(got, lease("10.5.11.0/24"), "{before}");
            delete(&mut admin, "subnets/10.5.11.0-24").await;
        }
    });
}

/// The key is left behind: others must not see a restart.
#[test]
fn section_1_9_the_end_of_an_agent_leaves_its_key() {
    scene(V4, async |_server, mut admin| {
        let mut other = Node::v4(2, "10.5.2.0/24").await;
        let node = Node::v4(1, "10.5.1.0/24").await;
        other.sees_peers(&["10.5.1.0-24"]).await;
        let events = other.now().events;
        drop(node);
        let node = Node::start(Options { ..options() }, me(1), None).await;
        let put = |view: &overlayd::directory::View| view.events > events;
        let view = other.sees("the one Put of a start", put).await;
        assert_eq!(view.peers.len(), 1);
        drop(node);
        assert_eq!(leases(&mut admin).await, ["10.5.1.0-24", "10.5.2.0-24"]);
    });
}
