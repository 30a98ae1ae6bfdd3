//! DEL: everything found again from the attachment's identity; what is gone already is success.
//!
//! Order: filters first (the grace period of their removal then passes while the link is taken down), the
//! link, what the node remembers of the addresses, and the reservation last, so that no other pod can get an
//! address that still answers.

use std::net::IpAddr;

use libcni::firewall::{legacy, masquerade, spoof};
use libcni::kernel::conntrack;
use libcni::kernel::link::{self, Link};
use libcni::kernel::nft::Netfilter;
use libcni::nl::{Batch, ROUTE, Socket};
use libcni::plugin::ipam::Ipam;
use libcni::plugin::{self, Call, Gather, identity};
use libcni::record;
use libcni::spec::Attachment;
use libcni::spec::error::CniError;
use libcni::spec::json::Fields;
use nix::errno::Errno;

use crate::{conf, gateway};

/// An IPAM that needs the link to say goodbye through.
const NEEDS_LINK: &str = "dhcp";

/// Detaches the pod.
pub fn del(call: &Call) -> Result<(), CniError> {
    let attachment = call.attachment()?;
    let mut gather = Gather::new();
    let ipam_name = call.conf.ipam_type.as_deref();
    let ipam = ipam_name.and_then(|name| gather.note(Ipam::find_for_release(call, name)));
    record::phase("lease");
    let held = ipam.as_ref().map(|i| i.held(call)).unwrap_or_default();
    let addresses = with_previous(call, &held);

    record::phase("filters");
    // Closed at the very end: closing waits for the grace period of whatever was removed.
    let mut netfilter = Netfilter::unopened();
    let has_filters = gather.note(netfilter.is_there()).unwrap_or_default();
    if has_filters {
        remove_filters(call, ipam.as_ref(), &addresses, &mut netfilter, &mut gather);
    }
    let mut released = false;
    if let (Some(NEEDS_LINK), Some(ipam)) = (ipam_name, &ipam) {
        record::phase("lease");
        released = gather.note(ipam.del(call, || ())).is_some();
    }
    record::phase("link");
    let mut host = call.node_socket()?;
    // While the link stands its address must not be given away: stop here, the runtime will try again.
    let removed = remove_link(call, attachment, &mut host)?;
    // In a DEL that comes again the addresses of prevResult may be another pod's; those held still are not.
    let ours = if removed.is_some() { addresses } else { held };
    if !ours.is_empty() {
        record::phase("neighbours");
        let bridge = removed.and_then(|port| port.master);
        forget_neighbours(call, &mut host, bridge, &ours, &mut gather);
        // IPv6 costs 10 ms as soon as there is any entry, so it is left to the ADD that gives the address again.
        let v4: Vec<IpAddr> = ours.into_iter().filter(IpAddr::is_ipv4).collect();
        gather.note(conntrack::forget(&mut netfilter, &v4));
    }
    if let Some(ipam) = ipam.filter(|_| !released) {
        record::phase("lease");
        // Two last pods that go at the same moment each saw the other above.
        let mut last = Ok(());
        let outcome = ipam.del(call, || {
            if has_filters {
                last = masquerade::remove_network(&mut netfilter, call.network());
            }
        });
        gather.note(outcome);
        gather.note(last);
    }
    record::phase("grace");
    gather.finish()
}

/// The attachment's addresses: those held, and those of `prevResult`, if it can be read.
fn with_previous(call: &Call, held: &[IpAddr]) -> Vec<IpAddr> {
    let mut all = held.to_vec();
    let previous = call.conf.prev().ok().flatten().unwrap_or_default();
    for ip in previous.ips.iter().map(|ip| ip.address.ip()) {
        if !all.contains(&ip) {
            all.push(ip);
        }
    }
    all
}

/// Removes what nf_tables holds of this attachment, ours and the reference's, and of the network if this is
/// its last.
fn remove_filters(
    call: &Call,
    ipam: Option<&Ipam>,
    addresses: &[IpAddr],
    netfilter: &mut Netfilter,
    gather: &mut Gather,
) {
    let net = call.network();
    let Some(attachment) = gather.note(call.attachment()) else {
        return;
    };
    gather.note(spoof::remove(netfilter, net, attachment));
    gather.note(masquerade::remove_pod(netfilter, net, attachment));
    if let Some(ipam) = ipam {
        gather.note(ipam.when_sole(call, || masquerade::remove_network(netfilter, net)));
    }
    let left = gather.note(legacy::remove(netfilter, net, attachment, addresses));
    for line in left.unwrap_or_default() {
        plugin::log(format_args!("bridge: {line}"));
    }
}

/// Deletes the veth pair by its host end; if that is not ours (the reference made it), by the pod end.
/// Returns the end it was found by.
fn remove_link(
    call: &Call,
    attachment: &Attachment,
    host: &mut Socket,
) -> Result<Option<Link>, CniError> {
    let alias = identity::alias(call.network(), attachment);
    for attempt in 0..identity::HOST_NAME_TRIES {
        let name = identity::host_ifname(call.network(), attachment, attempt);
        // Also past a name that is free: who held it at our ADD may be gone.
        match link::get(host, name.as_str())? {
            Some(link) if link.alias.as_deref() == Some(&alias) => {
                return delete(host, link);
            }
            _ => {}
        }
    }
    let Some(netns) = call.netns_if_alive()? else {
        return Ok(None);
    };
    let mut pod = netns.enter(|| Socket::open(ROUTE))??;
    match link::get(&mut pod, attachment.ifname.as_str())? {
        // Its master would be an index of the pod's namespace.
        Some(link) => delete(
            &mut pod,
            Link {
                master: None,
                ..link
            },
        ),
        None => Ok(None),
    }
}

fn delete(sock: &mut Socket, link: Link) -> Result<Option<Link>, CniError> {
    match sock.run(&Batch::from(link::del(link.index))) {
        Ok(()) => Ok(Some(link)),
        Err(e) if e.is(Errno::ENODEV) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The node's neighbour entries for the addresses: on the bridge the port was of, on the configured one, and on
/// its VLAN interface.
pub fn forget_neighbours(
    call: &Call,
    host: &mut Socket,
    bridge: Option<u32>,
    addresses: &[IpAddr],
    gather: &mut Gather,
) {
    if let Some(index) = bridge {
        gather.note(gateway::forget(host, index, addresses));
    }
    let Ok(fields) = Fields::of(&call.node, "") else {
        return;
    };
    let Ok(bridge) = conf::bridge_name(&fields) else {
        return;
    };
    let vlan = fields.i64("vlan").ok().flatten().filter(|&id| id > 0);
    let names = [
        Some(bridge.to_string()),
        vlan.map(|id| format!("{bridge}.{id}")),
    ];
    for name in names.into_iter().flatten() {
        if let Some(link) = gather.note(link::get(host, &name)).flatten() {
            gather.note(gateway::forget(host, link.index, addresses));
        }
    }
}
