//! etcd is away, for a moment or for long; what was known stays.

use std::time::{Duration, Instant};

use overlayd::directory::etcd::{Etcd, Options};

use crate::node::*;
use crate::server::*;

#[test]
fn partition_etcd_killed_and_restarted_on_the_same_data() {
    scene(V4, async |mut server, mut admin| {
        let mut a = Node::v4(1, "10.5.1.0/24").await;
        let mut b = Node::v4(2, "10.5.2.0/24").await;
        a.sees_peers(&["10.5.2.0-24"]).await;
        b.sees_peers(&["10.5.1.0-24"]).await;
        server.kill();
        let begun = Instant::now();
        let refused = |why: &String| why.contains("refused") && why.contains("127.0.0.1:2379");
        let view = a
            .sees("away", |view| view.away.as_ref().is_some_and(refused))
            .await;
        // Before anybody asks whether it lives: the connection's end is enough.
        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(view.peers.len(), 1);
        server.revive();
        let view = a.sees_peers(&["10.5.2.0-24"]).await;
        // Nothing was read anew, nothing written.
        assert_eq!(view.events, 1);
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        a.sees_peers(&["10.5.2.0-24", "10.5.9.0-24"]).await;
        b.sees_peers(&["10.5.1.0-24", "10.5.9.0-24"]).await;
    });
}

#[test]
fn changes_while_away_are_seen_in_their_order_afterwards() {
    scene(V4, async |mut server, mut admin| {
        for n in 8..=9 {
            put(&mut admin, &format!("subnets/10.5.{n}.0-24"), value(n)).await;
        }
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&["10.5.8.0-24", "10.5.9.0-24"]).await;
        server.kill();
        node.sees("away", |view| view.away.is_some()).await;
        let aside = Aside::start(&mut server).await;
        let mut quiet = aside.admin.clone();
        put(&mut quiet, "subnets/10.5.7.0-24", value(7)).await;
        delete(&mut quiet, "subnets/10.5.8.0-24").await;
        aside.end(&mut server);
        let view = node.sees_peers(&["10.5.7.0-24", "10.5.9.0-24"]).await;
        assert_eq!(view.events, 2);
    });
}

/// No answer and no refusal: the network itself is down. A member that is silent is noticed, too.
#[test]
fn a_silent_partition_is_noticed_and_survived() {
    scene(V4, async |_server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&[]).await;
        testkit::sh("ip link set lo down");
        let begun = Instant::now();
        node.sees("away", |view| view.away.is_some()).await;
        assert!(
            begun.elapsed() < Duration::from_secs(12),
            "{:?}",
            begun.elapsed()
        );
        testkit::sh("ip link set lo up");
        node.sees_peers(&[]).await;
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        node.sees_peers(&["10.5.9.0-24"]).await;
    });
}

/// A start from what was remembered, before etcd can be reached.
#[test]
fn a_start_without_etcd_waits_and_then_makes_the_key() {
    testkit::in_netns(|| {
        block_on(async {
            let mut node = Node::run(etcd(), conf(V4), me(1), lease("10.5.1.0/24"));
            let view = node.sees("away", |view| view.away.is_some()).await;
            assert!(!view.complete && view.peers.is_empty());
            let _server = Server::start("http", &[]);
            let mut admin = admin().await;
            node.sees_peers(&[]).await;
            until("the key", async || {
                leases(&mut admin).await == ["10.5.1.0-24"]
            })
            .await;
            let kv = get(&mut admin, "subnets/10.5.1.0-24").await.unwrap();
            assert_eq!(kv.value_str().unwrap(), value(1));
            assert_ne!(kv.lease(), 0);
        });
    });
}

/// A new etcd, or one with an old backup, counts from an earlier revision; a watch from a later one would be silent.
#[test]
fn another_history_is_noticed() {
    scene(V4, async |mut server, mut admin| {
        for n in 7..=9 {
            put(&mut admin, &format!("subnets/10.5.{n}.0-24"), value(n)).await;
        }
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees("all", |view| view.peers.len() == 3).await;
        server.wipe();
        server.revive();
        node.sees_peers(&[]).await;
        until("the key", async || {
            leases(&mut admin).await == ["10.5.1.0-24"]
        })
        .await;
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        node.sees_peers(&["10.5.9.0-24"]).await;
    });
}

#[test]
fn one_of_several_members_is_enough() {
    scene(V4, async |mut server, mut admin| {
        let endpoints = vec![
            "http://127.0.0.1:1".into(),
            "http://localhost.invalid:2379".into(),
            "127.0.0.1:2379/".into(),
        ];
        let options = Options {
            endpoints,
            ..options()
        };
        let mut node = Node::start(options, me(1), Some(lease("10.5.1.0/24"))).await;
        node.sees_peers(&[]).await;
        server.kill();
        node.sees("away", |view| view.away.is_some()).await;
        server.revive();
        node.sees_peers(&[]).await;
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        node.sees_peers(&["10.5.9.0-24"]).await;
    });
}

#[test]
fn endpoints_that_make_no_sense_are_refused_at_once() {
    for endpoints in [
        vec![],
        vec![""],
        vec!["ftp://a"],
        vec!["http://"],
        vec!["http://a b"],
    ] {
        let endpoints: Vec<String> = endpoints.into_iter().map(str::to_owned).collect();
        let options = Options {
            endpoints: endpoints.clone(),
            ..options()
        };
        let error = Etcd::open(options).unwrap_err().to_string();
        assert!(
            error.contains("http://127.0.0.1:2379"),
            "{endpoints:?}: {error}"
        );
    }
}

/// One of three members, after two: it answers, but nothing it says can be relied on.
#[test]
fn a_member_without_leader_is_as_good_as_none() {
    testkit::in_netns(|| {
        let member = |name: &str| {
            let (client, peer) = (
                format!("http://127.0.0.1:100{name}"),
                format!("http://127.0.0.1:200{name}"),
            );
            let cluster = (1..=3).map(|n| format!("{n}=http://127.0.0.1:200{n}"));
            let cluster = cluster.collect::<Vec<_>>().join(",");
            let dir = format!("/run/etcd-{name}");
            let args = [
                ["--name", name],
                ["--data-dir", &dir],
                ["--listen-client-urls", &client],
                ["--advertise-client-urls", &client],
                ["--listen-peer-urls", &peer],
                ["--initial-advertise-peer-urls", &peer],
                ["--initial-cluster", &cluster],
                // Of each other they hear late where they share a processor; none is to be elected for that.
                ["--heartbeat-interval", "100"],
                ["--election-timeout", "1000"],
            ];
            Server::start("http", args.as_flattened())
        };
        block_on(async {
            let mut members = ["1", "2", "3"].map(member);
            let url = "http://127.0.0.1:1001";
            let admin = admin_at(url).await;
            // Which of them leads may change once more.
            let put = async |rest: &str, value: &str| {
                until(rest, async || {
                    let mut admin = admin.clone();
                    admin.put(key(rest), value, None).await.is_ok()
                })
                .await
            };
            put("config", V4).await;
            put("subnets/10.5.9.0-24", &value(9)).await;
            let options = Options {
                endpoints: vec![url.into()],
                ..options()
            };
            let mut node = Node::start(options, me(1), Some(lease("10.5.1.0/24"))).await;
            node.sees_peers(&["10.5.9.0-24"]).await;
            for member in &mut members[1..] {
                member.kill();
            }
            let view = node.sees("away", |view| view.away.is_some()).await;
            assert_eq!(view.peers.len(), 1);
            members[1].revive();
            node.sees_peers(&["10.5.9.0-24"]).await;
            put("subnets/10.5.8.0-24", &value(8)).await;
            node.sees_peers(&["10.5.8.0-24", "10.5.9.0-24"]).await;
        });
    });
}
