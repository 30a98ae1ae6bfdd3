//! What has to be done, from what should be and what is there.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use libcni::kernel::Mac;
use libcni::spec::IpNetwork;

use super::{Change, Leg, PLAIN_ROUTES, Path, Table, Tables, nexthop_id, usual_metric};
use crate::converge::Others;
use crate::hash::Keyed;

/// What should be there for one side of a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    /// Whose it is, by its place among the peers that are believed.
    pub(crate) peer: usize,
    pub(crate) subnet: IpNetwork,
    pub(crate) way: Way,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the tunnel.
    Tunnel { mac: Mac, dst: IpAddr },
    /// On a link.
    Link { gw: IpAddr, oif: u32 },
}

/// One thing to do, and for whom; removals are for nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) change: Change,
    pub(crate) peer: Option<usize>,
    /// Was something else in its place?
    pub(crate) instead: bool,
}

/// How many of what is there have been met on the way through what should be.
#[derive(Debug, Default)]
struct Met {
    routes: usize,
    neighs: usize,
    fdb: usize,
    hops: HashSet<u32, Keyed>,
}

// === impl Way ===

impl Way {
    pub(super) fn leg(self) -> Leg {
        match self {
            Self::Tunnel { .. } => Leg::Tunnel,
            Self::Link { gw, oif } => Leg::Link { gw, oif },
        }
    }
}

// === impl Tables ===

impl Tables {
    /// What turns this into what is wanted, in the order in which it is to be done. Subnets and MACs are wanted once
    /// each.
    pub(crate) fn diff(&self, wants: &[Want], others: Others) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut met = Met::default();
        let by_object = wants.len() > PLAIN_ROUTES && self.hops.is_some();
        for want in wants {
            self.diff_one(want, by_object, &mut met, &mut steps);
        }
        if others == Others::Remove {
            self.sweep(wants, &met, &mut steps);
        }
        steps.sort_by_key(|step| step.change.phase());
        steps
    }

    fn diff_one(&self, want: &Want, by_object: bool, met: &mut Met, steps: &mut Vec<Step>) {
        let mut set = |change, instead| {
            steps.push(Step {
                change,
                peer: Some(want.peer),
                instead,
            });
        };
        let (dst, gateway) = (want.subnet, want.subnet.network());
        if let Way::Tunnel { mac, dst } = want.way {
            let there = self.fdb.get(&mac);
            met.fdb += usize::from(there.is_some());
            if there != Some(&dst) {
                set(Change::Fdb { mac, dst }, there.is_some());
            }
            let there = self.neighs.get(&gateway);
            met.neighs += usize::from(there.is_some());
            if there != Some(&mac) {
                set(Change::Neigh { ip: gateway, mac }, there.is_some());
            }
        }
        let wanted = want.way.leg();
        let there = self.routes.get(&dst);
        met.routes += usize::from(there.is_some());
        if let Some(path) = there.filter(|path| path.is_right(wanted)) {
            if let Leg::Object(id) = path.leg {
                met.hops.insert(id);
            }
            return;
        }
        let mut leg = wanted;
        if let (Leg::Tunnel, true, Some(id)) = (leg, by_object, nexthop_id(gateway)) {
            leg = Leg::Object(id);
            met.hops.insert(id);
            let hop = Change::Hop { id, gw: gateway };
            if !self.has(&hop) {
                let hops = self.hops.as_ref();
                set(hop, hops.is_some_and(|hops| hops.contains_key(&id)));
            }
        }
        let path = Path::ours(leg);
        set(Change::Route { dst, path }, there.is_some());
    }

    /// What is there and not wanted.
    fn sweep(&self, wants: &[Want], met: &Met, steps: &mut Vec<Step>) {
        let mut remove = |change| {
            steps.push(Step {
                change,
                peer: None,
                instead: false,
            });
        };
        // Of two routes to a subnet the one that is wanted stays, whichever the kernel told first.
        let wanted = |stray: &&Change| match **stray {
            Change::DelRoute { dst, path, metric } if metric == usual_metric(dst.is_ipv6()) => {
                let of = |want: &&Want| want.subnet == dst;
                let wanted = wants.iter().find(of).map(|want| want.way.leg());
                wanted.is_some_and(|leg| path.is_right(leg))
            }
            _ => false,
        };
        for &stray in self.strays.iter().filter(|stray| !wanted(stray)) {
            remove(stray);
        }
        let tunnel = |want: &Want| match want.way {
            Way::Tunnel { mac, .. } => Some((want.subnet.network(), mac)),
            Way::Link { .. } => None,
        };
        // Where as many were met as there are, there are no others.
        let metric = |dst: &IpNetwork| usual_metric(dst.is_ipv6());
        let wanted = || wants.iter().map(|want| want.subnet).collect();
        for (&dst, &path) in others(&self.routes, met.routes, wanted) {
            let metric = metric(&dst);
            remove(Change::DelRoute { dst, path, metric });
        }
        let wanted = || wants.iter().filter_map(tunnel).map(|(ip, _)| ip).collect();
        for (&ip, _) in others(&self.neighs, met.neighs, wanted) {
            remove(Change::DelNeigh { ip });
        }
        let wanted = || {
            wants
                .iter()
                .filter_map(tunnel)
                .map(|(_, mac)| mac)
                .collect()
        };
        for (&mac, &dst) in others(&self.fdb, met.fdb, wanted) {
            remove(Change::DelFdb { mac, dst });
        }
        for &id in self.hops.iter().flat_map(|hops| hops.keys()) {
            if !met.hops.contains(&id) {
                remove(Change::DelHop { id });
            }
        }
    }
}

/// The entries of a table whose keys are not wanted; none, without a look, if as many were met as it has.
fn others<K: Eq + Hash, V>(
    table: &Table<K, V>,
    met: usize,
    wanted: impl FnOnce() -> HashSet<K, Keyed>,
) -> impl Iterator<Item = (&K, &V)> {
    let wanted = (met < table.len()).then(wanted);
    table
        .iter()
        .filter(move |(key, _)| wanted.as_ref().is_some_and(|wanted| !wanted.contains(*key)))
}
