//! A connection to one of etcd's members, and the requests we make. Each has an end: an answer, or a [`Trouble`].

use std::error::Error as _;
use std::time::Duration;

use etcd_client::{
    Channel, Client, ConnectOptions, Error, GetOptions, KeyValue, LeaseGrantOptions, Txn,
    TxnResponse, WatchOptions, WatchStream,
};
use thiserror::Error;
use tonic::Code;

use super::options::{Dial, Options};

/// A request takes no longer.
const REQUEST: Duration = Duration::from_secs(5);
/// A member that we wait for is asked whether it lives; etcd wants 5 s between questions at least.
const PROBE_EVERY: Duration = Duration::from_secs(6);
/// It has this long to answer.
const PROBE: Duration = Duration::from_secs(3);
/// A connection is made within this time.
const CONNECT: Duration = Duration::from_secs(2);
/// Keys of one answer: 2,000 leases are some 400 KiB.
const PAGE: i64 = 2000;

/// Why a request has no answer.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    /// The history that was asked for is gone; the present is to be read anew.
    #[error("etcd has compacted the history since then")]
    Compacted,
    /// It is not the history we know.
    #[error("etcd has another history than before: made anew, or from an older backup")]
    OtherHistory,
    /// An answer is larger than is taken.
    #[error("an answer of etcd is larger than 4 MiB")]
    TooLarge,
    /// No answer in time.
    #[error("{what}: no answer within {} s", REQUEST.as_secs())]
    Silence {
        /// The request.
        what: &'static str,
    },
    /// The connection ended.
    #[error("{what}: the connection ended")]
    Ended {
        /// The request.
        what: &'static str,
    },
    /// etcd or the way there says no.
    #[error("{what}: {why}")]
    Refused {
        /// The request.
        what: &'static str,
        /// As they say it.
        why: String,
    },
}

/// A connection.
pub(super) struct Session {
    client: Client,
    /// Where to, for people.
    pub(super) endpoint: String,
}

/// All keys of a range at one moment.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In order.
    pub(super) kvs: Vec<KeyValue>,
    /// Keys whose values are too large to be read.
    pub(super) oversize: Vec<Vec<u8>>,
    /// The moment.
    pub(super) revision: i64,
}

// === impl Listing ===

impl Listing {
    /// All keys, readable or not.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let oversize = self.oversize.iter().map(Vec::as_slice);
        self.kvs.iter().map(KeyValue::key).chain(oversize)
    }
}

// === impl Session ===

impl Session {
    /// Connects to the endpoint whose turn it is.
    pub(super) async fn open(options: &Options, turn: usize) -> Result<Self, Trouble> {
        const WHAT: &str = "connecting";
        let refused = |why: String| Trouble::Refused { what: WHAT, why };
        let Dial { endpoint, url } = options.dial(turn).map_err(|e| refused(e.0))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_keepalive(Some(PROBE_EVERY))
            .http2_keep_alive_interval(PROBE_EVERY)
            .keep_alive_timeout(PROBE);
        let open = async {
            let channel = endpoint
                .connect()
                .await
                .map_err(|e| refused(format!("{url}: {}", chain(&e))))?;
            let mut connect = ConnectOptions::new()
                .with_require_leader(true)
                .with_auto_token_refresh(true);
            if let Some(login) = &options.login {
                connect = connect.with_user(&login.user, &login.password);
            }
            let client = Client::from_channel(Channel::Tonic(channel), Some(connect)).await;
            client.map_err(|e| trouble("logging in", &e))
        };
        let client = bounded(WHAT, open).await??;
        Ok(Self {
            client,
            endpoint: url,
        })
    }

    /// One key, and the moment it was read.
    pub(super) async fn get(&mut self, key: &str) -> Result<(Option<KeyValue>, i64), Trouble> {
        let mut answer = ask("reading a key", self.client.get(key, None)).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok((answer.take_kvs().pop(), revision))
    }

    /// All keys that begin with `prefix`, without one key's value standing in the way of the others.
    pub(super) async fn list(&mut self, prefix: &str) -> Result<Listing, Trouble> {
        let end = end_of(prefix);
        let mut listing = Listing::default();
        let (mut from, mut page) = (prefix.as_bytes().to_vec(), PAGE);
        loop {
            let range = GetOptions::new()
                .with_range(end.clone())
                .with_limit(page)
                .with_revision(listing.revision);
            let keys_only = page == 0;
            let range = match keys_only {
                true => range.with_keys_only().with_limit(1),
                false => range,
            };
            let answer = ask("listing leases", self.client.get(from.clone(), Some(range))).await;
            let mut answer = match answer {
                Err(Trouble::TooLarge) if !keys_only => {
                    page = if page > 1 { (page / 8).max(1) } else { 0 };
                    continue;
                }
                answer => answer?,
            };
            if listing.revision == 0 {
                listing.revision = answer.header().map_or(0, |header| header.revision());
            }
            let (more, kvs) = (answer.more(), answer.take_kvs());
            let last = kvs.last().map(|kv| kv.key().to_vec());
            match keys_only {
                true => listing
                    .oversize
                    .extend(kvs.iter().map(|kv| kv.key().to_vec())),
                false => listing.kvs.extend(kvs),
            }
            let Some(last) = last.filter(|_| more) else {
                return Ok(listing);
            };
            from = last;
            from.push(0);
            page = (page.max(1) * 2).min(PAGE);
        }
    }

    pub(super) async fn txn(&mut self, txn: Txn) -> Result<TxnResponse, Trouble> {
        ask("writing the lease", self.client.txn(txn)).await
    }

    /// A new etcd lease.
    pub(super) async fn grant(&mut self, ttl: Duration) -> Result<i64, Trouble> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let grant = self.client.lease_grant(seconds, None::<LeaseGrantOptions>);
        Ok(ask("asking for a lease", grant).await?.id())
    }

    /// Prolongs an etcd lease; `false` if there is none of that number.
    pub(super) async fn keep_alive(&mut self, id: i64) -> Result<bool, Trouble> {
        const WHAT: &str = "keeping the lease";
        match bounded(WHAT, self.client.lease_keep_alive(id)).await? {
            Ok(_) => Ok(true),
            Err(Error::LeaseKeepAliveError(_)) => Ok(false),
            Err(e) => Err(trouble(WHAT, &e)),
        }
    }

    /// Hears of every change of keys from a moment on.
    pub(super) async fn watch(
        &mut self,
        key: &str,
        options: WatchOptions,
    ) -> Result<WatchStream, Trouble> {
        let options = options.with_progress_notify();
        ask("watching", self.client.watch(key, Some(options))).await
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// The first key that does not begin with `prefix` any more.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A request, with an end.
pub(super) async fn bounded<T>(
    what: &'static str,
    request: impl Future<Output = T>,
) -> Result<T, Trouble> {
    tokio::time::timeout(REQUEST, request)
        .await
        .map_err(|_| Trouble::Silence { what })
}

async fn ask<T>(
    what: &'static str,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    bounded(what, request).await?.map_err(|e| trouble(what, &e))
}

/// What an error of the client means to us.
pub(super) fn trouble(what: &'static str, error: &Error) -> Trouble {
    let Error::GRpcStatus(status) = error else {
        let why = chain(error);
        return Trouble::Refused { what, why };
    };
    let text = status.message();
    match status.code() {
        Code::OutOfRange if text.contains("compacted") => Trouble::Compacted,
        Code::OutOfRange if text.contains("too large") => Trouble::TooLarge,
        code => {
            let why = match status.source() {
                Some(source) => format!("{text}: {}", chain(source)),
                None if text.is_empty() => format!("{code:?}"),
                None => text.to_owned(),
            };
            Trouble::Refused { what, why }
        }
    }
}

/// An error and what is behind it, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}
