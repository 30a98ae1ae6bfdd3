//! The end of ADD on the node, in one exchange: port and bridge are up, the node forwards and knows the pod's MAC.

use libcni::kernel::link::{self, Link};
use libcni::kernel::{neigh, netconf, sysctl};
use libcni::nl::{Batch, ROUTE, Socket};
use libcni::plugin::{self, Undo};
use libcni::spec::error::CniError;
use nix::errno::Errno;

use crate::bridge::UP_MS;
use crate::conf::Conf;
use crate::gateway;
use crate::plan::Layer3;
use crate::veth::Veth;

/// A family's forwarding between links.
struct Forwarding {
    file: &'static str,
    /// If the kernel told.
    on: Option<bool>,
}

/// Returns the bridge as it is in the end: one that was never given a MAC (made by the reference for layer 2, or
/// by an administrator) has taken over the lowest of its ports'.
pub fn settle(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    veth: &Veth,
    vlan_gateway: Option<&Link>,
    layer3: &Layer3,
    undo: &mut Undo,
) -> Result<Link, CniError> {
    let mut batch = Batch::new();
    // The port first: the bridge comes up with it. A bridge that has just got its first port drops what the node
    // sends until it is up itself.
    batch.push(link::query(veth.host.index));
    batch.push(link::query(bridge.index));
    let mut forwarding = Vec::new();
    if conf.is_gateway && layer3.has_v4() {
        batch.push(netconf::get_ipv4());
        forwarding.push(Forwarding::new("/proc/sys/net/ipv4/ip_forward"));
    }
    if conf.is_gateway && layer3.has_v6() {
        batch.push(netconf::get_ipv6());
        forwarding.push(Forwarding::new("/proc/sys/net/ipv6/conf/all/forwarding"));
    }
    let questions = batch.len();
    learn(
        &mut batch,
        vlan_gateway.unwrap_or(bridge).index,
        layer3,
        veth,
        undo,
    );

    let (mut port, mut settled) = (None, None);
    let outcomes = host.exchange_all(&batch, |at, reply| match at {
        0 => port = Link::from_reply(reply),
        1 => settled = Link::from_reply(reply),
        _ => {
            if let Some(setting) = forwarding.get_mut(at - 2) {
                setting.on = netconf::forwarding(reply);
            }
        }
    })?;
    for outcome in outcomes.into_iter().skip(questions) {
        match outcome {
            // The table is full (`gc_thresh3`, for all namespaces together): then it holds no old entry either.
            Err(e) if e.is(Errno::ENOBUFS) => plugin::log(format_args!("bridge: {e}")),
            other => other?,
        }
    }
    // Off, or a kernel that did not tell.
    for setting in forwarding.iter().filter(|f| f.on != Some(true)) {
        sysctl::ensure(setting.file, "1")?;
    }
    let up = |link: Option<Link>| link.filter(Link::is_operational);
    if conf.disable_container_interface {
        return Ok(settled.unwrap_or_else(|| bridge.clone()));
    }
    if up(port).is_none() {
        link::wait_up(host, veth.host.index, UP_MS)?;
    }
    match up(settled) {
        Some(bridge) => Ok(bridge),
        None => Ok(link::wait_up(host, bridge.index, UP_MS)?),
    }
}

/// Tells the node the pod's MAC: an entry of the address's last owner would be believed for seconds.
fn learn(batch: &mut Batch, index: u32, layer3: &Layer3, veth: &Veth, undo: &mut Undo) {
    let mut known = Vec::new();
    for ip in layer3.addresses.iter().map(|a| a.ip()) {
        if layer3.gateways.iter().any(|g| g.contains(ip)) {
            let entry = neigh::replace(index, ip, veth.pod_mac, neigh::State::Reachable);
            batch.push(entry);
            known.push(ip);
        }
    }
    undo.push("forget the pod's MAC", move || {
        let forget = || gateway::forget(&mut Socket::open(ROUTE)?, index, &known);
        forget().map_err(|e| e.to_string())
    });
}

impl Forwarding {
    fn new(file: &'static str) -> Self {
        Self { file, on: None }
    }
}
