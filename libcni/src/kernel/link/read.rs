//! Asking for links, and waiting for one.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{
    Dev, IFF_PROMISC, IFF_UP, IFINFOMSG_BYTES, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_BR_VLAN_FILTERING,
    IFLA_BRPORT_ISOLATED, IFLA_BRPORT_MODE, IFLA_BRPORT_STATE, IFLA_EXT_MASK, IFLA_IFALIAS,
    IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND,
    IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_OPERSTATE,
    IFLA_PROMISCUITY, RTM_GETLINK, RTM_NEWLINK, ifinfomsg,
};
use crate::kernel::mac::Mac;
use crate::nl::attr::{self, Attrs};
use crate::nl::{Event, Message, NlError, Reply, Socket};

/// `RTEXT_FILTER_SKIP_STATS`: counters are a quarter of the answer and take a walk over all CPUs.
const SKIP_STATS: u32 = 8;
/// `IF_OPER_UP`
const OPER_UP: u8 = 6;
const IFLA_INET6_CONF: u16 = 2;
const DEVCONF_ACCEPT_RA: usize = 3;
/// `RTNLGRP_LINK`
const GROUP_LINK: u32 = 1;

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; `None` for links without one (tunnels).
    pub mac: Option<Mac>,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// `IFF_*`
    pub flags: u32,
    /// `veth`, `bridge`, ...; `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// Index of the bridge (or bond, ...) it is a port of.
    pub master: Option<u32>,
    /// Index of the other end (veth) or of the lower link (vlan), in the namespace of [`Link::link_netnsid`].
    pub peer_index: Option<u32>,
    /// Which namespace that is, by this namespace's numbering; `None` is this namespace itself.
    pub link_netnsid: Option<i32>,
    /// `ip link set DEV alias TEXT`
    pub alias: Option<String>,
    /// RFC 2863 operational state, `IF_OPER_*`: 6 is up.
    pub operstate: u8,
    /// How many want it to receive everything.
    pub promiscuity: u32,
    /// Its settings as a bridge port, when it is one.
    pub port: Option<BridgePort>,
    /// Of a bridge: does it look at VLAN tags?
    pub vlan_filtering: Option<bool>,
    /// `net.ipv6.conf.DEV.accept_ra`, which costs nothing here; `None` without IPv6.
    pub accept_ra: Option<i32>,
}

/// Settings of a bridge port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BridgePort {
    /// `BR_STATE_*`: 0 disabled, 1 listening, 2 learning, 3 forwarding, 4 blocking.
    pub state: u8,
    /// May frames go back out of the port they came from?
    pub hairpin: bool,
    /// Cut off from other isolated ports?
    pub isolated: bool,
}

/// The link of that name, `None` when there is none.
pub fn get(sock: &mut Socket, name: &str) -> Result<Option<Link>, NlError> {
    get_dev(sock, Dev::Name(name))
}

/// The link with that index, `None` when there is none.
pub fn get_index(sock: &mut Socket, index: u32) -> Result<Option<Link>, NlError> {
    get_dev(sock, Dev::Index(index))
}

/// All links, or those of a kind (`"veth"`; `""` is all). For GC: it grows with the node, which the
/// other verbs must not.
pub fn list(sock: &mut Socket, kind: &str) -> Result<Vec<Link>, NlError> {
    let mut message = Message::new(RTM_GETLINK, 0, format!("list {kind} links"))
        .header(&ifinfomsg(0, 0, 0, 0))
        .u32(IFLA_EXT_MASK, SKIP_STATS);
    if !kind.is_empty() {
        message = message.nest(IFLA_LINKINFO, |m| m.str(IFLA_INFO_KIND, kind));
    }
    // The kernel filters, but not before 4.6 and not for a kind whose module is not loaded.
    sock.dump(message, |reply| {
        Link::from_reply(reply).filter(|l| kind.is_empty() || l.kind.as_deref() == Some(kind))
    })
}

/// Waits until a link is operationally up (for a bridge port: forwarding, unless spanning tree is on) and
/// returns it; ETIMEDOUT after the deadline, ENODEV when it is not there.
///
/// Normally one question and no wait: since Linux 6.8 the question itself makes the kernel finish the
/// link's pending state change (`linkwatch_sync_dev`); before, that happens within a second, at once
/// when the last such change is a second ago.
pub fn wait_up<'a>(
    sock: &mut Socket,
    dev: impl Into<Dev<'a>>,
    deadline_ms: u32,
) -> Result<Link, NlError> {
    let dev = dev.into();
    let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
    let present = |link: Option<Link>| {
        link.ok_or_else(|| NlError::new(format!("wait for {dev}"), Errno::ENODEV as i32))
    };
    let mut link = present(get_dev(sock, dev)?)?;
    if link.is_operational() {
        return Ok(link);
    }
    sock.subscribe(GROUP_LINK)?;
    let outcome = loop {
        // Asked after subscribing, so that nothing falls in between. Events only say when to ask
        // again, which is also right when some were dropped.
        link = match get_dev(sock, dev).and_then(present) {
            Ok(link) if link.is_operational() => break Ok(link),
            Ok(link) => link,
            Err(e) => break Err(e),
        };
        match next_change(sock, link.index, deadline) {
            Ok(true) => {}
            Ok(false) => break Err(not_up(&link, deadline_ms)),
            Err(e) => break Err(e),
        }
    };
    sock.unsubscribe(GROUP_LINK)?;
    outcome
}

/// Waits for news about one link; false when the deadline came first.
fn next_change(sock: &mut Socket, index: u32, deadline: Instant) -> Result<bool, NlError> {
    loop {
        let mut about_it = false;
        let event = sock.next_event(deadline, |reply| {
            about_it |= reply.payload.get(4..).and_then(attr::u32) == Some(index);
        })?;
        match event {
            Event::Seen if !about_it => {}
            Event::Seen | Event::Overrun => return Ok(true),
            Event::Timeout => return Ok(false),
        }
    }
}

fn not_up(link: &Link, deadline_ms: u32) -> NlError {
    let port = match link.port.map(|p| p.state) {
        Some(0) => ", bridge port disabled",
        Some(1 | 2) => ", bridge port not forwarding yet (is spanning tree on?)",
        Some(4) => ", bridge port blocked by spanning tree",
        _ => "",
    };
    NlError::because(
        format!("wait for {}", link.name),
        Errno::ETIMEDOUT as i32,
        format!(
            "not up after {deadline_ms} ms (operational state {}{port})",
            link.operstate
        ),
    )
}

/// Asks for a link within a batch; [`Link::from_reply`] reads the answer.
pub fn query<'a>(dev: impl Into<Dev<'a>>) -> Message {
    dev.into()
        .message(RTM_GETLINK, 0, "look up", 0, 0)
        .u32(IFLA_EXT_MASK, SKIP_STATS)
}

fn get_dev(sock: &mut Socket, dev: Dev<'_>) -> Result<Option<Link>, NlError> {
    match sock.get(query(dev)) {
        Ok(reply) => Ok(Link::from_reply(reply)),
        Err(e) if e.is(Errno::ENODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

/// From the interface's `devconf` array, entry `DEVCONF_ACCEPT_RA` (`include/uapi/linux/ipv6.h`).
fn accept_ra(spec: &[u8]) -> Option<i32> {
    let conf =
        Attrs::new(Attrs::new(spec).find(crate::kernel::AF_INET6.into())?).find(IFLA_INET6_CONF)?;
    attr::i32(conf.get(DEVCONF_ACCEPT_RA * 4..)?)
}

// === impl Link ===

impl Link {
    /// Is it administratively up (`IFF_UP`)?
    pub fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    /// Does it work (RFC 2863)? For a bridge port: does it forward (unless spanning tree is on)? See [`wait_up`].
    pub fn is_operational(&self) -> bool {
        self.operstate == OPER_UP
    }

    /// Was it made promiscuous by an administrator (`IFF_PROMISC`)? Sniffers and bridges count in
    /// [`Link::promiscuity`] only.
    pub fn is_promisc(&self) -> bool {
        self.flags & IFF_PROMISC != 0
    }

    /// From an `RTM_NEWLINK`: an answer, an echo ([`super::veth_echoed`]) or an event.
    pub fn from_reply(reply: Reply<'_>) -> Option<Self> {
        if reply.msg_type != RTM_NEWLINK {
            return None;
        }
        let mut link = Self {
            index: attr::u32(reply.payload.get(4..)?)?,
            flags: attr::u32(reply.payload.get(8..)?)?,
            ..Self::default()
        };
        for (kind, payload) in Attrs::after(reply.payload, IFINFOMSG_BYTES) {
            match kind {
                IFLA_IFNAME => link.name = attr::str(payload).unwrap_or_default().to_owned(),
                IFLA_ADDRESS => link.mac = Mac::from_bytes(payload),
                IFLA_MTU => link.mtu = attr::u32(payload).unwrap_or_default(),
                IFLA_LINK => link.peer_index = attr::u32(payload),
                IFLA_LINK_NETNSID => link.link_netnsid = attr::i32(payload),
                IFLA_MASTER => link.master = attr::u32(payload),
                IFLA_IFALIAS => link.alias = attr::str(payload).map(str::to_owned),
                IFLA_OPERSTATE => link.operstate = attr::u8(payload).unwrap_or_default(),
                IFLA_PROMISCUITY => link.promiscuity = attr::u32(payload).unwrap_or_default(),
                IFLA_LINKINFO => link.read_info(payload),
                IFLA_AF_SPEC => link.accept_ra = accept_ra(payload),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: &[u8]) {
        let attrs = Attrs::new(info);
        let text = |kind| attrs.clone().find(kind).and_then(attr::str);
        let nest = |kind| Attrs::new(attrs.clone().find(kind).unwrap_or_default());
        self.kind = text(IFLA_INFO_KIND).map(str::to_owned);
        if self.kind.as_deref() == Some("bridge") {
            let filtering = nest(IFLA_INFO_DATA).find(IFLA_BR_VLAN_FILTERING);
            self.vlan_filtering = filtering.and_then(attr::u8).map(|on| on != 0);
        }
        if text(IFLA_INFO_SLAVE_KIND) == Some("bridge") {
            let byte = |kind| {
                nest(IFLA_INFO_SLAVE_DATA)
                    .find(kind)
                    .and_then(attr::u8)
                    .unwrap_or_default()
            };
            self.port = Some(BridgePort {
                state: byte(IFLA_BRPORT_STATE),
                hairpin: byte(IFLA_BRPORT_MODE) != 0,
                isolated: byte(IFLA_BRPORT_ISOLATED) != 0,
            });
        }
    }
}
