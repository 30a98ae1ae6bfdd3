//! What the agent counts, for Prometheus.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use fabric::converge::Report;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::directory::View;

type Seconds = Gauge<f64, AtomicU64>;

/// Seconds that reconciling is sorted by: from a look that changes nothing to a cold start of a large cluster.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// So many of a kind are named, and all are counted: who fills a directory with lies does not fill the scraper.
const MOST_NAMED: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPeer {
    peer: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEntry {
    entry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByChange {
    change: &'static str,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Registry,
    ready: Gauge,
    peers: Gauge,
    peers_programmed: Gauge,
    peers_refused: Family<ByReason, Gauge>,
    peer_refused: Family<ByPeer, Gauge>,
    skipped: Gauge,
    entry_skipped: Family<ByEntry, Gauge>,
    directory_up: Gauge,
    directory_lag: Seconds,
    directory_events: Counter,
    event_to_kernel: Seconds,
    reconciles: Option<Histogram>,
    changes: Family<ByChange, Counter>,
    drift: Counter,
    errors: Family<ByReason, Counter>,
    seen_events: u64,
}

/// What is told, being collected.
struct Register(Registry);

// === impl Register ===

impl Register {
    fn plain(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) -> &mut Self {
        self.0.register(name, help, metric.clone());
        self
    }

    fn seconds(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) -> &mut Self {
        self.0
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
        self
    }
}

// === impl Metrics ===

impl Metrics {
    /// Fresh ones, all zero.
    pub fn new() -> Self {
        let mut metrics = Self::default();
        let reconciles = Histogram::new(BUCKETS);
        let mut registry = Register(Registry::with_prefix("overlayd"));
        registry
            .plain(
                "ready",
                "1 while pods of this node have a network",
                &metrics.ready,
            )
            .plain(
                "peers",
                "Other nodes, as the directory has them",
                &metrics.peers,
            )
            .plain(
                "peers_programmed",
                "Other nodes the kernel can reach",
                &metrics.peers_programmed,
            )
            .plain(
                "peers_refused",
                "Nodes that are not believed, by reason",
                &metrics.peers_refused,
            )
            .plain(
                "peer_refused",
                "1 for each node that is not believed",
                &metrics.peer_refused,
            )
            .plain(
                "entries_skipped",
                "Entries of the directory that cannot be read",
                &metrics.skipped,
            )
            .plain(
                "entry_skipped",
                "1 for each entry of the directory that cannot be read",
                &metrics.entry_skipped,
            )
            .plain(
                "directory_up",
                "1 while the directory can be reached",
                &metrics.directory_up,
            )
            .seconds(
                "directory_lag",
                "Since the directory was heard of",
                &metrics.directory_lag,
            )
            .plain(
                "directory_events",
                "Changes the directory told of",
                &metrics.directory_events,
            )
            .seconds(
                "event_to_kernel",
                "From the last change of the directory to the kernel's answer",
                &metrics.event_to_kernel,
            )
            .seconds("reconcile", "Making the kernel agree", &reconciles)
            .plain(
                "changes",
                "Objects of the kernel that were changed",
                &metrics.changes,
            )
            .plain(
                "drift_repaired",
                "Objects that somebody else had changed",
                &metrics.drift,
            )
            .plain("errors", "Steps that failed", &metrics.errors);
        metrics.reconciles = Some(reconciles);
        metrics.registry = registry.0;
        metrics
    }

    /// The directory said this.
    pub fn viewed(&mut self, view: &View) {
        self.peers.set(count(view.peers.len()));
        self.skipped.set(count(view.skipped.len()));
        self.entry_skipped.clear();
        for entry in view.skipped.keys().take(MOST_NAMED).cloned() {
            self.entry_skipped.get_or_create(&ByEntry { entry }).set(1);
        }
        self.directory_up
            .set(i64::from(view.away.is_none() && view.complete));
        self.directory_events
            .inc_by(view.events.saturating_sub(self.seen_events));
        self.seen_events = view.events;
    }

    /// The kernel was made to agree; the change that called for it was heard of then.
    pub fn reconciled(&mut self, report: &Report, peers: usize, heard: Option<Instant>) {
        if let Some(reconciles) = &self.reconciles {
            reconciles.observe(report.took.as_secs_f64());
        }
        if let Some(heard) = heard {
            self.event_to_kernel.set(heard.elapsed().as_secs_f64());
        }
        for (change, n) in [
            ("added", report.added),
            ("changed", report.changed),
            ("removed", report.removed),
        ] {
            self.changes
                .get_or_create(&ByChange { change })
                .inc_by(n as u64);
        }
        self.drift.inc_by(report.repaired as u64);
        self.peers_refused.clear();
        self.peer_refused.clear();
        let mut named = BTreeSet::new();
        for refusal in &report.refused {
            let reason = refusal.reason.label().to_owned();
            named.insert(&refusal.key);
            if named.len() <= MOST_NAMED {
                self.peer_refused
                    .get_or_create(&ByPeer {
                        peer: refusal.key.clone(),
                        reason: reason.clone(),
                    })
                    .set(1);
            }
            self.peers_refused.get_or_create(&ByReason { reason }).inc();
        }
        let failed: BTreeSet<&str> = report
            .failed
            .iter()
            .map(|(peer, _)| peer.as_str())
            .collect();
        for _ in &report.failed {
            self.failed("kernel");
        }
        let gone = failed.len()
            + report
                .refused
                .iter()
                .filter(|refusal| refusal.v6.is_none())
                .count();
        self.peers_programmed.set(count(peers.saturating_sub(gone)));
    }

    /// A step failed.
    pub fn failed(&mut self, step: &str) {
        self.errors
            .get_or_create(&ByReason {
                reason: step.to_owned(),
            })
            .inc();
    }

    /// Whether pods have a network.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// In Prometheus' own words.
    pub fn text(&self, heard: Option<Instant>) -> String {
        self.directory_lag.set(
            heard
                .map_or(Duration::ZERO, |heard| heard.elapsed())
                .as_secs_f64(),
        );
        let mut text = String::new();
        // Only a formatter that fails fails, and that of a String does not.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
