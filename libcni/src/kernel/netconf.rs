//! Per-namespace settings that netlink tells: `ip netconf show all`. Source: `include/uapi/linux/netconf.h`,
//! `net/ipv4/devinet.c`.
//!
//! Opening the same setting below `/proc/sys/net` takes longer the more network namespaces there are.

use super::{AF_INET, AF_INET6};
use crate::nl::attr::{self, Attrs};
use crate::nl::{Message, Reply};

const RTM_NEWNETCONF: u16 = 80;
const RTM_GETNETCONF: u16 = 82;

const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
/// `NETCONFA_IFINDEX_ALL`, -1: the namespace's own setting.
const ALL: u32 = u32::MAX;
/// `sizeof(struct netconfmsg)`, a u8 family, as attributes are aligned behind it.
const NETCONFMSG_BYTES: usize = 4;

/// Asks for `net.ipv4.conf.all` (which is `net.ipv4.ip_forward`, too), answered as [`forwarding`] reads it.
pub fn get_ipv4() -> Message {
    get(AF_INET, "ask for net.ipv4.conf.all")
}

/// Asks for `net.ipv6.conf.all`.
pub fn get_ipv6() -> Message {
    get(AF_INET6, "ask for net.ipv6.conf.all")
}

/// Whether that forwards; `None` if the reply is about something else.
pub fn forwarding(reply: Reply<'_>) -> Option<bool> {
    if reply.msg_type != RTM_NEWNETCONF {
        return None;
    }
    let value = Attrs::after(reply.payload, NETCONFMSG_BYTES).find(NETCONFA_FORWARDING)?;
    attr::i32(value).map(|on| on != 0)
}

fn get(family: u8, step: &'static str) -> Message {
    Message::new(RTM_GETNETCONF, 0, step)
        .header(&[family, 0, 0, 0])
        .u32(NETCONFA_IFINDEX, ALL)
}

#[cfg(test)]
mod tests {
    use testkit::in_netns;

    use super::*;
    use crate::kernel::sysctl;
    use crate::nl::{Batch, ROUTE, Socket};

    #[test]
    fn tells_what_the_files_say() {
        in_netns(|| {
            let mut sock = Socket::open(ROUTE).unwrap();
            for (v4, v6) in [("1", "0"), ("0", "1")] {
                sysctl::write("/proc/sys/net/ipv4/ip_forward", v4).unwrap();
                sysctl::write("/proc/sys/net/ipv6/conf/all/forwarding", v6).unwrap();
                let mut told = Vec::new();
                let asked = Batch::from_iter([get_ipv4(), get_ipv6()]);
                sock.exchange(&asked, |at, reply| told.push((at, forwarding(reply))))
                    .unwrap();
                assert_eq!(told, [(0, Some(v4 == "1")), (1, Some(v6 == "1"))]);
            }
        });
    }
}
