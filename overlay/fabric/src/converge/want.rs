//! What should be there, from what the peers say.

use std::net::IpAddr;

use libcni::kernel::route;
use libcni::nl::{Batch, NlError};

use super::{Fabric, Peers};
use crate::conf::Backend;
use crate::judge::{Accepted, Standing};
use crate::own::Own;
use crate::peer::Site;
use crate::state::{Want, Way};

/// So many questions at once that their answers surely have room in the socket.
const QUESTIONS: usize = 64;

// === impl Fabric ===

impl Fabric {
    /// What should be there of a family.
    pub(super) fn wants(&mut self, peers: &[Accepted<'_>], v6: bool) -> Result<Vec<Want>, NlError> {
        let sites = || {
            peers
                .iter()
                .enumerate()
                .filter_map(|(at, peer)| Some((at, peer.site(v6)?)))
        };
        if let Backend::Vxlan(vxlan) = &self.own.backend
            && vxlan.direct_routing
        {
            let asked: Vec<IpAddr> = sites()
                .map(|(_, site)| site.public_ip)
                .filter(|ip| !self.direct.contains_key(ip))
                .collect();
            self.ask(&asked)?;
        }
        let want = |(peer, site): (usize, &Site)| {
            Some(Want {
                peer,
                subnet: site.subnet,
                way: way(
                    &self.own,
                    site,
                    self.direct.get(&site.public_ip).copied().flatten(),
                )?,
            })
        };
        let mut wants = Vec::with_capacity(peers.len());
        wants.extend(sites().filter_map(want));
        Ok(wants)
    }

    /// Asks the kernel which of these addresses are on a link of this node.
    fn ask(&mut self, ips: &[IpAddr]) -> Result<(), NlError> {
        let own_devices = [false, true].map(|v6| {
            let known = self.known.get(usize::from(v6)).and_then(Option::as_ref);
            known.map_or(0, |known| known.links.device)
        });
        for ips in ips.chunks(QUESTIONS) {
            let batch: Batch = ips.iter().map(|ip| route::query(*ip)).collect();
            let mut links = vec![None; ips.len()];
            // No route is an error, of that question alone.
            self.sock.exchange_all(&batch, |at, reply| {
                let on_link = route::from_reply(reply)
                    .filter(|route| route.gw.is_none() && !own_devices.contains(&route.oif));
                if let (Some(place), Some(route)) = (links.get_mut(at), on_link) {
                    *place = Some(route.oif);
                }
            })?;
            self.direct.extend(ips.iter().copied().zip(links));
        }
        Ok(())
    }

    /// Who has already, in the kernel, what they say they have: they have it since before this start.
    pub(super) fn found(&self, peers: &Peers) -> Standing {
        let mut standing = Standing::default();
        for v6 in [false, true] {
            let Some(known) = self.known.get(usize::from(v6)).and_then(Option::as_ref) else {
                continue;
            };
            for (key, peer) in peers {
                let Some(site) = peer.site(v6) else { continue };
                if known.tables.stands(site) {
                    standing.insert(v6, key, *site);
                }
            }
        }
        standing
    }
}

/// How to reach a peer; `None` for one without a tunnel's end, where it has to have one.
fn way(own: &Own, site: &Site, direct: Option<u32>) -> Option<Way> {
    let gw = site.public_ip;
    match (&own.backend, direct) {
        (Backend::HostGw, _) => Some(Way::Link {
            gw,
            oif: own.parent.index,
        }),
        (Backend::Vxlan(_), Some(oif)) => Some(Way::Link { gw, oif }),
        (Backend::Vxlan(_), None) => Some(Way::Tunnel {
            mac: site.vtep?.mac,
            dst: gw,
        }),
    }
}
