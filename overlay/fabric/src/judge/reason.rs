//! Why a peer is not believed.

use std::fmt;
use std::net::IpAddr;

use libcni::kernel::Mac;
use libcni::spec::IpNetwork;
use libcni::spec::error::quoted;

/// Why a peer is not believed. Shown in words; [`Reason::label`] is for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It speaks another backend.
    Backend(String),
    /// Its subnet is ours, or has a part of ours.
    OwnSubnet(IpNetwork),
    /// Its subnet is not in the network.
    Outside(IpNetwork),
    /// Its subnet is far larger than a node's.
    TooWide(IpNetwork),
    /// Its subnet overlaps that of another peer, whose key this is.
    Overlap(IpNetwork, String),
    /// Its subnet has an address of the underlay in it: the tunnel would be led into itself.
    Underlay(IpNetwork, IpAddr),
    /// There is no MAC to send to.
    NoVtep,
    /// Its MAC is all zeroes or a group's.
    BadMac(Mac),
    /// Its MAC is ours.
    OwnMac(Mac),
    /// Its MAC is that of another peer, whose key this is.
    SameMac(Mac, String),
    /// Nobody can be reached at such an address.
    BadAddress(IpAddr),
    /// Its address is ours.
    OwnAddress(IpAddr),
    /// Its address is in a subnet of pods.
    AddressInSubnet(IpAddr, IpNetwork),
    /// More peers than are taken in.
    TooMany,
}

// === impl Reason ===

impl Reason {
    /// A short name that stays the same, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Backend(_) => "backend",
            Self::OwnSubnet(_) => "own-subnet",
            Self::Outside(_) => "outside-network",
            Self::TooWide(_) => "too-wide",
            Self::Overlap(..) => "overlap",
            Self::Underlay(..) => "underlay",
            Self::NoVtep => "no-vtep",
            Self::BadMac(_) => "bad-mac",
            Self::OwnMac(_) => "own-mac",
            Self::SameMac(..) => "same-mac",
            Self::BadAddress(_) => "bad-address",
            Self::OwnAddress(_) => "own-address",
            Self::AddressInSubnet(..) => "address-in-subnet",
            Self::TooMany => "too-many",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(other) => write!(f, "its backend is {}, not ours", quoted(other)),
            Self::OwnSubnet(net) => write!(f, "its subnet {net} overlaps this node's own"),
            Self::Outside(net) => write!(f, "its subnet {net} is not in the network"),
            Self::TooWide(net) => write!(f, "its subnet {net} is far larger than a node's"),
            Self::Overlap(net, key) => {
                write!(f, "its subnet {net} overlaps that of {}", quoted(key))
            }
            Self::Underlay(net, ip) => {
                write!(
                    f,
                    "its subnet {net} has {ip} in it, an address of the underlay"
                )
            }
            Self::NoVtep => f.write_str("it says no MAC of a VTEP"),
            Self::BadMac(mac) => write!(f, "its MAC {mac} is nobody's"),
            Self::OwnMac(mac) => write!(
                f,
                "its MAC {mac} is this node's own (a cloned machine? give one of them another)"
            ),
            Self::SameMac(mac, key) => write!(
                f,
                "its MAC {mac} is that of {} (a cloned machine? give one of them another)",
                quoted(key)
            ),
            Self::BadAddress(ip) => write!(f, "nobody is reached at its address {ip}"),
            Self::OwnAddress(ip) => write!(f, "its address {ip} is this node's own"),
            Self::AddressInSubnet(ip, net) => {
                write!(f, "its address {ip} is in {net}, a subnet of pods")
            }
            Self::TooMany => write!(f, "there are more than {} peers", super::MAX_PEERS),
        }
    }
}
