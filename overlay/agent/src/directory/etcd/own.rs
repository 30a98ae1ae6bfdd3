//! Our own key: who has it, and how it is written. Nothing is written over what we do not know: each write compares.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use fabric::lease::{self, Subnets};
use fabric::{Kind, Peer};

use super::entries::who;
use super::keys::Keys;
use super::session::{Session, Trouble};

/// Which version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The revision of the write.
    pub(super) revision: i64,
    /// Its etcd lease; 0 is a reservation: it stays without.
    pub(super) lease: i64,
}

/// What a key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) value: Vec<u8>,
}

/// Who has our key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// It is not there.
    Nobody,
    /// We have.
    Us {
        stamp: Stamp,
        /// Whether it says what we want to say.
        current: bool,
    },
    /// Somebody else has.
    Other(String),
}

/// Our own key.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) subnets: Subnets,
    pub(super) key: String,
    /// As we wrote it, or found it to be ours.
    pub(super) stamp: Option<Stamp>,
    /// Whether the subnets of IPv4, of IPv6 were chosen in this search, so that somebody may have come between.
    pub(super) chosen: [bool; 2],
    /// The etcd lease that we keep alive; 0 before there is one.
    lease: i64,
    ttl: Duration,
}

/// How a write ended.
#[derive(Debug)]
pub(super) enum Written {
    /// It stands.
    Yes,
    /// Somebody was faster: this is there now.
    Found(Option<Entry>),
}

// === impl Entry ===

impl Entry {
    pub(super) fn of(kv: &KeyValue) -> Self {
        Self {
            stamp: Stamp {
                revision: kv.mod_revision(),
                lease: kv.lease(),
            },
            value: kv.value().to_vec(),
        }
    }
}

// === impl Own ===

impl Own {
    pub(super) fn new(keys: &Keys, subnets: Subnets, ttl: Duration) -> Self {
        Self {
            subnets,
            key: keys.lease(&subnets),
            stamp: None,
            chosen: [false; 2],
            lease: 0,
            ttl,
        }
    }

    /// The same node with other subnets, not written yet.
    pub(super) fn aim(&mut self, keys: &Keys, subnets: Subnets) {
        self.subnets = subnets;
        self.key = keys.lease(&subnets);
        self.stamp = None;
    }

    /// It is ours as it is there.
    pub(super) fn adopt(&mut self, stamp: Stamp) {
        self.stamp = Some(stamp);
        self.lease = stamp.lease;
    }

    /// The etcd lease is gone.
    pub(super) fn expired(&mut self) {
        self.lease = 0;
    }

    /// Nothing is known of it any more.
    pub(super) fn forget(&mut self) {
        (self.stamp, self.lease) = (None, 0);
    }

    /// The etcd lease that has to be kept alive.
    pub(super) fn kept(&self) -> Option<i64> {
        let held = self.stamp?.lease;
        (held != 0).then_some(held)
    }

    /// Who has the key, going by what it says: what we wrote ourselves is ours, and so is what has our address.
    pub(super) fn holder(&self, entry: Option<&Entry>, me: &Peer) -> Holder {
        let Some(Entry { stamp, value }) = entry else {
            return Holder::Nobody;
        };
        let current = value == lease::value(me).as_bytes();
        if self.stamp == Some(*stamp) || current || is_mine(value, me) {
            let stamp = *stamp;
            return Holder::Us { stamp, current };
        }
        Holder::Other(match lease::parse(&me.name, &self.subnets, value) {
            Ok(peer) => who(&peer),
            Err(why) => format!("an entry that cannot be read ({why}; key {})", me.name),
        })
    }

    /// Writes the key: anew if it is `known` not to be there, over exactly that version else. What goes in the same
    /// step (the key's former name) goes first: flannel's peers take events in their order.
    pub(super) async fn write(
        &mut self,
        session: &mut Session,
        me: &Peer,
        known: Option<Stamp>,
        instead: Option<(Vec<u8>, Stamp)>,
    ) -> Result<Written, Trouble> {
        let now = known.or(instead.as_ref().map(|(_, stamp)| *stamp));
        let lease = match now.map(|stamp| stamp.lease) {
            Some(0) => 0,
            _ => self.lease(session).await?,
        };
        let mut when = match known {
            None => vec![Compare::version(self.key.as_str(), CompareOp::Equal, 0)],
            Some(stamp) => unchanged(self.key.as_bytes(), stamp),
        };
        let mut then = Vec::new();
        if let Some((old, stamp)) = instead {
            when.extend(unchanged(&old, stamp));
            then.push(TxnOp::delete(old, None));
        }
        let put = PutOptions::new().with_lease(lease);
        then.push(TxnOp::put(self.key.as_str(), lease::value(me), Some(put)));
        let txn = Txn::new()
            .when(when)
            .and_then(then)
            .or_else([TxnOp::get(self.key.as_str(), None)]);
        let answer = session.txn(txn).await?;
        if !answer.succeeded() {
            let found = answer.op_responses().into_iter().find_map(|op| match op {
                TxnOpResponse::Get(got) => got.kvs().first().map(Entry::of),
                _ => None,
            });
            return Ok(Written::Found(found));
        }
        let revision = answer.header().map_or(0, |header| header.revision());
        self.stamp = Some(Stamp { revision, lease });
        Ok(Written::Yes)
    }

    /// The etcd lease to write with: ours if it lives, else a new one.
    async fn lease(&mut self, session: &mut Session) -> Result<i64, Trouble> {
        if self.lease == 0 || !session.keep_alive(self.lease).await? {
            self.lease = session.grant(self.ttl).await?;
        }
        Ok(self.lease)
    }
}

/// Is this key as it was then?
fn unchanged(key: &[u8], stamp: Stamp) -> Vec<Compare> {
    vec![
        Compare::mod_revision(key, CompareOp::Equal, stamp.revision),
        Compare::lease(key, CompareOp::Equal, stamp.lease),
    ]
}

/// What is missing for a lease of these families. It is never published so: flanneld drops a node with half of its
/// families as a whole, cannot read one without an address, and stalls for a minute on one without a MAC.
pub(super) fn missing(me: &Peer, v6: bool) -> Option<String> {
    let families = [(true, &me.v4, "IPv4"), (v6, &me.v6, "IPv6")];
    families.into_iter().find_map(|(wanted, site, family)| {
        wanted.then_some(())?;
        let Some(site) = site else {
            return Some(format!(
                "the network has {family}, and this node has no {family} address to be reached at"
            ));
        };
        let bare = me.kind == Kind::Vxlan && site.vtep.is_none();
        bare.then(|| format!("the backend is vxlan, and this node has no {family} VTEP"))
    })
}

/// Does a lease's value have our address? IPv4 is the identity.
pub(super) fn is_mine(value: &[u8], me: &Peer) -> bool {
    // The subnets do not matter here, and a value of one family is read whatever the key is.
    let Some(site) = me.v4 else {
        return false;
    };
    let alone = Subnets {
        v4: site.subnet,
        v6: None,
    };
    lease::parse("", &alone, value)
        .ok()
        .and_then(|peer| peer.v4)
        .is_some_and(|theirs| theirs.public_ip == site.public_ip)
}
