//! Following the others, and keeping our own key: one list, then a watch, until dropped.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

use super::Reach;
use super::backoff::Backoff;
use super::entries::Entries;
use super::keeper::Keeper;
use super::keys::Keys;
use super::options::Options;
use super::own::{Entry, Own};
use super::session::{self, Trouble, trouble};
use crate::directory::{DirectoryError, Lease, Links, Me, View};

/// Answers taken in before the others are told: many changes are one view.
const AT_ONCE: usize = 1000;
const WHAT: &str = "watching leases";
/// What the first attempt after a break has before the break is told.
const AT_FIRST: Duration = Duration::from_millis(500);
/// A connection that lasted this long, or brought news, was a good one: pauses are short again.
const STEADY: Duration = Duration::from_secs(1);

/// A running directory.
#[derive(Debug)]
pub(super) struct Follower {
    options: Options,
    keys: Keys,
    reach: Reach,
    keeper: Keeper,
    entries: Entries,
    lease: Lease,
    me: watch::Receiver<Me>,
    view: watch::Sender<Arc<View>>,
    /// Up to where everything is known; 0 if nothing is.
    revision: i64,
    /// Up to where nothing had happened, by the last notice. etcd before 3.4.25 can send a notice ahead of an event;
    /// so one is believed when the next has come.
    promised: i64,
    cluster: u64,
    complete: bool,
    away: Option<String>,
    heard: Option<std::time::Instant>,
    events: u64,
    /// Whether the connection has told anything yet: a list, an event.
    news: bool,
}

// === impl Follower ===

impl Follower {
    pub(super) fn new(
        options: Options,
        keys: Keys,
        reach: Reach,
        own: Own,
        mut links: Links,
    ) -> Self {
        let me = links
            .me
            .borrow_and_update()
            .peer(&own.subnets.key(), &links.lease);
        Self {
            entries: Entries::new(keys.clone(), own.key.clone()),
            keeper: Keeper::new(own, me, options.ttl),
            options,
            keys,
            reach,
            lease: links.lease,
            me: links.me,
            view: links.view,
            revision: 0,
            promised: 0,
            cluster: 0,
            complete: false,
            away: None,
            heard: None,
            events: 0,
            news: false,
        }
    }

    pub(super) async fn run(mut self) -> DirectoryError {
        let (mut away, mut anew) = (Backoff::away(), Backoff::away());
        // A connection that breaks and stands again at once is nothing to tell.
        let mut broken = None;
        loop {
            let watched = match broken.take() {
                None => self.watch().await,
                Some(trouble) => match timeout(AT_FIRST, self.watch()).await {
                    Ok(watched) => watched,
                    Err(_) => Err(trouble),
                },
            };
            let (trouble, reached) = match watched {
                Ok(mut stream) => {
                    let since = Instant::now();
                    let trouble = self.follow(&mut stream).await;
                    self.promised = 0;
                    if since.elapsed() > STEADY {
                        anew.reset();
                        away.reset();
                    } else if self.news {
                        away.reset();
                    }
                    (trouble, true)
                }
                Err(trouble) => (trouble, false),
            };
            if self.is_anew(&trouble) {
                anew.wait().await;
                continue;
            }
            self.reach.give_up(&trouble);
            if reached {
                broken = Some(trouble);
            } else {
                self.away = Some(trouble.to_string());
                self.publish();
            }
            away.wait().await;
        }
    }

    /// Is this no trouble, but a reason to read everything anew?
    fn is_anew(&mut self, trouble: &Trouble) -> bool {
        match trouble {
            Trouble::OtherHistory => self.keeper.forget(),
            Trouble::Compacted | Trouble::TooLarge => {}
            _ => return false,
        }
        info!("etcd: {trouble}; everything is read anew");
        self.revision = 0;
        true
    }

    /// Begins to watch where it ended, after a list if that is needed.
    async fn watch(&mut self) -> Result<WatchStream, Trouble> {
        let listed = self.revision == 0;
        self.news = listed;
        let session = self.reach.session(&self.options).await?;
        if listed {
            let listing = session.list(&self.keys.subnets).await?;
            let revision = listing.revision;
            let own = self.entries.replace(listing);
            self.keeper.found(own.as_ref().map(Entry::of), revision);
            (self.revision, self.complete) = (revision, true);
        }
        let from = WatchOptions::new()
            .with_prefix()
            .with_start_revision(self.revision + 1);
        let mut stream = session.watch(&self.keys.subnets, from).await?;
        let created = match session::bounded(WHAT, stream.next()).await? {
            Some(Ok(created)) => created,
            Some(Err(e)) => return Err(trouble(WHAT, &e)),
            None => return Err(Trouble::Ended { what: WHAT }),
        };
        if let Some(header) = created.header() {
            let cluster = std::mem::replace(&mut self.cluster, header.cluster_id());
            // etcd was made anew, or has an older backup's state: what we know is of another world.
            if !listed && (cluster != self.cluster || header.revision() < self.revision) {
                return Err(Trouble::OtherHistory);
            }
        }
        self.take(&created)?;
        self.reach.works();
        self.away = None;
        self.keeper.reached();
        self.publish();
        Ok(stream)
    }

    /// Until the watch ends; why it did.
    async fn follow(&mut self, stream: &mut WatchStream) -> Trouble {
        let mut told = true;
        loop {
            tokio::select! {
                heard = stream.next() => {
                    let end = self.take_all(stream, heard);
                    self.publish();
                    if let Err(trouble) = end {
                        return trouble;
                    }
                }
                changed = self.me.changed(), if told => {
                    told = changed.is_ok();
                    let me = self.me.borrow_and_update().peer(&self.keeper.name(), &self.lease);
                    self.keeper.tell(me);
                }
                () = sleep_until(self.keeper.due()) => {
                    let lost = self.keeper.lost.clone();
                    self.keeper.work(&mut self.reach, &self.options, &self.entries).await;
                    if lost != self.keeper.lost {
                        self.publish();
                    }
                }
            }
        }
    }

    /// An answer, and all that have come in meanwhile.
    fn take_all(
        &mut self,
        stream: &mut WatchStream,
        first: Option<Result<WatchResponse, etcd_client::Error>>,
    ) -> Result<(), Trouble> {
        let mut heard = first;
        for taken in 1.. {
            match heard {
                Some(Ok(response)) => self.take(&response)?,
                Some(Err(e)) => return Err(trouble(WHAT, &e)),
                None => return Err(Trouble::Ended { what: WHAT }),
            }
            let next = (taken < AT_ONCE).then(|| stream.next().now_or_never());
            match next.flatten() {
                Some(next) => heard = next,
                None => break,
            }
        }
        Ok(())
    }

    /// One answer of the watch.
    fn take(&mut self, response: &WatchResponse) -> Result<(), Trouble> {
        self.heard = Some(std::time::Instant::now());
        if response.compact_revision() > 0 {
            return Err(Trouble::Compacted);
        }
        if response.canceled() {
            let why = response.cancel_reason().to_owned();
            return Err(Trouble::Refused { what: WHAT, why });
        }
        for kv in response.events().iter().filter_map(|event| event.kv()) {
            self.events += 1;
            self.news = true;
            let deleted = kv.version() == 0;
            if self.entries.is_own(kv.key()) {
                let entry = (!deleted).then(|| Entry::of(kv));
                self.keeper.found(entry, kv.mod_revision());
            } else if deleted {
                self.entries.delete(kv.key());
                self.keeper.others_left();
            } else {
                self.entries.put(kv.key(), kv.value());
            }
            self.revision = self.revision.max(kv.mod_revision());
        }
        if response.events().is_empty() && !response.created() {
            let notice = response.header().map_or(0, |header| header.revision());
            let settled = std::mem::replace(&mut self.promised, notice);
            self.revision = self.revision.max(settled);
        }
        Ok(())
    }

    fn publish(&self) {
        self.view.send_replace(Arc::new(View {
            peers: self.entries.peers.clone(),
            skipped: self.entries.skipped.clone(),
            complete: self.complete,
            away: self.away.clone(),
            lost: self.keeper.lost.clone(),
            heard: self.heard,
            events: self.events,
        }));
    }
}
