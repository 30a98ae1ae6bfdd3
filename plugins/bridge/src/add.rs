//! ADD: lease, bridge, veth pair, pod, gateway, masquerade; each step takes itself back if a later one fails.

use libcni::firewall::masquerade;
use libcni::kernel::nft::Netfilter;
use libcni::kernel::route;
use libcni::plugin::ipam::Ipam;
use libcni::plugin::{Call, Undo, signal};
use libcni::record;
use libcni::spec::error::CniError;
use libcni::spec::result::CniResult;
use libcni::store::Lease;

use crate::conf::{Conf, Mtu};
use crate::plan::{self, Layer3};
use crate::settle::settle;
use crate::{bridge, gateway, pod, veth};

/// Attaches the pod.
pub fn add(call: &'static Call) -> Result<CniResult, CniError> {
    let conf = Conf::parse(call)?;
    let netns = call.netns()?;
    let ipam = match &conf.ipam {
        Some(name) => Some(Ipam::find(call, name)?),
        None => None,
    };
    let mut undo = Undo::new();
    let mut netfilter = Netfilter::unopened();
    let mut host = call.node_socket()?;
    let mtu = match conf.mtu {
        Mtu::Default => None,
        Mtu::Bytes(bytes) => Some(bytes),
        Mtu::Auto => route::default_route_mtu(&mut host)?,
    };

    // Our own IPAM needs no link, so a full pool or a wrong range changes nothing in the kernel. A foreign
    // one may talk through the link (dhcp) and gets its turn once that stands.
    let (early, late) = match &ipam {
        Some(ipam) if ipam.is_in_process() => (Some(ipam), None),
        other => (None, other.as_ref()),
    };
    let mut lease = match early {
        Some(ipam) => Some(reserve(call, ipam, &mut undo)?),
        None => None,
    };
    signal::check()?;
    record::phase("bridge");
    let bridge = bridge::ensure(&mut host, &conf, mtu)?;
    record::phase("veth");
    let veth = veth::connect(
        call,
        &conf,
        &mut host,
        &mut netfilter,
        &bridge,
        mtu,
        &mut undo,
    )?;
    if let Some(ipam) = late {
        lease = Some(reserve(call, ipam, &mut undo)?);
    }
    signal::check()?;

    let (mut result, reused) = match lease {
        Some(lease) => (lease.result, lease.reused),
        None => (CniResult::default(), false),
    };
    let layer3 = match &ipam {
        Some(_) => plan::layer3(&conf, &mut result)?,
        None => Layer3::default(),
    };
    record::phase("pod");
    let mut pod = pod::configure(&conf, netns, &veth, &layer3, reused)?;
    let port = veth.host.index;
    record::phase("gateway");
    let vlan_gateway = gateway::ensure(&mut host, &conf, &bridge, port, &layer3)?;
    if let Some(ipam) = ipam.as_ref().filter(|_| conf.ip_masq) {
        record::phase("masquerade");
        masquerade(call, ipam, &layer3, &mut netfilter, &mut undo)?;
    }
    record::phase("settle");
    let bridge = settle(
        &mut host,
        &conf,
        &bridge,
        &veth,
        vlan_gateway.as_ref(),
        &layer3,
        &mut undo,
    )?;
    if reused {
        record::phase("announce");
        pod.announce(&layer3, &mut netfilter)?;
    }
    signal::check()?;

    result.interfaces = plan::interfaces(
        &bridge,
        (&veth.host.name, veth.host_mac.to_string()),
        (&veth.pod_name, veth.pod_mac.to_string()),
        call.sandbox(),
        vlan_gateway.as_ref(),
    );
    if !conf.dns.is_empty() {
        result.dns = conf.dns;
    }
    undo.commit();
    Ok(result)
}

fn reserve(call: &'static Call, ipam: &Ipam, undo: &mut Undo) -> Result<Lease, CniError> {
    record::phase("lease");
    let lease = ipam.add(call)?;
    let ips: Vec<_> = lease.result.ips.iter().map(|ip| ip.address.ip()).collect();
    let ipam = ipam.clone();
    undo.push("release the address", move || ipam.undo_add(call, &ips));
    Ok(lease)
}

/// Per network where its ranges are known, so that all its ADDs but the first only look; else per pod.
fn masquerade(
    call: &'static Call,
    ipam: &Ipam,
    layer3: &Layer3,
    netfilter: &mut Netfilter,
    undo: &mut Undo,
) -> Result<(), CniError> {
    let net = call.network();
    if let Some(ranges) = ipam.ranges(call)? {
        let ours = ipam.clone();
        undo.push("remove the network's masquerading", move || {
            let remove = || masquerade::remove_network(&mut Netfilter::unopened(), net);
            ours.when_sole(call, remove).map_err(|e| e.to_string())
        });
        masquerade::ensure_network(netfilter, net, &ranges, &|| ipam.in_use(call))?;
        return Ok(());
    }
    let attachment = call.attachment()?;
    undo.push("remove the pod's masquerading", move || {
        masquerade::remove_pod(&mut Netfilter::unopened(), net, attachment)
            .map_err(|e| e.to_string())
    });
    masquerade::ensure_pod(netfilter, net, attachment, &layer3.addresses)?;
    Ok(())
}
