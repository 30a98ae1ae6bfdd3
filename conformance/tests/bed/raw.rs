//! Raw sockets and socket options that no crate of ours has.
#![allow(unsafe_code, dead_code, clippy::unwrap_used)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

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
