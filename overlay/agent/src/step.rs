//! One step of reconciling: everything that asks or changes the kernel, on a thread that may wait for it.

use fabric::NetConf;
use fabric::converge::{Fabric, Others, Peers, Report};
use fabric::own::Own;
use tracing::info;

use crate::directory::{Lease, Me};
use crate::join::Place;
use crate::rules::Rules;

/// What is in doubt; the rest is taken to be as it was left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doubts {
    /// The interface to the others, its address and MTU.
    pub links: bool,
    /// Devices, routes, neighbours, forwarding entries.
    pub tables: bool,
    /// Packet filtering.
    pub rules: bool,
}

/// The kernel's side of the node, handed to each step and back.
#[derive(Debug)]
pub struct Work {
    conf: NetConf,
    lease: Lease,
    /// How to find the interface; `None` before the directory was heard: then it is the one of last time.
    place: Option<Place>,
    fabric: Fabric,
    rules: Rules,
}

/// What came of a step.
#[derive(Debug)]
pub struct Outcome {
    /// What was done, or why nothing could be.
    pub report: Result<Report, String>,
    /// Whether packet filtering is as it has to be, if that was in doubt.
    pub rules: Option<Result<(), String>>,
    /// This node, as it is to be.
    pub own: Own,
    /// What to tell the others, if that is not what was told.
    pub me: Option<Me>,
}

// === impl Doubts ===

impl Doubts {
    /// All of it.
    pub const ALL: Self = Self {
        links: true,
        tables: true,
        rules: true,
    };

    /// Takes on another's.
    pub fn add(&mut self, other: Self) {
        self.links |= other.links;
        self.tables |= other.tables;
        self.rules |= other.rules;
    }
}

// === impl Work ===

impl Work {
    /// For a lease.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn new(
        conf: NetConf,
        own: Own,
        place: Option<Place>,
        rules: Rules,
    ) -> Result<Self, String> {
        let lease = Lease {
            v4: own.v4.map(|side| side.subnet),
            v6: own.v6.map(|side| side.subnet),
        };
        let fabric = Fabric::open(own).map_err(|e| e.to_string())?;
        Ok(Self {
            conf,
            lease,
            place,
            fabric,
            rules,
        })
    }

    /// The directory was heard: perhaps the same as before.
    pub fn joined(&mut self, conf: NetConf, own: Own, place: Place) {
        self.lease = Lease {
            v4: own.v4.map(|side| side.subnet),
            v6: own.v6.map(|side| side.subnet),
        };
        if *self.fabric.own() != own {
            self.fabric.set_own(own);
            self.fabric.doubt();
        }
        self.conf = conf;
        self.place = Some(place);
    }

    /// Makes the kernel agree with the directory. It waits for the kernel only.
    pub fn step(&mut self, peers: &Peers, others: Others, doubts: Doubts) -> Outcome {
        let mut me = None;
        if doubts.links
            && let Some(place) = &self.place
        {
            match place.look(&self.conf) {
                Ok((parent, macs)) => {
                    let own = place.own(&self.conf, parent.clone(), macs, &self.lease);
                    if own != *self.fabric.own() {
                        info!(interface = %own.parent.name, mtu = own.parent.mtu, "this node has changed");
                        me = Some(place.me(&self.conf, &parent, macs));
                        self.fabric.set_own(own);
                        self.fabric.doubt();
                    }
                }
                Err(why) => return self.failed(why),
            }
        }
        if doubts.tables {
            self.fabric.doubt();
        }
        let report = self.fabric.follow(peers, others).map_err(|e| e.to_string());
        let rules = doubts.rules.then(|| self.rules.ensure(self.fabric.own()));
        Outcome {
            report,
            rules,
            own: self.fabric.own().clone(),
            me,
        }
    }

    fn failed(&self, why: String) -> Outcome {
        Outcome {
            report: Err(why),
            rules: None,
            own: self.fabric.own().clone(),
            me: None,
        }
    }
}
