//! The fault matrix, every cell: {ADD goes wrong at plugin i} x {DEL goes wrong at plugin j} x {namespace there, gone} x
//! {with prevResult, without} x {cache entry kept, gone, empty, torn}. After one retry of DEL nothing is left.

use std::fs;
use std::time::Duration;

use libcni::runtime::Attach;
use testkit::{Pod, eventually, in_netns};

use crate::bench::{Bench, CHAIN};

/// How a plugin goes wrong, see `gate.sh`.
const HOW: [&str; 2] = ["refuse", "killed"];
/// A version whose DEL has a prevResult, and one from before.
const VERSIONS: [&str; 2] = ["1.1.0", "0.3.1"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    None,
    Gone,
    Empty,
    Torn,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Place in the chain, and how.
    add: Option<(usize, &'static str)>,
    del: Option<(usize, &'static str)>,
    netns_gone: bool,
    version: &'static str,
    damage: Damage,
}

#[test]
fn with_the_namespace_there() {
    in_netns(|| assert_eq!(all(false), 7 * 7 * 2 * 4));
}

#[test]
fn with_the_namespace_gone() {
    in_netns(|| assert_eq!(all(true), 7 * 7 * 2 * 4));
}

fn all(netns_gone: bool) -> usize {
    let bench = Bench::new();
    let mut faults = vec![None];
    faults.extend((0..CHAIN.len()).flat_map(|i| HOW.map(|how| Some((i, how)))));
    let mut done = 0;
    for add in &faults {
        for del in &faults {
            for version in VERSIONS {
                for damage in [Damage::None, Damage::Gone, Damage::Empty, Damage::Torn] {
                    let cell = Cell {
                        add: *add,
                        del: *del,
                        netns_gone,
                        version,
                        damage,
                    };
                    cell.run(&bench, &format!("c{done}"));
                    done += 1;
                }
            }
        }
    }
    done
}

impl Cell {
    fn run(&self, bench: &Bench, id: &str) {
        let list = bench.list(self.version);
        let pod = Pod::new(id);
        let at = Attach::new(id, pod.netns(), "eth0");
        for (verb, fault) in [("ADD", self.add), ("DEL", self.del)] {
            if let Some((i, how)) = fault {
                bench.fault(&format!("{verb}-{how}-{}", CHAIN[i]));
            }
        }

        let added = bench.runtime.add(&list, &at);
        let mut want: Vec<String> = CHAIN.map(|plugin| format!("ADD {plugin}")).to_vec();
        // The plugins whose DEL is to come, once ADD is over.
        let mut to_delete = CHAIN.len();
        let mut fault = self.del.map(|(j, _)| j);
        if let Some((i, how)) = self.add {
            let error = added.unwrap_err();
            assert_eq!(error.plugin(), Some(CHAIN[i]), "{self:?}: {error}");
            let words = if how == "refuse" {
                "refused; by the gate"
            } else {
                "SIGKILL"
            };
            assert!(error.to_string().contains(words), "{self:?}: {error}");
            want.truncate(i + 1);
            let halted = undone(&mut want, i + 1, fault);
            let also = error.failure().unwrap().also.first();
            let left = also.map_or(Vec::new(), |e| e.failure().unwrap().left.clone());
            assert_eq!(left, down_from(halted.unwrap_or(0)), "{self:?}: {error}");
            let recorded = bench.runtime.pending().unwrap().len();
            assert_eq!(recorded, usize::from(halted.is_some()), "{self:?}");
            if let Some(left) = halted {
                (to_delete, fault) = (left, None);
            }
        } else {
            added.unwrap_or_else(|e| panic!("{self:?}: {e}"));
        }
        assert_eq!(bench.calls(), want, "{self:?}");

        if self.netns_gone {
            drop(pod);
        }
        self.damage(bench, id);

        want.clear();
        let deleted = bench.runtime.del(&list, &at);
        let left = if let Some(j) = fault {
            let error = deleted.unwrap_err();
            assert_eq!(error.plugin(), Some(CHAIN[j]), "{self:?}: {error}");
            assert_eq!(error.failure().unwrap().left, down_from(j + 1), "{self:?}");
            let recorded = &bench.runtime.pending().unwrap()[0];
            assert_eq!(recorded.left, down_from(j + 1), "{self:?}");
            undone(&mut want, to_delete, fault);
            j + 1
        } else {
            deleted.unwrap_or_else(|e| panic!("{self:?}: {e}"));
            undone(&mut want, to_delete, None);
            CHAIN.len()
        };
        assert_eq!(bench.calls(), want, "{self:?}");

        // The retry, or, if there was nothing to retry, a DEL of what is gone.
        bench
            .runtime
            .del(&list, &at)
            .unwrap_or_else(|e| panic!("{self:?}: {e}"));
        let again: Vec<String> = down_from(left).iter().map(|p| format!("DEL {p}")).collect();
        assert_eq!(bench.calls(), again, "{self:?}");
        let mut left_over = Vec::new();
        // A dead namespace takes its veths along in the kernel's own time.
        let clean = || {
            left_over = bench.left_over();
            left_over.is_empty()
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(Duration::from_secs(60), clean);
        }));
        assert!(outcome.is_ok(), "{self:?} left {left_over:#?}");
    }

    fn damage(&self, bench: &Bench, id: &str) {
        let file = bench.cached(id);
        let whole = fs::read(&file).unwrap_or_else(|_| br#"{"kind":"cniCacheV1"}"#.to_vec());
        match self.damage {
            Damage::None => {}
            Damage::Gone => drop(fs::remove_file(&file)),
            Damage::Empty => fs::write(&file, "").unwrap(),
            Damage::Torn => fs::write(&file, &whole[..whole.len() / 2]).unwrap(),
        }
    }
}

/// Adds the calls of a DEL of the first `left` plugins: how many are left if it halts at `fault`.
fn undone(calls: &mut Vec<String>, left: usize, fault: Option<usize>) -> Option<usize> {
    for (i, plugin) in CHAIN.iter().enumerate().take(left).rev() {
        calls.push(format!("DEL {plugin}"));
        if fault == Some(i) {
            return Some(i + 1);
        }
    }
    None
}

fn down_from(left: usize) -> Vec<String> {
    CHAIN
        .iter()
        .take(left)
        .rev()
        .map(|plugin| (*plugin).to_owned())
        .collect()
}
