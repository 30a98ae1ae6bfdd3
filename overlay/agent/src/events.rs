//! What others do to the kernel's tables: reasons to look whether all still stands.

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::{Either, pending, select};
use libcni::nl::{Event as Notice, NETFILTER, NlError, Socket};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::NeighbourState;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::readable::Readable;

/// `NFNLGRP_NFTABLES`, `include/uapi/linux/netfilter/nfnetlink.h`.
const NFTABLES_GROUP: u32 = 7;

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Nexthop,
];

/// Something was changed, perhaps by ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A link, or an address of one: the interface to the others may be another now.
    Links,
    /// Routes, next hops, neighbours, forwarding entries.
    Tables,
    /// Packet filtering.
    Rules,
}

/// Whose changes are of interest. Pods come and go all the time, with links, addresses and neighbours of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// The tunnel's devices and their parent.
    pub names: Vec<String>,
    /// The same, as far as they exist.
    pub indexes: Vec<u32>,
}

type Routes =
    Box<dyn futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + Unpin>;

/// The kernel's notifications.
pub struct Events {
    routes: Option<(Routes, JoinHandle<()>)>,
    rules: Option<Readable<Socket>>,
}

// === impl Events ===

impl Events {
    /// Subscribes. What cannot be had is said in the log; the slow timer is left.
    pub fn open() -> Self {
        let mut events = Self {
            routes: None,
            rules: None,
        };
        events.open_routes();
        match rules() {
            Ok(rules) => events.rules = Some(rules),
            Err(error) => warn!(%error, "changes of packet filtering will be noticed late"),
        }
        events
    }

    fn open_routes(&mut self) {
        self.routes = None;
        match rtnetlink::new_multicast_connection(&GROUPS) {
            Ok((connection, _, messages)) => {
                let routes = messages.map(|(message, _)| message);
                self.routes = Some((Box::new(routes), tokio::spawn(connection)));
            }
            Err(error) => warn!(%error, "changes of the kernel's tables will be noticed late"),
        }
    }

    /// The next one. Which of several that came together does not matter: each is a reason to look.
    pub async fn next(&mut self, interest: &Interest) -> Event {
        loop {
            let routes = async {
                match &mut self.routes {
                    Some((routes, _)) => routes.next().await,
                    None => pending().await,
                }
            };
            let rules = async {
                match &mut self.rules {
                    Some(rules) => drop(rules.read(drain).await),
                    None => pending().await,
                }
            };
            let seen = match select(Box::pin(routes), Box::pin(rules)).await {
                Either::Left((message, _)) => message,
                Either::Right(_) => return Event::Rules,
            };
            match seen {
                Some(message) => {
                    if let Some(event) = interest.meant(&message.payload) {
                        return event;
                    }
                }
                // The connection ended: notifications were lost.
                None => {
                    self.open_routes();
                    return Event::Links;
                }
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.routes {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

fn rules() -> Result<Readable<Socket>, String> {
    let open = || -> Result<Socket, NlError> {
        let mut socket = Socket::open(NETFILTER)?;
        socket.subscribe(NFTABLES_GROUP)?;
        Ok(socket)
    };
    let socket = open().map_err(|e| e.to_string())?;
    Readable::of(socket).map_err(|e| e.to_string())
}

/// Takes all that is queued; `None` if there is nothing.
fn drain(socket: &mut Socket) -> Option<()> {
    let mut seen = None;
    while let Ok(Notice::Seen | Notice::Overrun) = socket.next_event(Instant::now(), |_| ()) {
        seen = Some(());
    }
    seen
}

// === impl Interest ===

impl Interest {
    /// In links of these names.
    pub fn of(names: Vec<String>) -> Self {
        let index = |name: &String| nix::net::if_::if_nametoindex(name.as_str()).ok();
        Self {
            indexes: names.iter().filter_map(index).collect(),
            names,
        }
    }

    fn meant(&self, payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
        use RouteNetlinkMessage as Message;
        let ours = |index: u32| self.names.is_empty() || self.indexes.contains(&index);
        let links = |is: bool| is.then_some(Event::Links);
        match payload {
            NetlinkPayload::InnerMessage(message) => match message {
                Message::NewLink(link) | Message::DelLink(link) => {
                    let named = |name: &String| self.names.contains(name);
                    let named =
                        |a: &LinkAttribute| matches!(a, LinkAttribute::IfName(name) if named(name));
                    links(ours(link.header.index) || link.attributes.iter().any(named))
                }
                Message::NewAddress(addr) | Message::DelAddress(addr) => {
                    links(ours(addr.header.index))
                }
                Message::NewNeighbour(neigh) | Message::DelNeighbour(neigh) => {
                    // What the parent learns of its own neighbours is the underlay's business.
                    let permanent = neigh.header.state == NeighbourState::Permanent;
                    let gone = matches!(message, Message::DelNeighbour(_));
                    (ours(neigh.header.ifindex) && (permanent || gone)).then_some(Event::Tables)
                }
                // The default route may be what chose the interface.
                Message::NewRoute(route) | Message::DelRoute(route)
                    if route.header.destination_prefix_length == 0 =>
                {
                    Some(Event::Links)
                }
                // Routes by a next hop do not name their link. Those of pods are in no table: they are on a bridge.
                _ => Some(Event::Tables),
            },
            NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => Some(Event::Links),
            _ => None,
        }
    }
}
