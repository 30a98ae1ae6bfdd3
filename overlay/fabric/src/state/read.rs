//! Reading what is there: one dump of each table, of what can be ours only.

use std::collections::hash_map::Entry;

use libcni::kernel::neigh::State;
use libcni::kernel::route::{self, PROTOCOL_BOOT, TABLE_MAIN};
use libcni::kernel::{fdb, neigh, nexthop};
use libcni::nl::{NlError, Socket};

use super::{
    Change, FIRST_NEXTHOP, Leg, Links, PROTOCOL, Path, Tables, is_plain, nexthop_id, usual_metric,
};

// === impl Tables ===

impl Tables {
    /// Reads one family.
    pub(crate) fn read(sock: &mut Socket, v6: bool, links: Links) -> Result<Self, NlError> {
        let mut tables = Self::default();
        let device = links.device;
        if device != 0 && links.objects {
            tables.read_hops(sock, v6, device)?;
        }
        let ours = route::Filter {
            table: Some(TABLE_MAIN),
            protocol: Some(PROTOCOL),
            oif: None,
        };
        for found in route::dump(sock, v6, ours)? {
            tables.take_route(&found, device);
        }
        if device == 0 {
            return Ok(tables);
        }
        let flannels = route::Filter {
            protocol: Some(PROTOCOL_BOOT),
            oif: Some(device),
            ..ours
        };
        for found in route::dump(sock, v6, flannels)? {
            tables.take_route(&found, device);
        }
        for found in neigh::list(sock, device)? {
            // What the kernel learned it also forgets.
            if let (State::Permanent, Some(mac)) = (found.state, found.mac)
                && found.ip.is_ipv6() == v6
            {
                tables.neighs.insert(found.ip, mac);
            }
        }
        for found in fdb::list(sock, device)? {
            tables.take_entry(&found);
        }
        Ok(tables)
    }

    fn read_hops(&mut self, sock: &mut Socket, v6: bool, device: u32) -> Result<(), NlError> {
        let Some(found) = nexthop::list(sock, v6, device)? else {
            return Ok(());
        };
        let ours = found
            .into_iter()
            .filter(|hop| hop.protocol == PROTOCOL && hop.id & FIRST_NEXTHOP == FIRST_NEXTHOP);
        self.hops = Some(ours.map(|hop| (hop.id, hop.gw)).collect());
        Ok(())
    }

    fn take_route(&mut self, found: &route::Route, device: u32) {
        let path = Path {
            leg: self.leg(found, device),
            protocol: found.protocol,
        };
        let stray = Change::DelRoute {
            dst: found.dst,
            path,
            metric: found.priority,
        };
        if found.priority != usual_metric(found.dst.is_ipv6()) {
            self.strays.push(stray);
            return;
        }
        match self.routes.entry(found.dst) {
            Entry::Vacant(place) => drop(place.insert(path)),
            // One of several next hops of the same route, or the shadow of another: not as anybody here made it.
            Entry::Occupied(mut first) => {
                let (gw, oif, nexthop) = (found.gw, found.oif, found.nexthop);
                first.get_mut().leg = Leg::Wrong { gw, oif, nexthop };
                self.strays.push(stray);
            }
        }
    }

    fn leg(&self, found: &route::Route, device: u32) -> Leg {
        let gateway = found.dst.network();
        let wrong = Leg::Wrong {
            gw: found.gw,
            oif: found.oif,
            nexthop: found.nexthop,
        };
        if !is_plain(found) {
            return wrong;
        }
        if let Some(id) = found.nexthop {
            let hops = self.hops.as_ref();
            let right = hops.is_some_and(|hops| hops.get(&id) == Some(&gateway));
            return if right && nexthop_id(gateway) == Some(id) {
                Leg::Object(id)
            } else {
                wrong
            };
        }
        match found.gw {
            Some(gw) if found.oif == device && gw == gateway => Leg::Tunnel,
            Some(gw) if found.oif != device => Leg::Link { gw, oif: found.oif },
            _ => wrong,
        }
    }

    fn take_entry(&mut self, found: &fdb::Entry) {
        // What the device learned it also forgets. Set by us, it becomes permanent.
        if !found.permanent {
            return;
        }
        let (mac, dst) = (found.mac, found.dst);
        match self.fdb.entry(mac) {
            Entry::Vacant(place) => drop(place.insert(dst)),
            Entry::Occupied(_) => self.strays.push(Change::DelFdb { mac, dst }),
        }
    }
}
