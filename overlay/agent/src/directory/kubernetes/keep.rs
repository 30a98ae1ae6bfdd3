//! Keeps this node's own Node as it has to be: the annotations by which the others find it, and the condition
//! NetworkUnavailable. Whoever changes them, they are written again, with growing pauses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::Pace;
use super::access::{Access, Trouble};
use super::annotation::Prefix;
use super::condition;
use super::node::Node;
use super::pause::{Complaint, Pause};
use crate::directory::{Lease, Me, Ready};

/// After so long without a write the next one is made at once.
const CALM: Duration = Duration::from_secs(60);

/// Writes what this node says of itself.
#[derive(Debug)]
pub struct Keeper {
    pub access: Access,
    pub name: String,
    pub lease: Lease,
    pub prefix: Prefix,
    /// Whether the condition is ours to write.
    pub condition: bool,
    pub pace: Pace,
    pub own: watch::Receiver<Option<Arc<Node>>>,
    pub me: watch::Receiver<Me>,
    pub ready: watch::Receiver<Ready>,
}

/// What there is to do.
enum Due {
    Nothing,
    /// Look again then.
    Later(Instant),
    Write(Patch),
}

/// What a Node lacks.
#[derive(Default)]
struct Patch {
    body: Map<String, Value>,
    /// The annotations that there have to be.
    wanted: Option<BTreeMap<String, String>>,
}

/// What was written last.
#[derive(Default)]
struct Written {
    when: Option<Instant>,
    /// The Node as it was answered.
    node: Option<Arc<Node>>,
    /// The annotations there had to be.
    wanted: Option<BTreeMap<String, String>>,
}

// === impl Keeper ===

impl Keeper {
    /// Never ends.
    pub async fn keep(mut self) -> Infallible {
        let mut pause = Pause::of(&self.pace);
        let mut complaint = Complaint::default();
        let mut written = Written::default();
        let mut down_since = None;
        // Not before this.
        let mut next = Instant::now();
        loop {
            match &*self.ready.borrow_and_update() {
                Ready::Yes => down_since = None,
                Ready::No(_) => down_since = down_since.or_else(|| Some(Instant::now())),
            }
            let due = match self.due(&written, down_since) {
                Due::Write(_) if Instant::now() < next => Due::Later(next),
                due => due,
            };
            let patch = match due {
                Due::Write(patch) => patch,
                Due::Nothing => {
                    self.something(None).await;
                    continue;
                }
                Due::Later(when) => {
                    self.something(Some(when)).await;
                    continue;
                }
            };
            self.tell_of_others(&patch, &written);
            if written.when.is_none_or(|when| when.elapsed() > CALM) {
                pause.reset();
            }
            let body = Value::Object(patch.body);
            let answer = self.access.patch(&self.name, &body).await;
            (written.when, next) = (Some(Instant::now()), Instant::now() + pause.next());
            match answer {
                Ok(node) => {
                    if complaint.end() {
                        info!("the Node {} is written again", self.name);
                    }
                    (written.node, written.wanted) = (Some(Arc::new(node)), patch.wanted);
                }
                Err(Trouble { why, .. }) => {
                    complaint.say(&format!("cannot write the Node {}", self.name), &why);
                }
            }
        }
    }

    /// Waits until there is news, or until then.
    async fn something(&mut self, until: Option<Instant>) {
        async fn change<T>(of: &mut watch::Receiver<T>) {
            if of.changed().await.is_err() {
                pending::<()>().await;
            }
        }
        let time = async {
            match until {
                Some(when) => tokio::time::sleep_until(when.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = change(&mut self.own) => {}
            () = change(&mut self.me) => {}
            () = change(&mut self.ready) => {}
            () = time => {}
        }
    }

    fn due(&mut self, written: &Written, down_since: Option<Instant>) -> Due {
        let own = self.own.borrow_and_update().clone();
        let Some(found) = own.map(|own| written.or_newer(own)) else {
            return Due::Nothing;
        };
        let mut patch = Patch::default();
        let me = self.me.borrow_and_update().clone();
        match self.prefix.wanted(&self.lease, &me, &found) {
            Ok(wanted) => {
                let missing = self.prefix.missing(&wanted, &found);
                if !missing.is_empty() {
                    let missing = json!({ "annotations": missing });
                    patch.body.insert("metadata".into(), missing);
                }
                patch.wanted = Some(wanted);
            }
            Err(why) => error!("not published: {why}"),
        }
        let ready = self.ready.borrow().clone();
        let (wanted, has) = (condition::wanted(&ready), found.condition.as_ref());
        let mut later = None;
        if self.condition && !condition::stands(&wanted, has) {
            // An agent that restarts leaves the network as it is: no taint for that moment.
            let up = has.is_some_and(|has| has.status == "False");
            let patient_until = down_since
                .filter(|_| up)
                .map(|since| since + self.pace.grace);
            match patient_until {
                Some(until) if until > Instant::now() => later = Some(until),
                _ => {
                    let condition = condition::write(&wanted, has);
                    let status = json!({ "conditions": [condition] });
                    patch.body.insert("status".into(), status);
                }
            }
        }
        match later {
            _ if !patch.body.is_empty() => Due::Write(patch),
            Some(when) => Due::Later(when),
            None => Due::Nothing,
        }
    }

    /// Says so if a write is due because somebody else wrote.
    fn tell_of_others(&self, patch: &Patch, written: &Written) {
        let as_before = written.wanted.is_some() && written.wanted == patch.wanted;
        if as_before && patch.body.contains_key("metadata") {
            warn!(
                "the annotations of the Node {} were changed by somebody else; they are written again. Does flanneld \
                 still run here?",
                self.name
            );
        }
    }
}

// === impl Written ===

impl Written {
    /// What the Node is: the watch may lag behind the answer to the last write.
    fn or_newer(&self, seen: Arc<Node>) -> Arc<Node> {
        let fresh = self.when.is_some_and(|when| when.elapsed() < CALM);
        match self.node.as_ref().filter(|_| fresh) {
            Some(written) if seen.is_before(written) => Arc::clone(written),
            _ => seen,
        }
    }
}
