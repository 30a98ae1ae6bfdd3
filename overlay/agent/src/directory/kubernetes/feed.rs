//! Nodes as they come and go: a list, then a watch from where the list ended, for ever.
//!
//! The watch goes on where it was when its connection breaks: at the newest version it has heard of, be it a Node's or
//! a bookmark's. When the server has forgotten that version (410), the list is read anew and replaces what was known.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{AsyncBufRead, AsyncBufReadExt, FutureExt};
use serde::Deserialize;
use tracing::{debug, warn};

use super::Pace;
use super::access::{Access, NODES, Trouble};
use super::node::{Event, Node};
use super::objects::Objects;
use super::pause::Pause;

/// Nodes per answer, where the server does not answer from its memory: then it sends all.
const PAGE: u32 = 500;
/// How long the server may keep a watch open. It says nothing when it ends one.
const WATCH_S: u32 = 290;
/// What comes within this time is told at once.
const GATHER: Duration = Duration::from_millis(5);
/// A watch that ends sooner than this was none.
const REAL: Duration = Duration::from_secs(1);

/// What a feed tells.
#[derive(Debug)]
pub enum Word {
    /// A new list begins; nothing of the last counts when it ends.
    Listing,
    /// A Node is so now.
    Node(Node),
    /// A Node cannot be read.
    Unreadable { name: String, why: String },
    /// A Node was deleted.
    Gone(String),
    /// The list is whole.
    Listed,
    /// A bookmark: nothing else happened.
    Quiet,
    /// Nothing more comes just now.
    Pause,
    /// The server cannot be reached, or refuses.
    Away(String),
    /// It answers again.
    Back,
}

/// All nodes, or one.
#[derive(Debug)]
pub struct Feed {
    access: Access,
    /// The one.
    name: Option<String>,
    /// The newest version heard of.
    version: Option<String>,
    /// How new a list must be.
    fresh: Fresh,
    idle: Duration,
    pause: Pause,
    away: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fresh {
    /// What the server has in memory: 5,000 agents that start must not go to its etcd.
    Any,
    /// Not older than what was heard already.
    Since(String),
    /// The newest.
    Newest,
}

/// Why a list or a watch ended early.
enum End<B> {
    /// Whoever listens has heard enough.
    Enough(B),
    Trouble(Trouble),
}

#[derive(Deserialize)]
struct Rest {
    #[serde(default)]
    metadata: RestMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RestMeta {
    resource_version: String,
    r#continue: Option<String>,
}

// === impl Feed ===

impl Feed {
    /// Of all nodes.
    pub fn of_all(access: &Access, pace: &Pace) -> Self {
        Self::new(access, pace, None, Fresh::Any)
    }

    /// Of one node, which need not be there yet.
    pub fn of_one(access: &Access, pace: &Pace, name: &str) -> Self {
        Self::new(access, pace, Some(name.to_owned()), Fresh::Newest)
    }

    fn new(access: &Access, pace: &Pace, name: Option<String>, fresh: Fresh) -> Self {
        Self {
            access: access.clone(),
            name,
            version: None,
            fresh,
            idle: pace.idle,
            pause: Pause::of(pace),
            away: false,
        }
    }

    /// Tells until told to stop.
    pub async fn follow<B>(mut self, mut tell: impl FnMut(Word) -> ControlFlow<B>) -> B {
        loop {
            let began = Instant::now();
            let end = match self.version.clone() {
                None => self.list(&mut tell).await,
                Some(version) => self.watch(&version, &mut tell).await,
            };
            let trouble = match end {
                Ok(()) => continue,
                Err(End::Enough(what)) => return what,
                Err(End::Trouble(trouble)) => trouble,
            };
            debug!("nodes: {}", trouble.why);
            self.forget(&trouble);
            if !trouble.is_gone() {
                self.away = true;
                if let ControlFlow::Break(what) = tell(Word::Away(trouble.why)) {
                    return what;
                }
            }
            if began.elapsed() >= REAL {
                self.pause.reset();
            }
            self.pause.make().await;
        }
    }

    /// Does not ask again for what the server does not have.
    fn forget(&mut self, trouble: &Trouble) {
        let gone = trouble.is_gone();
        match self.version.take_if(|_| gone) {
            Some(version) if self.name.is_none() => self.fresh = Fresh::Since(version),
            Some(_) => {}
            // A list of which a part has expired; or its version lies in the future, after a restore of etcd.
            None if gone || matches!(trouble.code, 400 | 504) => self.fresh = Fresh::Newest,
            None => {}
        }
    }

    async fn list<B>(
        &mut self,
        tell: &mut impl FnMut(Word) -> ControlFlow<B>,
    ) -> Result<(), End<B>> {
        let mut next = None;
        say(tell, Word::Listing)?;
        loop {
            let query = self.list_query(next.as_deref());
            let mut answer = pin!(self.access.stream(&query).await?);
            let mut objects = Objects::of_list();
            loop {
                let chunk = in_time(self.access.patience(), answer.fill_buf()).await?;
                if chunk.is_empty() {
                    break;
                }
                let bytes = chunk.len();
                objects.push(chunk, |json| say(tell, item(json)))?;
                answer.consume_unpin(bytes);
            }
            let rest: Rest = serde_json::from_slice(objects.rest())
                .map_err(|e| Trouble::new(&format!("the list of nodes ends early: {e}")))?;
            next = rest.metadata.r#continue.filter(|token| !token.is_empty());
            if next.is_none() {
                self.version = Some(rest.metadata.resource_version);
                break;
            }
        }
        self.back(tell)?;
        say(tell, Word::Listed)
    }

    fn list_query(&self, next: Option<&str>) -> String {
        let mut query = format!("{NODES}?limit={PAGE}");
        if let Some(name) = &self.name {
            query += &format!("&fieldSelector=metadata.name%3D{name}");
        }
        match (next, &self.fresh) {
            // Opaque, and made of what URLs are made of: base64url.
            (Some(next), _) => query += &format!("&continue={next}"),
            (None, Fresh::Any) => query += "&resourceVersion=0",
            (None, Fresh::Since(version)) => {
                query += &format!("&resourceVersion={version}&resourceVersionMatch=NotOlderThan");
            }
            (None, Fresh::Newest) => {}
        }
        query
    }

    async fn watch<B>(
        &mut self,
        version: &str,
        tell: &mut impl FnMut(Word) -> ControlFlow<B>,
    ) -> Result<(), End<B>> {
        let began = Instant::now();
        let mut query = format!(
            "{NODES}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={version}"
        );
        if let Some(name) = &self.name {
            query += &format!("&fieldSelector=metadata.name%3D{name}");
        }
        let answer = pin!(self.access.stream(&query).await?);
        self.back(tell)?;
        let ended = self.events(answer, tell).await;
        say(tell, Word::Pause)?;
        match ended {
            // A connection that breaks is nothing yet; not to get a new one is.
            Err(End::Trouble(trouble)) if trouble.code == 0 => debug!("watch: {}", trouble.why),
            other => other?,
        }
        if began.elapsed() >= REAL {
            self.pause.reset();
        } else {
            self.pause.make().await;
        }
        Ok(())
    }

    async fn events<B>(
        &mut self,
        mut answer: impl AsyncBufRead + Unpin,
        tell: &mut impl FnMut(Word) -> ControlFlow<B>,
    ) -> Result<(), End<B>> {
        let mut objects = Objects::of_watch();
        // Since when there is something to be told of.
        let mut untold: Option<Instant> = None;
        loop {
            if let Some(since) = untold {
                // Lets the connection fetch what has come meanwhile.
                tokio::task::yield_now().await;
                let more = answer.fill_buf().now_or_never().is_some();
                if !more || since.elapsed() > GATHER {
                    say(tell, Word::Pause)?;
                    untold = None;
                }
            }
            let chunk = in_time(self.idle, answer.fill_buf()).await?;
            if chunk.is_empty() {
                return Ok(());
            }
            let bytes = chunk.len();
            untold = untold.or_else(|| Some(Instant::now()));
            objects.push(chunk, |json| self.event(json, tell))?;
            answer.consume_unpin(bytes);
        }
    }

    fn event<B>(
        &mut self,
        json: Option<&[u8]>,
        tell: &mut impl FnMut(Word) -> ControlFlow<B>,
    ) -> Result<(), End<B>> {
        let Some(json) = json else {
            warn!("nodes: an event was too long to be read");
            return Ok(());
        };
        let (version, word) = match Event::parse(json) {
            Event::Node(node) => (node.version.clone(), Word::Node(node)),
            Event::Gone { name, version } => (version, Word::Gone(name)),
            Event::Bookmark { version } => (version, Word::Quiet),
            Event::Unreadable { name, version, why } => (version, Word::Unreadable { name, why }),
            Event::Error { code, message } => Err(Trouble::of_code(code, &message))?,
            Event::Unknown(why) => {
                warn!("nodes: an event cannot be read: {why}");
                return Ok(());
            }
        };
        if !version.is_empty() {
            self.version = Some(version);
        }
        say(tell, word)
    }

    fn back<B>(&mut self, tell: &mut impl FnMut(Word) -> ControlFlow<B>) -> Result<(), End<B>> {
        if std::mem::take(&mut self.away) {
            say(tell, Word::Back)?;
        }
        Ok(())
    }
}

fn say<B>(tell: &mut impl FnMut(Word) -> ControlFlow<B>, word: Word) -> Result<(), End<B>> {
    match tell(word) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(End::Enough(what)),
    }
}

fn item(json: Option<&[u8]>) -> Word {
    let unnamed = || "?".to_owned();
    match json.map(Node::parse) {
        Some(Ok(node)) => Word::Node(node),
        Some(Err((name, why))) => Word::Unreadable {
            name: name.unwrap_or_else(unnamed),
            why,
        },
        None => Word::Unreadable {
            name: unnamed(),
            why: "it is too long to be read".into(),
        },
    }
}

async fn in_time<T>(
    limit: Duration,
    read: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(e)) => Err(Trouble::new(&format!("the connection broke: {e}"))),
        Err(_) => Err(Trouble::silent(limit)),
    }
}

// === impl End ===

impl<B> From<Trouble> for End<B> {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}
