//! The kernel's networking, one module per noun, over [`crate::nl`]. No JSON, no configuration, no files of ours.
//!
//! Functions that change something return a [`crate::nl::Message`], so that callers pack what belongs
//! together into one send; functions that ask take the socket, and with it its network namespace.
//!
//! ```no_run
//! use libcni::kernel::{addr, link};
//! use libcni::nl::{Batch, ROUTE, Socket};
//! # fn demo() -> Result<(), libcni::nl::NlError> {
//! let mut sock = Socket::open(ROUTE)?;
//! if let Some(link) = link::get(&mut sock, "eth0")? {
//!     let net = "10.1.2.3/24".parse().expect("a constant");
//!     sock.run(&Batch::from_iter([addr::add(link.index, net, true), link::up(link.index)]))?;
//! }
//! # Ok(())
//! # }
//! ```

pub mod addr;
pub mod conntrack;
pub mod fdb;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod link;
pub mod mac;
pub mod neigh;
pub mod netconf;
pub mod netns;
pub mod nexthop;
pub mod nft;
pub mod process;
pub mod route;
pub mod sysctl;
pub mod vlan;
pub mod vxlan;
pub mod xtables;

pub use mac::Mac;

use std::net::IpAddr;

use crate::nl::Message;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

fn ip_attr(message: Message, attr: u16, ip: IpAddr) -> Message {
    match ip {
        IpAddr::V4(ip) => message.bytes(attr, &ip.octets()),
        IpAddr::V6(ip) => message.bytes(attr, &ip.octets()),
    }
}

#[cfg(test)]
mod wire;
