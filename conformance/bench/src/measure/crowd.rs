//! Whether ADD gets slower as the bridge fills: the first 50 pods against the last 50 of 1,000.
//!
//! A bridge has at most 1,024 ports, and what one more costs grows in the kernel itself (a new port's first frames are
//! flooded to all others), so it is the floor's growth that ours is compared with. The reference is left out: it would
//! take most of a minute to show that it reads every reservation.

use anyhow::Result;

use crate::args::Options;
use crate::ground::{Attachment, Features, Ground, Who};
use crate::measure::Turns;
use crate::pods::Pods;
use crate::report::Report;

pub const FIRST: &str = "ADD, pods 1 to 50";
pub const LAST: &str = "ADD, pods 951 to 1,000";

const PODS: usize = 1000;
const WINDOW: usize = 50;

/// The pods, to be kept until the end of the run: see [`Pods`].
pub fn measure(ground: &Ground, _: &Options, report: &mut Report) -> Result<Vec<Pods>> {
    let mut lanes = Vec::new();
    for who in ground.present(&[Who::Ours, Who::Floor]) {
        let network = ground.network(who, Features::default())?;
        let pods = Pods::create(&format!("{}-", network.bridge), PODS)?;
        lanes.push((network, pods));
    }
    let mut turns = Turns::new();
    for number in 0..PODS {
        turns.shuffle(&mut lanes);
        for (network, pods) in &lanes {
            let time_ms = network
                .add(Attachment {
                    slot: number + 1,
                    netns: pods.path(number)?,
                })
                .time()?;
            if number < WINDOW {
                report.push(FIRST, network.who, time_ms);
            } else if number >= PODS - WINDOW {
                report.push(LAST, network.who, time_ms);
            }
        }
    }
    Ok(lanes.into_iter().map(|(_, pods)| pods).collect())
}
