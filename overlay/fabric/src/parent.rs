//! Choosing the interface that leads to the other nodes, as flannel does: by name or address, by pattern, by what it
//! reaches, else by the default route. Better than the default route is an address that the directory knows this node
//! by: on machines with several interfaces the default route is often the wrong one (Vagrant's 10.0.2.15).
//!
//! Source: flannel, `pkg/ipmatch/match.go`, `pkg/ip/iface.go`.

use std::fmt;
use std::net::IpAddr;

use libcni::kernel::addr::{self, Addr};
use libcni::kernel::link::{self, Link};
use libcni::kernel::route;
use libcni::nl::{NlError, Socket};
use thiserror::Error;

use crate::own::Parent;

/// What the operator asks for, and what the directory knows.
#[derive(Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// Names or addresses, the first that fits (`--iface`).
    pub ifaces: &'a [String],
    /// `--iface-regex`: tried on the addresses of all interfaces first, on their names second.
    pub matches: Option<&'a dyn Fn(&str) -> bool>,
    /// The interface by which this is reached (`--iface-can-reach`).
    pub can_reach: Option<IpAddr>,
    /// The address to be known by (`--public-ip`, `node-public-ip`); an interface that has it is taken.
    pub public_ip: Option<IpAddr>,
    /// The same of IPv6.
    pub public_ipv6: Option<IpAddr>,
    /// The addresses the directory knows this node by.
    pub internal_ips: &'a [IpAddr],
    /// Is an IPv4 address needed?
    pub v4: bool,
    /// Is an IPv6 address needed?
    pub v6: bool,
}

/// Why there is no interface.
#[derive(Debug, Error)]
pub enum ParentError {
    /// The kernel refused to tell.
    #[error("choose the interface to the other nodes: {0}")]
    Kernel(#[from] NlError),
    /// None fits. The text says which was looked for.
    #[error("no interface to the other nodes: {0}")]
    None(String),
    /// One fits, but cannot be used.
    #[error("interface {name} cannot lead to the other nodes: {why}")]
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// What there is to choose from: links, and the addresses that can be used, the best of each link first.
struct Choice {
    links: Vec<Link>,
    addrs: Vec<(u32, Addr)>,
}

/// Chooses the interface, and of its addresses the one that was asked for, that the directory knows, or that lasts
/// longest.
///
/// # Errors
/// None fits, or the one that fits has no address of a family that is needed.
pub fn choose(sock: &mut Socket, wishes: &Wishes<'_>) -> Result<Parent, ParentError> {
    let choice = Choice::read(sock)?;
    let (link, asked) = choice.link(sock, wishes)?;
    let unusable = |why: String| ParentError::Unusable {
        name: link.name.clone(),
        why,
    };
    if link.mtu == 0 {
        return Err(unusable("its MTU is 0".into()));
    }
    let known = [wishes.public_ip, wishes.public_ipv6].into_iter().flatten();
    let wanted: Vec<IpAddr> = asked
        .into_iter()
        .chain(known)
        .chain(wishes.internal_ips.iter().copied())
        .collect();
    let address = |needed: bool, v6: bool| {
        if !needed {
            return Ok(None);
        }
        let family = if v6 { "IPv6" } else { "IPv4" };
        choice.address(link, v6, &wanted).map(Some).ok_or_else(|| {
            unusable(format!(
                "it has no {family} address; give it one, or choose another interface (--iface)"
            ))
        })
    };
    let (v4, v6) = (address(wishes.v4, false)?, address(wishes.v6, true)?);
    Ok(Parent {
        index: link.index,
        name: link.name.clone(),
        mtu: link.mtu,
        v4: v4.and_then(|ip| match ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }),
        v6: v6.and_then(|ip| match ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        }),
    })
}

// === impl Choice ===

impl Choice {
    fn read(sock: &mut Socket) -> Result<Self, NlError> {
        let mut links = link::list(sock, "")?;
        // The tunnel cannot lead through itself.
        links.retain(|l| !(l.kind.as_deref() == Some("vxlan") && l.name.starts_with("flannel")));
        let mut addrs = addr::list_all(sock)?;
        addrs.retain(|(_, addr)| addr.is_usable());
        // Stable: between equals, as the kernel lists them.
        addrs.sort_by_key(|(_, a)| (a.scope, !a.is_permanent(), a.is_temporary()));
        Ok(Self { links, addrs })
    }

    /// The link, and the address it was chosen by.
    fn link(
        &self,
        sock: &mut Socket,
        wishes: &Wishes<'_>,
    ) -> Result<(&Link, Option<IpAddr>), ParentError> {
        let mut asked = Vec::new();
        for wish in wishes.ifaces {
            asked.push(format!("--iface {wish}"));
            let found = match wish.parse() {
                Ok(ip) => self.owner(ip).map(|link| (link, Some(ip))),
                Err(_) => self
                    .links
                    .iter()
                    .find(|l| l.name == *wish)
                    .map(|l| (l, None)),
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        if let Some(matches) = wishes.matches {
            asked.push("--iface-regex".into());
            if let Some(found) = self.matching(matches) {
                return Ok(found);
            }
        }
        if let Some(ip) = wishes.can_reach {
            asked.push(format!("--iface-can-reach {ip}"));
            if let Some(route) = route::get(sock, ip)?
                && let Some(link) = self.by_index(route.oif)
            {
                return Ok((link, route.src));
            }
        }
        if !asked.is_empty() {
            let why = format!("none fits {}", asked.join(", "));
            return Err(ParentError::None(why));
        }
        let public = [wishes.public_ip, wishes.public_ipv6].into_iter().flatten();
        let mut known = public.chain(wishes.internal_ips.iter().copied());
        if let Some(found) = known.find_map(|ip| Some((self.owner(ip)?, Some(ip)))) {
            return Ok(found);
        }
        for v6 in [false, true] {
            let needed = if v6 { wishes.v6 } else { wishes.v4 };
            if needed
                && let Some(route) = route::default_route(sock, v6)?
                && let Some(link) = self.by_index(route.oif)
            {
                return Ok((link, None));
            }
        }
        let why = "there is no default route; name the interface (--iface)".to_owned();
        Err(ParentError::None(why))
    }

    /// Addresses first, names second. Not the loopback, which every pattern for "all" would find first.
    fn matching(&self, matches: &dyn Fn(&str) -> bool) -> Option<(&Link, Option<IpAddr>)> {
        let links = || self.links.iter().filter(|link| link.name != "lo");
        let by_address = links().find_map(|link| {
            let mut ips = self.of(link).map(|addr| addr.net.ip());
            Some((link, Some(ips.find(|ip| matches(&ip.to_string()))?)))
        });
        by_address.or_else(|| Some((links().find(|link| matches(&link.name))?, None)))
    }

    fn address(&self, link: &Link, v6: bool, wanted: &[IpAddr]) -> Option<IpAddr> {
        let ips = || {
            let all = self.of(link).map(|addr| addr.net.ip());
            all.filter(move |ip| ip.is_ipv6() == v6)
        };
        let known = wanted.iter().find(|wanted| ips().any(|ip| ip == **wanted));
        known.copied().or_else(|| ips().next())
    }

    fn of(&self, link: &Link) -> impl Iterator<Item = &Addr> + use<'_> {
        let index = link.index;
        let of_link = self.addrs.iter().filter(move |(of, _)| *of == index);
        of_link.map(|(_, addr)| addr)
    }

    fn owner(&self, ip: IpAddr) -> Option<&Link> {
        let (index, _) = self.addrs.iter().find(|(_, addr)| addr.net.ip() == ip)?;
        self.by_index(*index)
    }

    fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }
}

impl fmt::Debug for Wishes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wishes")
            .field("ifaces", &self.ifaces)
            .field("matches", &self.matches.is_some())
            .field("can_reach", &self.can_reach)
            .field("public_ip", &self.public_ip)
            .field("public_ipv6", &self.public_ipv6)
            .field("internal_ips", &self.internal_ips)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
