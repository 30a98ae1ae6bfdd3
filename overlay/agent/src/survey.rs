//! What the kernel has for a peer, step by step: asked for `overlayd show` and `overlayd path`, which need no agent.

use std::collections::HashMap;
use std::net::IpAddr;

use fabric::conf::{Backend, address, number};
use fabric::own::Own;
use fabric::{Peer, Site};
use libcni::kernel::link::{self, Link};
use libcni::kernel::neigh::{self, Neigh, State};
use libcni::kernel::route::{self, Route};
use libcni::kernel::{Mac, fdb};
use libcni::nl::{NlError, ROUTE, Socket};

/// The kernel's tables of one node.
#[derive(Debug)]
pub struct Survey<'a> {
    own: &'a Own,
    sock: Socket,
    devices: [Option<Device>; 2],
}

/// A tunnel's end, with whom it knows.
#[derive(Debug)]
struct Device {
    link: Link,
    neighbours: HashMap<IpAddr, Neigh>,
    entries: HashMap<Mac, Vec<IpAddr>>,
}

/// One step of a packet's way, as it stands or should stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which: "route", "neighbour", "FDB" ...
    pub what: &'static str,
    /// What stands there, in the words of `ip` and `bridge`.
    pub found: String,
    /// What is wrong with it.
    pub fault: Option<String>,
}

// === impl Step ===

impl Step {
    /// As it has to be.
    pub fn right(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            found: found.into(),
            fault: None,
        }
    }

    /// Not as it has to be.
    pub fn wrong(what: &'static str, found: impl Into<String>, fault: impl Into<String>) -> Self {
        Self {
            what,
            found: found.into(),
            fault: Some(fault.into()),
        }
    }

    /// Right if there is no fault.
    pub fn new(what: &'static str, found: impl Into<String>, fault: Option<String>) -> Self {
        Self {
            what,
            found: found.into(),
            fault,
        }
    }
}

// === impl Survey ===

impl<'a> Survey<'a> {
    /// Reads neighbours and forwarding entries; routes are asked for one by one.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn of(own: &'a Own) -> Result<Self, NlError> {
        let mut sock = Socket::open(ROUTE)?;
        let mut devices = [None, None];
        for (place, v6) in devices.iter_mut().zip([false, true]) {
            if let Some(name) = own.device(v6)
                && let Some(link) = link::get(&mut sock, &name)?
            {
                let neighbours = neigh::list(&mut sock, link.index)?;
                let mut entries = HashMap::<Mac, Vec<IpAddr>>::new();
                for entry in fdb::list(&mut sock, link.index)? {
                    entries.entry(entry.mac).or_default().push(entry.dst);
                }
                let neighbours = neighbours
                    .into_iter()
                    .map(|neigh| (neigh.ip, neigh))
                    .collect();
                *place = Some(Device {
                    link,
                    neighbours,
                    entries,
                });
            }
        }
        Ok(Self { own, sock, devices })
    }

    /// The netlink socket, for more questions.
    pub fn sock(&mut self) -> &mut Socket {
        &mut self.sock
    }

    /// The way to a peer's pods, one family of it: route, and with a tunnel device, neighbour and forwarding entry.
    /// What comes after a fault is not looked at.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn steps_to(&mut self, peer: &Peer, v6: bool) -> Result<Vec<Step>, NlError> {
        let Some(site) = peer.site(v6) else {
            return Ok(Vec::new());
        };
        let mut steps = Vec::new();
        let device = match (&self.own.backend, self.own.device(v6)) {
            (Backend::Vxlan(_), Some(name)) => {
                let step = self.device(&name, v6);
                let broken = step.fault.is_some();
                steps.push(step);
                if broken {
                    return Ok(steps);
                }
                Some(name)
            }
            _ => None,
        };
        let (step, tunnelled) = self.route(site, device.as_deref())?;
        let broken = step.fault.is_some();
        steps.push(step);
        if broken || !tunnelled {
            return Ok(steps);
        }
        let Some(device) = self.devices.get(usize::from(v6)).and_then(Option::as_ref) else {
            return Ok(steps);
        };
        let Some(vtep) = site.vtep else {
            let fault = format!("the directory tells no MAC of node {}", peer.name);
            steps.push(Step::wrong("neighbour", "unknown", fault));
            return Ok(steps);
        };
        steps.push(device.neighbour(site.subnet.network(), vtep.mac));
        steps.push(device.forwarding(vtep.mac, site.public_ip));
        Ok(steps)
    }

    fn device(&self, name: &str, v6: bool) -> Step {
        let found = self.devices.get(usize::from(v6)).and_then(Option::as_ref);
        let Some(Device { link, .. }) = found else {
            return Step::wrong(
                "device",
                name,
                format!("{name} is not there: overlayd makes it; is it running?"),
            );
        };
        let mac = link.mac.map_or_else(String::new, |mac| mac.to_string());
        let text = format!("{name} {mac} mtu {}", link.mtu);
        let wanted = self.own.side(v6).map(|side| side.mac);
        let fault = if !link.is_up() {
            Some(format!("{name} is down"))
        } else if wanted != link.mac {
            wanted
                .map(|mac| format!("its MAC is to be {mac}: that is what the other nodes send to"))
        } else {
            None
        };
        Step::new("device", text, fault)
    }

    /// The route to a subnet, and whether it leads into the tunnel.
    fn route(&mut self, site: &Site, device: Option<&str>) -> Result<(Step, bool), NlError> {
        let v6 = site.subnet.is_ipv6();
        let probe = address(number(site.subnet.network()).saturating_add(1), v6);
        let Some(route) = route::get(&mut self.sock, probe)? else {
            let fault = format!("no route to {}", site.subnet);
            return Ok((Step::wrong("route", "none", fault), false));
        };
        let oif =
            link::get_index(&mut self.sock, route.oif)?.map_or_else(String::new, |link| link.name);
        let text = shown(&route, &oif, device == Some(oif.as_str()));
        let base = site.subnet.network();
        let tunnelled = device == Some(oif.as_str());
        let fault = if route.dst != site.subnet {
            Some(format!("no route to {} itself", site.subnet))
        } else if tunnelled && route.gw != Some(base) {
            Some(format!("its gateway is to be {base}"))
        } else if !tunnelled && route.gw != Some(site.public_ip) {
            let via = device.map_or_else(
                || format!("via {}", site.public_ip),
                |device| format!("via {base} dev {device}"),
            );
            Some(format!("it is to lead {via}"))
        } else {
            None
        };
        Ok((Step::new("route", text, fault), tunnelled))
    }
}

/// A route in `ip route`'s words.
pub fn shown(route: &Route, oif: &str, onlink: bool) -> String {
    let via = route.gw.map_or_else(String::new, |gw| format!(" via {gw}"));
    let src = route
        .src
        .map_or_else(String::new, |src| format!(" src {src}"));
    let dst = if route.dst.prefix() == 0 {
        "default".to_owned()
    } else {
        route.dst.to_string()
    };
    let nexthop = route
        .nexthop
        .map_or_else(String::new, |id| format!(" nhid {id}"));
    let onlink = if onlink { " onlink" } else { "" };
    format!("{dst}{nexthop}{via} dev {oif}{src}{onlink}")
}

// === impl Device ===

impl Device {
    fn neighbour(&self, base: IpAddr, mac: Mac) -> Step {
        let name = &self.link.name;
        let Some(neigh) = self.neighbours.get(&base) else {
            return Step::wrong(
                "neighbour",
                "none",
                format!("no neighbour {base} on {name}: it is to be {mac}"),
            );
        };
        let lladdr = neigh
            .mac
            .map_or_else(|| "incomplete".to_owned(), |mac| mac.to_string());
        let state = if neigh.state == State::Permanent {
            " PERMANENT"
        } else {
            ""
        };
        let fault =
            (neigh.mac != Some(mac)).then(|| format!("it is to be {mac}, what the peer published"));
        Step::new(
            "neighbour",
            format!("{base} dev {name} lladdr {lladdr}{state}"),
            fault,
        )
    }

    fn forwarding(&self, mac: Mac, dst: IpAddr) -> Step {
        let name = &self.link.name;
        match self.entries.get(&mac).map(Vec::as_slice) {
            None | Some([]) => Step::wrong(
                "FDB",
                "none",
                format!("no forwarding entry for {mac} on {name}: it is to lead to {dst}"),
            ),
            Some([found, ..]) => {
                let fault = (*found != dst)
                    .then(|| format!("it is to lead to {dst}, what the peer published"));
                Step::new(
                    "FDB",
                    format!("{mac} dev {name} dst {found} self permanent"),
                    fault,
                )
            }
        }
    }
}
