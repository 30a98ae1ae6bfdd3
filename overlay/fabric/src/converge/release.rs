//! Leaving: to a flanneld, or for good.

use std::time::Instant;

use libcni::kernel::link;
use libcni::kernel::route::PROTOCOL_BOOT;
use libcni::nl::NlError;
use nix::errno::Errno;

use super::{Fabric, FabricError, Known, Others, Report, send};
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
                self.leave(v6, links, Tables::give_back, &mut report)?;
            }
        }
        self.forget();
        report.took = start.elapsed();
        Ok(report)
    }

    /// Takes everything away: devices, and routes under our number.
    ///
    /// # Errors
    /// As [`Fabric::converge`], or something that cannot be removed.
    pub fn remove(&mut self) -> Result<(), FabricError> {
        let mut report = Report::default();
        for v6 in [false, true] {
            let Some(links) = self.find(v6)? else {
                continue;
            };
            // First what leads by the device: with it the kernel would look through all routes for each next hop object,
            // for a third of a second at 5,000.
            let everything = |tables: &Tables| tables.diff(&[], Others::Remove);
            self.leave(v6, links, everything, &mut report)?;
            if links.device != 0 {
                match self.sock.request(link::del(links.device)) {
                    Err(e) if !e.is(Errno::ENODEV) => return Err(e.into()),
                    _ => {}
                }
            }
        }
        self.forget();
        match report.failed.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn leave(
        &mut self,
        v6: bool,
        links: Links,
        steps: impl FnOnce(&Tables) -> Vec<Step>,
        report: &mut Report,
    ) -> Result<(), NlError> {
        let tables = Tables::read(&mut self.sock, v6, links)?;
        let steps = steps(&tables);
        let mut known = Known { links, tables };
        let nobody = |_| String::new();
        send::all(&mut self.sock, &mut known, &steps, None, nobody, report)?;
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
