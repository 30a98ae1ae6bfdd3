use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn slot(owner: u64, address: u128) -> Slot {
    Slot {
        owner,
        address,
        file: owner ^ 7,
    }
}

fn memory(owners: u64, pages: u64) -> Index {
    Index::with_places(None, None, owners, pages).unwrap()
}

fn all(index: &Index) -> BTreeSet<(u64, u128)> {
    let mut all = BTreeSet::new();
    index
        .each_place(0, u64::MAX, |slot| {
            assert!(all.insert((slot.owner, slot.address)), "twice: {slot:?}");
            Ok(())
        })
        .unwrap();
    all
}

proptest! {
    /// Few home places and many owners per home: clusters, gaps and moves all happen.
    #[test]
    fn owners_table_is_a_multimap(ops in prop::collection::vec((any::<bool>(), 1u64..40, 0u128..6), 1..300)) {
        let mut index = memory(16, 64);
        let mut model: BTreeSet<(u64, u128)> = BTreeSet::new();
        for (add, owner, address) in ops {
            if add {
                if model.insert((owner, address)) {
                    index.make_room(None, 1).unwrap();
                    index.put(slot(owner, address), false).unwrap();
                }
            } else {
                model.remove(&(owner, address));
                index.take_out(owner, address, false).unwrap();
            }
            prop_assert_eq!(index.len(), model.len() as u64);
            let of_owner: BTreeSet<_> =
                index.owned_by(owner).unwrap().into_iter().map(|s| (s.owner, s.address)).collect();
            let wanted: BTreeSet<_> = model.iter().filter(|(o, _)| *o == owner).copied().collect();
            prop_assert_eq!(of_owner, wanted);
        }
        prop_assert_eq!(all(&index), model);
    }

    #[test]
    fn pages_are_a_bitmap(
        ops in prop::collection::vec((any::<bool>(), 0u128..9000), 1..200),
        base in prop::sample::select(vec![0u128, 0xffff_0a00_0000, 0xfd00 << 112, u128::MAX - 9000]),
        queries in prop::collection::vec((0u128..9000, 0u128..9000), 20),
    ) {
        let mut index = memory(64, 2);
        let (mut now, mut ever) = (BTreeSet::new(), BTreeSet::new());
        for (mark, n) in ops {
            if mark {
                index.make_room(None, 1).unwrap();
                prop_assert_eq!(index.mark(base + n).unwrap(), !ever.insert(n));
                now.insert(n);
            } else {
                index.unmark(base + n).unwrap();
                now.remove(&n);
            }
        }
        for (a, b) in queries {
            let (first, last) = (a.min(b), a.max(b));
            let wanted = (first..=last).find(|n| !now.contains(n)).map(|n| base + n);
            prop_assert_eq!(index.next_free(base + first, base + last).unwrap(), wanted);
        }
    }
}

#[test]
fn growth_keeps_everything() {
    let mut index = memory(1024, 64);
    let mut model = BTreeMap::new();
    for n in 0..20_000u64 {
        index.make_room(None, 1).unwrap();
        let owner = owner_hash(&n.to_le_bytes());
        index.put(slot(owner, n.into()), n % 10 == 0).unwrap();
        assert!(!index.mark(n.into()).unwrap());
        model.insert(owner, n);
    }
    assert_eq!((index.len(), index.legacy()), (20_000, 2_000));
    for (owner, n) in &model {
        assert_eq!(index.owned_by(*owner).unwrap(), [slot(*owner, (*n).into())]);
    }
    assert_eq!(index.next_free(5, 30_000).unwrap(), Some(20_000));
    assert_eq!(index.next_free(5, 19_999).unwrap(), None);
}

#[test]
fn a_header_survives_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let side = OwnedFd::from(File::open(dir.path()).unwrap());
    let boot = BootId([7; 16]);
    let mut index = Index::create(Some(&side), Some(boot), 3000).unwrap();
    assert!(Index::open(&side).is_none(), "not published yet");
    index.put(slot(1, 2), true).unwrap();
    index.publish(Some(&side)).unwrap();
    let stamp = Stamp {
        dev: 1,
        ino: 2,
        mtime_s: -3,
        mtime_ns: 999_999_999,
    };
    assert!(
        !Index::open(&side).unwrap().is_fresh(Some(boot), stamp),
        "not committed yet"
    );
    index.commit(stamp).unwrap();
    let mut again = Index::open(&side).unwrap();
    assert!(again.is_fresh(Some(boot), stamp));
    assert_eq!((again.len(), again.legacy()), (1, 1));
    assert!(!again.is_fresh(
        Some(boot),
        Stamp {
            mtime_ns: 0,
            ..stamp
        }
    ));
    assert!(!again.is_fresh(Some(BootId([8; 16])), stamp));
    assert!(!again.is_fresh(None, stamp));
    assert!(again.is_of_earlier_boot(Some(BootId([8; 16]))) && again.saw_everything(stamp));
    assert!(!again.is_of_earlier_boot(None) && !again.is_of_earlier_boot(Some(boot)));
    again.begin().unwrap();
    assert!(!Index::open(&side).unwrap().is_fresh(Some(boot), stamp));
    // A file cut short is no index, nor is another layout; one cut short under our hands is an error.
    again.commit(stamp).unwrap();
    again.file.set_len(5000).unwrap();
    assert!(Index::open(&side).is_none() && again.owned_by(700).is_err());
    again.file.write_all_at(b"pwindex0", 0).unwrap();
    assert!(Index::open(&side).is_none());
}

/// Arithmetic with what a torn head says would overflow, and a table of that size never end.
#[test]
fn an_impossible_head_is_none() {
    let index = memory(1024, 64);
    assert!(Head::read(&index.file).is_some());
    for word in 8..WORDS {
        for wrong in [u64::MAX, 1 << 63, 1 << 40] {
            let at = (word * 8) as u64;
            let mut right = [0; 8];
            index.file.read_exact_at(&mut right, at).unwrap();
            index.file.write_all_at(&wrong.to_le_bytes(), at).unwrap();
            assert!(Head::read(&index.file).is_none(), "word {word}: {wrong}");
            index.file.write_all_at(&right, at).unwrap();
        }
    }
    index.file.set_len(HEAD_BYTES).unwrap();
    assert!(Head::read(&index.file).is_none(), "cut off");
}
