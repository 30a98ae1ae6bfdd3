//! What belongs to those who are believed, and whether somebody else can have something beside it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use libcni::kernel::Mac;
use libcni::spec::IpNetwork;

use crate::conf::number;
use crate::hash::Keyed;
use crate::peer::Site;

/// So many questions are answered by looking at everybody; more are worth an index.
const FEW: usize = 16;

/// Those who are believed, of one family.
#[derive(Debug, Default)]
pub(super) struct Believed {
    all: Vec<(usize, Site)>,
    index: Option<Index>,
}

/// Places in the list, by what is there.
#[derive(Debug, Default)]
struct Index {
    /// By first address; no two overlap.
    subnets: BTreeMap<u128, usize>,
    addresses: BTreeMap<u128, usize>,
    macs: HashMap<Mac, usize, Keyed>,
}

/// What two cannot both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clash {
    /// The subnet, or a part of it.
    Subnet,
    /// The address is in the other's subnet.
    Address(IpNetwork),
    /// The other's address is in the subnet.
    Underlay(IpAddr),
    /// The MAC.
    Mac(Mac),
}

// === impl Believed ===

impl Believed {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes somebody in, with whom there is no clash.
    pub(super) fn push(&mut self, at: usize, site: Site) {
        if let Some(index) = &mut self.index {
            index.insert(self.all.len(), &site);
        }
        self.all.push((at, site));
    }

    /// So many questions will come.
    pub(super) fn expect(&mut self, questions: usize) {
        if questions > FEW {
            let mut index = Index::default();
            for (place, (_, site)) in self.all.iter().enumerate() {
                index.insert(place, site);
            }
            self.index = Some(index);
        }
    }

    /// Whom it clashes with, and over what.
    pub(super) fn clash(&self, site: &Site) -> Option<(usize, Clash)> {
        let Some(index) = &self.index else {
            let clash = |(at, other): &(usize, Site)| Some((*at, Clash::between(site, other)?));
            return self.all.iter().find_map(clash);
        };
        let suspects = index.suspects(site);
        let clash = |place: usize| {
            let (at, other) = self.all.get(place)?;
            Some((*at, Clash::between(site, other)?))
        };
        suspects.into_iter().flatten().find_map(clash)
    }
}

// === impl Index ===

impl Index {
    fn insert(&mut self, place: usize, site: &Site) {
        self.subnets.insert(number(site.subnet.network()), place);
        self.addresses.insert(number(site.public_ip), place);
        if let Some(vtep) = site.vtep {
            self.macs.insert(vtep.mac, place);
        }
    }

    /// Nobody else can clash: of subnets that do not overlap, only the last that begins before something can reach it.
    fn suspects(&self, site: &Site) -> [Option<usize>; 4] {
        let (first, last) = ends(&site.subnet);
        let subnet = self.subnets.range(..=last).next_back();
        let address = self.subnets.range(..=number(site.public_ip)).next_back();
        let underlay = self.addresses.range(first..=last).next();
        let mac = site.vtep.and_then(|vtep| self.macs.get(&vtep.mac));
        let place = |found: Option<(&u128, &usize)>| found.map(|(_, place)| *place);
        [place(subnet), place(address), place(underlay), mac.copied()]
    }
}

// === impl Clash ===

impl Clash {
    fn between(site: &Site, other: &Site) -> Option<Self> {
        let (first, last) = ends(&site.subnet);
        let (other_first, other_last) = ends(&other.subnet);
        let (ip, other_ip) = (number(site.public_ip), number(other.public_ip));
        if first <= other_last && other_first <= last {
            return Some(Self::Subnet);
        }
        if (other_first..=other_last).contains(&ip) {
            return Some(Self::Address(other.subnet));
        }
        if (first..=last).contains(&other_ip) {
            return Some(Self::Underlay(other.public_ip));
        }
        let (mac, other_mac) = (site.vtep?.mac, other.vtep?.mac);
        (mac == other_mac).then_some(Self::Mac(mac))
    }
}

fn ends(net: &IpNetwork) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::peer::Vtep;

    fn sites() -> impl Strategy<Value = Vec<Site>> {
        let site = (0..64_u8, 26..=31_u8, any::<bool>(), 0..40_u8).prop_map(
            |(at, prefix, inside, mac)| {
                let third = if inside { 10 } else { 9 };
                Site {
                    subnet: IpNetwork::new([10, 0, 10, at * 4].into(), prefix)
                        .map(|net| IpNetwork::new(net.network(), prefix).unwrap())
                        .unwrap(),
                    public_ip: [10, 0, third, at].into(),
                    vtep: Some(Vtep {
                        mac: Mac([2, 0, 0, 0, 0, mac]),
                        vni: None,
                    }),
                }
            },
        );
        proptest::collection::vec(site, 0..60)
    }

    proptest! {
        /// The index finds whatever looking at everybody finds.
        #[test]
        fn the_index_hides_nothing(sites in sites()) {
            let (mut plain, mut indexed) = (Believed::default(), Believed::default());
            indexed.expect(FEW + 1);
            for (at, site) in sites.iter().enumerate() {
                let clash = plain.clash(site);
                prop_assert_eq!(clash.is_some(), indexed.clash(site).is_some());
                if clash.is_none() {
                    plain.push(at, *site);
                    indexed.push(at, *site);
                }
            }
        }
    }
}
