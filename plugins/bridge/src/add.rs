//! ADD: lease, bridge, veth pair, pod, gateway, masquerade; each step takes itself back if a later one fails.
//!
//! Messages are gathered into few sends, and nothing is asked of the kernel that is already known: the MACs
//! are ours, so no link is read back for them.

use std::net::IpAddr;

use libcni::firewall::{masquerade, spoof};
use libcni::kernel::link::{self, Link, VethSpec};
use libcni::kernel::mac::Mac;
use libcni::kernel::{addr, conntrack, neigh, nft, route, sysctl};
use libcni::nl::{Batch, NlError, ROUTE, Socket};
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
    let mut host = Socket::open(ROUTE)?;
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
        Ok(Socket::open(ROUTE)?)
    })??;
    let pod_index = configure(&conf, &attachment.ifname, &mut pod, &layer3)?;

    let gateway_link = gateway::ensure(&mut host, &conf, &bridge, &layer3)?;
    if conf.ip_masq && ipam.is_some() {
        let mut nft = Netfilter::open()?;
        match ipam.as_ref().and_then(Ipam::ranges) {
            Some(ranges) => masquerade::ensure_network(&mut nft, call.network(), &ranges)?,
            None => {
                undo.push("masquerade", || {
                    let mut nft = Netfilter::open().map_err(|e| e.to_string())?;
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

/// The two ends of the pair, as made.
struct Veth {
    host: IfName,
    host_mac: Mac,
    pod_mac: Mac,
}

fn reserve<'c>(call: &'c Call, ipam: &'c Ipam, undo: &mut Undo<'c>) -> Result<Lease, CniError> {
    let lease = ipam.add(call)?;
    undo.push("address", move || ipam.undo_add(call));
    Ok(lease)
}

/// Makes the pair straight into both namespaces and sets the port up: one send.
fn connect(
    call: &Call,
    conf: &Conf,
    host: &mut Socket,
    bridge: &Link,
    mtu: Option<u32>,
    undo: &mut Undo<'_>,
) -> Result<Veth, CniError> {
    let attachment = call.attachment()?;
    let netns = call.netns()?;
    let alias = identity::alias(call.network(), attachment);
    let host_mac = Mac::random_local()?;
    let pod_mac = match conf.mac {
        Some(mac) => mac,
        None => Mac::random_local()?,
    };
    for attempt in 0..identity::HOST_NAME_TRIES {
        let name = identity::host_ifname(call.network(), attachment, attempt);
        let mut batch = Batch::new();
        batch.push(link::veth(&VethSpec {
            host_name: name.as_str(),
            host_mac,
            mtu,
            master: Some(bridge.index),
            host_up: true,
            pod_name: attachment.ifname.as_str(),
            pod_mac,
            pod_netns: netns.as_fd(),
        }));
        batch.push(link::set_alias(name.as_str(), &alias));
        if conf.hairpin || conf.port_isolation {
            batch.push(link::set_bridge_port(name.as_str(), conf.hairpin, conf.port_isolation));
        }
        let mut outcomes = host.run_all(&batch)?.into_iter();
        match outcomes.next() {
            Some(Err(e)) if e.is(Errno::EEXIST) => {
                if in_the_way(host, &name, &alias)? == InTheWay::AnotherAttachment {
                    continue;
                }
                return Err(exists(attachment, &e));
            }
            Some(Err(e)) => return Err(e.into()),
            _ => {}
        }
        let made = name.clone();
        undo.push("veth pair", move || {
            let mut host = Socket::open(ROUTE).map_err(|e| e.to_string())?;
            host.run(&Batch::from(link::del_by_name(made.as_str())))
                .map_err(|e| e.to_string())
        });
        for outcome in outcomes {
            outcome?;
        }
        bridge::accept_no_ra(&name)?;
        vlan::set_port(host, &conf.vlans, &name)?;
        if conf.macspoofchk {
            let mut nft = Netfilter::open()?;
            undo.push("MAC filter", move || {
                let mut nft = Netfilter::open().map_err(|e| e.to_string())?;
                spoof::remove(&mut nft, attachment).map_err(|e| e.to_string())
            });
            spoof::add(&mut nft, call.network(), attachment, name.as_str(), pod_mac)?;
        }
        return Ok(Veth {
            host: name,
            host_mac,
            pod_mac,
        });
    }
    Err(CniError::new(
        Code::Internal,
        format!("no free name for the host end of {attachment:?}"),
    )
    .with_details("other attachments hold all names it may have; `ip link | grep podwire:` shows whose"))
}

#[derive(PartialEq)]
enum InTheWay {
    /// The host name is another attachment's: take the next name.
    AnotherAttachment,
    /// This attachment's own pair, or an interface of that name in the pod.
    Interface,
}

fn in_the_way(host: &mut Socket, name: &IfName, alias: &str) -> Result<InTheWay, NlError> {
    Ok(match link::get(host, name.as_str())? {
        Some(link) if link.alias.as_deref() != Some(alias) => InTheWay::AnotherAttachment,
        _ => InTheWay::Interface,
    })
}

fn exists(attachment: &Attachment, cause: &NlError) -> CniError {
    CniError::new(
        Code::Other(101),
        format!(
            "interface {} already exists in the pod, or is still attached elsewhere",
            attachment.ifname
        ),
    )
    .with_details(format!("{cause}; call DEL for this container and interface first"))
}

/// In the pod: addresses, up, routes, in one send.
fn configure(
    conf: &Conf,
    ifname: &IfName,
    pod: &mut Socket,
    layer3: &Layer3,
) -> Result<u32, CniError> {
    let link = link::get(pod, ifname.as_str())?.ok_or_else(|| {
        CniError::new(Code::Internal, format!("{ifname} vanished from the pod"))
            .with_details("is the pod being deleted?")
    })?;
    let mut batch = Batch::new();
    if conf.disable_container_interface {
        return Ok(link.index);
    }
    // Before the link goes up, so that going up announces the addresses.
    batch.push(link::set_arp_notify(link.index, true));
    for &address in &layer3.addresses {
        batch.push(addr::add(link.index, address, !conf.enable_dad));
    }
    batch.push(link::up(link.index));
    let wait_for_dad = conf.enable_dad && layer3.has_v6();
    if wait_for_dad {
        pod.run(&batch)?;
        addr::wait_settled(pod, link.index, DAD_MS)?;
        batch = Batch::new();
    }
    for route in &layer3.routes {
        batch.push(route::add(&route::Spec::from_result(route, link.index)));
    }
    pod.run(&batch)?;
    Ok(link.index)
}

/// IPv6 has no netlink for these. An interface without IPv6 has no files; that matters only if it is to have
/// an address, which then fails with a better reason.
fn write_pod_sysctls(conf: &Conf, ifname: &IfName, layer3: &Layer3) -> Result<(), CniError> {
    let set = |key: &str, value: &str| {
        sysctl::write_if_present(&sysctl::ipv6_conf(ifname.as_str(), key), value)
    };
    if conf.enable_dad {
        set("enhanced_dad", "1")?;
        set("accept_dad", "1")?;
    } else {
        set("accept_dad", "0")?;
    }
    if layer3.has_v6() {
        for name in ["lo", ifname.as_str()] {
            sysctl::ensure(&sysctl::ipv6_conf(name, "disable_ipv6"), "0")?;
        }
        set("keep_addr_on_down", "1")?;
        set("ndisc_notify", "1")?;
    }
    Ok(())
}

/// Corrects what anybody remembers of the addresses' last owner, so that the first packet arrives.
fn announce(
    host: &mut Socket,
    pod: &mut Socket,
    pod_index: u32,
    veth: &Veth,
    gateway: &Link,
    layer3: &Layer3,
    reused: bool,
) -> Result<(), CniError> {
    if layer3.addresses.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    for address in &layer3.addresses {
        if crate::gateway::is_on_link(&layer3.gateways, address.ip()) {
            batch.push(neigh::replace(gateway.index, address.ip(), veth.pod_mac, neigh::State::Reachable));
        }
    }
    host.run(&batch)?;
    if reused {
        let ips: Vec<IpAddr> = layer3.addresses.iter().map(|a| a.ip()).collect();
        conntrack::forget(&ips)?;
    }
    // Setting the MAC it has makes the kernel announce the addresses again, now that the port forwards: the
    // announcement at "up" may have met a port that did not yet.
    Ok(pod.run(&Batch::from(link::set_mac(pod_index, veth.pod_mac)))?)
}
