//! Leaving: to a flanneld, or for good.

use std::time::Instant;

use libcni::kernel::route::{self, PROTOCOL_BOOT, TABLE_MAIN};
use libcni::kernel::{link, vxlan};
use libcni::nl::NlError;
use nix::errno::Errno;

use super::{Fabric, FabricError, Known, Report, send};
use crate::device;
use crate::state::{Change, Leg, Links, PROTOCOL, Path, Step, Tables, numbers_gateways};

// === impl Fabric ===

impl Fabric {
    /// Leaves everything as flanneld would have made it, for a flanneld to take over: plain routes of protocol boot,
    /// nothing of ours. No packet is lost.
    ///
    /// flanneld deletes a route by its gateway and link, which the kernel refuses for one that goes by a next hop object.
    ///
    /// # Errors
    /// As [`Fabric::converge`].
    pub fn release(&mut self) -> Result<Report, FabricError> {
        let start = Instant::now();
        let mut report = Report::default();
        for v6 in [false, true] {
            if let Some(links) = self.find(v6)? {
                let tables = Tables::read(&mut self.sock, v6, links)?;
                let steps = tables.give_back();
                let mut known = Known { links, tables };
                let nobody = |_| String::new();
                send::all(
                    &mut self.sock,
                    &mut known,
                    &steps,
                    None,
                    nobody,
                    &mut report,
                )?;
            }
        }
        self.forget();
        report.took = start.elapsed();
        Ok(report)
    }

    /// Takes everything away: devices, and routes under our number.
    ///
    /// # Errors
    /// As [`Fabric::converge`].
    pub fn remove(&mut self) -> Result<(), FabricError> {
        for v6 in [false, true] {
            let ours = route::Filter {
                table: Some(TABLE_MAIN),
                protocol: Some(PROTOCOL),
                oif: None,
            };
            if self.own.side(v6).is_none() {
                continue;
            }
            if let Some(name) = self.own.device(v6)
                && vxlan::get(&mut self.sock, &name)?.is_some()
            {
                gone_is_done(self.sock.request(link::del(&name)))?;
            }
            // With the device went those that led by it.
            for found in route::dump(&mut self.sock, v6, ours)? {
                let spec = route::Spec {
                    gw: found.gw,
                    priority: Some(found.priority),
                    scope: found.scope,
                    protocol: found.protocol,
                    nexthop: found.nexthop,
                    ..route::Spec::new(found.dst, found.oif)
                };
                gone_is_done(self.sock.request(route::del(&spec)))?;
            }
        }
        self.forget();
        Ok(())
    }

    /// The links of a family, as they are; `None` if there is nothing to read.
    fn find(&mut self, v6: bool) -> Result<Option<Links>, NlError> {
        let Some(side) = self.own.side(v6) else {
            return Ok(None);
        };
        let mut links = Links {
            device: 0,
            objects: numbers_gateways(&side.network),
        };
        if let Some(name) = self.own.device(v6) {
            links.device = device::find(&mut self.sock, &name)?.unwrap_or_default();
        }
        Ok(Some(links))
    }

    fn forget(&mut self) {
        self.known = [None, None];
        self.doubt = true;
    }
}

fn gone_is_done(outcome: Result<(), NlError>) -> Result<(), NlError> {
    match outcome {
        Err(e) if [Errno::ENODEV, Errno::ESRCH].iter().any(|no| e.is(*no)) => Ok(()),
        other => other,
    }
}

// === impl Tables ===

impl Tables {
    /// What turns our routes into flannel's.
    fn give_back(&self) -> Vec<Step> {
        let plain = |leg| match leg {
            Leg::Object(_) => Leg::Tunnel,
            other => other,
        };
        let ours = self.routes.iter().filter(|(_, path)| {
            let wrong = matches!(path.leg, Leg::Wrong { .. });
            !wrong && (path.protocol == PROTOCOL || plain(path.leg) != path.leg)
        });
        let routes = ours.map(|(&dst, path)| {
            let (leg, protocol) = (plain(path.leg), PROTOCOL_BOOT);
            let path = Path { leg, protocol };
            Change::Route { dst, path }
        });
        let ids = self.hops.iter().flat_map(|hops| hops.keys().copied());
        let changes = routes.chain(ids.map(|id| Change::DelHop { id }));
        let mut steps: Vec<Step> = changes
            .map(|change| Step {
                change,
                peer: None,
                instead: true,
            })
            .collect();
        steps.sort_by_key(|step| step.change.phase());
        steps
    }
}
