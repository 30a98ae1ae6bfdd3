//! The pods' gateway on the node: addresses of the bridge, or of its VLAN interface.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use libcni::kernel::link::{self, Link};
use libcni::kernel::{addr, neigh};
use libcni::nl::{Batch, NlError, Socket};
use libcni::spec::error::CniError;
use nix::errno::Errno;

use crate::bridge::{FOREIGN_BRIDGE, UP_MS};
use crate::conf::Conf;
use crate::plan::Layer3;
use crate::pod::LOCAL_MS;
use crate::vlan;

/// Puts the gateway addresses in place. Returns the VLAN interface that holds them, if that is not the bridge.
pub fn ensure(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    port: u32,
    layer3: &Layer3,
) -> Result<Option<Link>, CniError> {
    if !conf.is_gateway || layer3.addresses.is_empty() {
        return Ok(None);
    }
    let vlan_link = match conf.vlans.pvid {
        0 => None,
        _ if layer3.gateways.is_empty() => None,
        id => Some(vlan::gateway_link(host, conf, bridge, id)?),
    };
    let link = vlan_link.as_ref().unwrap_or(bridge);
    let held = addr::list(host, link.index)?;
    let mut added_v6 = Vec::new();
    for &gateway in &layer3.gateways {
        if ensure_address(host, conf, link, &held, gateway)? && gateway.is_ipv6() {
            added_v6.push(gateway.ip());
        }
    }
    if !added_v6.is_empty() {
        // IPv6 does nothing before the link is up, which the bridge's first port makes it.
        link::wait_up(host, port, UP_MS)?;
        link::wait_up(host, link.index, UP_MS)?;
        addr::wait_local(host, &added_v6, LOCAL_MS)?;
    }
    Ok(vlan_link)
}

/// True if it was not there.
fn ensure_address(
    host: &mut Socket,
    conf: &Conf,
    link: &Link,
    held: &[addr::Addr],
    gateway: IpNetwork,
) -> Result<bool, CniError> {
    if held.iter().any(|a| a.net == gateway) {
        return Ok(false);
    }
    let mut batch = Batch::new();
    for other in held.iter().filter(|a| conflicts(a.net, gateway)) {
        if !conf.force_address {
            return Err(CniError::new(
                FOREIGN_BRIDGE,
                format!(
                    "{:?} already has an IP address different from {gateway}",
                    link.name
                ),
            )
            .with_details(format!(
                "it has {}: was the subnet changed? Set `forceAddress`, remove that address (`ip address del {} dev {}`), \
                 or give the network a bridge of its own",
                other.net, other.net, link.name
            )));
        }
        batch.push(addr::del(link.index, other.net));
    }
    // No duplicate address detection: the segment is ours, and the first pod must not wait for it.
    batch.push(addr::add(link.index, gateway, true));
    // Pins the MAC of a bridge somebody else made, as it was before our port: neighbours know it by that. One
    // that had no port has none yet; it is not written back (the reference does, and fails).
    if let Some(mac) = link.mac.filter(|m| !m.is_zero()) {
        batch.push(link::set_mac(link.index, mac));
    }
    for outcome in host.run_all(&batch)? {
        match outcome {
            // Another ADD added it (or removed the one in the way) meanwhile.
            Err(e) if e.is(Errno::EEXIST) || e.is(Errno::EADDRNOTAVAIL) => {}
            other => other?,
        }
    }
    Ok(true)
}

/// An IPv4 address of any other network; IPv6 ones if their subnets overlap. (One network's own gateways are added
/// together, so a network may have several of IPv4, which the reference cannot do.)
fn conflicts(held: IpNetwork, wanted: IpNetwork) -> bool {
    match (held, wanted) {
        (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
        (IpNetwork::V6(a), IpNetwork::V6(b)) => {
            !a.ip().is_unicast_link_local() && (a.contains(b.network()) || b.contains(a.network()))
        }
        _ => false,
    }
}

/// Removes the node's neighbour entries for addresses on a link.
pub fn forget(host: &mut Socket, index: u32, ips: &[IpAddr]) -> Result<(), NlError> {
    let batch: Batch = ips.iter().map(|&ip| neigh::del(index, ip)).collect();
    for outcome in host.run_all(&batch)? {
        match outcome {
            // No entry is what we want; without IPv6 there is none of it.
            Err(e)
                if [Errno::ENOENT, Errno::ENODEV, Errno::EAFNOSUPPORT]
                    .into_iter()
                    .any(|n| e.is(n)) => {}
            other => other?,
        }
    }
    Ok(())
}
