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

#[cfg(test)]
mod tests {
    use super::*;
    use libcni::spec::result::IpConfig;

    fn net(text: &str) -> IpNetwork {
        libcni::spec::parse_cidr(text).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn result(addresses: &[(&str, Option<&str>)], routes: &[(&str, Option<&str>)]) -> CniResult {
        let ips = addresses.iter().map(|(address, gateway)| IpConfig {
            interface: None,
            address: net(address),
            gateway: gateway.map(ip),
        });
        let routes = routes
            .iter()
            .map(|(dst, gw)| Route::new(net(dst), gw.map(ip)));
        CniResult {
            ips: ips.collect(),
            routes: routes.collect(),
            ..CniResult::default()
        }
    }

    fn gateway_conf(default: bool) -> Conf {
        Conf {
            is_gateway: true,
            is_default_gateway: default,
            ..Conf::test_default()
        }
    }

    fn routes(plan: &Layer3) -> Vec<(String, Option<String>)> {
        let shown = |r: &Route| (r.dst.to_string(), r.gw.map(|g| g.to_string()));
        plan.routes.iter().map(shown).collect()
    }

    #[test]
    fn a_missing_gateway_is_the_first_address() {
        let mut lease = result(&[("10.1.2.7/24", None), ("fd00::7/64", None)], &[]);
        let plan = layer3(&gateway_conf(false), &mut lease).unwrap();
        assert_eq!(plan.gateways, [net("10.1.2.1/24"), net("fd00::1/64")]);
        assert_eq!(lease.ips[0].gateway, Some(ip("10.1.2.1")));
        assert_eq!(lease.ips[1].interface, Some(POD_INTERFACE));
        assert!(plan.routes.is_empty() && lease.routes.is_empty());
    }

    #[test]
    fn one_default_route_for_each_family() {
        let gw = Some("10.1.2.1");
        let mut lease = result(
            &[
                ("10.1.2.7/24", gw),
                ("10.1.3.7/24", None),
                ("fd00::7/64", None),
            ],
            &[],
        );
        layer3(&gateway_conf(true), &mut lease).unwrap();
        let defaults: Vec<_> = lease.routes.iter().map(|r| (r.dst, r.gw)).collect();
        assert_eq!(
            defaults,
            [
                (net("0.0.0.0/0"), Some(ip("10.1.2.1"))),
                (net("::/0"), Some(ip("fd00::1")))
            ]
        );
    }

    /// The reference adds a second, identical default route here and fails with EEXIST.
    #[test]
    fn a_default_route_without_gateway_goes_through_ours() {
        let mut lease = result(&[("10.1.2.7/24", None)], &[("0.0.0.0/0", None)]);
        let plan = layer3(&gateway_conf(true), &mut lease).unwrap();
        assert_eq!(lease.routes.len(), 1);
        assert_eq!(
            routes(&plan),
            [("0.0.0.0/0".to_owned(), Some("10.1.2.1".to_owned()))]
        );
    }

    #[test]
    fn the_same_route_twice_is_one_route() {
        let wanted = [
            ("10.9.0.0/16", None),
            ("10.9.0.0/16", Some("10.1.2.1")),
            ("10.9.0.0/16", Some("10.1.2.2")),
        ];
        let mut lease = result(&[("10.1.2.7/24", Some("10.1.2.1"))], &wanted);
        let plan = layer3(&gateway_conf(false), &mut lease).unwrap();
        assert_eq!(plan.routes.len(), 2);
    }

    #[test]
    fn without_gateway_the_bridge_holds_none() {
        let mut lease = result(
            &[("10.1.2.7/24", Some("10.1.2.254"))],
            &[("0.0.0.0/0", None)],
        );
        let plan = layer3(&Conf::test_default(), &mut lease).unwrap();
        assert!(plan.gateways.is_empty());
        assert_eq!(
            routes(&plan),
            [("0.0.0.0/0".to_owned(), Some("10.1.2.254".to_owned()))]
        );
    }

    #[test]
    fn no_address_is_an_error() {
        let e = layer3(&gateway_conf(true), &mut CniResult::default()).unwrap_err();
        assert_eq!(e.msg, "IPAM plugin returned missing IP config");
    }
}
