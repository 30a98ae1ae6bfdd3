//! What ADD answers (spec section 5, "Success"), in every version's shape.
//!
//! One struct in the shape of 1.1.0 stands for all versions: [`CniResult::parse`] reads any, [`CniResult::to_node`]
//! writes any, and a conversion is the one after the other. What is lost on the way down is exactly what the reference
//! loses (C: `pkg/types/{020,040,100}/types.go`).

use std::net::IpAddr;

use super::cidr::IpNetwork;
use super::error::{CniError, Code};
use super::json::{FieldError, Fields, Node};
use super::version::{Group, Version};

/// The result of ADD. Also what arrives as `prevResult`, and what an IPAM delegate answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CniResult {
    /// Interfaces made or taken over; [`IpConfig::interface`] points here.
    pub interfaces: Vec<Interface>,
    /// Addresses, in order.
    pub ips: Vec<IpConfig>,
    /// Routes, in order.
    pub routes: Vec<Route>,
    /// Resolver settings.
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Its name in its namespace.
    pub name: String,
    /// Hardware address as text, `""` if none: what a delegate wrote is passed on in its own spelling.
    pub mac: String,
    /// MTU in bytes. Since 1.1.0.
    pub mtu: Option<u32>,
    /// Path of the network namespace, `""` for the host's.
    pub sandbox: String,
    /// Path of a userspace socket. Since 1.1.0.
    pub socket_path: String,
    /// PCI address. Since 1.1.0.
    pub pci_id: String,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// Index into [`CniResult::interfaces`]; as written, so it may point nowhere.
    pub interface: Option<i64>,
    /// Address and prefix length.
    pub address: IpNetwork,
    /// Default gateway of this subnet.
    pub gateway: Option<IpAddr>,
}

/// A route. All but `dst` and `gw` are formally since 1.1.0, but older results carry them too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop; none means the gateway of the family's address.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes; 0 is not set.
    pub mtu: Option<u32>,
    /// TCP maximum segment size in bytes to advertise; 0 is not set.
    pub advmss: Option<u32>,
    /// Metric, lower is preferred; 0 is not set.
    pub priority: Option<u32>,
    /// Routing table.
    pub table: Option<u32>,
    /// `RT_SCOPE_*`.
    pub scope: Option<u8>,
}

/// Resolver settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// Servers, most preferred first.
    pub nameservers: Vec<String>,
    /// Local domain, `""` if none.
    pub domain: String,
    /// Search list.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

// === impl CniResult ===

impl CniResult {
    /// Reads a result in the version it names itself, or in `assumed` if it names none or `""`.
    ///
    /// For a delegate's answer, where `assumed` is the config's version. Code 6: an unknown version, a wrong type or an
    /// invalid address; the details say which key and what is allowed. Unknown keys are dropped.
    pub fn parse(node: &Node, assumed: Version) -> Result<CniResult, CniError> {
        let read = || -> Result<CniResult, FieldError> {
            let fields = Fields::of(node, "")?;
            let version = match label(&fields)? {
                None => assumed,
                Some(text) => Version::parse(&text).ok_or_else(|| {
                    FieldError::bad_value("cniVersion", text, "a version from 0.1.0 to 1.1.0")
                })?,
            };
            read_as(&fields, version.group())
        };
        read().map_err(|error| not_a_result("could not parse the result", &error, Code::Decode))
    }

    /// Reads a config's `prevResult`: as [`CniResult::parse`], and its version has to be of the config's group, as the
    /// reference demands. `""` is the config's version, as if it were not there. Code 7.
    pub fn parse_prev(node: &Node, config: Version) -> Result<CniResult, CniError> {
        const MSG: &str = "could not parse prevResult";
        let invalid = |error: FieldError| not_a_result(MSG, &error, Code::InvalidConfig);
        let fields = Fields::of(node, "prevResult").map_err(invalid)?;
        let group = config.group();
        if let Some(text) = label(&fields).map_err(invalid)?
            && Version::parse(&text).map(Version::group) != Some(group)
        {
            let supported = match group {
                // The reference counts "" among these.
                Group::Ip4Ip6 => " 0.1.0 0.2.0",
                Group::Lists => "0.3.0 0.3.1 0.4.0",
                Group::Sorted => "1.0.0 1.1.0",
            };
            let what = format!(
                "{MSG}: result type supports [{supported}] but unmarshalled CNIVersion is {}",
                super::error::quoted(&text)
            );
            return Err(
                CniError::new(Code::InvalidConfig, what).with_details(format!(
                    "the config is {config}; give prevResult in the config's version"
                )),
            );
        }
        read_as(&fields, group).map_err(invalid)
    }

    /// The result in a version's shape and key order. Code 999 below 0.3.0 if there is no address: that shape cannot
    /// say so.
    pub fn to_node(&self, version: Version) -> Result<Node, CniError> {
        match version.group() {
            Group::Ip4Ip6 => self.to_ip4_ip6(version),
            Group::Lists => Ok(self.to_lists(version)),
            Group::Sorted => Ok(self.to_sorted(version)),
        }
    }

    /// The bytes a plugin prints: [`CniResult::to_node`] indented by four spaces, no newline at the end.
    pub fn to_json(&self, version: Version) -> Result<String, CniError> {
        Ok(self.to_node(version)?.write_indented())
    }

    fn to_sorted(&self, version: Version) -> Node {
        Node::obj()
            .put("cniVersion", version.as_str())
            .put_filled("dns", self.dns.to_sorted())
            .put_filled("interfaces", nodes(&self.interfaces, Interface::to_sorted))
            .put_filled("ips", nodes(&self.ips, IpConfig::to_sorted))
            .put_filled("routes", nodes(&self.routes, Route::to_sorted))
            .build()
    }

    fn to_lists(&self, version: Version) -> Node {
        Node::obj()
            .put("cniVersion", version.as_str())
            .put_filled("interfaces", nodes(&self.interfaces, Interface::to_lists))
            .put_filled("ips", nodes(&self.ips, IpConfig::to_lists))
            .put_filled("routes", nodes(&self.routes, Route::to_lists))
            .put("dns", self.dns.to_lists())
            .build()
    }

    /// The first address of each family with the routes of that family; everything else does not fit and goes.
    fn to_ip4_ip6(&self, version: Version) -> Result<Node, CniError> {
        let family = |v4: bool| {
            let ip = self.ips.iter().find(|ip| ip.address.is_ipv4() == v4)?;
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv4() == v4);
            let routes: Vec<Node> = routes
                .map(|route| {
                    Node::obj()
                        .put("dst", text(&route.dst))
                        .put_some("gw", route.gw.map(ip_text))
                        .build()
                })
                .collect();
            Some(
                Node::obj()
                    .put("ip", text(&ip.address))
                    .put_some("gateway", ip.gateway.map(ip_text))
                    .put_filled("routes", routes)
                    .build(),
            )
        };
        let (ip4, ip6) = (family(true), family(false));
        if ip4.is_none() && ip6.is_none() {
            return Err(CniError::new(Code::Internal, "cannot convert: no valid IP addresses").with_details(format!(
                "a result of version {version} needs at least one address; use cniVersion 0.3.0 or later"
            )));
        }
        Ok(Node::obj()
            .put("cniVersion", version.as_str())
            .put_some("ip4", ip4)
            .put_some("ip6", ip6)
            .put("dns", self.dns.to_lists())
            .build())
    }
}

impl Interface {
    fn read(fields: &Fields<'_>, group: Group) -> Result<Interface, FieldError> {
        let mut interface = Interface {
            name: fields.str("name")?.unwrap_or_default(),
            mac: fields.str("mac")?.unwrap_or_default(),
            sandbox: fields.str("sandbox")?.unwrap_or_default(),
            ..Interface::default()
        };
        // To the older shapes these are unknown keys.
        if group == Group::Sorted {
            interface.mtu = nonzero(fields.u32("mtu")?);
            interface.socket_path = fields.str("socketPath")?.unwrap_or_default();
            interface.pci_id = fields.str("pciID")?.unwrap_or_default();
        }
        Ok(interface)
    }

    fn to_sorted(&self) -> Node {
        Node::obj()
            .put_filled("mac", self.mac.as_str())
            .put_some("mtu", nonzero(self.mtu))
            .put("name", self.name.as_str())
            .put_filled("pciID", self.pci_id.as_str())
            .put_filled("sandbox", self.sandbox.as_str())
            .put_filled("socketPath", self.socket_path.as_str())
            .build()
    }

    fn to_lists(&self) -> Node {
        Node::obj()
            .put("name", self.name.as_str())
            .put_filled("mac", self.mac.as_str())
            .put_filled("sandbox", self.sandbox.as_str())
            .build()
    }
}

impl IpConfig {
    fn read(fields: &Fields<'_>) -> Result<IpConfig, FieldError> {
        Ok(IpConfig {
            interface: fields.i64("interface")?,
            address: cidr(fields, "address")?,
            gateway: fields.ip("gateway")?,
        })
    }

    fn to_sorted(&self) -> Node {
        Node::obj()
            .put("address", text(&self.address))
            .put_some("gateway", self.gateway.map(ip_text))
            .put_some("interface", self.interface)
            .build()
    }

    fn to_lists(&self) -> Node {
        Node::obj()
            .put("version", if self.address.is_ipv4() { "4" } else { "6" })
            .put_some("interface", self.interface)
            .put("address", text(&self.address))
            .put_some("gateway", self.gateway.map(ip_text))
            .build()
    }
}

impl Route {
    /// A route with destination and next hop only.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Route {
        Route {
            dst,
            gw,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }

    /// Reads a route object; also the shape of `ipam.routes` in a config.
    pub fn read(fields: &Fields<'_>) -> Result<Route, FieldError> {
        Ok(Route {
            dst: cidr(fields, "dst")?,
            gw: fields.ip("gw")?,
            mtu: nonzero(fields.u32("mtu")?),
            advmss: nonzero(fields.u32("advmss")?),
            priority: nonzero(fields.u32("priority")?),
            table: fields.u32("table")?,
            scope: fields
                .unsigned("scope", u8::MAX.into())?
                .and_then(|scope| u8::try_from(scope).ok()),
        })
    }

    fn to_sorted(&self) -> Node {
        Node::obj()
            .put_some("advmss", nonzero(self.advmss))
            .put("dst", text(&self.dst))
            .put_some("gw", self.gw.map(ip_text))
            .put_some("mtu", nonzero(self.mtu))
            .put_some("priority", nonzero(self.priority))
            .put_some("scope", self.scope)
            .put_some("table", self.table)
            .build()
    }

    fn to_lists(&self) -> Node {
        Node::obj()
            .put("dst", text(&self.dst))
            .put_some("gw", self.gw.map(ip_text))
            .put_some("mtu", nonzero(self.mtu))
            .put_some("advmss", nonzero(self.advmss))
            .put_some("priority", nonzero(self.priority))
            .put_some("table", self.table)
            .put_some("scope", self.scope)
            .build()
    }
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.nameservers.is_empty()
            && self.domain.is_empty()
            && self.search.is_empty()
            && self.options.is_empty()
    }

    /// Reads a `dns` object of a result or config.
    pub fn read(fields: &Fields<'_>) -> Result<Dns, FieldError> {
        Ok(Dns {
            nameservers: fields.strings("nameservers")?.unwrap_or_default(),
            domain: fields.str("domain")?.unwrap_or_default(),
            search: fields.strings("search")?.unwrap_or_default(),
            options: fields.strings("options")?.unwrap_or_default(),
        })
    }

    fn to_sorted(&self) -> Node {
        Node::obj()
            .put_filled("domain", self.domain.as_str())
            .put_filled("nameservers", self.nameservers.as_slice())
            .put_filled("options", self.options.as_slice())
            .put_filled("search", self.search.as_slice())
            .build()
    }

    fn to_lists(&self) -> Node {
        Node::obj()
            .put_filled("nameservers", self.nameservers.as_slice())
            .put_filled("domain", self.domain.as_str())
            .put_filled("search", self.search.as_slice())
            .put_filled("options", self.options.as_slice())
            .build()
    }
}

/// The version a result names; `""` is none.
fn label(fields: &Fields<'_>) -> Result<Option<String>, FieldError> {
    Ok(fields.str("cniVersion")?.filter(|text| !text.is_empty()))
}

fn read_as(fields: &Fields<'_>, group: Group) -> Result<CniResult, FieldError> {
    let mut result = CniResult {
        dns: fields
            .fields("dns")?
            .as_ref()
            .map(Dns::read)
            .transpose()?
            .unwrap_or_default(),
        ..CniResult::default()
    };
    if group == Group::Ip4Ip6 {
        for key in ["ip4", "ip6"] {
            let Some(ip) = fields.fields(key)? else {
                continue;
            };
            result.ips.push(IpConfig {
                interface: None,
                address: cidr(&ip, "ip")?,
                gateway: ip.ip("gateway")?,
            });
            result.routes.extend(read_routes(&ip)?);
        }
        return Ok(result);
    }
    for interface in fields.array_of_fields("interfaces")?.unwrap_or_default() {
        result.interfaces.push(Interface::read(&interface, group)?);
    }
    for ip in fields.array_of_fields("ips")?.unwrap_or_default() {
        result.ips.push(IpConfig::read(&ip)?);
    }
    result.routes = read_routes(fields)?;
    Ok(result)
}

fn read_routes(fields: &Fields<'_>) -> Result<Vec<Route>, FieldError> {
    fields
        .array_of_fields("routes")?
        .unwrap_or_default()
        .iter()
        .map(Route::read)
        .collect()
}

/// An address that has to be there. The reference would carry on with none and print it as `<nil>`.
fn cidr(fields: &Fields<'_>, key: &str) -> Result<IpNetwork, FieldError> {
    fields.cidr(key)?.ok_or_else(|| {
        FieldError::missing(
            fields.path_of(key),
            "an address with its prefix length, \"10.0.0.1/24\"",
        )
    })
}

fn not_a_result(msg: &str, error: &FieldError, code: Code) -> CniError {
    CniError::new(code, format!("{msg}: {}", error.what()))
        .with_details(format!("allowed: {}", error.allowed()))
}

fn nodes<T>(items: &[T], to_node: fn(&T) -> Node) -> Vec<Node> {
    items.iter().map(to_node).collect()
}

fn nonzero(n: Option<u32>) -> Option<u32> {
    n.filter(|n| *n != 0)
}

fn text(net: &IpNetwork) -> String {
    net.to_string()
}

fn ip_text(ip: IpAddr) -> String {
    ip.to_string()
}

#[cfg(test)]
mod tests;
