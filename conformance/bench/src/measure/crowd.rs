//! Whether ADD gets slower as the bridge fills: the first 50 pods against the last 50 of 1,000.
//!
//! A bridge has at most 1,024 ports, and what one more costs grows in the kernel itself (a new port's first frames are
//! flooded to all others), so it is the floor's growth that ours is compared with. The reference is left out: it would
//! take most of a minute to show that it reads every reservation.
//!
//! A new pod says on the bridge that it has IPv6 (group reports, three router solicitations 4 s apart), to all others. A
//! node does not get 1,000 pods in seconds, so the last 50 are measured after that noise has died down.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::args::Options;
use crate::ground::{Attachment, Features, Ground, Network, Who};
use crate::measure::Turns;
use crate::pods::Pods;
use crate::report::Report;

pub const FIRST: &str = "ADD, pods 1 to 50";
pub const LAST: &str = "ADD, pods 951 to 1,000";

const PODS: usize = 1000;
const WINDOW: usize = 50;
/// Between two ADDs that count: else the one pays for the frames that the other's pod floods to all.
const PACE: Duration = Duration::from_millis(50);
const QUICK_PACE: Duration = Duration::from_millis(20);

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    let mut lanes = Vec::new();
    for who in ground.present(&[Who::Ours, Who::Floor]) {
        let network = ground.network(who, Features::default())?;
        let pods = Pods::create(&format!("{}-", network.bridge), PODS)?;
        lanes.push((network, pods));
    }
    let pace = if options.quick { QUICK_PACE } else { PACE };
    let mut turns = Turns::new();
    for number in 0..PODS {
        let measured = !(WINDOW..PODS - WINDOW).contains(&number);
        if number == PODS - WINDOW {
            std::thread::sleep(Duration::from_secs(if options.quick { 3 } else { 15 }));
        }
        turns.shuffle(&mut lanes);
        for (network, pods) in &lanes {
            if measured {
                std::thread::sleep(pace);
            }
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
    take_down(lanes)
}

/// Waits until the kernel has taken the pods' namespaces down, which it does in the background, for many seconds and
/// holding RTNL: a next run would suffer.
fn take_down(lanes: Vec<(Network, Pods)>) -> Result<()> {
    let (networks, pods): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
    drop(pods);
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        if networks
            .iter()
            .map(Network::has_guests)
            .collect::<Result<Vec<_>>>()?
            .contains(&true)
        {
            std::thread::sleep(Duration::from_millis(200));
        } else {
            break;
        }
    }
    Ok(())
}
