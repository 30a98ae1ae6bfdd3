//! GC: links, filters and reservations of this network that belong to no valid attachment.

use libcni::firewall::{legacy, masquerade, spoof};
use libcni::kernel::link;
use libcni::kernel::nft::Netfilter;
use libcni::nl::{Batch, NlError, ROUTE, Socket};
use libcni::plugin::ipam::Ipam;
use libcni::plugin::{Call, Gather, identity};
use libcni::record;
use libcni::spec::Attachment;
use libcni::spec::error::CniError;
use nix::errno::Errno;

use crate::del;

/// Frees, goes on past failures, and forwards to the IPAM last.
pub fn gc(call: &Call, valid: &[Attachment]) -> Result<(), CniError> {
    let mut gather = Gather::new();
    let net = call.network();
    record::phase("links");
    let mut host = Socket::open(ROUTE)?;
    let mut wanted: Vec<String> = valid.iter().map(|a| identity::alias(net, a)).collect();
    wanted.sort_unstable();
    // The one place that lists links: the hot verbs know their names.
    let ours = gather
        .note(link::list(&mut host, "veth"))
        .unwrap_or_default();
    let mut batch = Batch::new();
    for link in ours {
        let alias = link.alias.as_deref().unwrap_or_default();
        if identity::is_of_network(alias, net)
            && wanted.binary_search_by(|w| w.as_str().cmp(alias)).is_err()
        {
            batch.push(link::del(link.index));
        }
    }
    if !batch.is_empty() {
        for outcome in gather.note(host.run_all(&batch)).unwrap_or_default() {
            gather.note(outcome.or_else(gone_is_fine));
        }
    }
    record::phase("filters");
    let mut netfilter = Netfilter::unopened();
    let has_filters = gather.note(netfilter.is_there()).unwrap_or_default();
    if has_filters {
        gather.note(spoof::gc(&mut netfilter, net, valid));
        gather.note(masquerade::gc(&mut netfilter, net, valid));
        gather.note(legacy::gc(&mut netfilter, net, valid));
    }
    if let Some(name) = call.conf.ipam_type.as_deref()
        && let Some(ipam) = gather.note(Ipam::find_for_release(call, name))
    {
        record::phase("lease");
        let mut last = Ok(());
        let outcome = ipam.gc(call, valid, || {
            if has_filters {
                last = masquerade::remove_network(&mut netfilter, net);
            }
        });
        let freed = gather.note(outcome).unwrap_or_default();
        gather.note(last);
        del::forget_neighbours(call, &mut host, None, &freed, &mut gather);
    }
    gather.finish()
}

/// Its DEL may be under way.
fn gone_is_fine(e: NlError) -> Result<(), NlError> {
    if e.is(Errno::ENODEV) { Ok(()) } else { Err(e) }
}
