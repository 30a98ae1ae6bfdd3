//! Whether ADD gets slower as the bridge fills: the first 50 pods against the last 50 of 1,000.
//!
//! A bridge has at most 1,024 ports, and what one more costs grows in the kernel itself (a new port's first frames are
//! flooded to all others), so it is the floor's growth that ours is compared with. The reference is left out: it would
//! take most of a minute to show that it reads every reservation.
//!
//! A new pod says on the bridge that it has IPv6 (group reports, three router solicitations 4 s apart), to all others. A
//! node does not get 1,000 pods in seconds, so each round of the 50 begins after that noise has died down.

use std::ops::Range;
use std::thread::sleep;
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
/// How often each window's pods come; in between they go again. One time of 50 ADDs scatters by a fifth.
const ROUNDS: usize = 4;
/// Between two ADDs that count: else the one pays for the frames that the other's pod floods to all.
const PACE: Duration = Duration::from_millis(50);
const QUICK_PACE: Duration = Duration::from_millis(20);
/// Until new pods have said what they have to say.
const REST: Duration = Duration::from_secs(15);
const QUICK_REST: Duration = Duration::from_secs(3);

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    let mut lanes = Vec::new();
    for who in ground.present(&[Who::Ours, Who::Floor]) {
        let network = ground.network(who, Features::default())?;
        let pods = Pods::create(&format!("{}-", network.bridge), PODS)?;
        lanes.push(Lane { network, pods });
    }
    let mut crowd = Crowd {
        lanes,
        turns: Turns::new(),
        rounds: options.rounds(ROUNDS, 1),
        pace: if options.quick { QUICK_PACE } else { PACE },
        rest: if options.quick { QUICK_REST } else { REST },
    };
    crowd.come_and_go(FIRST, 0..WINDOW, report)?;
    for number in WINDOW..PODS - WINDOW {
        for lane in &crowd.lanes {
            lane.network.add(lane.attachment(number)?).time()?;
        }
    }
    crowd.come_and_go(LAST, PODS - WINDOW..PODS, report)?;
    take_down(crowd.lanes)
}

struct Crowd {
    lanes: Vec<Lane>,
    turns: Turns,
    rounds: usize,
    pace: Duration,
    rest: Duration,
}

/// A network and its pods.
struct Lane {
    network: Network,
    pods: Pods,
}

impl Lane {
    fn attachment(&self, number: usize) -> Result<Attachment<'_>> {
        Ok(Attachment {
            slot: number + 1,
            netns: self.pods.path(number)?,
        })
    }
}

impl Crowd {
    /// Times the ADDs of these pods, which are there at the end.
    fn come_and_go(
        &mut self,
        row: &'static str,
        pods: Range<usize>,
        report: &mut Report,
    ) -> Result<()> {
        for round in 1..=self.rounds {
            sleep(self.rest);
            for number in pods.clone() {
                self.turns.shuffle(&mut self.lanes);
                for lane in &self.lanes {
                    sleep(self.pace);
                    let time_ms = lane.network.add(lane.attachment(number)?).time()?;
                    report.push(row, lane.network.who, time_ms);
                }
            }
            if round < self.rounds {
                for number in pods.clone() {
                    for lane in &self.lanes {
                        lane.network.del(lane.attachment(number)?)?.time()?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Waits until the kernel has taken the pods' namespaces down, which it does in the background, for many seconds and
/// holding RTNL: a next run would suffer.
fn take_down(lanes: Vec<Lane>) -> Result<()> {
    let (networks, pods): (Vec<_>, Vec<_>) = lanes
        .into_iter()
        .map(|lane| (lane.network, lane.pods))
        .unzip();
    drop(pods);
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        if networks
            .iter()
            .map(Network::has_guests)
            .collect::<Result<Vec<_>>>()?
            .contains(&true)
        {
            sleep(Duration::from_millis(200));
        } else {
            break;
        }
    }
    Ok(())
}
