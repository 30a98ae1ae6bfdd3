//! CHECK: is everything still as ADD left it? The first difference is the error.

use libcni::firewall::{masquerade, spoof};
use libcni::kernel::link::{self, Link};
use libcni::kernel::mac::Mac;
use libcni::kernel::nft::Netfilter;
use libcni::kernel::{addr, route};
use libcni::nl::{ROUTE, Socket};
use libcni::plugin::Call;
use libcni::plugin::ipam::Ipam;
use libcni::record;
use libcni::spec::IfName;
use libcni::spec::error::{CniError, Code};
use libcni::spec::result::{CniResult, Interface};

use crate::conf::Conf;
use crate::{bridge, vlan};

/// Something is not as ADD left it.
pub const NOT_AS_LEFT: Code = Code::Other(103);

/// Compares the kernel and the reservations with `prevResult` and the configuration.
pub fn check(call: &Call) -> Result<(), CniError> {
    let conf = Conf::parse(call)?;
    let prev = call.required_prev()?;
    let ipam = match &conf.ipam {
        Some(name) => {
            let ipam = Ipam::find(call, name)?;
            record::phase("lease");
            ipam.check(call)?;
            Some(ipam)
        }
        None => None,
    };
    record::phase("compare");
    let attachment = call.attachment()?;
    let ifname = attachment.ifname.as_str();
    let netns = call.netns()?;

    let pod_end = prev
        .interfaces
        .iter()
        .rfind(|i| i.name == ifname && i.sandbox == call.sandbox())
        .ok_or_else(|| {
            differs(
                format!(
                    "prevResult has no interface {ifname:?} in sandbox {:?}",
                    call.sandbox()
                ),
                "was the result cached by the runtime that of this attachment?",
            )
        })?;

    let mut host = call.node_socket()?;
    let bridge = present(&mut host, conf.bridge.as_str(), "on the node")?;
    bridge::require_bridge(&bridge)?;
    if !bridge.is_up() {
        return Err(differs(
            format!("bridge {} is down", bridge.name),
            format!("`ip link set {} up`", bridge.name),
        ));
    }
    if let Some(told) = prev
        .interfaces
        .iter()
        .find(|i| i.name == bridge.name && i.sandbox.is_empty())
    {
        same_mac(&bridge, told)?;
    }
    if conf.promisc && !bridge.is_promisc() {
        return Err(differs(
            format!("bridge {} is not promiscuous", bridge.name),
            format!("`ip link set {} promisc on`", bridge.name),
        ));
    }

    let mut pod = netns.enter(|| Socket::open(ROUTE))??;
    let link = present(&mut pod, ifname, "in the pod")?;
    if link.kind.as_deref() != Some("veth") {
        return Err(differs(format!("{ifname} in the pod is not a veth"), ""));
    }
    same_mac(&link, pod_end)?;
    let up = link.is_up();
    if up == conf.disable_container_interface {
        return Err(differs(
            format!("{ifname} in the pod is {}", if up { "up" } else { "down" }),
            "",
        ));
    }
    check_port(&mut host, &conf, &prev, &bridge, &link)?;
    check_layer3(&mut pod, &prev, &link)?;
    check_gateway(&mut host, &conf, &prev, &bridge)?;
    check_filters(call, &conf, &prev, ipam.as_ref(), &link)
}

/// The host end: peer of the pod end, a port of the bridge, set as configured.
fn check_port(
    host: &mut Socket,
    conf: &Conf,
    prev: &CniResult,
    bridge: &Link,
    pod_end: &Link,
) -> Result<(), CniError> {
    let Some(index) = pod_end.peer_index else {
        return Err(differs(format!("{} has no peer", pod_end.name), ""));
    };
    let port = link::get_index(host, index)?
        .filter(|l| l.kind.as_deref() == Some("veth") && l.peer_index == Some(pod_end.index))
        .ok_or_else(|| {
            differs(
                format!(
                    "the peer of {} is not on this node's namespace",
                    pod_end.name
                ),
                "",
            )
        })?;
    let known = prev
        .interfaces
        .iter()
        .find(|i| i.sandbox.is_empty() && i.name == port.name);
    match known {
        Some(told) => same_mac(&port, told)?,
        None => {
            return Err(differs(
                format!(
                    "the pod's peer is {}, which prevResult does not name",
                    port.name
                ),
                "was it renamed?",
            ));
        }
    }
    if port.master != Some(bridge.index) {
        return Err(differs(
            format!("{} is not a port of {}", port.name, bridge.name),
            format!("`ip link set {} master {}`", port.name, bridge.name),
        ));
    }
    if !port.is_up() {
        return Err(differs(
            format!("{} is down", port.name),
            format!("`ip link set {} up`", port.name),
        ));
    }
    if let Some(settings) = &port.port {
        for (what, is, wanted) in [
            ("hairpin", settings.hairpin, conf.hairpin),
            ("isolated", settings.isolated, conf.port_isolation),
        ] {
            if is != wanted {
                return Err(differs(
                    format!("{} has {what} {is}, not {wanted}", port.name),
                    "",
                ));
            }
        }
    }
    vlan::check(host, &conf.vlans, &port)
}

/// Addresses and routes of the pod, in whichever table a route belongs.
fn check_layer3(pod: &mut Socket, prev: &CniResult, link: &Link) -> Result<(), CniError> {
    let held = addr::list(pod, link.index)?;
    let names_link = |index: Option<i64>| {
        index
            .and_then(|i| usize::try_from(i).ok())
            .and_then(|i| prev.interfaces.get(i))
            .is_none_or(|i| i.name == link.name)
    };
    for ip in prev.ips.iter().filter(|ip| names_link(ip.interface)) {
        if !held.iter().any(|a| a.net == ip.address) {
            return Err(differs(
                format!(
                    "Failed to match addr {} on interface {}",
                    ip.address, link.name
                ),
                format!(
                    "`ip address add {} dev {}` in the pod",
                    ip.address, link.name
                ),
            ));
        }
    }
    if prev.routes.is_empty() {
        return Ok(());
    }
    let routes = route::list(pod, link.index)?;
    for told in &prev.routes {
        let gw = told.gw.or_else(|| {
            let v4 = told.dst.is_ipv4();
            prev.ips
                .iter()
                .filter_map(|ip| ip.gateway)
                .find(|g| g.is_ipv4() == v4)
        });
        let found = routes.iter().any(|r| {
            r.dst.network() == told.dst.network()
                && r.dst.prefix() == told.dst.prefix()
                && r.gw == gw
                && r.table == told.table.unwrap_or(route::TABLE_MAIN)
        });
        if !found {
            let via = gw.map(|g| format!(" via {g}")).unwrap_or_default();
            return Err(differs(
                format!(
                    "Expected Route {}{via} not found on {}",
                    told.dst, link.name
                ),
                format!(
                    "`ip route add {}{via} dev {}` in the pod",
                    told.dst, link.name
                ),
            ));
        }
    }
    Ok(())
}

/// The pod's gateway is the node's own address. (A VLAN's is on an interface of its own.)
fn check_gateway(
    host: &mut Socket,
    conf: &Conf,
    prev: &CniResult,
    bridge: &Link,
) -> Result<(), CniError> {
    if !conf.is_gateway || conf.vlans.pvid != 0 {
        return Ok(());
    }
    let mut gateways = prev.ips.iter().filter_map(|ip| ip.gateway).peekable();
    if gateways.peek().is_none() {
        return Ok(());
    }
    let held = addr::list(host, bridge.index)?;
    match gateways.find(|gateway| held.iter().all(|a| a.net.ip() != *gateway)) {
        None => Ok(()),
        Some(gone) => Err(differs(
            format!(
                "bridge {} does not have the gateway's address {gone}",
                bridge.name
            ),
            format!(
                "`ip address add {gone}/PREFIX dev {}`, with the subnet's prefix; the next ADD does it, too",
                bridge.name
            ),
        )),
    }
}

fn check_filters(
    call: &Call,
    conf: &Conf,
    prev: &CniResult,
    ipam: Option<&Ipam>,
    pod_end: &Link,
) -> Result<(), CniError> {
    let attachment = call.attachment()?;
    let mut netfilter = Netfilter::unopened(); // until something is asked of it
    if conf.macspoofchk {
        let port = prev.interfaces.get(1).map(|i| i.name.as_str());
        let port = IfName::parse(port.unwrap_or_default())?;
        let mac = pod_end.mac.unwrap_or_default();
        spoof::check(&mut netfilter, call.network(), attachment, &port, mac)?;
    }
    if let Some(ipam) = ipam.filter(|_| conf.ip_masq) {
        match ipam.ranges(call)? {
            Some(ranges) => masquerade::check_network(&mut netfilter, call.network(), &ranges)?,
            None => {
                let addresses: Vec<_> = prev.ips.iter().map(|ip| ip.address).collect();
                masquerade::check_pod(&mut netfilter, call.network(), attachment, &addresses)?;
            }
        }
    }
    Ok(())
}

fn present(sock: &mut Socket, name: &str, place: &str) -> Result<Link, CniError> {
    link::get(sock, name)?.ok_or_else(|| {
        differs(
            format!("interface {name} is missing {place}"),
            "delete the pod and let it be made anew",
        )
    })
}

/// As bytes, not as text: a MAC in upper case is the same MAC.
fn same_mac(link: &Link, told: &Interface) -> Result<(), CniError> {
    if told.mac.is_empty() || Mac::parse(&told.mac) == link.mac {
        return Ok(());
    }
    Err(differs(
        format!(
            "Interface {} Mac {} doesn't match prevResult's: {}",
            link.name,
            link.mac.map(|m| m.to_string()).unwrap_or_default(),
            told.mac
        ),
        "",
    ))
}

/// The error of a CHECK that found a difference.
pub fn differs(msg: impl Into<String>, remedy: impl Into<String>) -> CniError {
    CniError::new(NOT_AS_LEFT, msg).with_details(remedy)
}
