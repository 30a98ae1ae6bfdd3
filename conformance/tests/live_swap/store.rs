//! One reservation directory under both at once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Child;

use serde_json::{Value, json};
use testkit::in_netns;

use super::{Side, ours, store, theirs};

/// Calls under way at the same time.
struct Burst(Vec<(String, Child)>);

impl Burst {
    fn start(calls: impl IntoIterator<Item = (Side, &'static str, String)>, conf: &Value) -> Burst {
        let started = calls.into_iter().map(|(side, verb, id)| {
            let call = side.call(verb, &id, "/run/netns/none", conf);
            let mut child = call.command().spawn().unwrap();
            let text = conf.to_string();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            (id, child)
        });
        Burst(started.collect())
    }

    /// All succeeded. Addresses by container.
    #[track_caller]
    fn results(self) -> BTreeMap<String, Vec<String>> {
        let mut results = BTreeMap::new();
        for (id, child) in self.0 {
            let output = child.wait_with_output().unwrap();
            let stdout = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{id}: {stdout}");
            let result: Value = serde_json::from_str(&stdout).unwrap_or_default();
            let none = Vec::new();
            let ips = result["ips"].as_array().unwrap_or(&none).iter();
            let bare = |ip: &Value| {
                ip["address"]
                    .as_str()
                    .unwrap()
                    .split('/')
                    .next()
                    .unwrap()
                    .to_owned()
            };
            results.insert(id, ips.map(bare).collect());
        }
        results
    }
}

/// The store holds exactly these.
#[track_caller]
fn store_is(living: &BTreeMap<String, Vec<String>>) {
    let wanted: BTreeMap<String, String> = living
        .iter()
        .flat_map(|(id, ips)| {
            ips.iter()
                .map(move |ip| (ip.clone(), format!("{id}\r\neth0")))
        })
        .collect();
    let count: usize = living.values().map(Vec::len).sum();
    assert_eq!(count, wanted.len(), "an address was given twice");
    assert_eq!(store(), wanted);
}

/// 2 x 40 processes at a time. The IPv4 range has room for just as many as may be there at once, so that a lost
/// address shows as an exhausted pool.
#[test]
fn one_store_is_shared_by_both_at_once() {
    const EACH: usize = 40;
    in_netns(|| {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "swap", "type": "host-local",
            "ipam": {"type": "host-local", "ranges": [
                [{"subnet": "10.44.0.0/24", "rangeStart": "10.44.0.10", "rangeEnd": "10.44.0.129"}],
                [{"subnet": "fd00:44::/64"}],
            ]},
        });
        let sides = [ours(), theirs()];
        for round in 0..3 {
            let all = |kind: &'static str| {
                (0..EACH).flat_map(move |n| {
                    [0, 1].map(|side| (side, format!("{kind}-{round}-{side}-{n}")))
                })
            };
            let adds = |kind| all(kind).map(|(side, id)| (sides[side].clone(), "ADD", id));
            let mut living = Burst::start(adds("first"), &conf).results();
            assert_eq!(living.len(), 2 * EACH);
            store_is(&living);

            // Half go, by the one that did not add them, and as many come.
            let go = |(_, id): &(usize, String)| id.ends_with(['0', '2', '4', '6', '8']);
            let dels = all("first")
                .filter(go)
                .map(|(side, id)| (sides[1 - side].clone(), "DEL", id));
            let comes = adds("second").filter(|(.., id)| id.ends_with(['1', '3', '5', '7', '9']));
            let dels = dels.collect::<Vec<_>>();
            let gone: BTreeSet<String> = dels.iter().map(|(.., id)| id.clone()).collect();
            let mixed = dels.into_iter().zip(comes).flat_map(|(d, c)| [d, c]);
            let came = Burst::start(mixed, &conf).results();
            living.retain(|id, _| !gone.contains(id));
            living.extend(came.into_iter().filter(|(id, _)| !gone.contains(id)));
            assert_eq!(living.len(), 2 * EACH);
            store_is(&living);

            let checks = living
                .keys()
                .enumerate()
                .map(|(n, id)| (sides[n % 2].clone(), "CHECK", id.clone()));
            let mut with_result = conf.clone();
            with_result["prevResult"] = json!({"cniVersion": "1.0.0"});
            Burst::start(checks, &with_result).results();
            let dels = living
                .keys()
                .enumerate()
                .map(|(n, id)| (sides[n % 2].clone(), "DEL", id.clone()));
            Burst::start(dels, &conf).results();
            assert_eq!(store(), BTreeMap::new());
        }
    });
}
