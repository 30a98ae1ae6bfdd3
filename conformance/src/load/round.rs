//! All pods come, all pods go.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::network::Network;
use crate::node;
use crate::suite::exec::{self, End};

/// A call that takes longer is stopped, and has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// So many failures are told in words.
const TOLD: usize = 5;

/// What became of one verb's calls.
#[derive(Debug, Default, Clone)]
pub(super) struct Calls {
    /// Of the ones that went well, in milliseconds.
    pub(super) times_ms: Vec<f64>,
    /// How many did not.
    pub(super) failed: usize,
    /// What the first of them said.
    pub(super) why: Vec<String>,
    /// From the first to the last.
    pub(super) took: Duration,
}

/// What became of a round, or of several.
#[derive(Debug, Default, Clone)]
pub(super) struct Round {
    pub(super) add: Calls,
    pub(super) del: Calls,
    /// Addresses that two pods had at the same time, and which.
    pub(super) twice: Vec<String>,
}

/// What is the same for all its calls.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) network: &'a Network,
    pub(super) pods: &'a [String],
    pub(super) parallel: usize,
}

// === impl Job ===

impl Job<'_> {
    /// On the node that the calling thread is in.
    pub(super) fn run(&self) -> Result<Round> {
        let mut round = Round::default();
        let results: Vec<Mutex<Option<Value>>> =
            self.pods.iter().map(|_| Mutex::default()).collect();
        let result_of = |at: usize| results.get(at).map(lock);
        round.add = self.each(|at, pod| {
            let (took, printed) = self.call("ADD", pod, None)?;
            let result = serde_json::from_slice::<Value>(&printed)
                .map_err(|e| format!("ADD of {pod}: its result is not JSON: {e}"))?;
            if let Some(mut place) = result_of(at) {
                *place = Some(result);
            }
            Ok(took)
        })?;
        round.twice = self.twice(&results);
        round.del = self.each(|at, pod| {
            let result = result_of(at).and_then(|mut place| place.take());
            let (took, _) = self.call("DEL", pod, result.as_ref())?;
            Ok(took)
        })?;
        Ok(round)
    }

    /// Something for every pod, so many at a time.
    fn each(&self, work: impl Fn(usize, &str) -> Result<Duration, String> + Sync) -> Result<Calls> {
        let (next, calls) = (AtomicUsize::new(0), Mutex::new(Calls::default()));
        let started = Instant::now();
        let worker = || {
            let mut own = Calls::default();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(pod) = self.pods.get(at) else { break };
                own.note(work(at, pod));
            }
            lock(&calls).take_in(own);
        };
        // A thread is in the namespaces of the one that starts it.
        thread::scope(|scope| -> Result<()> {
            for _ in 0..self.parallel.min(self.pods.len()) {
                thread::Builder::new().spawn_scoped(scope, worker)?;
            }
            Ok(())
        })?;
        let mut calls = calls.into_inner().unwrap_or_else(|e| e.into_inner());
        calls.took = started.elapsed();
        Ok(calls)
    }

    /// One call: how long it took and what it printed, or what went wrong.
    fn call(
        &self,
        verb: &str,
        pod: &str,
        prev: Option<&Value>,
    ) -> Result<(Duration, Vec<u8>), String> {
        let container = format!("load-{pod}");
        let at = (&*container, pod, &*self.network.ifname);
        let env = node::environment(verb, at, &BTreeMap::new());
        let mut command = Command::new(node::plugin(&self.network.plugin));
        let output = exec::run(&mut command, &env, &self.network.stdin(prev), LIMIT);
        let output = output.map_err(|e| format!("{verb} of {pod}: {e:#}"))?;
        match output.end {
            End::Exit(0) => Ok((output.took, output.stdout)),
            end => Err(format!(
                "{verb} of {pod}: {end:?} after {:.0} ms{}{}",
                ms(output.took),
                output.printed(),
                output.tail()
            )),
        }
    }

    fn twice(&self, results: &[Mutex<Option<Value>>]) -> Vec<String> {
        let mut whose: BTreeMap<String, &str> = BTreeMap::new();
        let mut twice = Vec::new();
        for (pod, result) in self.pods.iter().zip(results) {
            for ip in lock(result).as_ref().map(addresses).unwrap_or_default() {
                // Loopback's are everybody's.
                if ip.starts_with("127.") || ip == "::1" {
                    continue;
                }
                if let Some(other) = whose.insert(ip.clone(), pod) {
                    twice.push(format!("{ip}: {other} and {pod}"));
                }
            }
        }
        twice
    }
}

/// Without their prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let listed = result.get("ips").and_then(Value::as_array);
    let listed = listed.into_iter().flatten().map(|ip| ip.get("address"));
    // As below 0.3.0.
    let old = ["/ip4/ip", "/ip6/ip"].map(|at| result.pointer(at));
    let texts = listed.chain(old).flatten().filter_map(Value::as_str);
    let bare = texts.map(|text| text.split('/').next().unwrap_or(text).to_owned());
    bare.collect()
}

// === impl Calls ===

impl Calls {
    fn note(&mut self, outcome: Result<Duration, String>) {
        match outcome {
            Ok(took) => self.times_ms.push(ms(took)),
            Err(why) => {
                self.failed += 1;
                self.why.push(why);
                self.why.truncate(TOLD);
            }
        }
    }

    /// Of another worker or round.
    pub(super) fn take_in(&mut self, other: Calls) {
        self.times_ms.extend(other.times_ms);
        self.failed += other.failed;
        self.why.extend(other.why);
        self.why.truncate(TOLD);
        self.took += other.took;
    }

    /// The smallest time that so many of 100 do not exceed; `None` if none went well.
    pub(super) fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.times_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }
}

// === impl Round ===

impl Round {
    /// A later one.
    pub(super) fn take_in(&mut self, later: Round) {
        self.add.take_in(later.add);
        self.del.take_in(later.del);
        self.twice.extend(later.twice);
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = |times: &[u32]| Calls {
            times_ms: times.iter().map(|t| f64::from(*t)).collect(),
            ..Calls::default()
        };
        let hundred: Vec<u32> = (1..=100).rev().collect();
        for (percent, want) in [(50, 50.0), (90, 90.0), (99, 99.0), (100, 100.0)] {
            assert_eq!(of(&hundred).percentile(percent), Some(want));
        }
        assert_eq!(of(&[7]).percentile(50), Some(7.0));
        assert_eq!(of(&[3, 1]).percentile(50), Some(1.0));
        assert_eq!(of(&[]).percentile(99), None);
    }

    #[test]
    fn an_address_is_found_in_every_version() {
        let read = |text| addresses(&serde_json::from_str(text).unwrap());
        let new = r#"{"ips": [{"address": "10.0.0.1/24"}, {"address": "fd00::1/64"}, {}]}"#;
        assert_eq!(read(new), ["10.0.0.1", "fd00::1"]);
        assert_eq!(read(r#"{"ip4": {"ip": "10.0.0.1/24"}}"#), ["10.0.0.1"]);
        assert!(read("null").is_empty());
    }
}
