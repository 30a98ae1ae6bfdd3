//! Section 1.5, pain 10: holding the lease.

use std::time::Duration;

use etcd_client::Client;
use overlayd::directory::etcd::Options;

use crate::node::*;
use crate::server::*;

const NAME: &str = "10.5.1.0-24";
const KEY: &str = "subnets/10.5.1.0-24";

async fn until_ours(admin: &mut Client) {
    until("our key", async || {
        let kv = get(admin, KEY).await;
        kv.is_some_and(|kv| kv.value_str().unwrap() == value(1) && kv.lease() != 0)
    })
    .await;
}

#[test]
fn item_5_own_key_deleted_is_made_again_in_place() {
    scene(V4, async |_server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        let mut other = Node::v4(2, "10.5.2.0/24").await;
        node.sees_peers(&["10.5.2.0-24"]).await;
        other.sees_peers(&[NAME]).await;
        for _ in 0..3 {
            delete(&mut admin, KEY).await;
            until_ours(&mut admin).await;
        }
        other.sees_peers(&[NAME]).await;
        // Also when its etcd lease ends, and the key with it.
        let kv = get(&mut admin, KEY).await.unwrap();
        admin.lease_revoke(kv.lease()).await.unwrap();
        until_ours(&mut admin).await;
        let again = get(&mut admin, KEY).await.unwrap();
        assert_ne!(again.lease(), kv.lease());
        assert!(node.runs() && node.now().lost.is_none());
    });
}

#[test]
fn section_1_9_the_lease_lives_as_long_as_its_node_without_a_put() {
    scene(V4, async |_server, mut admin| {
        let ttl = Duration::from_secs(5);
        let short = Options { ttl, ..options() };
        let mut node = Node::start(short.clone(), me(1), Some(lease("10.5.1.0/24"))).await;
        node.sees_peers(&[]).await;
        let mut gone = Node::start(short, me(2), Some(lease("10.5.2.0/24"))).await;
        gone.sees_peers(&[NAME]).await;
        node.sees_peers(&["10.5.2.0-24"]).await;
        let before = get(&mut admin, KEY).await.unwrap();
        drop(gone);
        // The other's lease runs out, and so would ours.
        node.sees_peers(&[]).await;
        let after = get(&mut admin, KEY).await.unwrap();
        assert_eq!(after.mod_revision(), before.mod_revision());
    });
}

#[test]
fn section_1_5_a_lease_that_somebody_took_is_lost_not_stolen_back() {
    scene(V4, async |_server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&[]).await;
        put(&mut admin, KEY, value(9)).await;
        let view = node.sees("the loss", |view| view.lost.is_some()).await;
        let text = view.lost.as_ref().unwrap();
        assert!(
            text.contains("192.0.0.9") && text.contains("10.5.1.0/24"),
            "{text}"
        );
        assert!(
            view.peers.is_empty(),
            "our own key is no peer, whoever has it"
        );
        // Others are followed, nothing is written, not even when we have something to say.
        let mut changed = me(1);
        changed.v4.as_mut().unwrap().vtep = me(3).v4.unwrap().vtep;
        node.me.send_replace(changed);
        node.me.send_replace(me(1));
        put(&mut admin, "subnets/10.5.8.0-24", value(8)).await;
        node.sees("a peer", |view| view.peers.len() == 1).await;
        assert_eq!(
            get(&mut admin, KEY).await.unwrap().value_str().unwrap(),
            value(9)
        );
        // What is there may even be no lease.
        put(&mut admin, KEY, "junk").await;
        node.sees("junk", |view| {
            view.lost
                .as_ref()
                .is_some_and(|lost| lost.contains("cannot be read"))
        })
        .await;
        // It is free again: the same subnet.
        delete(&mut admin, KEY).await;
        until_ours(&mut admin).await;
        node.sees("the return", |view| view.lost.is_none()).await;
    });
}

/// Somebody takes the key in the moment in which we have something new to say. flanneld's Put is blind, and wins.
#[test]
fn section_1_5_a_write_compares_with_what_it_knows() {
    scene(V4, async |_server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&[]).await;
        // Which of the two news a node hears first is chance: some of the rounds are the race.
        for round in 0..16 {
            meanwhile(async |mut admin| {
                put(&mut admin, KEY, value(9)).await;
            });
            let mut changed = me(1);
            changed.v4.as_mut().unwrap().vtep = me(100 + round).v4.unwrap().vtep;
            node.me.send_replace(changed);
            node.sees("the loss", |view| view.lost.is_some()).await;
            let kv = get(&mut admin, KEY).await.unwrap();
            assert_eq!(kv.value_str().unwrap(), value(9), "round {round}");
            delete(&mut admin, KEY).await;
            node.sees("the return", |view| view.lost.is_none()).await;
        }
    });
}

/// Cut off for longer than a lease lives; meanwhile the subnet went to somebody else.
#[test]
fn section_1_5_after_a_long_partition_the_late_one_gives_way() {
    scene(V4, async |mut server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&[]).await;
        let kv = get(&mut admin, KEY).await.unwrap();
        server.kill();
        node.sees("away", |view| view.away.is_some()).await;
        let aside = Aside::start(&mut server).await;
        let mut quiet = aside.admin.clone();
        quiet.lease_revoke(kv.lease()).await.unwrap();
        put(&mut quiet, KEY, value(9)).await;
        compact(&mut quiet).await;
        aside.end(&mut server);
        node.sees("the loss", |view| {
            view.lost.is_some() && view.away.is_none()
        })
        .await;
        assert_eq!(
            get(&mut admin, KEY).await.unwrap().value_str().unwrap(),
            value(9)
        );
    });
}

/// The subnet was given away under another key; ours does not exist, and making it would give the subnet twice.
#[test]
fn a_subnet_that_went_to_another_key_is_not_taken_twice() {
    scene(V4, async |mut server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&[]).await;
        server.kill();
        node.sees("away", |view| view.away.is_some()).await;
        let aside = Aside::start(&mut server).await;
        let mut quiet = aside.admin.clone();
        delete(&mut quiet, KEY).await;
        let theirs = "subnets/10.5.1.0-24&fc00::-64";
        let value = r#"{"PublicIP":"192.0.0.9","PublicIPv6":"fd00::9"}"#;
        put(&mut quiet, theirs, value).await;
        aside.end(&mut server);
        let view = node.sees("the loss", |view| view.lost.is_some()).await;
        assert!(view.lost.as_ref().unwrap().contains("192.0.0.9"));
        assert!(get(&mut admin, KEY).await.is_none());
        delete(&mut admin, theirs).await;
        until_ours(&mut admin).await;
        node.sees("the return", |view| view.lost.is_none()).await;
    });
}

/// flanneld on our node, or somebody's hand: our address, other words.
#[test]
fn what_others_write_in_our_name_is_set_right_but_not_in_a_race() {
    scene(V4, async |_server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&[]).await;
        let version = get(&mut admin, KEY).await.unwrap().version();
        let clone = value(1).replace("02:04:00:00:00:01", "02:04:00:00:00:99");
        put(&mut admin, KEY, clone.as_str()).await;
        until("our word", async || {
            get(&mut admin, KEY).await.unwrap().value_str().unwrap() == value(1)
        })
        .await;
        assert!(node.now().lost.is_none());
        // Two agents with one address would do this for ever: ours is the slower one each time.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            put(&mut admin, KEY, clone.as_str()).await;
            until("our word", async || {
                get(&mut admin, KEY).await.unwrap().value_str().unwrap() == value(1)
            })
            .await;
        }
        let rounds = (get(&mut admin, KEY).await.unwrap().version() - version) / 2;
        assert!((2..=8).contains(&rounds), "{rounds} corrections");
    });
}

/// A restart that overlaps with the end of the one before.
#[test]
fn two_agents_of_one_address_say_the_same_and_are_quiet() {
    scene(V4, async |_server, mut admin| {
        let mut one = Node::v4(1, "10.5.1.0/24").await;
        one.sees_peers(&[]).await;
        let mut two = Node::v4(1, "10.5.1.0/24").await;
        two.sees_peers(&[]).await;
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        one.sees_peers(&["10.5.9.0-24"]).await;
        two.sees_peers(&["10.5.9.0-24"]).await;
        assert_eq!(get(&mut admin, KEY).await.unwrap().version(), 2);
    });
}
