//! The agent's life: join, then make the kernel agree whenever there is a reason to look.
//!
//! Reasons are a new word of the directory, a change of the kernel's tables, and time. Each leads to the same step,
//! never to a change of its own: the step compares what should be with what is, and sends the difference.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fabric::converge::{Others, Peers, Report};
use fabric::{NetConf, Status};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::cache::Known;
use crate::directory::{DirectoryError, Me, Ready, View};
use crate::events::{Event, Events, Interest};
use crate::join::Joined;
use crate::metrics::Metrics;
use crate::options::NodeOptions;
use crate::rules::Rules;
use crate::step::{Doubts, Outcome, Work};

mod word;

/// Events of the kernel come in crowds; so long after the first, most are there.
const CROWD: Duration = Duration::from_millis(20);
/// After a step that was called for by the kernel's events, a pause of so many times what it took: a tenth of a CPU for
/// whoever changes things all the time.
const REST: u32 = 10;
/// ... but no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// A step that failed is done again after so long.
const AGAIN: Duration = Duration::from_millis(500);
/// The peers are kept on disk at once when they changed, and not more often than this.
const KEEP_EVERY: Duration = Duration::from_millis(500);

/// The ends of what others do.
#[derive(Debug)]
pub struct Inputs {
    /// A lease, when there is one.
    pub joined: mpsc::Receiver<Joined>,
    /// What the directory says.
    pub view: watch::Receiver<Arc<View>>,
    /// What others are told of this node.
    pub me: watch::Sender<Option<Me>>,
    /// Whether pods have a network.
    pub ready: watch::Sender<Ready>,
    /// Joins, keeps the lease, follows the others. Ends with what cannot get better.
    pub directory: JoinHandle<DirectoryError>,
    /// What is counted.
    pub metrics: Arc<Mutex<Metrics>>,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    options: NodeOptions,
    inputs: Inputs,
    /// The network and the peers of last time, until the directory is heard.
    known: Option<Known>,
    conf: Option<NetConf>,
    work: Option<Work>,
    /// The step that has the work.
    step: Option<JoinHandle<(Work, Outcome)>>,
    joined: Option<Joined>,
    doubts: Doubts,
    due: Option<Instant>,
    rested: Instant,
    keep: Option<Instant>,
    /// The write that goes on, on a disk that may be slow.
    keeping: Option<JoinHandle<()>>,
    kept: Option<Instant>,
    interest: Interest,
    last: Option<Outcome>,
    /// What the directory says.
    about: Arc<View>,
    /// What it said when the last step began.
    stood: Arc<View>,
    rules: Result<(), String>,
    refused: BTreeSet<String>,
    status: Option<Status>,
}

// === impl Agent ===

impl Agent {
    /// With what was known before, if anything was.
    pub fn new(options: NodeOptions, inputs: Inputs, known: Option<Known>) -> Self {
        Self {
            options,
            inputs,
            known,
            conf: None,
            work: None,
            step: None,
            joined: None,
            doubts: Doubts::ALL,
            due: None,
            rested: Instant::now(),
            keep: None,
            keeping: None,
            kept: None,
            interest: Interest::default(),
            last: None,
            about: Arc::default(),
            stood: Arc::default(),
            rules: Ok(()),
            refused: BTreeSet::new(),
            status: None,
        }
    }

    /// Works until `stop` is, or the directory has an error that will not get better. Everything in the kernel stays:
    /// pods need no agent to talk.
    ///
    /// # Errors
    /// The directory's.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), DirectoryError> {
        let mut events = Events::open();
        let mut resync = tokio::time::interval(Duration::from_secs(self.options.resync.max(1)));
        let mut stop = std::pin::pin!(stop);
        self.remember();
        self.report_ready();
        loop {
            self.begin();
            let interest = self.interest.clone();
            let due = self
                .due
                .filter(|_| self.step.is_none() && self.work.is_some());
            tokio::select! {
                () = &mut stop => break,
                ended = &mut self.inputs.directory => {
                    return Err(ended.unwrap_or_else(|e| DirectoryError(format!("the directory's task: {e}"))));
                }
                Some(joined) = self.inputs.joined.recv() => self.joined = Some(joined),
                Ok(()) = self.inputs.view.changed() => self.viewed(),
                done = wait(&mut self.step) => {
                    self.step = None;
                    let broke = || DirectoryError("a step broke off, which is a mistake in overlayd".into());
                    self.done(done.ok_or_else(broke)?);
                }
                event = events.next(&interest) => self.seen(event),
                _ = resync.tick() => self.look(Doubts::ALL, Duration::ZERO),
                () = until(due) => {}
                () = until(self.keep.filter(|_| self.keeping.is_none())) => self.keep(),
                _ = wait(&mut self.keeping) => self.keeping = None,
            }
        }
        if let Some(step) = self.step.take() {
            let _ = step.await;
        }
        let _ = wait_if(&mut self.keeping).await;
        self.keep();
        let _ = wait_if(&mut self.keeping).await;
        Ok(())
    }

    /// Begins with what was known before: the directory may be away for long.
    fn remember(&mut self) {
        let Some(known) = &self.known else { return };
        match Work::new(
            known.conf.clone(),
            known.own.clone(),
            None,
            Rules::of(&self.options),
        ) {
            Ok(work) => {
                info!(peers = known.peers.len(), written = %known.written, "begins with what was known before");
                self.conf = Some(known.conf.clone());
                self.work = Some(work);
                self.look(Doubts::ALL, Duration::ZERO);
            }
            Err(error) => warn!(%error, "cannot use what was known before"),
        }
    }

    /// There is a reason to look, so long from now.
    fn look(&mut self, doubts: Doubts, after: Duration) {
        self.doubts.add(doubts);
        let at = Instant::now() + after;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn viewed(&mut self) {
        let view = self.inputs.view.borrow_and_update().clone();
        self.metrics(|metrics| metrics.viewed(&view));
        match (&view.lost, &self.about.lost) {
            (Some(why), before) if before.as_ref() != Some(why) => {
                error!(%why, "this node's lease is lost")
            }
            (None, Some(_)) => info!("this node's lease is its own again"),
            _ => {}
        }
        match (&view.away, &self.about.away) {
            (Some(why), None) => {
                warn!(%why, "the directory is away; the peers stay as it said last")
            }
            (None, Some(_)) => info!("the directory is back"),
            _ => {}
        }
        let same = Arc::ptr_eq(&view, &self.about)
            || view.peers == self.about.peers && view.complete == self.about.complete;
        self.about = view;
        if same {
            self.report_ready();
        } else {
            self.look(Doubts::default(), Duration::ZERO);
        }
    }

    fn seen(&mut self, event: Event) {
        let doubts = match event {
            Event::Links => Doubts::ALL,
            Event::Tables => Doubts {
                tables: true,
                ..Doubts::default()
            },
            Event::Rules => Doubts {
                rules: true,
                ..Doubts::default()
            },
        };
        let rest = self.rested.saturating_duration_since(Instant::now());
        self.look(doubts, CROWD.max(rest));
    }

    /// Begins a step, if there is a reason and nothing in the way.
    fn begin(&mut self) {
        if self.step.is_none()
            && let Some(joined) = self.joined.take()
        {
            self.take_lease(joined);
        }
        let now = Instant::now();
        if self.step.is_some() || self.due.is_none_or(|due| due > now) {
            return;
        }
        let Some((peers, others)) = self.peers() else {
            return;
        };
        let Some(mut work) = self.work.take() else {
            return;
        };
        let doubts = std::mem::take(&mut self.doubts);
        self.stood = self.about.clone();
        self.due = None;
        self.step = Some(tokio::task::spawn_blocking(move || {
            let outcome = work.step(&peers, others, doubts);
            (work, outcome)
        }));
    }

    fn take_lease(&mut self, joined: Joined) {
        let Joined {
            conf,
            place,
            own,
            me,
        } = joined;
        if let Some(known) = &self.known
            && (
                known.own.v4.map(|s| s.subnet),
                known.own.v6.map(|s| s.subnet),
            ) != (own.v4.map(|s| s.subnet), own.v6.map(|s| s.subnet))
        {
            warn!(
                "this node has another subnet than before: pods of before keep their addresses, and lose their way"
            );
        }
        self.conf = Some(conf.clone());
        self.inputs.me.send_replace(Some(me));
        match &mut self.work {
            Some(work) => work.joined(conf, own, place),
            None => match Work::new(conf, own, Some(place), Rules::of(&self.options)) {
                Ok(work) => self.work = Some(work),
                Err(error) => error!(%error, "cannot work on the kernel"),
            },
        }
        self.look(Doubts::ALL, Duration::ZERO);
    }

    /// Who the others are: by the directory, or else by what was known before.
    fn peers(&self) -> Option<(Peers, Others)> {
        if self.about.complete {
            return Some((self.about.peers.clone(), Others::Remove));
        }
        let known = self.known.as_ref().map(|known| known.peers.clone());
        Some((known.unwrap_or_default(), Others::Keep))
    }

    fn done(&mut self, (work, outcome): (Work, Outcome)) {
        self.work = Some(work);
        if let Some(me) = &outcome.me {
            self.inputs.me.send_replace(Some(me.clone()));
        }
        if let Some(rules) = &outcome.rules {
            self.tell_rules(rules);
        }
        match &outcome.report {
            Ok(report) => self.tell(report),
            Err(why) => {
                self.metrics(|metrics| metrics.failed("reconcile"));
                if self
                    .last
                    .as_ref()
                    .and_then(|last| last.report.as_ref().err())
                    != Some(why)
                {
                    error!(%why, "cannot make the kernel agree");
                }
            }
        }
        let took = outcome.report.as_ref().map_or(AGAIN, |report| report.took);
        self.rested = Instant::now() + (took * REST).min(LONGEST_REST);
        let failed = |report: &Report| !report.failed.is_empty();
        if self.rules.is_err() || outcome.report.as_ref().map_or(true, failed) {
            self.look(Doubts::ALL, AGAIN);
        }
        let names = [
            outcome.own.device(false),
            outcome.own.device(true),
            Some(outcome.own.parent.name.clone()),
        ];
        self.interest = Interest::of(names.into_iter().flatten().collect());
        self.last = Some(outcome);
        let now = Instant::now();
        let at = self.kept.map_or(now, |kept| now.max(kept + KEEP_EVERY));
        self.keep.get_or_insert(at);
        self.report_ready();
    }

    /// Keeps what is known, for the next start and for `overlayd show`.
    fn keep(&mut self) {
        self.keep = None;
        let Some((conf, last)) = self.conf.as_ref().zip(self.last.as_ref()) else {
            return;
        };
        let Ok(report) = &last.report else { return };
        if !self.stood.complete {
            return; // what was known before is more
        }
        let known = Known::of(conf, &last.own, &self.stood, &report.refused, rfc3339());
        let (dir, text) = (self.options.state_dir.clone(), known.clone());
        self.keeping = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = text.write(&dir) {
                warn!(%error, dir = %dir.display(), "cannot keep the peers for the next start");
            }
        }));
        self.known = Some(known);
        self.kept = Some(Instant::now());
    }

    fn metrics(&self, with: impl FnOnce(&mut Metrics)) {
        with(
            &mut self
                .inputs
                .metrics
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

fn rfc3339() -> String {
    libcni::record::rfc3339(SystemTime::now())
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// As [`wait`], but not for nothing.
async fn wait_if<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    task.take()?.await.ok()
}

async fn wait<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    match task {
        Some(task) => task.await.ok(),
        None => std::future::pending().await,
    }
}
