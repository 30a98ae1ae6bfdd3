//! From configuration and lease to what the kernel is to hold. Pure: same input, same plan.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use libcni::kernel::link::Link;
use libcni::spec::error::CniError;
use libcni::spec::invalid_config;
use libcni::spec::result::{CniResult, Interface, Route};

use crate::conf::Conf;

/// Position of the pod end among the result's interfaces: bridge, host end, pod end.
pub const POD_INTERFACE: i64 = 2;

/// Layer 3 of one attachment.
#[derive(Debug, Default, PartialEq)]
pub struct Layer3 {
    /// Addresses of the pod end.
    pub addresses: Vec<IpNetwork>,
    /// Routes of the pod, each with the gateway it goes through, if any.
    pub routes: Vec<Route>,
    /// Addresses the bridge (or its VLAN interface) holds as the pods' gateway.
    pub gateways: Vec<IpNetwork>,
}

impl Layer3 {
    /// Whether any address is of IPv6.
    pub fn has_v6(&self) -> bool {
        self.addresses.iter().any(IpNetwork::is_ipv6)
    }

    /// Whether any address is of IPv4.
    pub fn has_v4(&self) -> bool {
        self.addresses.iter().any(IpNetwork::is_ipv4)
    }
}

/// Completes the IPAM's result (gateways, default routes, interface indices) in place and says what follows
/// from it.
///
/// # Errors
/// A result without an address, for the network asked for one.
pub fn layer3(conf: &Conf, result: &mut CniResult) -> Result<Layer3, CniError> {
    if result.ips.is_empty() {
        return Err(invalid_config(
            "IPAM plugin returned missing IP config",
            "the IPAM must return at least one address; leave out `ipam` for a layer 2 network",
        ));
    }
    let mut plan = Layer3::default();
    let mut defaults: Vec<Route> = Vec::new();
    for ip in &mut result.ips {
        ip.interface = Some(POD_INTERFACE);
        plan.addresses.push(ip.address);
        if ip.gateway.is_none() && conf.is_gateway {
            ip.gateway = first_address(ip.address);
        }
        let Some(gateway) = ip.gateway else { continue };
        if conf.is_gateway
            && let Ok(net) = IpNetwork::new(gateway, ip.address.prefix())
            && !plan.gateways.contains(&net)
        {
            plan.gateways.push(net);
        }
        // Also a default route that names no gateway counts: it goes through this one (below). The
        // reference adds a second, identical one and fails.
        let had = result.routes.iter().chain(&defaults).any(|r| {
            is_default(r.dst) && r.table.is_none() && r.dst.is_ipv4() == gateway.is_ipv4()
        });
        if conf.is_default_gateway && !had {
            defaults.push(Route::new(default_route(gateway), Some(gateway)));
        }
    }
    result.routes.extend(defaults);
    for route in &result.routes {
        let through = Route {
            gw: route
                .gw
                .or_else(|| first_gateway(result, route.dst.is_ipv4())),
            ..route.clone()
        };
        // The same route twice is one route; the kernel would answer EEXIST.
        if !plan.routes.contains(&through) {
            plan.routes.push(through);
        }
    }
    Ok(plan)
}

/// The result's interfaces, in the order the reference gives them: bridge, host end, pod end, and the VLAN's
/// gateway interface if there is one.
pub fn interfaces(
    bridge: &Link,
    host: (&str, String),
    pod: (&str, String),
    sandbox: &str,
    vlan_gateway: Option<&Link>,
) -> Vec<Interface> {
    let interface = |(name, mac): (&str, String), sandbox: &str| Interface {
        name: name.to_owned(),
        mac,
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    };
    let of_link = |link: &Link| {
        let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        interface((&link.name, mac), "")
    };
    let mut all = vec![
        of_link(bridge),
        interface(host, ""),
        interface(pod, sandbox),
    ];
    all.extend(vlan_gateway.map(of_link));
    all
}

/// Network address + 1.
fn first_address(net: IpNetwork) -> Option<IpAddr> {
    match net.network() {
        IpAddr::V4(a) => u32::from(a).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(a) => u128::from(a).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

fn first_gateway(result: &CniResult, v4: bool) -> Option<IpAddr> {
    result
        .ips
        .iter()
        .filter_map(|ip| ip.gateway)
        .find(|gw| gw.is_ipv4() == v4)
}

fn is_default(dst: IpNetwork) -> bool {
    dst.prefix() == 0 && dst.ip().is_unspecified()
}

fn default_route(gateway: IpAddr) -> IpNetwork {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let any = match gateway {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNetwork::new(any, 0).unwrap_or_else(|_| unreachable!("a prefix of 0 suits both families"))
}
