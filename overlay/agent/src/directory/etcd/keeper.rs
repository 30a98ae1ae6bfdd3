//! Keeping our own key while we run: it says what we are, it lives as long as we do, and when somebody else has it, we
//! say so, and take the same subnet again as soon as it is free. There is no other subnet: pods have addresses.

use std::time::Duration;

use fabric::Peer;
use fabric::lease;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Reach;
use super::backoff::Backoff;
use super::entries::Entries;
use super::options::Options;
use super::own::{self, Entry, Holder, Own, Written};
use super::session::Trouble;

/// After a new connection the lease is prolonged within this time: not all nodes in one moment.
const SOON: Duration = Duration::from_secs(10);
/// Nobody has interfered for this long: the next time is a first time.
const PEACE: Duration = Duration::from_secs(600);

/// Our own key, kept.
#[derive(Debug)]
pub(super) struct Keeper {
    own: Own,
    /// What it has to say.
    me: Peer,
    /// What it says, as far as we know.
    entry: Option<Entry>,
    /// The revision we know that of; 0 if we do not know.
    known: i64,
    /// Who has it instead of us.
    pub(super) lost: Option<String>,
    settle_at: Option<Instant>,
    keep_at: Instant,
    every: Duration,
    /// Corrections of what others write to it: two that both believe it theirs must not race.
    rewrites: Pace,
    /// And when they delete it. Without it the others lose us; so its pauses stay short.
    creations: Pace,
    trouble: Backoff,
}

/// How often something is done because others interfere: at once at first, then with longer pauses.
#[derive(Debug)]
struct Pace {
    pauses: Backoff,
    last: Option<Instant>,
    next: Instant,
}

// === impl Pace ===

impl Pace {
    fn new(first: Duration, longest: Duration) -> Self {
        Self {
            pauses: Backoff::new(first, longest),
            last: None,
            next: Instant::now(),
        }
    }

    /// Now, or when.
    fn step(&mut self) -> Result<(), Instant> {
        let now = Instant::now();
        if now < self.next {
            return Err(self.next);
        }
        if self.last.is_some_and(|last| now - last > PEACE) {
            self.pauses.reset();
        }
        self.last = Some(now);
        self.next = now + self.pauses.step();
        Ok(())
    }
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(own: Own, me: Peer, ttl: Duration) -> Self {
        let now = Instant::now();
        let every = (ttl / 24).max(Duration::from_millis(200));
        Self {
            own,
            me,
            entry: None,
            known: 0,
            lost: None,
            settle_at: None,
            keep_at: now + every,
            every,
            rewrites: Pace::new(Duration::from_millis(100), Duration::from_secs(60)),
            creations: Pace::new(Duration::from_millis(20), Duration::from_secs(1)),
            trouble: Backoff::new(Duration::from_millis(200), Duration::from_secs(30)),
        }
    }

    /// The name of our entry.
    pub(super) fn name(&self) -> String {
        self.me.name.clone()
    }

    /// What the key is at a revision.
    pub(super) fn found(&mut self, entry: Option<Entry>, revision: i64) {
        // What we wrote ourselves comes back as an event, too.
        if revision <= self.known {
            return;
        }
        self.known = revision;
        self.entry = entry;
        self.settle_at = Some(Instant::now());
    }

    /// etcd is another than it was.
    pub(super) fn forget(&mut self) {
        self.known = 0;
        self.own.forget();
    }

    /// There is something new to say.
    pub(super) fn tell(&mut self, me: Peer) {
        if self.me != me {
            self.me = me;
            self.settle_at = Some(Instant::now());
        }
    }

    /// Another entry is gone: perhaps the one that was in our way.
    pub(super) fn others_left(&mut self) {
        if self.lost.is_some() {
            self.settle_at = Some(Instant::now());
        }
    }

    /// etcd is reached, perhaps after a while.
    pub(super) fn reached(&mut self) {
        let soon = Backoff::new(SOON, SOON).step().min(self.every);
        self.keep_at = self.keep_at.min(Instant::now() + soon);
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Instant {
        self.settle_at
            .map_or(self.keep_at, |at| at.min(self.keep_at))
    }

    /// Does what is due. What fails is tried again; following the others is another matter.
    pub(super) async fn work(&mut self, reach: &mut Reach, options: &Options, others: &Entries) {
        if self.settle_at.is_some_and(|at| at <= Instant::now()) {
            self.settle_at = None;
            if let Err(trouble) = self.settle(reach, options, others).await {
                reach.give_up(&trouble);
                self.settle_at = Some(Instant::now() + self.trouble.step());
                return;
            }
            self.trouble.reset();
        }
        if self.keep_at <= Instant::now() {
            self.keep_at = Instant::now() + Backoff::new(self.every, self.every).step();
            if let Err(trouble) = self.keep(reach, options).await {
                reach.give_up(&trouble);
                self.keep_at = Instant::now() + self.trouble.step().min(self.every);
            }
        }
    }

    async fn settle(
        &mut self,
        reach: &mut Reach,
        options: &Options,
        others: &Entries,
    ) -> Result<(), Trouble> {
        // Before the first list nothing is known of it.
        if self.known == 0 {
            return Ok(());
        }
        let known = match self.own.holder(self.entry.as_ref(), &self.me) {
            Holder::Other(who) => {
                self.lose(who);
                return Ok(());
            }
            Holder::Us {
                stamp,
                current: true,
            } => {
                self.own.adopt(stamp);
                self.regain();
                return Ok(());
            }
            Holder::Us {
                stamp,
                current: false,
            } => Some(stamp),
            Holder::Nobody => {
                if let Some(who) = others.holder(&self.own.subnets) {
                    self.lose(who);
                    return Ok(());
                }
                None
            }
        };
        let interfered = known.is_none() || known != self.own.stamp;
        if interfered && self.lost.is_none() {
            let pace = match known {
                Some(_) => &mut self.rewrites,
                None => &mut self.creations,
            };
            if let Err(later) = pace.step() {
                self.settle_at = Some(later);
                return Ok(());
            }
            let key = &self.own.key;
            match known {
                Some(_) => warn!(
                    key,
                    "our lease in etcd does not say what we are; it is written anew. Does another agent run with this node's address?"
                ),
                None => warn!(key, "our lease in etcd is gone; it is made again"),
            }
        }
        if let Some(missing) = own::missing(&self.me, self.own.subnets.v6.is_some()) {
            error!("not published: {missing}");
            return Ok(());
        }
        let session = reach.session(options).await?;
        match self.own.write(session, &self.me, known, None).await? {
            Written::Yes => {
                let value = lease::value(&self.me).into_bytes();
                self.entry = self.own.stamp.map(|stamp| Entry { stamp, value });
                self.known = self.own.stamp.map_or(self.known, |stamp| stamp.revision);
                self.regain();
            }
            Written::Found(entry) => {
                self.entry = entry;
                self.settle_at = Some(Instant::now());
            }
        }
        Ok(())
    }

    async fn keep(&mut self, reach: &mut Reach, options: &Options) -> Result<(), Trouble> {
        let Some(id) = self.own.kept().filter(|_| self.lost.is_none()) else {
            return Ok(());
        };
        let session = reach.session(options).await?;
        if session.keep_alive(id).await? {
            return Ok(());
        }
        // The lease is gone, and the key with it, unless somebody made it again.
        self.own.expired();
        let (kv, revision) = session.get(&self.own.key).await?;
        self.found(kv.as_ref().map(Entry::of), revision);
        Ok(())
    }

    fn lose(&mut self, who: String) {
        let Own { subnets, key, .. } = &self.own;
        let text = format!(
            "this node's subnet {} is leased by {who} now: other nodes send there what is for pods here. It is taken again when it is free: delete the other's key, or drain this node (ours is {key})",
            subnets.v4
        );
        if self.lost.as_ref() != Some(&text) {
            error!("{text}");
            self.lost = Some(text);
        }
    }

    fn regain(&mut self) {
        if self.lost.take().is_some() {
            info!(key = self.own.key, "the lease is ours again");
        }
    }
}
