//! host-local's store: the directory of address reservations, and the verbs on it.
//!
//! The directory is the one of the reference's host-local, file for file and byte for byte, so that either can
//! be put in the other's place with pods alive, and both can work on it at once:
//!
//! ```text
//! /var/lib/cni/networks/<network>/10.1.2.3              <container ID> CR LF <ifname>: a reservation
//! /var/lib/cni/networks/<network>/last_reserved_ip.0    the last address given from range set 0
//! /var/lib/cni/networks/<network>/lock                  flock(2)ed by whoever works here
//! /var/lib/cni/networks/<network>/.podwire/index        ours: makes a verb cost the same at any number of files
//! ```
//!
//! A plugin that wants an address without executing the `host-local` binary calls this; `ipam/host-local` is a
//! shell around it.
//!
//! ```no_run
//! use libcni::spec::{Attachment, ContainerId, IfName, Node, Version};
//! use libcni::store::{IpamConf, NetDir};
//!
//! # fn demo() -> Result<(), libcni::spec::CniError> {
//! let config = Node::parse(br#"{"name": "cbr0", "ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}]]}}"#)?;
//! let conf = IpamConf::parse(&config, "", Version::V1_1_0)?;
//! let attachment = Attachment { container_id: ContainerId::parse("c1")?, ifname: IfName::parse("eth0")? };
//! let lease = conf.add(&attachment)?;
//! println!("{}", lease.result.to_json(Version::V1_1_0)?);
//! // DEL needs nothing of the config but name and ipam.dataDir.
//! NetDir::of(&config)?.release(&attachment, || ())?;
//! # Ok(())
//! # }
//! ```
mod allocate;
mod boot;
mod conf;
mod dir;
mod error;
mod gc;
mod index;
pub mod live;
mod lock;
mod locked;
mod netdir;
mod owner;
mod range;
mod rebuild;
mod resolv;
mod status;

pub use allocate::Lease;
pub use conf::IpamConf;
pub use error::{AllocateError, Exhausted, StoreError};
pub use netdir::{DEFAULT_DATA_DIR, NetDir, Reservation};
pub use range::{Range, RangeError, RangeSet, RawRange};

#[cfg(test)]
mod tests;
