//! One family's hearing.

use std::net::IpAddr;

use libcni::spec::IpNetwork;

use super::believed::{Believed, Clash};
use super::standing::Stood;
use super::{Accepted, Judged, MAX_PEERS, Reason};
use crate::conf::Backend;
use crate::own::{Own, OwnSide};
use crate::peer::Site;

/// A subnet may be 16 times as large as ours, where a cluster has nodes of several sizes, and not larger: one peer is
/// not to have what many could.
const WIDER_BITS: u8 = 4;

/// Who has been believed so far.
#[derive(Debug)]
pub(super) struct Court<'s> {
    own: &'s Own,
    side: &'s OwnSide,
    believed: Believed,
}

/// Somebody's turn: the smaller comes first.
type Rank = (u8, u8);

// === impl Court ===

impl<'s> Court<'s> {
    pub(super) fn new(own: &'s Own, side: &'s OwnSide) -> Self {
        let believed = Believed::default();
        Self {
            own,
            side,
            believed,
        }
    }

    /// Hears all candidates and says yes to some. `stood` is what was believed of each before.
    pub(super) fn hear<'a>(
        mut self,
        v6: bool,
        candidates: &mut [Accepted<'a>],
        stood: &[Option<&Stood>],
        judged: &mut Judged<'a>,
    ) {
        let mut turns: Vec<(Rank, usize, Site)> = Vec::new();
        for (at, (candidate, stood)) in candidates.iter_mut().zip(stood).enumerate() {
            let Some(site) = candidate.peer.site(v6) else {
                continue;
            };
            // Those who stood beside each other stand beside each other.
            if let Some(site) = stood
                .filter(|stood| stood.says_the_same(candidate.peer))
                .and_then(|stood| stood.site(v6))
            {
                *candidate.place(v6) = Some(*site);
                self.believed.push(at, *site);
                continue;
            }
            match self.alone(site) {
                Ok(site) => turns.push((self.rank(*stood, v6, &site), at, site)),
                Err(reason) => judged.refuse(candidate.key, candidate.peer, Some(v6), reason),
            }
        }
        // Stable: between equals, by key.
        turns.sort_by_key(|(rank, ..)| *rank);
        self.believed.expect(turns.len());
        for (_, at, site) in turns {
            let verdict = self.among(&site, candidates);
            let Some(candidate) = candidates.get_mut(at) else {
                continue;
            };
            match verdict {
                Ok(()) => {
                    self.believed.push(at, site);
                    *candidate.place(v6) = Some(site);
                }
                Err(reason) => judged.refuse(candidate.key, candidate.peer, Some(v6), reason),
            }
        }
    }

    /// What can be said without the others. Gives it back with the host bits of its subnet off.
    fn alone(&self, site: &Site) -> Result<Site, Reason> {
        let net = site.subnet;
        let first = net.network();
        let network = &self.side.network;
        if !network.contains(first) || net.prefix() <= network.prefix() {
            return Err(Reason::Outside(net));
        }
        let net = IpNetwork::new(first, net.prefix()).map_err(|_| Reason::Outside(net))?;
        if overlap(&net, &self.side.subnet) {
            return Err(Reason::OwnSubnet(net));
        }
        if net.prefix().saturating_add(WIDER_BITS) < self.side.subnet.prefix() {
            return Err(Reason::TooWide(net));
        }
        if let Some(ip) = self.own_addresses().find(|ip| net.contains(*ip)) {
            return Err(Reason::Underlay(net, ip));
        }
        self.address(site.public_ip, &net)?;
        if matches!(self.own.backend, Backend::Vxlan(_)) {
            let mac = site.vtep.ok_or(Reason::NoVtep)?.mac;
            if mac.is_zero() || mac.is_multicast() {
                return Err(Reason::BadMac(mac));
            }
            if mac == self.side.mac {
                return Err(Reason::OwnMac(mac));
            }
        }
        let tunnel = matches!(self.own.backend, Backend::Vxlan(_));
        Ok(Site {
            subnet: net,
            // What is not used can clash with nobody.
            vtep: site.vtep.filter(|_| tunnel),
            ..*site
        })
    }

    fn address(&self, ip: IpAddr, net: &IpNetwork) -> Result<(), Reason> {
        let nobodys = match ip {
            // 0.0.0.0/8 is "this network" (RFC 1122).
            IpAddr::V4(ip) => {
                ip.octets().first() == Some(&0)
                    || ip.is_multicast()
                    || ip.is_loopback()
                    || ip.is_broadcast()
            }
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_loopback(),
        };
        if nobodys || ip.is_ipv4() != net.is_ipv4() {
            return Err(Reason::BadAddress(ip));
        }
        if self.own_addresses().any(|own| own == ip) {
            return Err(Reason::OwnAddress(ip));
        }
        match [net, &self.side.subnet]
            .into_iter()
            .find(|net| net.contains(ip))
        {
            Some(net) => Err(Reason::AddressInSubnet(ip, *net)),
            None => Ok(()),
        }
    }

    fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.side.network.is_ipv6();
        let parent = &self.own.parent;
        let parents = [parent.v4.map(IpAddr::from), parent.v6.map(IpAddr::from)];
        let all = parents.into_iter().flatten().chain([self.side.local]);
        all.filter(move |ip| ip.is_ipv6() == v6)
    }

    /// Who has all that it says already; who has a part of it; who is new, of the usual size first.
    fn rank(&self, stood: Option<&Stood>, v6: bool, site: &Site) -> Rank {
        let mac = |site: &Site| site.vtep.map(|vtep| vtep.mac);
        match stood.and_then(|stood| stood.site(v6)) {
            Some(had) if same(had, site) => (0, 0),
            Some(had)
                if had.subnet == site.subnet || mac(had).is_some() && mac(had) == mac(site) =>
            {
                (1, 0)
            }
            _ => (2, site.subnet.prefix().abs_diff(self.side.subnet.prefix())),
        }
    }

    /// What can be said among those that are believed.
    fn among(&self, site: &Site, candidates: &[Accepted<'_>]) -> Result<(), Reason> {
        if self.believed.len() >= MAX_PEERS {
            return Err(Reason::TooMany);
        }
        let Some((at, clash)) = self.believed.clash(site) else {
            return Ok(());
        };
        let key = candidates.get(at).map_or("", |c| c.key).to_owned();
        match clash {
            Clash::Subnet => Err(Reason::Overlap(site.subnet, key)),
            Clash::Address(theirs) => Err(Reason::AddressInSubnet(site.public_ip, theirs)),
            Clash::Underlay(ip) => Err(Reason::Underlay(site.subnet, ip)),
            Clash::Mac(mac) => Err(Reason::SameMac(mac, key)),
        }
    }
}

/// The network identifier changes nothing for anybody.
fn same(had: &Site, says: &Site) -> bool {
    let mac = |site: &Site| site.vtep.map(|vtep| vtep.mac);
    had.subnet == says.subnet && had.public_ip == says.public_ip && mac(had) == mac(says)
}

fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}
