//! GC: links, filters and reservations of this network that belong to no valid attachment.

use std::collections::HashSet;

use libcni::firewall::{masquerade, spoof};
use libcni::kernel::{link, nft};
use libcni::nl::{Batch, ROUTE, Socket};
use libcni::plugin::ipam::Ipam;
use libcni::plugin::{Call, Gather, identity};
use libcni::spec::Attachment;
use libcni::spec::error::CniError;

/// Frees, goes on past failures, and forwards to the IPAM last.
pub fn gc(call: &Call, valid: &[Attachment]) -> Result<(), CniError> {
    let mut gather = Gather::new();
    let net = call.network();
    let mut host = Socket::open(ROUTE)?;
    let wanted: HashSet<String> = valid.iter().map(|a| identity::alias(net, a)).collect();
    // The one place that lists links: the hot verbs know their names.
    let ours = gather.note(link::list(&mut host, "veth")).unwrap_or_default();
    let mut batch = Batch::new();
    for link in ours {
        let alias = link.alias.as_deref().unwrap_or_default();
        if identity::is_of_network(alias, net) && !wanted.contains(alias) {
            batch.push(link::del(link.index));
        }
    }
    if !batch.is_empty() {
        for outcome in gather.note(host.run_all(&batch)).unwrap_or_default() {
            gather.note(outcome.or_else(|e| if e.is(nix::errno::Errno::ENODEV) { Ok(()) } else { Err(e) }));
        }
    }
    if let Some(name) = call.conf.ipam_type.as_deref() {
        if let Some(ipam) = gather.note(Ipam::find_for_release(call, name)) {
            gather.note(ipam.gc(call, valid));
        }
    }
    if let Ok(mut nft) = Netfilter::open() {
        gather.note(spoof::gc(&mut nft, net, valid));
        gather.note(masquerade::gc(&mut nft, net, valid));
        if valid.is_empty() {
            gather.note(masquerade::remove_network(&mut nft, net));
        }
    }
    gather.finish()
}
