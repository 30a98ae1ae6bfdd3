//! Making, changing and deleting links. Each function returns the message; callers pack and send.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{
    Dev, IFF_PROMISC, IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_BR_VLAN_FILTERING,
    IFLA_BRPORT_ISOLATED, IFLA_BRPORT_MODE, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA,
    IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MTU, IFLA_NET_NS_FD, RTM_DELLINK, RTM_NEWLINK, RTM_SETLINK, ifinfomsg,
};
use crate::kernel::mac::Mac;
use crate::nl::{CREATE, ECHO, EXCL, Message};

/// `VETH_INFO_PEER`: holds an ifinfomsg, then attributes.
const VETH_INFO_PEER: u16 = 1;
const AF_INET: u16 = 2;
/// `IFLA_INET_CONF`: a nest whose attribute types are `IPV4_DEVCONF_*`, u32 each.
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;

/// A veth pair with one end here and one in a pod.
#[derive(Debug, Clone, Copy)]
pub struct VethSpec<'a> {
    /// Name of the end here.
    pub host_name: &'a str,
    /// Its MAC. One given from the start is left alone by udev.
    pub host_mac: Mac,
    /// MTU of both ends in bytes; the kernel's 1500 if not given.
    pub mtu: Option<u32>,
    /// Index of the bridge that the end here becomes a port of.
    pub master: Option<u32>,
    /// Set the end here up? The pod's end cannot be made up: ENOTCONN, while its peer is not there yet.
    pub host_up: bool,
    /// Name of the end in the pod.
    pub pod_name: &'a str,
    /// Its MAC.
    pub pod_mac: Mac,
    /// The pod's namespace; must stay open until the message was sent.
    pub pod_netns: BorrowedFd<'a>,
}

/// `ip link add NAME type bridge`; it is down. EEXIST when anything of that name is there.
pub fn bridge(name: &str, mac: Mac, mtu: Option<u32>, vlan_filtering: bool) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL, format!("create bridge {name}"))
        .header(&ifinfomsg(0, 0, 0, 0))
        .str(IFLA_IFNAME, name)
        .bytes(IFLA_ADDRESS, &mac.0);
    if let Some(mtu) = mtu {
        message = message.u32(IFLA_MTU, mtu);
    }
    message.nest(IFLA_LINKINFO, |m| {
        let m = m.str(IFLA_INFO_KIND, "bridge");
        if vlan_filtering {
            m.nest(IFLA_INFO_DATA, |m| m.u8(IFLA_BR_VLAN_FILTERING, 1))
        } else {
            m
        }
    })
}

/// Both ends of a veth pair in one message: final names, MACs, MTU and namespaces from the start, the end
/// here enslaved and up. EEXIST when either name is taken in its namespace.
pub fn veth(spec: &VethSpec<'_>) -> Message {
    veth_with(spec, 0)
}

/// The same, and the kernel (6.2 and later) also answers with the new link, its index and its peer's: read
/// it with [`crate::nl::Socket::exchange`] and [`super::Link::from_reply`]. Older kernels answer nothing.
pub fn veth_echoed(spec: &VethSpec<'_>) -> Message {
    veth_with(spec, ECHO)
}

/// `ip link set dev DEV up`
pub fn up<'a>(dev: impl Into<Dev<'a>>) -> Message {
    dev.into().message(RTM_SETLINK, 0, "set up", IFF_UP, IFF_UP)
}

/// `ip link set dev DEV down`
pub fn down<'a>(dev: impl Into<Dev<'a>>) -> Message {
    dev.into().message(RTM_SETLINK, 0, "set down", 0, IFF_UP)
}

/// `ip link set dev DEV promisc on|off`
pub fn set_promisc<'a>(dev: impl Into<Dev<'a>>, on: bool) -> Message {
    let flags = if on { IFF_PROMISC } else { 0 };
    dev.into().message(
        RTM_SETLINK,
        0,
        "set promiscuous mode of",
        flags,
        IFF_PROMISC,
    )
}

/// `ip link set dev DEV address MAC`. On a link that is up, even with the MAC it has, this makes the kernel
/// announce its addresses: gratuitous ARP with `arp_notify`, unsolicited neighbour advertisement with
/// `ndisc_notify` (NETDEV_CHANGEADDR).
pub fn set_mac<'a>(dev: impl Into<Dev<'a>>, mac: Mac) -> Message {
    dev.into()
        .message(RTM_SETLINK, 0, "set the MAC of", 0, 0)
        .bytes(IFLA_ADDRESS, &mac.0)
}

/// `ip link set dev DEV mtu BYTES`
pub fn set_mtu<'a>(dev: impl Into<Dev<'a>>, mtu: u32) -> Message {
    dev.into()
        .message(RTM_SETLINK, 0, "set the MTU of", 0, 0)
        .u32(IFLA_MTU, mtu)
}

/// `ip link set dev DEV alias TEXT`, at most 255 bytes.
pub fn set_alias<'a>(dev: impl Into<Dev<'a>>, alias: &str) -> Message {
    // Not NUL-terminated: the kernel counts the NUL into the 255 and shows what it got.
    dev.into()
        .message(RTM_SETLINK, 0, "set the alias of", 0, 0)
        .bytes(IFLA_IFALIAS, alias.as_bytes())
}

/// `ip link set dev DEV master INDEX`; 0 is `nomaster`.
pub fn set_master<'a>(dev: impl Into<Dev<'a>>, master: u32) -> Message {
    dev.into()
        .message(RTM_SETLINK, 0, "set the master of", 0, 0)
        .u32(IFLA_MASTER, master)
}

/// `ip link set dev DEV type bridge_slave hairpin on|off isolated on|off`, of a bridge port.
pub fn set_bridge_port<'a>(dev: impl Into<Dev<'a>>, hairpin: bool, isolated: bool) -> Message {
    // RTM_SETLINK ignores a port's data; RTM_NEWLINK without CREATE changes what exists.
    dev.into()
        .message(RTM_NEWLINK, 0, "set the bridge port", 0, 0)
        .nest(IFLA_LINKINFO, |m| {
            m.str(IFLA_INFO_SLAVE_KIND, "bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |m| {
                    m.u8(IFLA_BRPORT_MODE, hairpin.into())
                        .u8(IFLA_BRPORT_ISOLATED, isolated.into())
                })
        })
}

/// `net.ipv4.conf.DEV.arp_notify`, without a file. Before the link is set up it makes that announce the
/// addresses.
pub fn set_arp_notify<'a>(dev: impl Into<Dev<'a>>, on: bool) -> Message {
    let message = dev
        .into()
        .message(RTM_SETLINK, 0, "set arp_notify of", 0, 0);
    with_arp_notify(message, on)
}

/// [`up`], then [`set_arp_notify`], in one message: the kernel applies flags first, so going up announces
/// nothing yet.
pub fn up_then_arp_notify<'a>(dev: impl Into<Dev<'a>>) -> Message {
    with_arp_notify(up(dev), true)
}

fn with_arp_notify(message: Message, on: bool) -> Message {
    message.nest(IFLA_AF_SPEC, |m| {
        m.nest(AF_INET, |m| {
            m.nest(IFLA_INET_CONF, |m| {
                m.u32(IPV4_DEVCONF_ARP_NOTIFY, on.into())
            })
        })
    })
}

/// `ip link del dev DEV`. Deleting one end of a veth pair deletes both. Waits for RCU grace periods, some
/// 15 ms, without using the CPU.
pub fn del<'a>(dev: impl Into<Dev<'a>>) -> Message {
    dev.into().message(RTM_DELLINK, 0, "delete", 0, 0)
}

fn veth_with(spec: &VethSpec<'_>, more_flags: u16) -> Message {
    let step = format!(
        "create veth {} with its peer {} in the pod",
        spec.host_name, spec.pod_name
    );
    let flags = if spec.host_up { IFF_UP } else { 0 };
    let with_mtu = |m: Message| match spec.mtu {
        Some(mtu) => m.u32(IFLA_MTU, mtu),
        None => m,
    };
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCL | more_flags, step)
        .header(&ifinfomsg(0, 0, flags, flags))
        .str(IFLA_IFNAME, spec.host_name)
        .bytes(IFLA_ADDRESS, &spec.host_mac.0);
    if let Some(master) = spec.master {
        message = message.u32(IFLA_MASTER, master);
    }
    with_mtu(message).nest(IFLA_LINKINFO, |m| {
        m.str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
            m.nest(VETH_INFO_PEER, |m| {
                let m = m
                    .header(&ifinfomsg(0, 0, 0, 0))
                    .str(IFLA_IFNAME, spec.pod_name)
                    .bytes(IFLA_ADDRESS, &spec.pod_mac.0)
                    .bytes(IFLA_NET_NS_FD, &spec.pod_netns.as_raw_fd().to_ne_bytes());
                with_mtu(m)
            })
        })
    })
}
