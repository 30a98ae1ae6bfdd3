//! Choosing the interface that leads to the other nodes, as flannel does.

use std::fmt;
use std::net::IpAddr;

use libcni::nl::{NlError, Socket};
use thiserror::Error;

use crate::own::Parent;

/// What the operator asks for, and what the directory knows.
#[derive(Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// Names or addresses, the first that fits (`--iface`).
    pub ifaces: &'a [String],
    /// `--iface-regex`: tried on the addresses of all interfaces first, on their names second.
    pub matches: Option<&'a dyn Fn(&str) -> bool>,
    /// The interface by which this is reached (`--iface-can-reach`).
    pub can_reach: Option<IpAddr>,
    /// The address to be known by (`--public-ip`, `node-public-ip`); an interface that has it is taken.
    pub public_ip: Option<IpAddr>,
    /// The same of IPv6.
    pub public_ipv6: Option<IpAddr>,
    /// The addresses the directory knows this node by.
    pub internal_ips: &'a [IpAddr],
    /// Is an IPv4 address needed?
    pub v4: bool,
    /// Is an IPv6 address needed?
    pub v6: bool,
}

/// Why there is no interface.
#[derive(Debug, Error)]
pub enum ParentError {
    /// The kernel refused to tell.
    #[error("choose the interface to the other nodes: {0}")]
    Kernel(#[from] NlError),
    /// None fits. The text says which was looked for.
    #[error("no interface to the other nodes: {0}")]
    None(String),
    /// One fits, but cannot be used.
    #[error("interface {name} cannot lead to the other nodes: {why}")]
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// Chooses the interface.
///
/// # Errors
/// None fits, or the one that fits has no address of a family that is needed.
pub fn choose(_sock: &mut Socket, _wishes: &Wishes<'_>) -> Result<Parent, ParentError> {
    Err(ParentError::None("not yet".into()))
}

impl fmt::Debug for Wishes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wishes")
            .field("ifaces", &self.ifaces)
            .field("matches", &self.matches.is_some())
            .field("can_reach", &self.can_reach)
            .field("public_ip", &self.public_ip)
            .field("public_ipv6", &self.public_ipv6)
            .field("internal_ips", &self.internal_ips)
            .finish_non_exhaustive()
    }
}
