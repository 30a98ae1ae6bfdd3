//! VLANs of a bridge port, and the gateway interface of a VLAN.

use std::os::fd::AsFd;
use std::path::Path;

use libcni::kernel::link::{self, Link, VethSpec};
use libcni::kernel::mac::Mac;
use libcni::kernel::netns::Netns;
use libcni::kernel::vlan;
use libcni::nl::{Batch, Socket};
use libcni::spec::IfName;
use libcni::spec::error::CniError;
use libcni::spec::invalid_config;
use nix::errno::Errno;

use crate::bridge::{self, FOREIGN_BRIDGE};
use crate::check::differs;
use crate::conf::{Conf, Vlans, internal};

/// The VLAN that a trunk's untagged packets belong to, as the reference has it.
const UNTAGGED_OF_TRUNK: u16 = 1;

/// Puts the port into its VLANs, and out of the bridge's default one unless that is to stay.
pub fn set_port(host: &mut Socket, vlans: &Vlans, port: u32) -> Result<(), CniError> {
    let wanted = wanted(vlans);
    if wanted.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    if !vlans.preserve_default {
        let held = vlan::list(host, port)?;
        if !held.is_empty() {
            batch.push(vlan::del(port, &held));
        }
    }
    batch.push(vlan::add(port, &wanted));
    Ok(host.run(&batch)?)
}

/// Whether the port is in all of its VLANs.
pub fn check(host: &mut Socket, vlans: &Vlans, port: &Link) -> Result<(), CniError> {
    let wanted = wanted(vlans);
    if wanted.is_empty() {
        return Ok(());
    }
    let held = vlan::list(host, port.index)?;
    for one in wanted {
        let id = one.first;
        let is_in = held
            .iter()
            .any(|h| (h.first..=h.last).contains(&id) && h.pvid == one.pvid);
        if !is_in {
            let how = if one.pvid { " pvid untagged" } else { "" };
            return Err(differs(
                format!("{} is not in VLAN {id}", port.name),
                format!("`bridge vlan add dev {} vid {id}{how}`", port.name),
            ));
        }
    }
    Ok(())
}

/// The port's VLANs: the untagged one first.
fn wanted(vlans: &Vlans) -> Vec<vlan::Vlans> {
    let untagged = match (vlans.pvid, vlans.trunk.is_empty()) {
        (0, true) => return Vec::new(),
        (0, false) => UNTAGGED_OF_TRUNK,
        (id, _) => id,
    };
    let tagged = vlans.trunk.iter().filter(|&&id| id != untagged);
    std::iter::once(vlan::Vlans::access(untagged))
        .chain(tagged.map(|&id| vlan::Vlans::tagged(id)))
        .collect()
}

/// Name of the interface that holds the gateway addresses of a VLAN.
pub fn gateway_name(bridge: &IfName, id: u16) -> Result<IfName, CniError> {
    let name = format!("{bridge}.{id}");
    IfName::parse(&name).map_err(|_| {
        invalid_config(
            format!("gateway interface {name:?} has too long a name"),
            "give the bridge a shorter name: with `.` and the VLAN ID it must fit 15 bytes",
        )
    })
}

/// The interface `<bridge>.<vlan>`, made if it is not there: one end of a veth pair whose other end is a
/// port of the bridge in that VLAN. Like the bridge it stays. What an interrupted ADD left half done is
/// finished.
pub fn gateway_link(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    id: u16,
) -> Result<Link, CniError> {
    let name = gateway_name(&conf.bridge, id)?;
    let link = match link::get(host, name.as_str())? {
        Some(link) => link,
        None => {
            let (here, port) = (
                Netns::open(Path::new("/proc/self/ns/net"))?,
                port_name(&name)?,
            );
            let pair = link::veth(&VethSpec {
                host_name: port.as_str(),
                host_mac: Mac::random_local(),
                mtu: Some(bridge.mtu),
                master: Some(bridge.index),
                host_up: true,
                pod_name: name.as_str(),
                pod_mac: Mac::random_local(),
                pod_netns: here.as_fd(),
            });
            match host.run(&Batch::from(pair)) {
                // Another ADD was faster.
                Err(e) if e.is(Errno::EEXIST) => {}
                other => other?,
            }
            link::get(host, name.as_str())?
                .ok_or_else(|| internal(format!("gateway interface {name} vanished")))?
        }
    };
    let port = match link.peer_index {
        Some(index) => link::get_index(host, index)?,
        None => None,
    };
    let port = port.ok_or_else(|| {
        CniError::new(
            FOREIGN_BRIDGE,
            format!(
                "{name} exists, but is no veth pair with a port of {}",
                bridge.name
            ),
        )
        .with_details("rename it: the gateway of the VLAN goes by that name")
    })?;
    bridge::accept_no_ra(&link)?;
    if port.master != Some(bridge.index) || !port.is_up() || !link.is_up() {
        let mut batch = Batch::new();
        batch.push(link::set_master(port.index, bridge.index));
        batch.push(link::up(port.index));
        batch.push(link::up(link.index));
        host.run(&batch)?;
    }
    let untagged = Vlans {
        pvid: id,
        ..Vlans::default()
    };
    if check(host, &untagged, &port).is_err() {
        set_port(host, &untagged, port.index)?;
    }
    Ok(link)
}

/// The other end: named after its gateway interface, so that racing ADDs ask for the same pair.
fn port_name(gateway: &IfName) -> Result<IfName, CniError> {
    let hash = gateway.as_str().bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    IfName::parse(&format!("veth{hash:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vlans(pvid: u16, trunk: &[u16]) -> Vlans {
        Vlans {
            pvid,
            trunk: trunk.to_vec(),
            ..Vlans::default()
        }
    }

    #[test]
    fn untagged_and_tagged() {
        let (tagged, access) = (vlan::Vlans::tagged, vlan::Vlans::access);
        assert_eq!(wanted(&vlans(0, &[])), []);
        assert_eq!(wanted(&vlans(9, &[])), [access(9)]);
        assert_eq!(wanted(&vlans(9, &[4, 9])), [access(9), tagged(4)]);
        // A trunk alone has its untagged packets in VLAN 1.
        assert_eq!(wanted(&vlans(0, &[4])), [access(1), tagged(4)]);
    }

    #[test]
    fn the_gateway_interface_must_have_room_for_its_name() {
        let name = |bridge: &str| gateway_name(&IfName::parse(bridge).unwrap(), 4094);
        assert_eq!(name("cni0").unwrap().as_str(), "cni0.4094");
        assert!(name("bridge-01234").is_err());
    }
}
