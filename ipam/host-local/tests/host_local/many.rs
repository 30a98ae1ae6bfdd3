//! Many processes of ours at once.
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Child;

use serde_json::json;

use crate::bed::{Bed, OURS, addresses};

fn start(bed: &Bed, verb: &str, id: &str) -> Child {
    let mut child = bed.call(OURS, verb, id).command().spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(bed.config().to_string().as_bytes())
        .unwrap();
    child
}

/// Exactly as many as there are addresses: each is given once, and the last comers are told.
#[test]
fn a_hundred_at_once_on_a_range_of_ninety() {
    let bed = Bed::new(json!({"subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.91"}));
    let children: Vec<_> = (0..100)
        .map(|n| start(&bed, "ADD", &format!("c{n}")))
        .collect();
    let mut given = BTreeSet::new();
    let mut refused = 0;
    for child in children {
        let out = child.wait_with_output().unwrap();
        let answer = serde_json::from_slice(&out.stdout).unwrap();
        if out.status.success() {
            assert!(given.insert(addresses(&answer).remove(0)));
        } else {
            refused += 1;
            assert_eq!(answer["code"], 11, "{answer}");
        }
    }
    assert_eq!((given.len(), refused), (90, 10));
    assert_eq!(
        bed.reservations().into_keys().collect::<BTreeSet<_>>(),
        given
    );
    let children: Vec<_> = (0..100)
        .map(|n| start(&bed, "DEL", &format!("c{n}")))
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(bed.reservations().is_empty());
    let index = fs::metadata(bed.dir().join(".podwire/index")).unwrap();
    assert!(index.len() > 0);
}

/// One attachment, twice at once: one of the two is refused, and one address is held.
#[test]
fn two_adds_of_one_attachment() {
    for _ in 0..20 {
        let bed = Bed::new(json!({"subnet": "10.1.2.0/24"}));
        let pair = [start(&bed, "ADD", "a"), start(&bed, "ADD", "a")];
        let won = pair
            .into_iter()
            .filter_map(|mut child| child.wait().unwrap().success().then_some(()))
            .count();
        assert_eq!((won, bed.reservations().len()), (1, 1));
    }
}
