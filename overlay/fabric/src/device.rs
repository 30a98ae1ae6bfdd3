//! The tunnel's device, as flannel makes it: `flannel.1` with the first address of the node's subnet.
//!
//! A device that is there is kept whenever the kernel can change it into the one that is wanted, because with it go all
//! routes, neighbours and forwarding entries. Its MAC is set back, never taken over: the other nodes know it.

use libcni::kernel::link::{self, Link};
use libcni::kernel::{addr, sysctl, vxlan};
use libcni::nl::{Batch, NlError, Socket};
use libcni::spec::IpNetwork;
use nix::errno::Errno;

use crate::conf::Backend;
use crate::own::{Own, OwnSide};

/// The kernel's own choice of a UDP port, unless its module was told another.
const USUAL_PORT: u16 = 8472;
const PORT_PARAMETER: &str = "/sys/module/vxlan/parameters/udp_port";

/// A device that is as it should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    pub(crate) index: u32,
    /// Was it made now?
    pub(crate) added: bool,
    /// How many things about it were changed.
    pub(crate) changed: usize,
    /// The MTU, if the kernel refuses that: then the device works nevertheless.
    pub(crate) mtu: Option<NlError>,
}

/// Makes a family's device what it should be; `None` if the backend has none.
pub(crate) fn ensure(sock: &mut Socket, own: &Own, v6: bool) -> Result<Option<Device>, NlError> {
    let (Backend::Vxlan(conf), Some(side), Some(name)) =
        (&own.backend, own.side(v6), own.device(v6))
    else {
        return Ok(None);
    };
    let wanted = vxlan::Vxlan {
        vni: conf.vni,
        parent: Some(own.parent.index),
        local: Some(side.local),
        port: conf.port,
        learning: conf.learning,
        gbp: conf.gbp,
        remote: None,
        misses: false,
    };
    let mtu = own.device_mtu(v6);
    let mut device = Device::default();
    let link = match living(sock, &name, &wanted, &mut device)? {
        Some(link) => link,
        None => make(sock, &name, side, mtu, &wanted, &mut device)?,
    };
    device.index = link.index;
    device.changed += settle(sock, &link, side)?;
    device.changed += address(sock, link.index, side)?;
    if link.mtu != mtu {
        match sock.request(link::set_mtu(link.index, mtu)) {
            Ok(()) => device.changed += 1,
            Err(e) => device.mtu = Some(e),
        }
    }
    // Best effort, as flannel's: in a container /proc/sys is often read-only.
    if link.accept_ra.is_some_and(|on| on != 0) {
        let _ = sysctl::write(sysctl::ipv6_conf(&name, "accept_ra"), "0");
    }
    Ok(Some(device))
}

/// The device that is there, as wanted now; `None` if there is none, or was one that could not be changed.
fn living(
    sock: &mut Socket,
    name: &str,
    wanted: &vxlan::Vxlan,
    device: &mut Device,
) -> Result<Option<Link>, NlError> {
    let Some((link, found)) = vxlan::get(sock, name)? else {
        return Ok(None);
    };
    if adopt(sock, &link, &found, wanted, device)? {
        return Ok(Some(link));
    }
    sock.request(link::del(link.index))?;
    Ok(None)
}

/// Makes the device, in place of one of another kind if need be.
fn make(
    sock: &mut Socket,
    name: &str,
    side: &OwnSide,
    mtu: u32,
    wanted: &vxlan::Vxlan,
    device: &mut Device,
) -> Result<Link, NlError> {
    let add = || vxlan::add(name, side.mac, Some(mtu), wanted);
    match sock.request(add()) {
        Err(e) if e.is(Errno::EEXIST) => {
            // Another process (a plugin, the agent) was quicker.
            if let Some(link) = living(sock, name, wanted, device)? {
                return Ok(link);
            }
            if link::get(sock, name)?.is_some() {
                sock.request(link::del(name))?;
            }
            sock.request(add())?;
        }
        other => other?,
    }
    device.added = true;
    let gone = || {
        let step = format!("look up {name}, made just now");
        NlError::new(step, Errno::ENODEV as i32)
    };
    link::get(sock, name)?.ok_or_else(gone)
}

/// Changes a device into the one that is wanted; false if the kernel cannot.
fn adopt(
    sock: &mut Socket,
    link: &Link,
    found: &vxlan::Vxlan,
    wanted: &vxlan::Vxlan,
    device: &mut Device,
) -> Result<bool, NlError> {
    let port = wanted.port.unwrap_or_else(usual_port);
    let as_wanted = vxlan::Vxlan {
        port: Some(port),
        ..*wanted
    };
    if *found == as_wanted {
        return Ok(true);
    }
    let changeable = vxlan::Vxlan {
        parent: found.parent,
        local: found.local,
        learning: found.learning,
        ..as_wanted
    };
    if *found != changeable {
        return Ok(false);
    }
    match sock.request(vxlan::change(link.index, wanted)) {
        Ok(()) => {
            device.changed += 1;
            Ok(true)
        }
        // Older kernels change less.
        Err(e)
            if [Errno::EOPNOTSUPP, Errno::EINVAL]
                .iter()
                .any(|no| e.is(*no)) =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn usual_port() -> u16 {
    let told = sysctl::read(PORT_PARAMETER).ok();
    told.and_then(|text| text.parse().ok())
        .unwrap_or(USUAL_PORT)
}

/// MAC and state. Returns how many it changed.
fn settle(sock: &mut Socket, link: &Link, side: &OwnSide) -> Result<usize, NlError> {
    let mut batch = Batch::new();
    if link.mac != Some(side.mac) {
        batch.push(link::set_mac(link.index, side.mac));
    }
    if !link.is_up() {
        batch.push(link::up(link.index));
    }
    sock.run(&batch)?;
    Ok(batch.len())
}

/// The first address of the subnet, and no other of the network. Returns how many it changed.
fn address(sock: &mut Socket, index: u32, side: &OwnSide) -> Result<usize, NlError> {
    let base = IpNetwork::from(side.subnet.network());
    let there = addr::list(sock, index)?;
    let mut batch = Batch::new();
    if !there.iter().any(|found| found.net == base) {
        batch.push(addr::add(index, base, true));
    }
    for found in there {
        if found.net != base && side.network.contains(found.net.ip()) {
            batch.push(addr::del(index, found.net));
        }
    }
    // Another process may have been quicker.
    let done = [Errno::EEXIST, Errno::EADDRNOTAVAIL];
    for outcome in sock.run_all(&batch)? {
        match outcome {
            Err(e) if !done.iter().any(|errno| e.is(*errno)) => return Err(e),
            _ => {}
        }
    }
    Ok(batch.len())
}

/// The index of a device by that name, if it is a tunnel's.
pub(crate) fn find(sock: &mut Socket, name: &str) -> Result<Option<u32>, NlError> {
    Ok(vxlan::get(sock, name)?.map(|(link, _)| link.index))
}
