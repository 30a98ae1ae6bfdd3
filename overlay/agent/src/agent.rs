//! The agent's life: join, then make the kernel agree whenever there is a reason to look.
//!
//! Reasons are a new word of the directory, a change of the kernel's tables, and time. Each leads to the same step,
//! never to a change of its own: the step compares what should be with what is, and sends the difference.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fabric::converge::{Others, Peers, Report};
use fabric::{NetConf, Status, SubnetEnv};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::cache::Known;
use crate::conflist;
use crate::directory::{DirectoryError, Me, Ready, View};
use crate::events::{Event, Events, Interest};
use crate::join::Joined;
use crate::metrics::Metrics;
use crate::notify;
use crate::options::NodeOptions;
use crate::rules::Rules;
use crate::step::{Doubts, Outcome, Work};

/// Events of the kernel come in crowds; so long after the first, most are there.
const CROWD: Duration = Duration::from_millis(20);
/// After a step that was called for by the kernel's events, a pause of so many times what it took: a tenth of a CPU for
/// whoever changes things all the time.
const REST: u32 = 10;
/// ... but no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// A step that failed is done again after so long.
const AGAIN: Duration = Duration::from_millis(500);
/// The peers are kept on disk so long after they changed; the first time at once.
const KEEP_AFTER: Duration = Duration::from_secs(2);

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
    kept: bool,
    interest: Interest,
    last: Option<Outcome>,
    /// The view that the last step, or the one that runs, is about.
    about: Arc<View>,
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
            kept: false,
            interest: Interest::default(),
            last: None,
            about: Arc::default(),
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
                () = until(self.keep) => self.keep(),
            }
        }
        self.keep();
        if let Some(step) = self.step.take() {
            let _ = step.await;
        }
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
        if outcome.rules.is_err() || outcome.rules != self.rules {
            self.tell_rules(&outcome.rules);
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
        if outcome.rules.is_err()
            || outcome
                .report
                .as_ref()
                .map_or(true, |report| !report.failed.is_empty())
        {
            self.look(Doubts::ALL, AGAIN);
        }
        let names = [
            outcome.own.device(false),
            outcome.own.device(true),
            Some(outcome.own.parent.name.clone()),
        ];
        self.interest = Interest::of(names.into_iter().flatten().collect());
        self.last = Some(outcome);
        let after = if self.kept {
            KEEP_AFTER
        } else {
            Duration::ZERO
        };
        self.keep.get_or_insert(Instant::now() + after);
        self.report_ready();
    }

    fn tell_rules(&mut self, rules: &Result<(), String>) {
        match rules {
            Ok(()) => info!("packet filtering is as it has to be again"),
            Err(why) => {
                self.metrics(|metrics| metrics.failed("rules"));
                error!(%why, "packet filtering is not as it has to be");
            }
        }
        self.rules = rules.clone();
    }

    fn tell(&mut self, report: &Report) {
        let heard = self
            .about
            .heard
            .filter(|_| report.messages > 0 && report.repaired == 0);
        let peers = self.about.peers.len();
        self.metrics(|metrics| metrics.reconciled(report, peers, heard));
        if report.repaired > 0 {
            warn!(
                repaired = report.repaired,
                "somebody else changed what is this agent's"
            );
        }
        if report.messages > 0 {
            let Report {
                added,
                changed,
                removed,
                took,
                ..
            } = report;
            info!(added, changed, removed, took = ?took, "the kernel agrees");
        }
        for (peer, why) in &report.failed {
            error!(%peer, %why, "cannot reach a peer");
        }
        let refused: BTreeSet<String> = report
            .refused
            .iter()
            .map(|refusal| format!("{}: {}", refusal.key, refusal.reason))
            .collect();
        for refusal in refused.difference(&self.refused) {
            warn!(%refusal, "a peer is not believed");
        }
        self.refused = refused;
    }

    /// What is missing, if anything is.
    fn missing(&self) -> Option<String> {
        let Some(last) = &self.last else {
            return Some("no lease yet".into());
        };
        if let Err(why) = &last.report {
            return Some(why.clone());
        }
        if let Err(why) = &self.rules {
            return Some(why.clone());
        }
        if let Some(why) = &self.about.lost {
            return Some(why.clone());
        }
        if !self.about.complete && self.known.is_none() {
            return Some("the directory has not told of the other nodes yet".into());
        }
        let failed = last.report.iter().flat_map(|report| &report.failed).next();
        failed.map(|(peer, why)| format!("peer {peer}: {why}"))
    }

    /// Tells plugins, runtime and directory whether pods have a network. The configuration that lets a runtime start
    /// pods comes last.
    fn report_ready(&mut self) {
        let ready = match self.missing().or_else(|| self.write_env().err()) {
            None => Ready::Yes,
            Some(why) => Ready::No(why),
        };
        if *self.inputs.ready.borrow() != ready {
            match &ready {
                Ready::Yes => {
                    info!("ready");
                    notify::ready();
                }
                Ready::No(why) => warn!(%why, "not ready"),
            }
        }
        self.metrics(|metrics| metrics.ready(ready == Ready::Yes));
        self.write_status(&ready);
        if ready == Ready::Yes {
            let file = &self.options.cni_conf;
            match conflist::ensure(file, self.options.cni_conf_template.as_deref()) {
                Ok(true) => info!(file = %file.display(), "wrote the CNI configuration"),
                Ok(false) => {}
                Err(error) => {
                    error!(file = %file.display(), %error, "cannot write the CNI configuration")
                }
            }
        }
        self.inputs.ready.send_if_modified(|before| {
            let changed = *before != ready;
            *before = ready;
            changed
        });
    }

    fn write_env(&self) -> Result<(), String> {
        let Some(last) = &self.last else {
            return Ok(());
        };
        let sides = [last.own.v4, last.own.v6];
        let env = SubnetEnv {
            networks: sides.iter().flatten().map(|side| side.network).collect(),
            subnets: sides.iter().flatten().map(|side| side.subnet).collect(),
            mtu: last.own.pod_mtu(),
            ip_masq: self.options.ip_masq,
        };
        let file = &self.options.subnet_file;
        if SubnetEnv::read(file).is_ok_and(|there| there == env) {
            return Ok(());
        }
        env.write(file)
            .map_err(|e| format!("write {}: {e}", file.display()))
    }

    fn write_status(&mut self, ready: &Ready) {
        let own = self.last.as_ref().map(|last| &last.own);
        let status = Status {
            ready: *ready == Ready::Yes,
            reason: match ready {
                Ready::Yes => String::new(),
                Ready::No(why) => why.clone(),
            },
            devices: own
                .into_iter()
                .flat_map(|own| [own.device(false), own.device(true)])
                .flatten()
                .collect(),
            converged: String::new(),
            pid: std::process::id(),
        };
        if self.status.as_ref() == Some(&status) {
            return;
        }
        let converged = if status.ready {
            rfc3339()
        } else {
            String::new()
        };
        let written = Status {
            converged,
            ..status.clone()
        }
        .write(&self.options.subnet_file);
        match written {
            Ok(()) => self.status = Some(status),
            Err(error) => error!(%error, "cannot tell the CNI plugin"),
        }
    }

    /// Keeps what is known, for the next start and for `overlayd show`.
    fn keep(&mut self) {
        self.keep = None;
        let Some((conf, last)) = self.conf.as_ref().zip(self.last.as_ref()) else {
            return;
        };
        let Ok(report) = &last.report else { return };
        if !self.about.complete {
            return; // what was known before is more
        }
        let known = Known::of(conf, &last.own, &self.about, &report.refused, rfc3339());
        if let Err(error) = known.write(&self.options.state_dir) {
            warn!(%error, dir = %self.options.state_dir.display(), "cannot keep the peers for the next start");
        }
        self.known = Some(known);
        self.kept = true;
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

async fn wait<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    match task {
        Some(task) => task.await.ok(),
        None => std::future::pending().await,
    }
}
