//! Next hops as objects of their own, which routes name: `ip nexthop`. Kernel 5.3 and later. Source:
//! `include/uapi/linux/nexthop.h`, `net/ipv4/nexthop.c`.
//!
//! Thousands of IPv4 routes with a gateway each on one device cost their square to add, because the kernel looks for a
//! next hop to share among all that have the same device; routes by object are spared that search.

use std::net::IpAddr;

use nix::errno::Errno;

use super::{AF_INET, AF_INET6, family, ip_attr};
use crate::nl::attr::{self, Attrs};
use crate::nl::{CREATE, Message, NlError, REPLACE, Reply, Socket};

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;

const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

const RTNH_F_ONLINK: u32 = 4;
/// `sizeof(struct nhmsg)`: u8 family, scope, protocol, reserved, u32 flags.
const NHMSG_BYTES: usize = 8;

/// A gateway on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nexthop {
    /// Its number, which routes name; one numbering for both families.
    pub id: u32,
    /// The gateway.
    pub gw: IpAddr,
    /// Index of the link.
    pub oif: u32,
    /// Take the gateway to be on the link though no address says so.
    pub onlink: bool,
    /// `RTPROT_*`: who made it.
    pub protocol: u8,
}

/// `ip nexthop replace id ID via GW dev OIF ...`; the routes that name it follow at once.
pub fn replace(hop: &Nexthop) -> Message {
    let words = |payload: &[u8]| match Nexthop::read(payload) {
        Some(hop) => format!("set next hop {} to {} on link {}", hop.id, hop.gw, hop.oif),
        None => "set a next hop".to_owned(),
    };
    let flags = if hop.onlink { RTNH_F_ONLINK } else { 0 };
    let header = nhmsg(family(hop.gw), hop.protocol, flags);
    let message = Message::readable(RTM_NEWNEXTHOP, CREATE | REPLACE, words)
        .header(&header)
        .u32(NHA_ID, hop.id);
    ip_attr(message, NHA_GATEWAY, hop.gw).u32(NHA_OIF, hop.oif)
}

/// `ip nexthop del id ID`, and with it the routes that name it; ENOENT when there is none.
pub fn del(id: u32) -> Message {
    Message::new(RTM_DELNEXTHOP, 0, format!("delete next hop {id}"))
        .header(&nhmsg(0, 0, 0))
        .u32(NHA_ID, id)
}

/// The next hops of a family on a link; `None` on a kernel that has no such objects. Groups and blackholes are left out.
pub fn list(sock: &mut Socket, v6: bool, oif: u32) -> Result<Option<Vec<Nexthop>>, NlError> {
    let family = if v6 { AF_INET6 } else { AF_INET };
    let message = Message::new(RTM_GETNEXTHOP, 0, format!("list next hops of link {oif}"))
        .header(&nhmsg(family, 0, 0))
        .u32(NHA_OIF, oif);
    let wanted = |hop: &Nexthop| hop.oif == oif && hop.gw.is_ipv6() == v6;
    match sock.dump(message, |reply| Nexthop::from_reply(reply).filter(wanted)) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.is(Errno::EOPNOTSUPP) => Ok(None),
        Err(e) => Err(e),
    }
}

fn nhmsg(family: u8, protocol: u8, flags: u32) -> [u8; NHMSG_BYTES] {
    let [a, b, c, d] = flags.to_ne_bytes();
    [family, 0, protocol, 0, a, b, c, d]
}

// === impl Nexthop ===

impl Nexthop {
    pub(super) fn from_reply(reply: Reply<'_>) -> Option<Self> {
        if reply.msg_type != RTM_NEWNEXTHOP {
            return None;
        }
        Self::read(reply.payload)
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let &[_, _, protocol, _, ..] = payload else {
            return None;
        };
        let flags = attr::u32(payload.get(4..)?)?;
        let find = |kind| Attrs::after(payload, NHMSG_BYTES).find(kind);
        Some(Self {
            id: attr::u32(find(NHA_ID)?)?,
            gw: attr::ip(find(NHA_GATEWAY)?)?,
            oif: attr::u32(find(NHA_OIF)?)?,
            onlink: flags & RTNH_F_ONLINK != 0,
            protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    use testkit::{in_netns, ip_json, sh};

    use super::*;
    use crate::kernel::{link, route};
    use crate::nl::{Batch, ROUTE};

    const PROTOCOL: u8 = 112;

    fn hop(id: u32, gw: &str, oif: u32) -> Nexthop {
        Nexthop {
            id,
            gw: gw.parse().unwrap(),
            oif,
            onlink: true,
            protocol: PROTOCOL,
        }
    }

    #[test]
    fn hops_come_move_and_go_and_their_routes_with_them() {
        in_netns(|| {
            sh("ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up");
            let mut sock = Socket::open(ROUTE).unwrap();
            let mut index = |name| link::get(&mut sock, name).unwrap().unwrap().index;
            let (d0, d1) = (index("d0"), index("d1"));
            let dst = "10.1.0.0/24".parse().unwrap();
            let by_hop = route::Spec {
                nexthop: Some(7),
                protocol: PROTOCOL,
                ..route::Spec::new(dst, d0)
            };
            sock.run(&Batch::from_iter([
                replace(&hop(7, "10.1.0.0", d0)),
                replace(&hop(8, "10.9.0.0", d1)),
                replace(&hop(9, "fd00::", d0)),
                route::replace(&by_hop),
            ]))
            .unwrap();
            assert_eq!(
                list(&mut sock, false, d0).unwrap(),
                Some(vec![hop(7, "10.1.0.0", d0)])
            );
            assert_eq!(
                list(&mut sock, true, d0).unwrap(),
                Some(vec![hop(9, "fd00::", d0)])
            );
            let shown = &ip_json(&["route", "show", "10.1.0.0/24"])[0];
            assert_eq!(
                (&shown["nhid"], &shown["gateway"]),
                (&7.into(), &"10.1.0.0".into())
            );

            let filter = route::Filter {
                oif: Some(d0),
                protocol: Some(PROTOCOL),
                ..route::Filter::default()
            };
            let routes = route::dump(&mut sock, false, filter).unwrap();
            assert_eq!(routes.len(), 1);
            assert_eq!(
                (routes[0].nexthop, routes[0].gw),
                (Some(7), Some("10.1.0.0".parse().unwrap()))
            );

            // Told without gateway and link where that is switched off.
            sh("sysctl -qw net.ipv4.nexthop_compat_mode=0");
            let routes = route::dump(&mut sock, false, filter).unwrap();
            assert_eq!(
                (routes[0].nexthop, routes[0].gw, routes[0].oif),
                (Some(7), None, 0)
            );
            sh("sysctl -qw net.ipv4.nexthop_compat_mode=1");

            // In place of it a plain one, in one step.
            let plain = route::Spec {
                gw: Some("10.1.0.0".parse().unwrap()),
                onlink: true,
                ..route::Spec::new(dst, d0)
            };
            sock.request(route::replace(&plain)).unwrap();
            assert_eq!(
                sh("ip route show 10.1.0.0/24").trim(),
                "10.1.0.0/24 via 10.1.0.0 dev d0 onlink"
            );
            sock.request(route::replace(&by_hop)).unwrap();
            sock.request(del(7)).unwrap();
            assert_eq!(sh("ip route show 10.1.0.0/24"), "");
            assert!(sock.request(del(7)).unwrap_err().is(Errno::ENOENT));
            let set = replace(&hop(7, "10.1.0.0", 3));
            assert_eq!(set.step(), "set next hop 7 to 10.1.0.0 on link 3");
            assert_eq!(
                route::replace(&by_hop).step(),
                "set route 10.1.0.0/24 by next hop 7"
            );
        });
    }
}
