//! The way to a lease: ours if there is one, else the subnet we had, else a free one.

use etcd_client::KeyValue;
use fabric::lease::{self, Subnets};
use fabric::{NetConf, Network, Peer};
use libcni::spec::IpNetwork;
use tracing::warn;

use super::entries::overlap;
use super::keys::Keys;
use super::own::{self, Entry, Own, Stamp, Written, is_mine};
use super::session::{Listing, Session, Trouble};
use crate::directory::pick::pick;
use crate::directory::{Lease, Me};

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The key is ours and says what it has to.
    Held,
    /// Written; whether somebody came between is to be seen by looking again.
    Created,
    /// Somebody was faster.
    Beaten,
    /// No subnet is free in this network.
    Full(IpNetwork),
}

/// One node's search.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) keys: &'a Keys,
    pub(super) v4: &'a Network,
    pub(super) v6: Option<&'a Network>,
    pub(super) me: &'a Me,
    pub(super) before: Option<&'a Lease>,
    /// What our wish for a subnet comes from.
    pub(super) identity: String,
}

/// A lease that has our address, and what of it stands: a subnet that the network does not lease does not, and of one
/// that we have just made, neither does a subnet that somebody else had earlier. (Keys of two families can differ and
/// still have a subnet in common; so comparing with one key does not tell.)
struct Mine<'l> {
    kv: &'l KeyValue,
    v4: Option<IpNetwork>,
    v6: Option<IpNetwork>,
}

/// What to write.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    subnets: Subnets,
    /// The key's version that is written over.
    known: Option<Stamp>,
    /// The key that goes in the same step.
    instead: Option<(Vec<u8>, Stamp)>,
}

// === impl Search ===

impl<'a> Search<'a> {
    /// `None` without IPv4, which is a lease's identity.
    pub(super) fn new(
        keys: &'a Keys,
        conf: &'a NetConf,
        me: &'a Me,
        before: Option<&'a Lease>,
    ) -> Option<Self> {
        Some(Self {
            keys,
            v4: conf.v4.as_ref()?,
            v6: conf.v6.as_ref(),
            me,
            before,
            identity: me
                .v4
                .map_or_else(String::new, |end| end.public_ip.to_string()),
        })
    }

    /// What is missing for a lease in this network.
    pub(super) fn missing(&self) -> Option<String> {
        let nets = Subnets {
            v4: self.v4.net,
            v6: self.v6.map(|network| network.net),
        };
        own::missing(&self.peer(&nets), self.v6.is_some())
    }

    /// Looks once, writes once.
    pub(super) async fn attempt(
        &self,
        session: &mut Session,
        own: &mut Own,
    ) -> Result<Attempt, Trouble> {
        let listing = session.list(&self.keys.subnets).await?;
        let mine = self.mine(&listing, own);
        let plan = match self.plan(&listing, mine.as_ref()) {
            Ok(plan) => plan,
            Err(full) => return Ok(Attempt::Full(full)),
        };
        if let Some(mine) = &mine
            && plan.known.is_some()
            && plan.known == own.stamp
            && mine.kv.value() == lease::value(&self.peer(&plan.subnets)).as_bytes()
        {
            return Ok(Attempt::Held);
        }
        own.aim(self.keys, plan.subnets);
        let kept = mine.map_or([None; 2], |mine| [mine.v4, mine.v6]);
        for (chosen, kept) in own.chosen.iter_mut().zip(kept) {
            *chosen |= kept.is_none();
        }
        let peer = self.peer(&plan.subnets);
        match own.write(session, &peer, plan.known, plan.instead).await? {
            Written::Yes if plan.known.is_some() => Ok(Attempt::Held),
            Written::Yes => Ok(Attempt::Created),
            Written::Found(_) => Ok(Attempt::Beaten),
        }
    }

    /// Us, as the others see us.
    fn peer(&self, subnets: &Subnets) -> Peer {
        let lease = Lease {
            v4: Some(subnets.v4),
            v6: subnets.v6,
        };
        self.me.peer(&subnets.key(), &lease)
    }

    /// Our lease: one that stands, the one of before, the oldest. A reservation that does not fit is its operator's.
    fn mine<'l>(&self, listing: &'l Listing, own: &Own) -> Option<Mine<'l>> {
        let us = self.peer(&Subnets {
            v4: self.v4.net,
            v6: None,
        });
        let before = self.before.and_then(|lease| lease.v4);
        let ours = listing.kvs.iter().filter(|kv| is_mine(kv.value(), &us));
        ours.filter_map(|kv| {
            let subnets = self.keys.subnets_of(kv.key()).ok()?;
            let just_made = own.stamp == Some(Entry::of(kv).stamp);
            let [chosen_v4, chosen_v6] = own.chosen.map(|chosen| chosen && just_made);
            let stands = |network: Option<&Network>, subnet: &IpNetwork, chosen| {
                network.is_some_and(|network| network.leases(subnet))
                    && !(chosen && self.is_late(listing, kv, subnet))
            };
            let v4 = Some(subnets.v4).filter(|v4| stands(Some(self.v4), v4, chosen_v4));
            let v6 = subnets.v6.filter(|v6| stands(self.v6, v6, chosen_v6));
            if v4.is_none() && kv.lease() == 0 {
                let (subnet, network) = (subnets.v4, self.v4.net);
                warn!(%subnet, %network, "a subnet is reserved for this node that the network does not lease; it is left alone");
                return None;
            }
            Some(Mine { kv, v4, v6 })
        })
        .max_by_key(|mine| {
            let age = std::cmp::Reverse(mine.kv.create_revision());
            (mine.v4.is_some(), mine.v4 == before, age)
        })
    }

    /// Had somebody else this subnet before this key was made?
    fn is_late(&self, listing: &Listing, kv: &KeyValue, subnet: &IpNetwork) -> bool {
        let earlier = listing.kvs.iter().filter(|other| {
            other.key() != kv.key() && other.create_revision() < kv.create_revision()
        });
        earlier
            .filter_map(|other| self.keys.taken_by(other.key()))
            .flat_map(|taken| [Some(taken.v4), taken.v6])
            .flatten()
            .any(|taken| overlap(subnet, &taken))
    }

    /// What to write, or the network that is full.
    fn plan(&self, listing: &Listing, mine: Option<&Mine<'_>>) -> Result<Plan, IpNetwork> {
        let taken: Vec<Subnets> = listing
            .keys()
            .filter(|key| mine.is_none_or(|mine| mine.kv.key() != *key))
            .filter_map(|key| self.keys.taken_by(key))
            .collect();
        let before = self.before.copied().unwrap_or_default();
        let v4 = mine.and_then(|mine| mine.v4).or_else(|| {
            let taken = taken.iter().map(|subnets| &subnets.v4);
            pick(self.v4, taken, before.v4.as_ref(), &self.identity)
        });
        let subnets = Subnets {
            v4: v4.ok_or(self.v4.net)?,
            v6: match self.v6 {
                None => None,
                Some(network) => {
                    let v6 = mine.and_then(|mine| mine.v6).or_else(|| {
                        let taken = taken.iter().filter_map(|subnets| subnets.v6.as_ref());
                        pick(network, taken, before.v6.as_ref(), &self.identity)
                    });
                    Some(v6.ok_or(network.net)?)
                }
            },
        };
        let (mut known, mut instead) = (None, None);
        if let Some(mine) = mine {
            let stamp = Entry::of(mine.kv).stamp;
            match mine.kv.key() == self.keys.lease(&subnets).as_bytes() {
                true => known = Some(stamp),
                false => instead = Some((mine.kv.key().to_vec(), stamp)),
            }
        }
        Ok(Plan {
            subnets,
            known,
            instead,
        })
    }
}
