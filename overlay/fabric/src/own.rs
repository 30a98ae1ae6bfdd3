//! This node, as the network is to see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libcni::kernel::Mac;
use libcni::spec::IpNetwork;

use crate::conf::Backend;

/// What VXLAN puts around an Ethernet frame in IPv4, counted from the frame's own payload: IPv4 20, UDP 8, VXLAN 8,
/// Ethernet 14 bytes.
pub const VXLAN_OVER_V4_BYTES: u32 = 50;
/// The same in IPv6, whose header is 20 bytes longer.
pub const VXLAN_OVER_V6_BYTES: u32 = 70;
/// The least that IPv4 can live with (RFC 791). Smaller results of the arithmetic are not worth a wrong answer.
const LEAST_MTU: u32 = 68;

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// How packets travel.
    pub backend: Backend,
    /// The interface they travel by.
    pub parent: Parent,
    /// Its IPv4 side.
    pub v4: Option<OwnSide>,
    /// Its IPv6 side.
    pub v6: Option<OwnSide>,
}

/// One family of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnSide {
    /// All pods of all nodes.
    pub network: IpNetwork,
    /// The pods of this node, host bits off.
    pub subnet: IpNetwork,
    /// Its address in the underlay, which the tunnel's packets come from.
    pub local: IpAddr,
    /// The MAC of its VTEP. `host-gw` has none: all zeroes.
    pub mac: Mac,
}

/// The interface to the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its IPv4 address, if that family is in use.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address, if that family is in use.
    pub v6: Option<Ipv6Addr>,
}

// === impl Own ===

impl Own {
    /// The tunnel's device, under flannel's name for it; `None` where the backend needs none, or the network has no
    /// such family.
    pub fn device(&self, v6: bool) -> Option<String> {
        let (Backend::Vxlan(vxlan), Some(_)) = (&self.backend, self.side(v6)) else {
            return None;
        };
        Some(device_name(vxlan.vni, v6))
    }

    /// What that device can carry, in bytes; with `host-gw`, what the parent can. `Backend.MTU` is the underlay's, and
    /// not believed beyond the parent's own.
    pub fn device_mtu(&self, v6: bool) -> u32 {
        let Backend::Vxlan(vxlan) = &self.backend else {
            return self.parent.mtu;
        };
        let outer = vxlan
            .mtu
            .map_or(self.parent.mtu, |mtu| mtu.min(self.parent.mtu));
        let around = if v6 {
            VXLAN_OVER_V6_BYTES
        } else {
            VXLAN_OVER_V4_BYTES
        };
        outer.saturating_sub(around).max(LEAST_MTU)
    }

    /// What pods are to be told, in bytes: the least of the families in use, because a pod has one MTU for both.
    pub fn pod_mtu(&self) -> u32 {
        let used = [false, true]
            .into_iter()
            .filter(|v6| self.side(*v6).is_some());
        used.map(|v6| self.device_mtu(v6))
            .min()
            .unwrap_or(self.parent.mtu)
    }

    /// One family of it.
    pub fn side(&self, v6: bool) -> Option<&OwnSide> {
        if v6 {
            self.v6.as_ref()
        } else {
            self.v4.as_ref()
        }
    }
}

/// flannel's name of a tunnel's device.
pub fn device_name(vni: u32, v6: bool) -> String {
    if v6 {
        format!("flannel-v6.{vni}")
    } else {
        format!("flannel.{vni}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Vxlan;

    fn own(backend: Backend, v6: bool) -> Own {
        let side = |network: &str, subnet: &str, local: &str| OwnSide {
            network: network.parse().unwrap(),
            subnet: subnet.parse().unwrap(),
            local: local.parse().unwrap(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
        };
        Own {
            backend,
            parent: Parent {
                index: 2,
                name: "eth0".into(),
                mtu: 1500,
                v4: None,
                v6: None,
            },
            v4: Some(side("10.244.0.0/16", "10.244.1.0/24", "192.0.2.1")),
            v6: v6.then(|| side("fd00::/48", "fd00:0:0:1::/64", "2001:db8::1")),
        }
    }

    /// Never more than the tunnel of IPv6 carries, where there is one.
    #[test]
    fn rule_20_the_mtu_of_each_family_and_the_least_for_pods() {
        let vxlan = |mtu| {
            Backend::Vxlan(Vxlan {
                mtu,
                ..Vxlan::default()
            })
        };
        let mtus = |own: Own| (own.device_mtu(false), own.device_mtu(true), own.pod_mtu());
        assert_eq!(mtus(own(vxlan(None), false)), (1450, 1430, 1450));
        assert_eq!(mtus(own(vxlan(None), true)), (1450, 1430, 1430));
        assert_eq!(mtus(own(vxlan(Some(1400)), true)), (1350, 1330, 1330));
        assert_eq!(mtus(own(vxlan(Some(9000)), true)), (1450, 1430, 1430));
        assert_eq!(mtus(own(Backend::HostGw, true)), (1500, 1500, 1500));
        assert_eq!(mtus(own(vxlan(Some(40)), false)), (68, 68, 68));
    }

    #[test]
    fn rule_2_devices_are_named_as_flannels() {
        let vxlan = Backend::Vxlan(Vxlan {
            vni: 4096,
            ..Vxlan::default()
        });
        let own = |v6| own(vxlan.clone(), v6);
        assert_eq!(own(true).device(false).as_deref(), Some("flannel.4096"));
        assert_eq!(own(true).device(true).as_deref(), Some("flannel-v6.4096"));
        assert_eq!(own(false).device(true), None);
    }
}
