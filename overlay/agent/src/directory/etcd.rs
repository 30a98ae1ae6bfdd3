//! etcd v3 as flannel uses it: a node is a key, `<prefix>/subnets/<subnet>`, with an etcd lease of a day.
//!
//! ```text
//! /coreos.com/network/config                   {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}
//! /coreos.com/network/subnets/10.5.52.0-24     {"PublicIP": "192.0.2.3", ...}
//! ```
//! Only our own key is ever written, each time by comparing with the version we know. It is left behind when we end:
//! a restart must not be seen by the others. While etcd is away nothing changes; attempts go on, for ever.

mod acquire;
mod backoff;
mod entries;
mod follow;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod keeper;
mod keys;
mod options;
mod own;
mod session;

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::WatchOptions;
use fabric::NetConf;
use fabric::lease::Subnets;
use tracing::{debug, error, info, warn};

use super::{Directory, DirectoryError, Lease, Links, Me};
use acquire::{Attempt, Search};
use backoff::Backoff;
use keys::Keys;
use own::Own;
use session::{Session, Trouble};

pub use options::{Login, Options};

/// Troubles that are told before they are over.
const MAX_SAID: usize = 32;

/// A network in etcd.
#[derive(Debug)]
pub struct Etcd {
    options: Options,
    keys: Keys,
    reach: Reach,
    own: Option<Own>,
}

/// The way to one of etcd's members: the next one after each trouble.
#[derive(Debug, Default)]
struct Reach {
    session: Option<Session>,
    turn: usize,
    /// What was said since it last worked.
    said: BTreeSet<String>,
}

// === impl Reach ===

impl Reach {
    async fn session(&mut self, options: &Options) -> Result<&mut Session, Trouble> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(options, self.turn).await?,
        };
        Ok(self.session.insert(session))
    }

    /// All is well.
    fn works(&mut self) {
        if !std::mem::take(&mut self.said).is_empty() {
            let endpoint = self.session.as_ref().map(|session| &session.endpoint);
            info!(endpoint, "etcd answers again");
        }
    }

    /// Says it once, and turns to the next member.
    fn give_up(&mut self, trouble: &Trouble) {
        self.session = None;
        self.turn = self.turn.wrapping_add(1);
        let text = trouble.to_string();
        if self.said.len() < MAX_SAID && !self.said.contains(&text) {
            warn!("etcd: {text}; attempts go on");
            self.said.insert(text);
        } else {
            debug!("etcd: {text}");
        }
    }
}

// === impl Etcd ===

impl Etcd {
    /// Looks at the options. Nothing is connected yet.
    ///
    /// # Errors
    /// An endpoint is no address, a file cannot be read or is not what it should be, a certificate has no key.
    pub fn open(options: Options) -> Result<Self, DirectoryError> {
        options.check()?;
        Ok(Self {
            keys: Keys::new(&options.prefix),
            options,
            reach: Reach::default(),
            own: None,
        })
    }

    /// The bytes of the configuration, as soon as there are any.
    async fn config(&mut self) -> Result<Vec<u8>, Trouble> {
        let key = self.keys.config.as_str();
        let session = self.reach.session(&self.options).await?;
        let (found, revision) = session.get(key).await?;
        if let Some(kv) = found {
            return Ok(kv.value().to_vec());
        }
        info!(key, "etcd has no network configuration yet; waiting for it");
        let from = WatchOptions::new().with_start_revision(revision + 1);
        let mut watch = session.watch(key, from).await?;
        const WHAT: &str = "waiting for the network configuration";
        loop {
            let heard = watch.message().await;
            let heard = heard.map_err(|e| session::trouble(WHAT, &e))?;
            let heard = heard.ok_or(Trouble::Ended { what: WHAT })?;
            if heard.canceled() {
                let why = heard.cancel_reason().to_owned();
                return Err(Trouble::Refused { what: WHAT, why });
            }
            let mut put = heard.events().iter().rev().filter_map(|event| event.kv());
            if let Some(kv) = put.find(|kv| kv.version() > 0) {
                return Ok(kv.value().to_vec());
            }
        }
    }
}

impl Directory for Etcd {
    async fn net_conf(&mut self) -> Result<NetConf, DirectoryError> {
        let mut backoff = Backoff::away();
        let bytes = loop {
            match self.config().await {
                Ok(bytes) => {
                    self.reach.works();
                    break bytes;
                }
                Err(trouble) => self.reach.give_up(&trouble),
            }
            backoff.wait().await;
        };
        let key = &self.keys.config;
        let conf = NetConf::parse(&bytes)
            .map_err(|e| DirectoryError(format!("the key {key} in etcd: {e}")))?;
        match conf.v4 {
            Some(_) => Ok(conf),
            None => Err(ipv6_alone()),
        }
    }

    async fn lease(
        &mut self,
        conf: &NetConf,
        me: &Me,
        before: Option<&Lease>,
    ) -> Result<Lease, DirectoryError> {
        let search = Search::new(&self.keys, conf, me, before).ok_or_else(ipv6_alone)?;
        if let Some(missing) = search.missing() {
            return Err(DirectoryError(missing));
        }
        let aim = Subnets {
            v4: search.v4.net,
            v6: None,
        };
        let mut own = match self.own.take() {
            Some(own) => own,
            None => Own::new(&self.keys, aim, self.options.ttl),
        };
        own.chosen = [false; 2];
        let (mut away, mut race) = (
            Backoff::away(),
            Backoff::new(Duration::from_millis(5), Duration::from_secs(1)),
        );
        let mut full = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let attempt = match self.reach.session(&self.options).await {
                Ok(session) => search.attempt(session, &mut own).await,
                Err(trouble) => Err(trouble),
            };
            match attempt {
                Ok(Attempt::Held) => {
                    self.reach.works();
                    break;
                }
                Ok(Attempt::Created) => {}
                Ok(Attempt::Beaten) => {
                    debug!(key = own.key, "another node was faster; trying again");
                    race.wait().await;
                }
                Ok(Attempt::Full(network)) => {
                    error!(%network, "no subnet is free; waiting until one is. A node that is gone frees its own after a day, deleting its key does at once");
                    full.wait().await;
                }
                Err(trouble) => {
                    self.reach.give_up(&trouble);
                    away.wait().await;
                }
            }
        }
        let Subnets { v4, v6 } = own.subnets;
        if let Some(old) = before.and_then(|lease| lease.v4).filter(|old| *old != v4) {
            warn!(key = own.key, %old, "leased another subnet than before: the old one is taken, or not of this network");
        } else {
            info!(key = own.key, "leased");
        }
        self.own = Some(own);
        Ok(Lease { v4: Some(v4), v6 })
    }

    async fn run(self, links: Links) -> DirectoryError {
        let Some(v4) = links.lease.v4 else {
            return ipv6_alone();
        };
        let subnets = Subnets {
            v4,
            v6: links.lease.v6,
        };
        let own = self
            .own
            .filter(|own| own.subnets == subnets)
            .unwrap_or_else(|| Own::new(&self.keys, subnets, self.options.ttl));
        follow::Follower::new(self.options, self.keys, self.reach, own, links)
            .run()
            .await
    }
}

/// flannel's keys have no form for it.
fn ipv6_alone() -> DirectoryError {
    DirectoryError(
        "a network of IPv6 alone cannot be in etcd: a node's IPv4 subnet is its key; set EnableIPv4 and Network, or use another directory".into(),
    )
}
