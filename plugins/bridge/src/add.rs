//! ADD: lease, bridge, veth pair, pod, gateway, masquerade; each step takes itself back if a later one fails.
//!
//! Messages are gathered into few sends, and nothing is asked of the kernel that is already known: the MACs
//! are ours, so no link is read back for them.

use std::net::IpAddr;

use libcni::firewall::{masquerade, spoof};
use libcni::kernel::link::{self, Link, VethSpec};
use libcni::kernel::mac::Mac;
use libcni::kernel::{addr, conntrack, neigh, nft, route, sysctl};
use libcni::nl::{Batch, NlError, Socket};
use libcni::plugin::ipam::{Ipam, Lease};
use libcni::plugin::{Call, Undo, identity, signal};
use libcni::spec::error::{CniError, Code};
use libcni::spec::{Attachment, IfName};
use libcni::spec::result::CniResult;
use nix::errno::Errno;

use crate::conf::{Conf, Mtu};
use crate::gateway;
use crate::plan::{self, Layer3};
use crate::{bridge, vlan};

/// How long a bridge port may take to forward.
const PORT_UP_MS: u32 = 2500;
/// How long duplicate address detection may take (`enabledad`).
const DAD_MS: u32 = 5000;

/// Attaches the pod.
pub fn add(call: &Call) -> Result<CniResult, CniError> {
    let conf = Conf::parse(call)?;
    let netns = call.netns()?;
    let attachment = call.attachment()?;
    let mut undo = Undo::new();
    let mut host = Socket::open_route()?;
    let mtu = match conf.mtu {
        Mtu::Default => None,
        Mtu::Bytes(bytes) => Some(bytes),
        Mtu::Auto => route::default_route_mtu(&mut host)?,
    };

    let ipam = match &conf.ipam {
        Some(name) => Some(Ipam::find(name, call)?),
        None => None,
    };
    // Our own IPAM needs no link, so a full pool or a wrong range changes nothing in the kernel. A foreign
    // one may talk through the link (dhcp) and gets its turn once that stands.
    let mut lease = None;
    if let Some(ipam) = ipam.as_ref().filter(|i| i.is_in_process()) {
        lease = Some(reserve(call, ipam, &mut undo)?);
    }
    signal::check()?;

    let bridge = bridge::ensure(&mut host, &conf, mtu)?;
    let veth = connect(call, &conf, &mut host, &bridge, mtu, &mut undo)?;
    if let Some(ipam) = ipam.as_ref().filter(|i| !i.is_in_process()) {
        lease = Some(reserve(call, ipam, &mut undo)?);
    }
    signal::check()?;

    let Lease { mut result, reused } = lease.unwrap_or_default();
    let layer3 = match &ipam {
        Some(_) => plan::layer3(&conf, &mut result)?,
        None => Layer3::default(),
    };
    let mut pod = netns.enter(|| -> Result<Socket, CniError> {
        write_pod_sysctls(&conf, &attachment.ifname, &layer3)?;
        Ok(Socket::open_route()?)
    })??;
    let pod_index = configure(&conf, &attachment.ifname, &mut pod, &layer3)?;

    let gateway_link = gateway::ensure(&mut host, &conf, &bridge, &layer3)?;
    if conf.ip_masq && ipam.is_some() {
        let mut nft = nft::Socket::open()?;
        match ipam.as_ref().and_then(Ipam::ranges) {
            Some(ranges) => masquerade::ensure_network(&mut nft, call.network(), &ranges)?,
            None => {
                undo.push("masquerade", || {
                    let mut nft = nft::Socket::open().map_err(|e| e.to_string())?;
                    masquerade::remove_pod(&mut nft, call.network(), &attachment)
                        .map_err(|e| e.to_string())
                });
                masquerade::ensure_pod(&mut nft, call.network(), &attachment, &layer3.addresses)?;
            }
        }
    }
    if !conf.disable_container_interface {
        link::wait_up(&mut host, &veth.host, PORT_UP_MS)?;
    }
    announce(&mut host, &mut pod, pod_index, &veth, gateway_link.as_ref().unwrap_or(&bridge), &layer3, reused)?;
    signal::check()?;

    let bridge_mac = bridge::mac_now(&mut host, &conf, &bridge)?;
    let mut interfaces = plan::interfaces(
        (&bridge.name, bridge_mac),
        (veth.host.as_str(), veth.host_mac.to_string()),
        (attachment.ifname.as_str(), veth.pod_mac.to_string()),
        call.sandbox(),
    );
    if let Some(link) = gateway_link {
        interfaces.push(link.into());
    }
    result.interfaces = interfaces;
    if !conf.dns.is_empty() {
        result.dns = conf.dns;
    }
    undo.commit();
    Ok(result)
}
