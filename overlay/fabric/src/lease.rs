//! flannel's leases, to the byte: the keys and values of its etcd registry, which our file directory and the plugin's
//! peers file have as well, and the backend data that it also puts into annotations of Kubernetes nodes.
//!
//! ```text
//! 10.5.1.0-24&fc00:0:0:5::-64
//! {"PublicIP":"192.0.2.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}
//! ```
//! Source: flannel, `pkg/subnet/subnet.go`, `pkg/lease/lease.go`, `pkg/backend/vxlan/vxlan.go`.

use std::net::IpAddr;

use libcni::kernel::Mac;
use libcni::spec::json::{Fields, Node, ObjBuilder};
use libcni::spec::{IpNetwork, parse_ip};
use thiserror::Error;

use crate::peer::{Kind, Peer, Site, Vtep};

/// Longest value that is looked at. Real ones are below 300 bytes.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;

/// A key or value that is no lease. Names what is wrong with it, never repeats more than a few bytes of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LeaseError {
    /// The key is no subnet.
    #[error("the key is no subnet such as 10.5.1.0-24 or 10.5.1.0-24&fc00:0:0:5::-64")]
    Key,
    /// The value is no lease.
    #[error("{0}")]
    Value(String),
}

/// A node's subnets, which are the name of its lease. IPv4 is the identity: there is no lease of IPv6 alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnets {
    /// Host bits off.
    pub v4: IpNetwork,
    /// Host bits off.
    pub v6: Option<IpNetwork>,
}

// === impl Subnets ===

impl Subnets {
    /// From the last part of a key. flannel anchors its pattern at the end only; so whatever stands before the last
    /// slash is the caller's to compare.
    ///
    /// # Errors
    /// It is not one; also /32 and /128, which flannel cannot read.
    pub fn parse(key: &str) -> Result<Self, LeaseError> {
        let (v4, v6) = match key.split_once('&') {
            Some((v4, v6)) => (v4, Some(v6)),
            None => (key, None),
        };
        let v4 = subnet(v4, 31)
            .filter(IpNetwork::is_ipv4)
            .ok_or(LeaseError::Key)?;
        let v6 = v6
            .map(|v6| {
                subnet(v6, 127)
                    .filter(IpNetwork::is_ipv6)
                    .ok_or(LeaseError::Key)
            })
            .transpose()?;
        Ok(Self { v4, v6 })
    }

    /// As a key.
    pub fn key(&self) -> String {
        let part = |net: &IpNetwork| format!("{}-{}", net.network(), net.prefix());
        match &self.v6 {
            Some(v6) => format!("{}&{}", part(&self.v4), part(v6)),
            None => part(&self.v4),
        }
    }
}

fn subnet(text: &str, longest: u8) -> Option<IpNetwork> {
    let (ip, length) = text.rsplit_once('-')?;
    let canonical = length == "0" || !length.starts_with('0');
    if !canonical || length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let net = IpNetwork::new(ip.parse().ok()?, length.parse().ok()?).ok()?;
    let masked = IpNetwork::new(net.network(), net.prefix()).ok()?;
    (masked.prefix() <= longest).then_some(masked)
}

/// A lease's value, as flannel's own encoder writes it.
pub fn value(peer: &Peer) -> String {
    let ip = |site: Option<&Site>| match site {
        Some(site) => Node::from(site.public_ip.to_string()),
        None => Node::Null,
    };
    let mut value = Node::obj()
        .put("PublicIP", ip(peer.v4.as_ref()))
        .put("PublicIPv6", ip(peer.v6.as_ref()));
    if !peer.kind.as_str().is_empty() {
        value = value.put("BackendType", peer.kind.as_str());
    }
    let data = |value: ObjBuilder, key: &str, site: Option<&Site>| match site.and_then(|s| s.vtep) {
        Some(vtep) => value.put(key, backend_data_node(&vtep)),
        None => value,
    };
    value = data(value, "BackendData", peer.v4.as_ref());
    value = data(value, "BackendV6Data", peer.v6.as_ref());
    value.build().write_compact()
}

/// Reads a lease's value: keys in any case, unknown ones passed over.
///
/// # Errors
/// It is no JSON object, or says no `PublicIP`; with `IPv6` subnets, no `PublicIPv6`. Backend data that cannot be used
/// is no error: the site has no VTEP then.
pub fn parse(name: &str, subnets: &Subnets, value: &[u8]) -> Result<Peer, LeaseError> {
    let wrong = |why: &dyn std::fmt::Display| LeaseError::Value(why.to_string());
    if value.len() > MAX_VALUE_BYTES {
        let why = format!(
            "{} bytes; at most {MAX_VALUE_BYTES} are a lease",
            value.len()
        );
        return Err(LeaseError::Value(why));
    }
    let node = Node::parse(value).map_err(|e| wrong(&e))?;
    from_node(name, subnets, &node)
}

/// The same of a value that is a part of a document.
///
/// # Errors
/// As [`parse`].
pub fn from_node(name: &str, subnets: &Subnets, node: &Node) -> Result<Peer, LeaseError> {
    let wrong = |why: &dyn std::fmt::Display| LeaseError::Value(why.to_string());
    let fields = Fields::of(node, "").map_err(|e| wrong(&e))?;
    let site = |subnet, ip_key: &str, data_key: &str, v6: bool| {
        let text = fields
            .str(ip_key)
            .map_err(|e| wrong(&e))?
            .unwrap_or_default();
        let public_ip = parse_ip(&text)
            .filter(|ip| ip.is_ipv6() == v6)
            .ok_or_else(|| {
                LeaseError::Value(format!("{ip_key} is not an address of its family"))
            })?;
        let vtep = fields.node(data_key).and_then(|data| vtep(&data));
        Ok(Site {
            subnet,
            public_ip,
            vtep,
        })
    };
    let kind = fields
        .str("BackendType")
        .map_err(|e| wrong(&e))?
        .unwrap_or_default();
    Ok(Peer {
        name: name.to_owned(),
        kind: Kind::parse(&kind),
        v4: Some(site(subnets.v4, "PublicIP", "BackendData", false)?),
        v6: subnets
            .v6
            .map(|v6| site(v6, "PublicIPv6", "BackendV6Data", true))
            .transpose()?,
    })
}

/// A VTEP's backend data. These very bytes: flannel splits the annotation as a string to find its own MAC again.
pub fn backend_data(vtep: &Vtep) -> String {
    backend_data_node(vtep).write_compact()
}

fn backend_data_node(vtep: &Vtep) -> Node {
    let data = Node::obj().put_some("VNI", vtep.vni);
    data.put("VtepMAC", vtep.mac.to_string()).build()
}

/// Reads backend data; `None` if there is no MAC in it, as in `null`, `{}` and what appliances write.
pub fn parse_backend_data(text: &[u8]) -> Option<Vtep> {
    if text.len() > MAX_VALUE_BYTES {
        return None;
    }
    vtep(&Node::parse(text).ok()?)
}

fn vtep(data: &Node) -> Option<Vtep> {
    let fields = Fields::of(data, "").ok()?;
    let mac = Mac::parse(&fields.str("VtepMAC").ok()??)?;
    // A wrong VNI is none: flannel on Linux does not even look at it.
    let vni = fields.u32("VNI").ok().flatten();
    Some(Vtep { mac, vni })
}

/// `IP` as its family wants it, for callers that read flannel's annotations.
pub fn public_ip(text: &str, v6: bool) -> Option<IpAddr> {
    parse_ip(text.trim()).filter(|ip| ip.is_ipv6() == v6)
}

#[cfg(test)]
mod tests;
