//! VLANs of a bridge port, and the gateway interface of a VLAN.

use libcni::kernel::link::{self, Link};
use libcni::kernel::mac::Mac;
use libcni::kernel::vlan;
use libcni::nl::{Batch, Socket};
use libcni::spec::IfName;
use libcni::spec::error::CniError;
use libcni::spec::invalid_config;
use nix::errno::Errno;

use crate::bridge;
use crate::check::differs;
use crate::conf::{Conf, Vlans};

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
        for entry in vlan::list(host, port)? {
            batch.push(vlan::del(port, entry.id));
        }
    }
    for (id, untagged) in wanted {
        batch.push(vlan::add(port, id, untagged));
    }
    Ok(host.run(&batch)?)
}

/// Whether the port is in all of its VLANs.
pub fn check(host: &mut Socket, vlans: &Vlans, port: &Link) -> Result<(), CniError> {
    let wanted = wanted(vlans);
    if wanted.is_empty() {
        return Ok(());
    }
    let held = vlan::list(host, port.index)?;
    for (id, untagged) in wanted {
        if !held.iter().any(|e| e.id == id && e.pvid == untagged) {
            return Err(differs(
                format!("{} is not in VLAN {id}", port.name),
                format!(
                    "`bridge vlan add dev {} vid {id}{}`",
                    port.name,
                    if untagged { " pvid untagged" } else { "" }
                ),
            ));
        }
    }
    Ok(())
}

/// The port's VLANs, each with whether it is the untagged one.
fn wanted(vlans: &Vlans) -> Vec<(u16, bool)> {
    let untagged = match (vlans.pvid, vlans.trunk.is_empty()) {
        (0, true) => return Vec::new(),
        (0, false) => UNTAGGED_OF_TRUNK,
        (id, _) => id,
    };
    let tagged = vlans.trunk.iter().filter(|&&id| id != untagged);
    std::iter::once((untagged, true))
        .chain(tagged.map(|&id| (id, false)))
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
/// port of the bridge in that VLAN. Like the bridge it stays.
pub fn gateway_link(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    id: u16,
) -> Result<Link, CniError> {
    let name = gateway_name(&conf.bridge, id)?;
    if let Some(link) = link::get(host, name.as_str())? {
        return Ok(link);
    }
    let mac = Mac::random_local()?;
    let peer = IfName::parse(&format!("veth{:02x}{:02x}{:02x}{:02x}", mac.0[2], mac.0[3], mac.0[4], mac.0[5]))?;
    let made = host.run(&Batch::from(link::veth_pair(
        (name.as_str(), mac),
        (peer.as_str(), Mac::random_local()?),
        Some(bridge.mtu),
    )));
    match made {
        Err(e) if e.is(Errno::EEXIST) => {}
        other => {
            other?;
            bridge::accept_no_ra(&peer)?;
            let mut batch = Batch::new();
            batch.push(link::set_master(peer.as_str(), bridge.index));
            batch.push(link::up_by_name(peer.as_str()));
            batch.push(link::up_by_name(name.as_str()));
            host.run(&batch)?;
            let port = link::get(host, peer.as_str())?.map(|l| l.index).unwrap_or_default();
            let untagged = Vlans {
                pvid: id,
                ..Vlans::default()
            };
            set_port(host, &untagged, port)?;
        }
    }
    link::get(host, name.as_str())?
        .ok_or_else(|| crate::conf::internal(format!("gateway interface {name} vanished")))
}
