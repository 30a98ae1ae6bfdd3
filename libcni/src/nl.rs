//! Netlink: framing, sockets, acknowledgements, errors. It knows netlink and nothing about networking.
//!
//! What it is for: few system calls and readable errors. Many [`Message`]s travel in one send as a
//! [`Batch`], the kernel's verdict on each is known afterwards, and an [`NlError`] says which step failed in the
//! words of whoever built the message, with the errno's name and the kernel's own explanation
//! (extended ack). Sources: `include/uapi/linux/netlink.h`, `Documentation/userspace-api/netlink/intro.rst`.
//!
//! ```no_run
//! use libcni::nl::{Batch, Message, Socket, ROUTE};
//! # fn demo() -> Result<(), libcni::nl::NlError> {
//! let mut sock = Socket::open(ROUTE)?;
//! let mut batch = Batch::new();
//! // ip link set dev eth0 up: RTM_NEWLINK (16), struct ifinfomsg, IFLA_IFNAME (3)
//! let ifinfomsg = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
//! batch.push(Message::new(16, 0, "set eth0 up").header(&ifinfomsg).str(3, "eth0"));
//! sock.run(&batch)
//! # }
//! ```

pub mod attr;
mod error;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod message;
mod socket;

pub use error::{NlError, errno_name};
pub use message::{Batch, Message};
pub use socket::{Event, Reply, Socket};

use std::sync::atomic::AtomicBool;

/// `NETLINK_ROUTE`: links, addresses, routes, neighbours, bridge VLANs, traffic control.
pub const ROUTE: isize = netlink_sys::protocols::NETLINK_ROUTE;
/// `NETLINK_NETFILTER`: nf_tables and conntrack.
pub const NETFILTER: isize = netlink_sys::protocols::NETLINK_NETFILTER;

/// `NLM_F_REQUEST`; set on every [`Message`], so callers need not.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`; set by [`Socket`] where an ack is needed, so callers need not.
pub const ACK: u16 = 0x4;
/// `NLM_F_ECHO`: also answer with the notification this change causes (links: kernel 6.2 and later).
pub const ECHO: u16 = 0x8;
/// `NLM_F_ROOT | NLM_F_MATCH`: a dump; set by [`Socket::dump`].
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`: override what is there.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail with EEXIST when it is there.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`: make it when it is not there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: put it at the end of the list.
pub const APPEND: u16 = 0x800;

/// Set when the process was asked to stop (SIGTERM, a deadline). A system call of this module that a
/// signal interrupts is normally tried again; once this is set it fails instead, with EINTR
/// ([`NlError::interrupted`]), so that the caller can undo what it did.
pub static STOP: AtomicBool = AtomicBool::new(false);

#[cfg(test)]
mod tests;
