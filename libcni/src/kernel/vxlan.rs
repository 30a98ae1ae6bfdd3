//! VXLAN devices: `ip link add type vxlan`. Source: `include/uapi/linux/if_link.h`,
//! `drivers/net/vxlan/vxlan_core.c`, RFC 7348.

use std::net::IpAddr;

use nix::errno::Errno;

use super::ip_attr;
use super::link::{self, Link};
use super::mac::Mac;
use crate::nl::attr::{self, Attrs};
use crate::nl::{CREATE, EXCL, Message, NlError, Reply, Socket};

const RTM_NEWLINK: u16 = 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP: u16 = 2;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_L2MISS: u16 = 13;
const IFLA_VXLAN_L3MISS: u16 = 14;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_GROUP6: u16 = 16;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_GBP: u16 = 23;

const IFINFOMSG_BYTES: usize = 16;

/// What makes a device the one that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Index of the link that the tunnel's packets leave by.
    pub parent: Option<u32>,
    /// The VTEP's own address in the underlay; its family is the tunnel's.
    pub local: Option<IpAddr>,
    /// UDP port; the kernel's default is 8472, IANA's is 4789.
    pub port: Option<u16>,
    /// Learns from what it receives. Not where an agent tells it who is where.
    pub learning: bool,
    /// Carries group policy IDs (draft-smith-vxlan-group-policy).
    pub gbp: bool,
    /// Where it sends what it has no entry for; none is a device that drops that.
    pub remote: Option<IpAddr>,
    /// Tells user space of what it has no entry for (`l2miss`, `l3miss`), as flannel's oldest agents wanted it.
    pub misses: bool,
}

/// `ip link add NAME address MAC mtu MTU txqueuelen 0 type vxlan id VNI ...`; EEXIST when the name is taken. Given with
/// the device, a MAC is nobody else's to change: systemd's link policies leave it alone.
pub fn add(name: &str, mac: Mac, mtu: Option<u32>, vxlan: &Vxlan) -> Message {
    let mut message = Message::new(
        RTM_NEWLINK,
        CREATE | EXCL,
        format!("add vxlan device {name}"),
    )
    .header(&link::ifinfomsg(0, 0, 0, 0))
    .str(IFLA_IFNAME, name)
    .bytes(IFLA_ADDRESS, &mac.0)
    .u32(IFLA_TXQLEN, 0);
    if let Some(mtu) = mtu {
        message = message.u32(IFLA_MTU, mtu);
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.str(IFLA_INFO_KIND, "vxlan")
            .nest(IFLA_INFO_DATA, |data| vxlan.put(data))
    })
}

/// `ip link set dev INDEX type vxlan dev PARENT local IP learning|nolearning`: what the kernel changes on a living device.
/// Its identifier, port and group policy it does not.
pub fn change(index: u32, vxlan: &Vxlan) -> Message {
    Message::new(RTM_NEWLINK, 0, format!("change vxlan device {index}"))
        .header(&link::ifinfomsg(0, index, 0, 0))
        .nest(IFLA_LINKINFO, |info| {
            info.str(IFLA_INFO_KIND, "vxlan")
                .nest(IFLA_INFO_DATA, |data| vxlan.put_changeable(data))
        })
}

/// The VXLAN device of that name and what it is; `None` when there is none, also if the name is another kind's.
pub fn get(sock: &mut Socket, name: &str) -> Result<Option<(Link, Vxlan)>, NlError> {
    match sock.get(link::query(name)) {
        Ok(reply) => Ok(Vxlan::from_reply(reply)
            .zip(Link::from_reply(reply))
            .map(|(v, l)| (l, v))),
        Err(e) if e.is(Errno::ENODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

// === impl Vxlan ===

impl Vxlan {
    fn put(&self, data: Message) -> Message {
        let mut data = self.put_changeable(data.u32(IFLA_VXLAN_ID, self.vni));
        if let Some(port) = self.port {
            data = data.be16(IFLA_VXLAN_PORT, port);
        }
        if self.gbp {
            data = data.flag(IFLA_VXLAN_GBP);
        }
        if self.misses {
            data = data.u8(IFLA_VXLAN_L2MISS, 1).u8(IFLA_VXLAN_L3MISS, 1);
        }
        match self.remote {
            Some(ip @ IpAddr::V4(_)) => ip_attr(data, IFLA_VXLAN_GROUP, ip),
            Some(ip @ IpAddr::V6(_)) => ip_attr(data, IFLA_VXLAN_GROUP6, ip),
            None => data,
        }
    }

    fn put_changeable(&self, mut data: Message) -> Message {
        data = data.u8(IFLA_VXLAN_LEARNING, self.learning.into());
        if let Some(parent) = self.parent {
            data = data.u32(IFLA_VXLAN_LINK, parent);
        }
        match self.local {
            Some(ip @ IpAddr::V4(_)) => ip_attr(data, IFLA_VXLAN_LOCAL, ip),
            Some(ip @ IpAddr::V6(_)) => ip_attr(data, IFLA_VXLAN_LOCAL6, ip),
            None => data,
        }
    }

    /// From an `RTM_NEWLINK` about a VXLAN device.
    pub fn from_reply(reply: Reply<'_>) -> Option<Self> {
        if reply.msg_type != RTM_NEWLINK {
            return None;
        }
        let info = Attrs::new(Attrs::after(reply.payload, IFINFOMSG_BYTES).find(IFLA_LINKINFO)?);
        if info.clone().find(IFLA_INFO_KIND).and_then(attr::str) != Some("vxlan") {
            return None;
        }
        let data = Attrs::new(info.find(IFLA_INFO_DATA)?);
        let find = |kind| data.clone().find(kind);
        let address = |v4, v6| {
            let found = find(v4).or_else(|| find(v6)).and_then(attr::ip);
            found.filter(|ip| !ip.is_unspecified())
        };
        let on = |kind| find(kind).and_then(attr::u8).is_some_and(|on| on != 0);
        Some(Self {
            vni: find(IFLA_VXLAN_ID).and_then(attr::u32)?,
            parent: find(IFLA_VXLAN_LINK)
                .and_then(attr::u32)
                .filter(|index| *index != 0),
            local: address(IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6),
            port: find(IFLA_VXLAN_PORT).and_then(attr::be16),
            learning: on(IFLA_VXLAN_LEARNING),
            gbp: find(IFLA_VXLAN_GBP).is_some(),
            remote: address(IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6),
            misses: on(IFLA_VXLAN_L2MISS) || on(IFLA_VXLAN_L3MISS),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use testkit::{in_netns, ip_json, sh};

    use super::*;
    use crate::nl::{Batch, ROUTE};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn flannel_1(parent: u32) -> Vxlan {
        Vxlan {
            vni: 1,
            parent: Some(parent),
            local: Some("192.0.2.1".parse().unwrap()),
            port: Some(8472),
            learning: false,
            gbp: false,
            remote: None,
            misses: false,
        }
    }

    fn shown(name: &str) -> Value {
        ip_json(&["-d", "link", "show", name])[0].clone()
    }

    /// As flannel makes it, attribute by attribute.
    #[test]
    fn flannels_device() {
        in_netns(|| {
            sh(
                "ip link add under type veth peer name far; ip address add 192.0.2.1/24 dev under; ip link set under up",
            );
            let mut sock = Socket::open(ROUTE).unwrap();
            assert_eq!(get(&mut sock, "flannel.1").unwrap(), None);
            let under = link::get(&mut sock, "under").unwrap().unwrap();
            let wanted = flannel_1(under.index);
            sock.request(add("flannel.1", MAC, Some(1450), &wanted))
                .unwrap();

            let device = shown("flannel.1");
            let data = &device["linkinfo"]["info_data"];
            assert_eq!(device["linkinfo"]["info_kind"], "vxlan");
            assert_eq!(
                (&device["mtu"], &device["address"]),
                (&1450.into(), &MAC.to_string().into())
            );
            assert_eq!(device["addrgenmode"], shown("under")["addrgenmode"]);
            assert_eq!(
                (&data["id"], &data["link"], &data["local"], &data["port"]),
                (
                    &1.into(),
                    &"under".into(),
                    &"192.0.2.1".into(),
                    &8472.into()
                )
            );
            assert_eq!(
                (&data["learning"], &data["ageing"]),
                (&false.into(), &300.into())
            );
            let assigned = std::fs::read_to_string("/sys/class/net/flannel.1/addr_assign_type");
            // Without a /sys of this namespace there is no such file.
            assert!(assigned.is_err() || assigned.is_ok_and(|how| how.trim() == "3"));

            let (found, vxlan) = get(&mut sock, "flannel.1").unwrap().unwrap();
            assert_eq!((found.mac, found.mtu, vxlan), (Some(MAC), 1450, wanted));
            let taken = sock
                .request(add("flannel.1", MAC, None, &wanted))
                .unwrap_err();
            assert!(taken.is(Errno::EEXIST), "{taken}");
            assert_eq!(get(&mut sock, "under").unwrap(), None, "another kind");

            // Another address in the underlay, without a new device.
            let moved = Vxlan {
                local: Some("192.0.2.9".parse().unwrap()),
                learning: true,
                ..wanted
            };
            sock.request(change(found.index, &moved)).unwrap();
            let (after, vxlan) = get(&mut sock, "flannel.1").unwrap().unwrap();
            assert_eq!((after.index, vxlan), (found.index, moved));
        });
    }

    #[test]
    fn over_ipv6_with_all_there_is() {
        in_netns(|| {
            let wanted = Vxlan {
                vni: 0x00ff_ffff,
                parent: None,
                local: Some("2001:db8::1".parse().unwrap()),
                port: Some(4789),
                learning: true,
                gbp: true,
                remote: Some("2001:db8::9".parse().unwrap()),
                misses: true,
            };
            let mut sock = Socket::open(ROUTE).unwrap();
            sock.run(&Batch::from(add("v6", MAC, None, &wanted)))
                .unwrap();
            assert_eq!(get(&mut sock, "v6").unwrap().unwrap().1, wanted);
            let beyond = Vxlan {
                vni: 1 << 24,
                ..wanted
            };
            assert!(sock.request(add("v7", MAC, None, &beyond)).is_err());
        });
    }

    /// What others made is read as well.
    #[test]
    fn a_device_of_ips() {
        in_netns(|| {
            sh("ip link add v1 type vxlan id 42 dstport 8472");
            let mut sock = Socket::open(ROUTE).unwrap();
            let (_, vxlan) = get(&mut sock, "v1").unwrap().unwrap();
            assert_eq!((vxlan.vni, vxlan.parent, vxlan.local), (42, None, None));
            assert!(vxlan.learning && !vxlan.gbp);
        });
    }
}
