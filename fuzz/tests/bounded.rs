//! The corpus, and a number of mutations of each of its entries, within the limits: one second of processor time and
//! 100 MiB for each. What cargo-fuzz does for hours, `make fuzz`, this does for seconds.
//!
//! `FUZZ_SEED` repeats a run, `FUZZ_MUTATIONS` makes it longer, `FUZZ_ONLY=config` is for one target.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

const LIMIT_BYTES: isize = 100 << 20;
const LIMIT: Duration = Duration::from_secs(1);
/// By the clock on the wall, with what else a machine may have to do beside.
const HANGS: Duration = Duration::from_secs(300);
const SEED: u64 = 0x706f_6477_6972_6531;

/// Counts what a thread has in use, and the most that it ever had. Less than nothing, if it frees what another made.
struct Counting;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn grown(bytes: usize) {
    let now = IN_USE.get() + bytes.cast_signed();
    IN_USE.set(now);
    MOST.set(MOST.get().max(now));
}

#[allow(unsafe_code)]
// SAFETY: it only counts; every block is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.set(IN_USE.get() - layout.size().cast_signed());
        // SAFETY: as the caller's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// xorshift64*: the same from the same seed, everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % n
    }

    fn of<'a, T: ?Sized>(&mut self, all: &'a [Box<T>]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What a mutation puts in: ends of ranges, and what other layers stumble over.
const PIECES: [&[u8]; 20] = [
    b"0",
    b"-1",
    b"4294967296",
    b"18446744073709551615",
    b"1e400",
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"../",
    b"/",
    b"\0",
    b"\xff\xfe",
    b"\\ud800",
    b"::ffff:10.0.0.1/120",
    b"0.0.0.0/0",
    b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\r\n",
    b"=",
];

/// One to four changes.
fn mutated(entry: &[u8], corpus: &[Box<[u8]>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = entry.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        let end = (at + 1 + chance.below(32)).min(bytes.len());
        match chance.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = chance.next().to_le_bytes()[0],
            2 => drop(bytes.drain(at.min(end)..end)),
            3 => {
                let part = bytes[at.min(end)..end].to_vec();
                let times = 1 + chance.below(64);
                bytes.splice(at..at, part.repeat(times));
            }
            4 => {
                let other = chance.of(corpus);
                let from = chance.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            5 => bytes.truncate(at),
            _ => {
                let piece = PIECES[chance.below(PIECES.len())];
                bytes.splice(at.min(end)..end, piece.iter().copied());
            }
        }
    }
    bytes
}

fn corpus(target: &str) -> Vec<Box<[u8]>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    let read = |file: &PathBuf| fs::read(file).unwrap().into_boxed_slice();
    files.iter().map(read).collect()
}

fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

fn number(name: &str, usual: u64) -> u64 {
    let text = std::env::var(name).ok();
    let value = text.map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")));
    value.unwrap_or(usual)
}

/// What is wrong with an input, if anything.
fn judged(name: &str, target: fuzz::Target, bytes: &[u8]) -> Result<(), String> {
    let (before, started) = (IN_USE.get(), worked());
    MOST.set(before);
    let outcome = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    let took = worked().saturating_sub(started);
    let most = MOST.get() - before;
    let shown = || format!("{name}: {:?}", String::from_utf8_lossy(bytes));
    match outcome {
        Err(_) => Err(format!("panicked: {}", shown())),
        Ok(()) if took > LIMIT => Err(format!("{took:?}: {}", shown())),
        Ok(()) if most > LIMIT_BYTES => Err(format!("{most} bytes in use: {}", shown())),
        Ok(()) => Ok(()),
    }
}

fn all() -> Vec<String> {
    let seed = number("FUZZ_SEED", SEED).max(1);
    let mutations = number("FUZZ_MUTATIONS", 60);
    let only = std::env::var("FUZZ_ONLY").unwrap_or_default();
    println!("FUZZ_SEED={seed} FUZZ_MUTATIONS={mutations}");
    let mut wrong = Vec::new();
    for (name, target) in fuzz::TARGETS
        .iter()
        .filter(|(name, _)| name.contains(&only))
    {
        let (corpus, mut chance) = (corpus(name), Chance(seed));
        let started = worked();
        let mut runs = 0;
        for entry in &corpus {
            let mut judge = |bytes: &[u8]| {
                runs += 1;
                wrong.extend(judged(name, *target, bytes).err());
            };
            judge(entry);
            for _ in 0..mutations {
                judge(&mutated(entry, &corpus, &mut chance));
            }
        }
        println!(
            "{name}: {runs} inputs, {:?}",
            worked().saturating_sub(started)
        );
    }
    wrong
}

#[test]
fn the_corpus_and_mutations_of_it() {
    let (sender, receiver) = channel();
    let worker = thread::spawn(move || sender.send(all()));
    // Its own limits are of processor time; one that sleeps for ever is caught here.
    let limit = HANGS * u32::try_from((number("FUZZ_MUTATIONS", 60) / 60).max(1)).unwrap();
    match receiver.recv_timeout(limit) {
        Ok(wrong) => assert!(wrong.is_empty(), "{} inputs: {wrong:#?}", wrong.len()),
        Err(RecvTimeoutError::Timeout) => panic!("no end after {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("{:?}", worker.join().map(drop)),
    }
}

/// Otherwise the test above could not fail.
#[test]
fn what_is_over_a_limit_is_noticed() {
    let run = |target: fuzz::Target| {
        let worker = thread::spawn(move || judged("planted", target, b"x"));
        worker.join().unwrap().unwrap_err()
    };
    let panics = run(|_| panic!("planted"));
    assert!(panics.starts_with("panicked"), "{panics}");
    let spins = run(|_| {
        let started = worked();
        while worked().saturating_sub(started) <= LIMIT {}
    });
    assert!(spins.contains("planted: \"x\""), "{spins}");
    let eats = run(|_| drop(vec![1_u8; LIMIT_BYTES.unsigned_abs() + 1]));
    assert!(eats.contains("bytes in use"), "{eats}");
}
