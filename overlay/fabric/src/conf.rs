//! flannel's network configuration: the `config` key of etcd, `net-conf.json` of Kubernetes and of the file directory.
//!
//! ```json
//! {"Network": "192.168.128.0/18", "Backend": {"Type": "vxlan", "VNI": 1}}
//! ```
//! Keys in any case, unknown ones passed over. Source: flannel, `pkg/subnet/config.go`, `pkg/backend/vxlan/vxlan.go`.

use std::net::IpAddr;

use libcni::spec::json::{FieldError, Fields, Node};
use libcni::spec::{IpNetwork, JsonError, parse_ip};
use thiserror::Error;

/// What the network is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConf {
    /// Its IPv4 side. At least one side is there.
    pub v4: Option<Network>,
    /// Its IPv6 side.
    pub v6: Option<Network>,
    /// How packets travel.
    pub backend: Backend,
    /// flannel's `EnableNFTables`: which kind of rules flanneld would make. Ours are nf_tables in any case.
    pub nftables: bool,
    /// Things to tell whoever reads the log: what was assumed.
    pub warnings: Vec<String>,
    /// As it was read.
    pub text: String,
}

/// One family of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// All pods of all nodes; host bits off.
    pub net: IpNetwork,
    /// Prefix length of a node's subnet. With Kubernetes it decides instead.
    pub subnet_len: u8,
    /// First subnet that may be leased.
    pub subnet_min: IpAddr,
    /// Last subnet that may be leased.
    pub subnet_max: IpAddr,
}

/// How packets travel between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// In UDP, RFC 7348.
    Vxlan(Vxlan),
    /// As they are, by routes: all nodes are on one link.
    HostGw,
}

/// Keys of the backend `vxlan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// `VNI`: network identifier, 24 bits. 1 unless given.
    pub vni: u32,
    /// `Port`: UDP; the kernel's 8472 unless given.
    pub port: Option<u16>,
    /// `MTU`: of the underlay, in bytes; the parent's unless given.
    pub mtu: Option<u32>,
    /// `GBP`: carry group policy IDs.
    pub gbp: bool,
    /// `Learning`: learn MACs from what comes in.
    pub learning: bool,
    /// `DirectRouting`: plain routes to peers on the same link.
    pub direct_routing: bool,
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfError {
    /// No JSON.
    #[error("the network configuration is not JSON: {0}")]
    Json(#[from] JsonError),
    /// A key has the wrong type.
    #[error("the network configuration: {0}")]
    Field(#[from] FieldError),
    /// A value makes no sense. Tells the key and what is wanted.
    #[error("the network configuration: {0}")]
    Value(String),
}

/// A family's keys, and flannel's limits for them.
struct Family {
    v6: bool,
    enable: &'static str,
    network: &'static str,
    len: &'static str,
    min: &'static str,
    max: &'static str,
    /// A subnet's usual length, if the network is at least two bits shorter.
    usual_len: u8,
    longest: u8,
}

const V4: Family = Family {
    v6: false,
    enable: "EnableIPv4",
    network: "Network",
    len: "SubnetLen",
    min: "SubnetMin",
    max: "SubnetMax",
    usual_len: 24,
    longest: 30,
};

const V6: Family = Family {
    v6: true,
    enable: "EnableIPv6",
    network: "IPv6Network",
    len: "IPv6SubnetLen",
    min: "IPv6SubnetMin",
    max: "IPv6SubnetMax",
    usual_len: 64,
    longest: 126,
};

// === impl NetConf ===

impl NetConf {
    /// Reads and completes a configuration.
    ///
    /// # Errors
    /// Names the key, what was found, and what is wanted.
    pub fn parse(text: &[u8]) -> Result<Self, ConfError> {
        let node = Node::parse(text)?;
        let fields = Fields::of(&node, "")?;
        let mut warnings = Vec::new();
        let backend = Backend::parse(&fields, &mut warnings)?;
        let v4 = V4.parse(&fields, true)?;
        let v6 = V6.parse(&fields, false)?;
        if v4.is_none() && v6.is_none() {
            return Err(ConfError::Value(
                "neither EnableIPv4 nor EnableIPv6 is on".into(),
            ));
        }
        let nftables = fields.bool("EnableNFTables")?.unwrap_or(false);
        Ok(Self {
            v4,
            v6,
            backend,
            nftables,
            warnings,
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// One family of it.
    pub fn network(&self, v6: bool) -> Option<&Network> {
        if v6 {
            self.v6.as_ref()
        } else {
            self.v4.as_ref()
        }
    }
}

// === impl Family ===

impl Family {
    fn parse(&self, fields: &Fields<'_>, usually: bool) -> Result<Option<Network>, ConfError> {
        if !fields.bool(self.enable)?.unwrap_or(usually) {
            return Ok(None);
        }
        let Some(given) = fields.cidr(self.network)? else {
            return Err(FieldError::missing(
                self.network,
                "the network of all pods, such as \"10.244.0.0/16\"",
            )
            .into());
        };
        let net = IpNetwork::new(given.network(), given.prefix())
            .ok()
            .filter(|net| net.is_ipv6() == self.v6)
            .ok_or_else(|| self.wrong(self.network, &given, "a network of the family is wanted"))?;
        let len = self.subnet_len(fields, &net)?;
        let bound = |key, usual| self.bound(fields, key, &net, len, usual);
        let (min, max) = (
            bound(self.min, number(net.network()) + step(&net, len))?,
            bound(self.max, last(&net, len))?,
        );
        if number(min) > number(max) {
            return Err(self.wrong(
                self.min,
                &min,
                &format!("it is behind {} ({max})", self.max),
            ));
        }
        Ok(Some(Network {
            net,
            subnet_len: len,
            subnet_min: min,
            subnet_max: max,
        }))
    }

    fn subnet_len(&self, fields: &Fields<'_>, net: &IpNetwork) -> Result<u8, ConfError> {
        let at_least = net.prefix().saturating_add(2);
        let wrong = |len: u64| {
            let wanted = format!("{at_least} to {} are possible in {net}", self.longest);
            self.wrong(self.len, &len, &wanted)
        };
        // flannel takes 0 for "not given".
        let given = fields
            .unsigned(self.len, u64::from(u32::MAX))?
            .filter(|len| *len != 0);
        let len = given.unwrap_or_else(|| self.usual_len.max(at_least).into());
        u8::try_from(len)
            .ok()
            .filter(|len| (at_least..=self.longest).contains(len))
            .ok_or_else(|| wrong(len))
    }

    fn bound(
        &self,
        fields: &Fields<'_>,
        key: &str,
        net: &IpNetwork,
        len: u8,
        usual: u128,
    ) -> Result<IpAddr, ConfError> {
        let Some(text) = fields.str(key)?.filter(|text| !text.is_empty()) else {
            return Ok(address(usual, self.v6));
        };
        let aligned = |ip: &IpAddr| number(*ip).is_multiple_of(step(net, len));
        parse_ip(&text)
            .filter(|ip| net.contains(*ip) && aligned(ip))
            .ok_or_else(|| {
                self.wrong(
                    key,
                    &text,
                    &format!("the first address of a /{len} in {net} is wanted"),
                )
            })
    }

    fn wrong(&self, key: &str, found: &dyn std::fmt::Display, wanted: &str) -> ConfError {
        ConfError::Value(format!("\"{key}\" is {found}; {wanted}"))
    }
}

/// Addresses in a subnet.
fn step(net: &IpNetwork, len: u8) -> u128 {
    let bits = if net.is_ipv6() { 128 } else { 32 };
    1_u128
        .checked_shl(u32::from(bits - len))
        .unwrap_or(u128::MAX)
}

/// The last subnet of a network.
fn last(net: &IpNetwork, len: u8) -> u128 {
    let end = number(net.broadcast());
    end - (end % step(net, len))
}

/// An address as a number.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The address of a number; of IPv4 its low 32 bits.
pub fn address(number: u128, v6: bool) -> IpAddr {
    if v6 {
        return IpAddr::V6(number.into());
    }
    let low = u32::try_from(number & u128::from(u32::MAX)).unwrap_or_default();
    IpAddr::V4(low.into())
}

// === impl Network ===

impl Network {
    /// Every subnet that may be leased, in order.
    pub fn subnets(&self) -> impl Iterator<Item = IpNetwork> + use<> {
        let (v6, len) = (self.net.is_ipv6(), self.subnet_len);
        let step = step(&self.net, len);
        let (mut next, end) = (Some(number(self.subnet_min)), number(self.subnet_max));
        std::iter::from_fn(move || {
            let at = next.filter(|at| *at <= end)?;
            next = at.checked_add(step);
            IpNetwork::new(address(at, v6), len).ok()
        })
    }

    /// May this subnet be leased?
    pub fn leases(&self, subnet: &IpNetwork) -> bool {
        let at = subnet.network();
        subnet.prefix() == self.subnet_len
            && self.net.contains(at)
            && (number(self.subnet_min)..=number(self.subnet_max)).contains(&number(at))
    }
}

// === impl Backend ===

impl Backend {
    fn parse(fields: &Fields<'_>, warnings: &mut Vec<String>) -> Result<Self, ConfError> {
        let Some(keys) = fields.fields("Backend")? else {
            warnings.push("no \"Backend\" in the network configuration: vxlan is assumed, where flanneld would run udp".into());
            return Ok(Self::Vxlan(Vxlan::default()));
        };
        let kind = keys.str("Type")?.unwrap_or_default().to_ascii_lowercase();
        match kind.as_str() {
            "vxlan" => Ok(Self::Vxlan(Vxlan::parse(&keys)?)),
            "host-gw" => Ok(Self::HostGw),
            other => {
                let found = libcni::spec::error::quoted(other);
                Err(ConfError::Value(format!(
                    "\"Backend.Type\" is {found}; vxlan and host-gw are spoken here"
                )))
            }
        }
    }

    /// Its name, as peers compare it.
    pub fn kind(&self) -> crate::Kind {
        match self {
            Self::Vxlan(_) => crate::Kind::Vxlan,
            Self::HostGw => crate::Kind::HostGw,
        }
    }
}

// === impl Vxlan ===

impl Vxlan {
    /// From the keys of an object: `Backend` of a network configuration, `vxlan` of the CNI plugin's.
    ///
    /// # Errors
    /// A wrong type, or a number out of range.
    pub fn parse(keys: &Fields<'_>) -> Result<Self, FieldError> {
        let vni = keys.unsigned("VNI", (1 << 24) - 1)?.unwrap_or(1);
        let port = keys.unsigned("Port", u16::MAX.into())?;
        let mtu = keys.unsigned("MTU", u16::MAX.into())?;
        Ok(Self {
            vni: u32::try_from(vni).unwrap_or(1),
            port: port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
            mtu: mtu
                .and_then(|mtu| u32::try_from(mtu).ok())
                .filter(|mtu| *mtu != 0),
            gbp: keys.bool("GBP")?.unwrap_or(false),
            learning: keys.bool("Learning")?.unwrap_or(false),
            direct_routing: keys.bool("DirectRouting")?.unwrap_or(false),
        })
    }
}

impl Default for Vxlan {
    fn default() -> Self {
        Self {
            vni: 1,
            port: None,
            mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        }
    }
}

#[cfg(test)]
mod tests;
