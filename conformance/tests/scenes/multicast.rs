//! Groups across a router, and whom an echo request came from: what the standard library's sockets do not do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{SockaddrIn, SockaddrIn6, recvfrom, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::network::PATIENCE;
use super::raw;

const PORT: u16 = 7001;
const AGAIN: Duration = Duration::from_millis(200);
const TRIES: usize = 50;
/// linux/mroute.h and linux/mroute6.h: the numbers are the same.
const MRT_INIT: i32 = 200;
const MRT_ADD_VIF: i32 = 202;
const MRT_ADD_MFC: i32 = 204;
const VIFF_USE_IFINDEX: u8 = 8;
const ECHO_REQUEST: [u8; 2] = [8, 128];

/// One who listens to a group on an interface.
pub fn join(group: IpAddr, on: &str) -> UdpSocket {
    let index = if_nametoindex(on).unwrap();
    let socket = UdpSocket::bind((any(group), PORT)).unwrap();
    match group {
        IpAddr::V4(group) => {
            let request = libc::ip_mreqn {
                imr_multiaddr: in_addr(group),
                imr_address: in_addr(Ipv4Addr::UNSPECIFIED),
                imr_ifindex: i32::try_from(index).unwrap(),
            };
            raw::set(&socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request);
        }
        IpAddr::V6(group) => socket.join_multicast_v6(&group, index).unwrap(),
    }
    socket
}

/// Sends a datagram that may be forwarded.
pub fn send(from: IpAddr, group: IpAddr) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    match group {
        IpAddr::V4(_) => socket.set_multicast_ttl_v4(8).unwrap(),
        IpAddr::V6(_) => raw::set(
            &socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MULTICAST_HOPS,
            &8_i32,
        ),
    }
    socket.send_to(b"x", (group, PORT)).unwrap();
}

/// Where the datagram that a listener got came from; it is sent until one gets there.
pub fn source(heard: &UdpSocket, send: impl Fn()) -> IpAddr {
    heard.set_read_timeout(Some(AGAIN)).unwrap();
    let tries = std::iter::repeat_with(|| {
        send();
        heard.recv_from(&mut [0; 8])
    });
    let (_, from) = tries
        .take(TRIES)
        .find_map(Result::ok)
        .expect("a datagram to the group");
    from.ip()
}

/// A multicast router in the calling thread's namespace: one source's packets to one group, until it is dropped.
pub struct Router {
    _socket: OwnedFd,
}

impl Router {
    pub fn start(from: IpAddr, group: IpAddr, here: &str, there: &str) -> Router {
        let v4 = group.is_ipv4();
        let router = raw::socket(
            v4,
            if v4 {
                libc::IPPROTO_IGMP
            } else {
                libc::IPPROTO_ICMPV6
            },
        );
        let level = if v4 {
            libc::IPPROTO_IP
        } else {
            libc::IPPROTO_IPV6
        };
        raw::set(&router, level, MRT_INIT, &1_i32);
        for (number, name) in [(0, here), (1, there)] {
            let index = if_nametoindex(name).unwrap();
            if v4 {
                let vif = Vif {
                    number,
                    flags: VIFF_USE_IFINDEX,
                    threshold: 1,
                    index,
                    ..Vif::default()
                };
                raw::set(&router, level, MRT_ADD_VIF, &vif);
            } else {
                let physical = u16::try_from(index).unwrap();
                let mif = Mif {
                    number,
                    threshold: 1,
                    physical,
                    ..Mif::default()
                };
                raw::set(&router, level, MRT_ADD_VIF, &mif);
            }
        }
        match (from, group) {
            (IpAddr::V4(from), IpAddr::V4(group)) => {
                let mut ttls = [0; 32];
                ttls[1] = 1;
                let entry = Mfc {
                    from: from.octets(),
                    group: group.octets(),
                    parent: 0,
                    ttls,
                    counters: [0; 4],
                };
                raw::set(&router, level, MRT_ADD_MFC, &entry);
            }
            (IpAddr::V6(from), IpAddr::V6(group)) => {
                let mut to = [0; 8];
                to[0] = 1 << 1;
                let entry = Mfc6 {
                    from: sockaddr(from),
                    group: sockaddr(group),
                    parent: 0,
                    to,
                };
                raw::set(&router, level, MRT_ADD_MFC, &entry);
            }
            _ => panic!("{from} and {group} are of two families"),
        }
        Router { _socket: router }
    }
}

/// `struct vifctl`
#[repr(C)]
#[derive(Default)]
struct Vif {
    number: u16,
    flags: u8,
    threshold: u8,
    rate_limit: u32,
    index: u32,
    remote: u32,
}

/// `struct mif6ctl`
#[repr(C)]
#[derive(Default)]
struct Mif {
    number: u16,
    flags: u8,
    threshold: u8,
    physical: u16,
    rate_limit: u32,
}

/// `struct mfcctl`
#[repr(C)]
struct Mfc {
    from: [u8; 4],
    group: [u8; 4],
    parent: u16,
    /// By VIF: packets with a greater TTL go there, 0 is none.
    ttls: [u8; 32],
    counters: [u32; 4],
}

/// `struct mf6cctl`
#[repr(C)]
struct Mfc6 {
    from: libc::sockaddr_in6,
    group: libc::sockaddr_in6,
    parent: u16,
    to: [u32; 8],
}

/// Hears the echo requests that arrive in the namespace it was made in.
pub struct Echoes {
    socket: OwnedFd,
    v4: bool,
}

impl Echoes {
    pub fn listen(v4: bool) -> Echoes {
        let socket = raw::socket(
            v4,
            if v4 {
                libc::IPPROTO_ICMP
            } else {
                libc::IPPROTO_ICMPV6
            },
        );
        let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).unwrap();
        Echoes { socket, v4 }
    }

    /// Of the first one that is waiting. (Neighbour discovery is ICMPv6 as well.)
    pub fn next_source(&self) -> IpAddr {
        let mut packet = [0; 256];
        let fd = self.socket.as_raw_fd();
        loop {
            // Of IPv4 the header comes with it, 20 bytes without options.
            if self.v4 {
                let (_, from) = recvfrom::<SockaddrIn>(fd, &mut packet).expect("an echo request");
                if packet[20] == ECHO_REQUEST[0] {
                    return from.unwrap().ip().into();
                }
            } else {
                let (_, from) = recvfrom::<SockaddrIn6>(fd, &mut packet).expect("an echo request");
                if packet[0] == ECHO_REQUEST[1] {
                    return from.unwrap().ip().into();
                }
            }
        }
    }
}

fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    }
}

fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from(ip).to_be(),
    }
}

fn sockaddr(ip: Ipv6Addr) -> libc::sockaddr_in6 {
    *SockaddrIn6::from(match SocketAddr::new(ip.into(), 0) {
        SocketAddr::V6(v6) => v6,
        SocketAddr::V4(_) => unreachable!(),
    })
    .as_ref()
}
