//! Anything, in any order; in the end what a node sees is what etcd says.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use etcd_client::Client;
use fabric::Peer;
use fabric::lease::{Subnets, parse};
use overlayd::directory::View;

use crate::node::*;
use crate::server::*;

const OWN: &str = "10.5.1.0-24";

/// SplitMix64: the same steps again from the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u16::try_from((z ^ (z >> 31)) % sides).unwrap()
    }
}

/// What there is to see, by the keys themselves.
async fn truth(admin: &mut Client) -> (BTreeMap<String, Arc<Peer>>, usize) {
    let (mut peers, mut unreadable) = (BTreeMap::new(), 0);
    for kv in dump(admin, "subnets").await {
        let name = kv.key_str().unwrap().replace(&key("subnets/"), "");
        let subnets = Subnets::parse(&name).ok();
        let peer = subnets.and_then(|subnets| parse(&name, &subnets, kv.value()).ok());
        match peer {
            _ if name == OWN => {}
            Some(peer) => drop(peers.insert(name, Arc::new(peer))),
            None => unreadable += 1,
        }
    }
    (peers, unreadable)
}

#[test]
fn after_any_hundred_changes_a_node_sees_what_is_there() {
    scene(V4, async |mut server, mut admin| {
        let seed = RandomState::new().hash_one(0_u8);
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let mut node = Node::v4(1, "10.5.1.0/24").await;
        let mut aside: Option<Aside> = None;
        for _ in 0..120 {
            let mut admin = aside.as_ref().map_or(&admin, |aside| &aside.admin).clone();
            let some = format!("subnets/10.5.{}.0-24", 2 + dice.roll(12));
            match dice.roll(24) {
                0..10 => drop(put(&mut admin, &some, value(dice.roll(3000))).await),
                10..13 => drop(put(&mut admin, &some, "junk").await),
                13..18 => drop(admin.delete(key(&some), None).await.unwrap()),
                18 => drop(put(&mut admin, "subnets-stray", "{}").await),
                19 => drop(admin.delete(key("subnets-stray"), None).await.unwrap()),
                20 => drop(
                    admin
                        .delete(key(&format!("subnets/{OWN}")), None)
                        .await
                        .unwrap(),
                ),
                21 => compact(&mut admin).await,
                // Out of sight, and back.
                22 if aside.is_none() => {
                    server.kill();
                    aside = Some(Aside::start(&mut server).await);
                }
                22 => aside.take().unwrap().end(&mut server),
                _ => tokio::task::yield_now().await,
            }
            if aside.is_none() {
                // The administrator's own connection has to come back first.
                drop(crate::server::admin().await);
            }
        }
        if let Some(aside) = aside {
            aside.end(&mut server);
        }
        admin = crate::server::admin().await;
        until("our key", async || {
            get(&mut admin, &format!("subnets/{OWN}")).await.is_some()
        })
        .await;
        let (peers, unreadable) = truth(&mut admin).await;
        let same = |view: &View| view.peers == peers && view.skipped.len() == unreadable;
        let view = node.sees(&format!("{peers:#?}"), same).await;
        assert!(view.complete && view.away.is_none() && view.lost.is_none());
    });
}
