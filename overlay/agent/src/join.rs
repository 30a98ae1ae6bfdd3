//! Joining the network: from the directory's first word to a lease. It may take long; meanwhile the agent works with
//! what it knew before.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fabric::own::{Own, OwnSide, Parent, device_name};
use fabric::parent::{self, Wishes};
use fabric::{Backend, NetConf, Vtep, mac};
use libcni::kernel::Mac;
use libcni::nl::{ROUTE, Socket};
use regex::RegexSet;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::directory::{Directory, DirectoryError, End, Hints, Lease, Links, Me, Ready, View};
use crate::options::PlaceOptions;

/// How often an interface is looked for, when there is none. Nobody is waiting who could be told more.
const AGAIN: Duration = Duration::from_secs(1);

/// How to find this node's place in the underlay.
#[derive(Debug, Clone)]
pub struct Place {
    options: PlaceOptions,
    patterns: Option<RegexSet>,
    hints: Hints,
    /// Where MACs are kept.
    state_dir: PathBuf,
}

/// A lease, with all that it was got with.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The network.
    pub conf: NetConf,
    /// How this node's place was found.
    pub place: Place,
    /// This node.
    pub own: Own,
    /// What it tells the others.
    pub me: Me,
}

/// The ends that the agent keeps.
#[derive(Debug)]
pub struct Ends {
    /// Where to tell of the lease.
    pub joined: mpsc::Sender<Joined>,
    /// What is told the others: set here first, by the agent later.
    pub me: watch::Sender<Option<Me>>,
    /// Whether pods have a network.
    pub ready: watch::Receiver<Ready>,
    /// What the directory says.
    pub view: watch::Sender<Arc<View>>,
}

/// Joins, then keeps the lease and follows the others. Ends only with what cannot get better.
pub async fn join<D: Directory>(
    mut directory: D,
    mut place: Place,
    before: Option<Lease>,
    ends: Ends,
) -> DirectoryError {
    let joined = async {
        let conf = directory.net_conf().await?;
        for warning in &conf.warnings {
            warn!("{warning}");
        }
        place.hints = directory.hints().await?;
        let mut told = String::new();
        let (parent, macs) = loop {
            match place.look(&conf) {
                Ok(found) => break found,
                Err(why) if why == told => {}
                Err(why) => {
                    warn!(%why, "waits for an interface");
                    told = why;
                }
            }
            tokio::time::sleep(AGAIN).await;
        };
        let me = place.me(&conf, &parent, macs);
        let lease = directory.lease(&conf, &me, before.as_ref()).await?;
        let own = place.own(&conf, parent, macs, &lease);
        let subnet = |side: Option<OwnSide>| {
            side.map_or_else(|| "none".to_owned(), |side| side.subnet.to_string())
        };
        info!(interface = %own.parent.name, v4 = %subnet(own.v4), v6 = %subnet(own.v6), "leased");
        Ok((
            lease,
            Joined {
                conf,
                place,
                own,
                me,
            },
        ))
    };
    let (lease, joined) = match joined.await {
        Ok(joined) => joined,
        Err(e) => return e,
    };
    let conf = joined.conf.clone();
    let (me, told) = watch::channel(joined.me.clone());
    let mut changes = ends.me.subscribe();
    if ends.joined.send(joined).await.is_err() {
        return DirectoryError("the agent stopped".into());
    }
    let links = Links {
        conf,
        lease,
        me: told,
        ready: ends.ready,
        view: ends.view,
    };
    let forward = async {
        while changes.changed().await.is_ok() {
            if let Some(now) = changes.borrow_and_update().clone() {
                me.send_replace(now);
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = directory.run(links) => ended,
        () = forward => DirectoryError("the agent stopped".into()),
    }
}

/// The MACs of the two families' devices.
pub type Macs = [Mac; 2];

// === impl Place ===

impl Place {
    /// As the operator wishes.
    ///
    /// # Errors
    /// A pattern is none.
    pub fn new(options: &PlaceOptions, state_dir: PathBuf) -> Result<Self, regex::Error> {
        let patterns =
            (!options.iface_regex.is_empty()).then(|| RegexSet::new(&options.iface_regex));
        Ok(Self {
            options: options.clone(),
            patterns: patterns.transpose()?,
            hints: Hints::default(),
            state_dir,
        })
    }

    /// Finds the interface to the others, and the MACs to have on it.
    ///
    /// # Errors
    /// There is none (yet): why, for people.
    pub fn look(&self, conf: &NetConf) -> Result<(Parent, Macs), String> {
        let mut sock = Socket::open(ROUTE).map_err(|e| e.to_string())?;
        let matches = |text: &str| self.patterns.as_ref().is_some_and(|set| set.is_match(text));
        let wishes = Wishes {
            ifaces: &self.options.iface,
            matches: self
                .patterns
                .as_ref()
                .map(|_| &matches as &dyn Fn(&str) -> bool),
            can_reach: self.options.iface_can_reach,
            public_ip: self.options.public_ip.or(self.hints.public_ip),
            public_ipv6: self.options.public_ipv6.or(self.hints.public_ipv6),
            internal_ips: &self.hints.internal_ips,
            v4: conf.v4.is_some(),
            v6: conf.v6.is_some(),
        };
        let parent = parent::choose(&mut sock, &wishes).map_err(|e| e.to_string())?;
        let Backend::Vxlan(vxlan) = &conf.backend else {
            return Ok((parent, Macs::default()));
        };
        let mut macs = Macs::default();
        let hints = [self.hints.mac, self.hints.mac_v6];
        for ((mac, hint), v6) in macs.iter_mut().zip(hints).zip([false, true]) {
            if conf.network(v6).is_some() {
                let device = device_name(vxlan.vni, v6);
                let file = self.state_dir.join(format!("{device}.mac"));
                *mac = mac::choose(&mut sock, &device, hint, &file).map_err(|e| e.to_string())?;
            }
        }
        Ok((parent, macs))
    }

    /// What to tell the others.
    pub fn me(&self, conf: &NetConf, parent: &Parent, macs: Macs) -> Me {
        let [mac, mac_v6] = macs;
        let end = |wished: Option<IpAddr>, has: Option<IpAddr>, mac| {
            let vtep = match &conf.backend {
                Backend::Vxlan(vxlan) => Some(Vtep {
                    mac,
                    vni: Some(vxlan.vni),
                }),
                Backend::HostGw => None,
            };
            Some(End {
                public_ip: wished.or(has)?,
                vtep,
            })
        };
        let v4 = end(
            self.options.public_ip.or(self.hints.public_ip),
            parent.v4.map(IpAddr::V4),
            mac,
        );
        let v6 = end(
            self.options.public_ipv6.or(self.hints.public_ipv6),
            parent.v6.map(IpAddr::V6),
            mac_v6,
        );
        Me {
            kind: conf.backend.kind(),
            v4: conf.v4.and(v4),
            v6: conf.v6.and(v6),
        }
    }

    /// This node with a lease.
    pub fn own(&self, conf: &NetConf, parent: Parent, macs: Macs, lease: &Lease) -> Own {
        let [mac, mac_v6] = macs;
        let side = |v6: bool, subnet, local: Option<IpAddr>, mac| {
            let (network, subnet, local) = (conf.network(v6)?.net, subnet?, local?);
            Some(OwnSide {
                network,
                subnet,
                local,
                mac,
            })
        };
        let v4 = side(false, lease.v4, parent.v4.map(IpAddr::V4), mac);
        let v6 = side(true, lease.v6, parent.v6.map(IpAddr::V6), mac_v6);
        Own {
            backend: conf.backend.clone(),
            parent,
            v4,
            v6,
        }
    }
}
