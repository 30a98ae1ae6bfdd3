//! Every reader of the kernel's answers, for the fuzz targets: each takes whatever bytes come.

use std::net::IpAddr;

use super::nft::{Chain, Element, ListedRule};
use super::{addr, conntrack, fdb, link, neigh, netconf, nexthop, route, vlan, vxlan};
use crate::nl::Reply;

/// Hands a message to each of them; what they read, in their own words.
pub fn read(reply: Reply<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut tell = |what: &dyn std::fmt::Debug| found.push(format!("{what:?}"));
    tell(&link::Link::from_reply(reply));
    tell(&vxlan::Vxlan::from_reply(reply));
    tell(&addr::Addr::from_reply(reply));
    tell(&route::from_reply(reply));
    tell(&nexthop::Nexthop::from_reply(reply));
    tell(&neigh::Neigh::from_reply(reply));
    tell(&fdb::Entry::from_reply(reply));
    tell(&netconf::forwarding(reply));
    tell(&vlan::from_vlan_reply(reply, 1));
    tell(&vlan::from_link_reply(reply, 1));
    tell(&Chain::read(&reply));
    tell(&ListedRule::read(reply));
    tell(&Element::read_list(reply));
    let somebody = IpAddr::from([10, 0, 0, 1]);
    tell(&conntrack::delete_listed(reply, &[somebody]).is_some());
    found
}
