//! `overlayd path`: a packet's way from one pod to another, by the kernel's tables of this node and the directory's
//! word about the other, and the first step that is missing or wrong.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use fabric::Peer;
use fabric::conf::Backend;
use libcni::kernel::netns::Netns;
use libcni::kernel::{link, neigh, route, sysctl};
use libcni::nl::{ROUTE, Socket};
use libcni::runtime::Runtime;
use libcni::spec::{CniResult, Version};

use crate::cache::Known;
use crate::options::NodeOptions;
use crate::show::known;
use crate::survey::{Step, Survey, shown};

/// VXLAN's port, unless the network says another: the kernel's choice, from before there was an official one.
const PORT: u16 = 8472;

/// The way, in lines for people, and whether it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Step by step, up to the first that is wrong.
    pub text: String,
    /// No step is wrong.
    pub whole: bool,
}

/// Walks.
///
/// # Errors
/// Nothing is known, the pods are in no network, or the kernel does not tell.
pub fn walk(node: &NodeOptions, from: IpAddr, to: IpAddr) -> anyhow::Result<Way> {
    if from.is_ipv4() != to.is_ipv4() {
        bail!("{from} and {to} are of two families: no packet goes from one to the other");
    }
    let known = known(&node.state_dir)?;
    let v6 = from.is_ipv6();
    let Some(side) = known.own.side(v6) else {
        bail!("the network has no {}", if v6 { "IPv6" } else { "IPv4" });
    };
    if !side.subnet.contains(from) {
        match holder(&known, from) {
            Some(peer) => bail!("{from} is a pod of node {}: ask there", peer.name),
            None => bail!(
                "{from} is in no node's subnet; this node's is {}",
                side.subnet
            ),
        }
    }
    let mut steps = vec![pod(from)];
    let mut survey = Survey::of(&known.own).context("read the kernel's tables")?;
    steps.push(bridge(survey.sock(), from)?);
    steps.push(forwarding(v6));
    if side.subnet.contains(to) {
        steps.push(bridge(survey.sock(), to)?);
    } else {
        match holder(&known, to) {
            Some(peer) => steps.extend(across(&known, &mut survey, peer, to)?),
            None => steps.push(Step::wrong(
                "directory",
                format!("nobody has {to}"),
                format!("no node leases a subnet with it, as of {}", known.written),
            )),
        }
    }
    Ok(told(&steps))
}

fn holder(known: &Known, ip: IpAddr) -> Option<&Peer> {
    let site_has = |peer: &Peer| {
        peer.site(ip.is_ipv6())
            .is_some_and(|site| site.subnet.contains(ip))
    };
    let mut of_ip = known
        .peers
        .iter()
        .filter(|(key, peer)| site_has(peer) && !known.refused.contains_key(*key));
    of_ip.next().map(|(_, peer)| peer.as_ref())
}

/// From the bridge to the other node, and what is known of it.
fn across(
    known: &Known,
    survey: &mut Survey<'_>,
    peer: &Peer,
    to: IpAddr,
) -> anyhow::Result<Vec<Step>> {
    let v6 = to.is_ipv6();
    let mut steps = survey
        .steps_to(peer, v6)
        .context("read the kernel's tables")?;
    if steps.iter().any(|step| step.fault.is_some()) {
        return Ok(steps);
    }
    let Some(site) = peer.site(v6) else {
        return Ok(steps);
    };
    let sock = survey.sock();
    let underlay = match route::get(sock, site.public_ip)? {
        None => Step::wrong(
            "underlay",
            "no route",
            format!("no route to node {} at {}", peer.name, site.public_ip),
        ),
        Some(route) => {
            let oif = link::get_index(sock, route.oif)?.map_or_else(String::new, |link| link.name);
            let fault = (oif != known.own.parent.name).then(|| {
                format!(
                    "it leaves by {oif}, and the tunnel by {}",
                    known.own.parent.name
                )
            });
            let port = match &known.own.backend {
                Backend::Vxlan(vxlan) => format!(", UDP {}", vxlan.port.unwrap_or(PORT)),
                Backend::HostGw => String::new(),
            };
            Step::new(
                "underlay",
                format!(
                    "to {} by {}{port}",
                    site.public_ip,
                    shown(&route, &oif, false)
                ),
                fault,
            )
        }
    };
    steps.push(underlay);
    let vtep = site
        .vtep
        .map_or_else(String::new, |vtep| format!(", VTEP {}", vtep.mac));
    steps.push(Step::right(
        "far node",
        format!(
            "{} at {}{vtep}, leases {} (the directory's word, {})",
            peer.name, site.public_ip, site.subnet, known.written
        ),
    ));
    steps.push(Step::right(
        "far pod",
        format!("{to}, by the bridge of that node"),
    ));
    Ok(steps)
}

/// The pod's own route, if the runtime's cache tells where the pod is.
fn pod(ip: IpAddr) -> Step {
    const WHAT: &str = "pod";
    let Some((name, netns)) = netns_of(ip) else {
        return Step::right(
            WHAT,
            format!("{ip} (in no runtime's results cache: not looked into)"),
        );
    };
    let look = || -> anyhow::Result<Step> {
        let pod = Netns::open(Path::new(&netns))?;
        let mut sock = pod.enter(|| Socket::open(ROUTE))??;
        let Some(route) = route::default_route(&mut sock, ip.is_ipv6())? else {
            return Ok(Step::wrong(
                WHAT,
                format!("{ip} {name}"),
                "the pod has no default route: set isDefaultGateway",
            ));
        };
        let oif = link::get_index(&mut sock, route.oif)?.map_or_else(String::new, |link| link.name);
        Ok(Step::right(
            WHAT,
            format!("{ip} {name}: {}", shown(&route, &oif, false)),
        ))
    };
    look().unwrap_or_else(|e| Step::wrong(WHAT, format!("{ip} {name}"), format!("{netns}: {e:#}")))
}

/// Container and namespace of a pod, from the results cache of the node's runtime.
fn netns_of(ip: IpAddr) -> Option<(String, String)> {
    let entries = Runtime::new([]).attachments().ok()?;
    entries.into_iter().find_map(|entry| {
        let result = CniResult::parse(entry.result.as_ref()?, Version::V1_0_0).ok()?;
        result
            .ips
            .iter()
            .any(|found| found.address.ip() == ip)
            .then_some(())?;
        Some((entry.container_id.clone(), entry.netns?))
    })
}

/// The pod's address on its bridge.
fn bridge(sock: &mut Socket, ip: IpAddr) -> anyhow::Result<Step> {
    const WHAT: &str = "bridge";
    let Some(route) = route::get(sock, ip)? else {
        return Ok(Step::wrong(
            WHAT,
            "no route",
            format!("no route to {ip}: no pod of this node is attached"),
        ));
    };
    let Some(oif) = link::get_index(sock, route.oif)? else {
        return Ok(Step::wrong(
            WHAT,
            "no link",
            format!("the route to {ip} leads nowhere"),
        ));
    };
    let text = format!(
        "{ip} by {}, mtu {}",
        shown(&route, &oif.name, false),
        oif.mtu
    );
    let neigh = neigh::get(sock, route.oif, ip)?;
    let mac = neigh
        .and_then(|neigh| neigh.mac)
        .map_or_else(String::new, |mac| format!(", {mac}"));
    let fault = if oif.kind.as_deref() != Some("bridge") {
        Some(format!(
            "{} is no bridge: another route is in the way",
            oif.name
        ))
    } else if !oif.is_up() {
        Some(format!("{} is down", oif.name))
    } else {
        None
    };
    Ok(Step::new(WHAT, text + &mac, fault))
}

fn forwarding(v6: bool) -> Step {
    let (key, file) = if v6 {
        (
            "net.ipv6.conf.all.forwarding",
            "/proc/sys/net/ipv6/conf/all/forwarding",
        )
    } else {
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward")
    };
    match sysctl::read(file) {
        Ok(value) => {
            let fault = (value.trim() == "0")
                .then(|| format!("the kernel forwards nothing: sysctl -w {key}=1"));
            Step::new("forwarding", format!("{key} = {}", value.trim()), fault)
        }
        Err(e) => Step::wrong("forwarding", key, e.to_string()),
    }
}

fn told(steps: &[Step]) -> Way {
    let mut text = String::new();
    for (n, step) in steps.iter().enumerate() {
        // A String takes whatever is written.
        let _ = writeln!(text, "{:2}  {:<10}  {}", n + 1, step.what, step.found);
        if let Some(fault) = &step.fault {
            let _ = writeln!(text, "    ^ here: {fault}");
            return Way { text, whole: false };
        }
    }
    let _ = writeln!(text, "the way is whole, as far as this node can see");
    Way { text, whole: true }
}
