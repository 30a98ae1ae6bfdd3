//! Section 1.7: how others are followed, and flanneld's defects that are not here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{PutOptions, WatchOptions};
use fabric::{Kind, Peer};
use overlayd::directory::View;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::*;
use crate::server::*;

fn mac(view: &View, name: &str) -> String {
    let vtep = view.peers.get(name).and_then(|peer| peer.v4?.vtep);
    vtep.map(|vtep| vtep.mac.to_string()).unwrap_or_default()
}

#[test]
fn peers_come_change_and_go() {
    scene(V4, async |_server, mut admin| {
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        let view = node.sees_peers(&["10.5.9.0-24"]).await;
        let expected = me(9).peer("10.5.9.0-24", &lease("10.5.9.0/24"));
        assert_eq!(*view.peers["10.5.9.0-24"], expected);
        assert!(view.heard.is_some() && view.skipped.is_empty() && view.lost.is_none());
        put(&mut admin, "subnets/10.5.8.0-24", value(8)).await;
        let both = node.sees_peers(&["10.5.8.0-24", "10.5.9.0-24"]).await;
        // Who did not change is the same value.
        assert!(Arc::ptr_eq(
            &view.peers["10.5.9.0-24"],
            &both.peers["10.5.9.0-24"]
        ));
        put(&mut admin, "subnets/10.5.9.0-24", value(10)).await;
        node.sees("a new MAC", |view| {
            mac(view, "10.5.9.0-24") == "02:04:00:00:00:0a"
        })
        .await;
        delete(&mut admin, "subnets/10.5.9.0-24").await;
        node.sees_peers(&["10.5.8.0-24"]).await;
    });
}

#[test]
fn peers_of_two_families_and_of_other_kinds() {
    scene(DUAL, async |_server, mut admin| {
        let mut a = Node::start(options(), me_dual(1), None).await;
        let b = Node::start(options(), me_dual(2), None).await;
        let seen = a.sees("the other", |view| view.peers.len() == 1).await;
        let (name, peer) = seen.peers.iter().next().unwrap();
        assert_eq!(**peer, me_dual(2).peer(name, &b.lease));
        put(
            &mut admin,
            "subnets/10.5.9.0-24",
            r#"{"PublicIP":"192.0.2.9","BackendType":"host-gw"}"#,
        )
        .await;
        put(
            &mut admin,
            "subnets/10.5.8.0-24",
            r#"{"publicip":"192.0.2.8","x":1}"#,
        )
        .await;
        let seen = a.sees("all", |view| view.peers.len() == 3).await;
        assert_eq!(seen.peers["10.5.9.0-24"].kind, Kind::HostGw);
        assert_eq!(seen.peers["10.5.8.0-24"].kind, Kind::Other(String::new()));
    });
}

#[test]
fn item_5_a_key_without_lease_is_a_peer_and_one_that_expires_is_none() {
    scene(V4, async |_server, mut admin| {
        let day = admin.lease_grant(86_400, None).await.unwrap().id();
        let leased = Some(PutOptions::new().with_lease(day));
        admin
            .put(key("subnets/10.5.9.0-24"), value(9), leased)
            .await
            .unwrap();
        put(&mut admin, "subnets/10.5.8.0-24", value(8)).await;
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&["10.5.8.0-24", "10.5.9.0-24"]).await;
        admin.lease_revoke(day).await.unwrap();
        node.sees_peers(&["10.5.8.0-24"]).await;
    });
}

#[test]
fn defect_d1_one_bad_event_takes_nobody_away() {
    scene(V4, async |_server, mut admin| {
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&["10.5.9.0-24"]).await;
        for (rest, bad) in [
            ("subnets/10.5.8.0-24", "no JSON"),
            ("subnets/stray", "{}"),
            ("subnets-stray", "{}"),
        ] {
            put(&mut admin, rest, bad).await;
        }
        let view = node
            .sees("what is skipped", |view| view.skipped.len() == 3)
            .await;
        assert_eq!(view.peers.len(), 1);
        // The bad ones go as they came, and one that becomes good is a peer.
        delete(&mut admin, "subnets/stray").await;
        delete(&mut admin, "subnets-stray").await;
        put(&mut admin, "subnets/10.5.8.0-24", value(8)).await;
        let view = node.sees_peers(&["10.5.8.0-24", "10.5.9.0-24"]).await;
        assert!(view.skipped.is_empty(), "{:?}", view.skipped);
        // A good one that becomes bad is none.
        put(&mut admin, "subnets/10.5.8.0-24", "{}").await;
        node.sees_peers(&["10.5.9.0-24"]).await;
    });
}

#[test]
fn item_5_defect_d2_d3_compaction_in_a_gap_shows_changed_attributes_and_never_ourselves() {
    scene(V4, async |mut server, mut admin| {
        for n in 7..=9 {
            put(&mut admin, &format!("subnets/10.5.{n}.0-24"), value(n)).await;
        }
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        let all = ["10.5.7.0-24", "10.5.8.0-24", "10.5.9.0-24"];
        let before = node.sees_peers(&all).await;
        for round in 0..2_u16 {
            server.kill();
            node.sees("away", |view| view.away.is_some()).await;
            // Nobody answers on the usual port while things happen.
            let aside = Aside::start(&mut server).await;
            let mut quiet = aside.admin.clone();
            put(&mut quiet, "subnets/10.5.9.0-24", value(100 + round)).await;
            delete(&mut quiet, "subnets/10.5.7.0-24").await;
            put(&mut quiet, "subnets/10.5.7.0-24", value(7)).await;
            put(
                &mut quiet,
                &format!("subnets/10.5.{}.0-24", 20 + round),
                value(20),
            )
            .await;
            compact(&mut quiet).await;
            aside.end(&mut server);
            let changed = format!("02:04:00:00:00:{:02x}", 100 + round);
            let view = node
                .sees("the new MAC", |view| mac(view, "10.5.9.0-24") == changed)
                .await;
            assert_eq!(view.peers.len(), 4 + usize::from(round));
            assert!(!view.peers.contains_key("10.5.1.0-24"));
            assert!(Arc::ptr_eq(
                &view.peers["10.5.8.0-24"],
                &before.peers["10.5.8.0-24"]
            ));
        }
        assert!(node.runs());
    });
}

#[test]
fn defect_d3_many_resyncs_write_nothing_of_our_own() {
    scene(V4, async |mut server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        node.sees_peers(&[]).await;
        let before = get(&mut admin, "subnets/10.5.1.0-24").await.unwrap();
        for n in 2..4 {
            server.kill();
            node.sees("away", |view| view.away.is_some()).await;
            let aside = Aside::start(&mut server).await;
            let mut quiet = aside.admin.clone();
            put(&mut quiet, &format!("subnets/10.5.{n}.0-24"), value(n)).await;
            compact(&mut quiet).await;
            aside.end(&mut server);
            let peers = usize::from(n) - 1;
            node.sees("another peer", |view| view.peers.len() == peers)
                .await;
        }
        let after = get(&mut admin, "subnets/10.5.1.0-24").await.unwrap();
        assert_eq!(after.mod_revision(), before.mod_revision());
    });
}

/// flanneld asks for the TTL of every key, at the start and at every event.
#[test]
fn section_10_1_no_request_per_peer() {
    scene(V4, async |_server, mut admin| {
        let keys: Vec<_> = (1..=250)
            .map(|n| (format!("subnets/10.5.{n}.0-24"), value(n)))
            .collect();
        put_all(&mut admin, &keys).await;
        let before = requests().await;
        let mut node = Node::v4(300, "10.5.251.0/24").await;
        node.sees("all", |view| view.peers.len() == 250).await;
        put_all(&mut admin, &keys).await;
        node.sees("all again", |view| view.events >= 250).await;
        let ours = requests().await - before - 3.0;
        assert!(ours < 20.0, "{ours} requests");
    });
}

/// Requests that etcd has answered since its start.
async fn requests() -> f64 {
    let mut etcd = tokio::net::TcpStream::connect("127.0.0.1:2379")
        .await
        .unwrap();
    etcd.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    etcd.read_to_string(&mut text).await.unwrap();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("grpc_server_handled_total") && line.contains("unary"));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[test]
fn five_thousand_peers_are_one_view_and_one_change_is_there_at_once() {
    let text = r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}"#;
    scene(text, async |_server, mut admin| {
        let name = |n: u16| {
            let [high, low] = n.to_be_bytes();
            format!("10.{high}.{low}.0-24")
        };
        let entry = |n: u16| (format!("subnets/{}", name(n)), value(n));
        let keys: Vec<_> = (1..=5000).map(entry).collect();
        put_all(&mut admin, &keys).await;
        let begun = Instant::now();
        let mut node = Node::start(options(), me(6000), None).await;
        node.sees("all", |view| view.peers.len() == 5000).await;
        let start = begun.elapsed();
        // The same watch at the same time by a client that does nothing else tells what etcd itself takes.
        let plain = WatchOptions::new().with_prefix();
        let mut plain = admin.watch(key("subnets"), Some(plain)).await.unwrap();
        plain.message().await.unwrap();
        let (mut times, mut whole) = (Vec::new(), Duration::ZERO);
        for round in 0..50_u16 {
            let changed = name(100 * round + 1);
            let begun = Instant::now();
            let spoken = admin.put(
                key(&format!("subnets/{changed}")),
                value(7000 + round),
                None,
            );
            let (_, heard) = tokio::join!(spoken, plain.message());
            assert_eq!(heard.unwrap().unwrap().events().len(), 1);
            let heard = Instant::now();
            let new = format!(
                "02:04:00:00:{:02x}:{:02x}",
                (7000 + round) >> 8,
                (7000 + round) & 255
            );
            node.sees("the change", |view| mac(view, &changed) == new)
                .await;
            times.push(heard.elapsed());
            whole += begun.elapsed();
        }
        times.sort();
        println!(
            "5,000 peers: lease and list {start:?}; one change {:?} behind etcd's word, worst {:?}",
            times[25], times[49]
        );
        assert!(times[25].as_millis() < 10, "{times:?}");
        // A storm is a few views.
        let end = node.now().events + 1000;
        meanwhile(async |mut admin| {
            for n in 0..1000 {
                let (rest, value) = (format!("subnets/{}", name(n % 100 + 1)), value(n));
                put(&mut admin, &rest, value).await;
            }
        });
        let (begun, mut views) = (Instant::now(), 0);
        while node.view.borrow_and_update().events < end {
            node.view.changed().await.unwrap();
            views += 1;
        }
        let took = begun.elapsed();
        println!("1,000 changes at once: {views} views, {took:?}; fifty alone {whole:?}");
        assert!(views < 100, "{views} views");
        // Alone, one by one, they would take twenty times as long as those fifty.
        assert!(took < whole * 20 / 4, "{took:?}, fifty alone {whole:?}");
        assert_eq!(node.now().peers.len(), 5000);
    });
}

#[test]
fn what_we_are_is_published_anew_when_it_changes() {
    scene(V4, async |_server, mut admin| {
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        let mut other = Node::v4(2, "10.5.2.0/24").await;
        other.sees_peers(&["10.5.1.0-24"]).await;
        node.sees_peers(&["10.5.2.0-24"]).await;
        let before = get(&mut admin, "subnets/10.5.1.0-24").await.unwrap();
        let mut changed = me(1);
        changed.v4 = me(77).v4;
        node.me.send_replace(changed.clone());
        let view = other
            .sees("the new MAC", |view| {
                mac(view, "10.5.1.0-24") == "02:04:00:00:00:4d"
            })
            .await;
        let expected: Peer = changed.peer("10.5.1.0-24", &lease("10.5.1.0/24"));
        assert_eq!(*view.peers["10.5.1.0-24"], expected);
        let after = get(&mut admin, "subnets/10.5.1.0-24").await.unwrap();
        assert_eq!(after.lease(), before.lease());
        // The same once more is nothing.
        node.me.send_replace(changed);
        put(&mut admin, "subnets/10.5.9.0-24", value(9)).await;
        node.sees_peers(&["10.5.2.0-24", "10.5.9.0-24"]).await;
        let same = get(&mut admin, "subnets/10.5.1.0-24").await.unwrap();
        assert_eq!(same.mod_revision(), after.mod_revision());
    });
}
