//! ADD: an address from each range set, or nothing.
use std::net::IpAddr;

use super::dir::Dir;
use super::error::{AllocateError, Exhausted};
use super::locked::{Claim, Intent, Locked, Pending};
use super::owner::Owner;
use super::range::{Range, RangeSet, address, number};
use super::{IpamConf, StoreError};
use crate::spec::result::IpConfig;
use crate::spec::{Attachment, CniResult, IpNetwork};

/// What ADD got.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// One address per range set, in their order; routes and dns of the config. No interfaces.
    pub result: CniResult,
    /// Whether one of the addresses may have been another attachment's earlier in this boot, so that
    /// neighbours and connection tracking may remember it. Never false if it was.
    pub reused: bool,
}

/// One address just reserved.
struct Taken<'a> {
    ip: IpAddr,
    range: &'a Range,
    reused: bool,
}

impl IpamConf {
    /// ADD: reserves one address per range set for the attachment, all or nothing.
    ///
    /// # Errors
    /// Nothing this call reserved remains; what the attachment held before stays.
    pub fn add(&self, attachment: &Attachment) -> Result<Lease, StoreError> {
        let dns = self.dns()?;
        let dir = Dir::create(self.dir.path())?;
        let owner = Owner::of(attachment);
        // Written before the lock is taken: what others wait for is the link alone.
        let mut pending = Vec::with_capacity(self.sets.len());
        for _ in &self.sets {
            pending.push(Pending {
                owner: &owner,
                draft: dir.draft(&owner)?,
            });
        }
        let mut locked = Locked::open(&self.dir, dir, Intent::Change)?;
        let mut taken = Vec::with_capacity(self.sets.len());
        let done = self.allocate(&mut locked, attachment, &pending, &mut taken);
        if done.is_err() {
            for taken in &taken {
                // The first error is the one to report; GC finds what could not be taken back.
                let _ = locked.free(taken.ip, &owner);
            }
        }
        locked.finish();
        done?;
        let ip_config = |taken: &Taken<'_>| {
            Ok(IpConfig {
                interface: None,
                address: IpNetwork::new(taken.ip, taken.range.subnet.prefix())?,
                gateway: Some(taken.range.gateway),
            })
        };
        let ips = taken
            .iter()
            .map(ip_config)
            .collect::<Result<_, ipnetwork::IpNetworkError>>();
        Ok(Lease {
            result: CniResult {
                interfaces: Vec::new(),
                // A range's prefix length fits its addresses.
                ips: ips.unwrap_or_default(),
                routes: self.routes.clone(),
                dns,
            },
            reused: taken.iter().any(|taken| taken.reused),
        })
    }

    /// Reserves, noting each address in `taken` as soon as it is reserved.
    fn allocate<'a>(
        &'a self,
        locked: &mut Locked,
        attachment: &Attachment,
        pending: &[Pending<'_>],
        taken: &mut Vec<Taken<'a>>,
    ) -> Result<(), StoreError> {
        let mut requested = self.requested.clone();
        let mut held = locked.held_by(&Owner::of(attachment))?;
        held.extend(locked.held_by(&Owner::legacy(&attachment.container_id))?);
        for (i, (set, pending)) in self.sets.iter().zip(pending).enumerate() {
            let wish = requested.iter().position(|ip| set.range_of(*ip).is_some());
            let wish = wish.map(|at| requested.remove(at));
            let got = match held.iter().find(|(ip, _)| set.range_of(*ip).is_some()) {
                Some((ip, _)) => Err(AllocateError::Duplicate {
                    ip: *ip,
                    id: attachment.container_id.clone(),
                }),
                None => match wish {
                    Some(ip) => this_one(locked, set, pending, ip),
                    None => next_one(locked, set, pending, i),
                },
            };
            let got = got.map_err(|why| StoreError::Allocate { set: i, why })?;
            let ip = got.ip;
            taken.push(got);
            let kept = locked.set_cursor(i, ip);
            kept.map_err(|e| StoreError::Allocate {
                set: i,
                why: e.into(),
            })?;
        }
        if requested.is_empty() {
            return Ok(());
        }
        Err(StoreError::Unmatched(requested))
    }
}

/// Reserves a requested address.
fn this_one<'a>(
    locked: &mut Locked,
    set: &'a RangeSet,
    pending: &Pending<'_>,
    ip: IpAddr,
) -> Result<Taken<'a>, AllocateError> {
    let exhausted = || AllocateError::Exhausted(Exhausted::of(set, locked.dir.path()));
    let range = set.range_of(ip).ok_or_else(exhausted)?;
    if ip == range.gateway {
        return Err(AllocateError::Gateway(ip));
    }
    match locked.claim(pending, ip)? {
        Claim::Done { reused } => Ok(Taken { ip, range, reused }),
        Claim::Taken(holder) => Err(AllocateError::Taken {
            ip,
            ranges: set.to_string(),
            holder: holder.map_or_else(
                || "something that is no reservation file".to_owned(),
                |owner| owner.shown(),
            ),
        }),
    }
}

/// Reserves the next free address after the one last given.
fn next_one<'a>(
    locked: &mut Locked,
    set: &'a RangeSet,
    pending: &Pending<'_>,
    index: usize,
) -> Result<Taken<'a>, AllocateError> {
    let cursor = locked.dir.cursor(index);
    loop {
        if let Some(taken) = one_lap(locked, set, pending, cursor)? {
            return Ok(taken);
        }
        if !locked.was_wrong()? {
            let why = Exhausted::of(set, locked.dir.path());
            return Err(AllocateError::Exhausted(why));
        }
    }
}

fn one_lap<'a>(
    locked: &mut Locked,
    set: &'a RangeSet,
    pending: &Pending<'_>,
    cursor: Option<IpAddr>,
) -> Result<Option<Taken<'a>>, StoreError> {
    for stretch in set.lap(cursor) {
        let range = stretch.range;
        let mut from = Some(stretch.first);
        while let Some(first) = from {
            let Some(free) = locked.next_free(first, stretch.last)? else {
                break;
            };
            let ip = address(free);
            if free != number(range.gateway)
                && let Claim::Done { reused } = locked.claim(pending, ip)?
            {
                return Ok(Some(Taken { ip, range, reused }));
            }
            from = free.checked_add(1).filter(|next| *next <= stretch.last);
        }
    }
    Ok(None)
}
