//! Raw sockets, options and packets that no crate of ours has.
#![allow(unsafe_code, dead_code, clippy::unwrap_used)]

use std::net::SocketAddrV6;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{MsgFlags, SockaddrIn6, sendto};

/// A raw socket of this family and protocol, in the calling thread's namespace.
pub fn socket(v4: bool, protocol: i32) -> OwnedFd {
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    let fd: RawFd = Errno::result(fd).unwrap();
    // SAFETY: the kernel has just made it, for us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sets an option; `T` is the C structure (or int) that it takes.
#[track_caller]
pub fn set<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &T) {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap();
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads `length` bytes from a live reference to a `T`.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, length) };
    Errno::result(outcome).unwrap_or_else(|e| panic!("socket option {name}: {e}"));
}

/// Sends a router advertisement (RFC 4861, 4.2) from the calling thread's namespace: I am the default router, for half an
/// hour, and your addresses are of 2001:db8:bad::/64.
pub fn advertise(dev: &str) {
    #[rustfmt::skip]
    let message: [u8; 48] = [
        134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0,
        3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0x0b, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let socket = socket(false, libc::IPPROTO_ICMPV6);
    set(
        &socket,
        libc::IPPROTO_IPV6,
        libc::IPV6_MULTICAST_HOPS,
        &255_i32,
    );
    let index = if_nametoindex(dev).unwrap();
    let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
    sendto(
        socket.as_raw_fd(),
        &message,
        &SockaddrIn6::from(all_nodes),
        MsgFlags::empty(),
    )
    .unwrap();
}
