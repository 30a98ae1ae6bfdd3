//! Asking only: what a converge would have to set.

use libcni::kernel::link;

use super::{Fabric, FabricError, Known, Peers};
use crate::converge::Others;
use crate::device;
use crate::judge::judge;
use crate::state::{Links, Tables};

// === impl Fabric ===

impl Fabric {
    /// What is missing or different of the devices and of what the peers need, a line each; nothing if all stands. What
    /// is there of nobody is none of it. Changes nothing.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn look(&mut self, peers: &Peers) -> Result<Vec<String>, FabricError> {
        let mut faults = Vec::new();
        // What is known from here is no converge's.
        self.doubt = true;
        self.parent()?;
        for v6 in [false, true] {
            let known = self.look_at(v6, &mut faults)?;
            if let Some(place) = self.known.get_mut(usize::from(v6)) {
                *place = known;
            }
        }
        if self.standing.is_empty() {
            self.standing = self.found(peers);
        }
        let listed = peers.iter().map(|(key, peer)| (key.as_str(), peer));
        let judged = judge(&self.own, &self.standing, listed);
        for v6 in [false, true] {
            let wants = self.wants(&judged.peers, v6)?;
            let Some(known) = self.known.get(usize::from(v6)).and_then(Option::as_ref) else {
                continue;
            };
            let steps = known.tables.diff(&wants, Others::Keep);
            let mut wronged: Vec<usize> = steps.iter().filter_map(|step| step.peer).collect();
            wronged.sort_unstable();
            wronged.dedup();
            let wronged = wronged.into_iter().filter_map(|at| judged.peers.get(at));
            faults.extend(wronged.map(|peer| {
                format!(
                    "the way to peer {} is missing or not as it should be",
                    peer.key
                )
            }));
        }
        Ok(faults)
    }

    /// A family's device, and what is there of the family; `None` if there is no such family, or no device.
    fn look_at(
        &mut self,
        v6: bool,
        faults: &mut Vec<String>,
    ) -> Result<Option<Known>, FabricError> {
        let Some(side) = self.own.side(v6).copied() else {
            return Ok(None);
        };
        let mut links = Links {
            device: 0,
            objects: true,
        };
        if let Some(name) = self.own.device(v6) {
            let mut fault =
                |what: String| faults.push(format!("the overlay's device {name} {what}"));
            let Some(index) = device::find(&mut self.sock, &name)? else {
                fault("is missing".into());
                return Ok(None);
            };
            if let Some(link) = link::get_index(&mut self.sock, index)? {
                if !link.is_up() {
                    fault("is down".into());
                }
                if link.mac != Some(side.mac) {
                    fault(format!("has another MAC than {}", side.mac));
                }
            }
            links.device = index;
        }
        let tables = Tables::read(&mut self.sock, v6, links)?;
        Ok(Some(Known { links, tables }))
    }
}
