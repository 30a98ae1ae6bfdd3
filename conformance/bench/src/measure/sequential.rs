//! One pod at a time: ADD and DEL of bridge + host-local, with and without masquerade.

use anyhow::Result;

use crate::args::Options;
use crate::ground::{Attachment, Features, Ground, Network, Who};
use crate::measure::{Turns, WARM_UP};
use crate::pods::Pods;
use crate::report::Report;

pub const ADD: &str = "ADD";
pub const ADD_MASQ: &str = "ADD, ipMasq";
pub const DEL: &str = "DEL";
pub const DEL_MASQ: &str = "DEL, ipMasq";

/// A network and the pod that comes and goes on it.
struct Lane {
    network: Network,
    pod: Pods,
    add_row: &'static str,
    del_row: &'static str,
}

/// The reference takes part in every other round: its times are 10 times ours and its bounds are far from the line.
pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    report.expect_rows(&[ADD, ADD_MASQ, DEL, DEL_MASQ]);
    let mut lanes = Vec::new();
    for who in ground.present(&Who::ALL) {
        for (ip_masq, add_row, del_row) in [(false, ADD, DEL), (true, ADD_MASQ, DEL_MASQ)] {
            // The floor has no masquerade; it runs again so that each row's figures come from the same minutes.
            let network = ground.network(
                who,
                Features {
                    ip_masq,
                    ..Features::default()
                },
            )?;
            let pod = Pods::create(&format!("{}-", network.bridge), 1)?;
            lanes.push(Lane {
                network,
                pod,
                add_row,
                del_row,
            });
        }
    }
    let mut turns = Turns::new();
    for round in 0..WARM_UP + options.rounds(300, 50) {
        let counted = round >= WARM_UP;
        let mut active: Vec<&Lane> = lanes
            .iter()
            .filter(|lane| lane.network.who != Who::Reference || round % 2 == 0)
            .collect();
        turns.shuffle(&mut active);
        for lane in &active {
            let time_ms = lane.network.add(lane.attachment()?).time()?;
            if counted {
                report.push(lane.add_row, lane.network.who, time_ms);
            }
        }
        turns.shuffle(&mut active);
        for lane in &active {
            let time_ms = lane.network.del(lane.attachment()?)?.time()?;
            if counted {
                report.push(lane.del_row, lane.network.who, time_ms);
            }
        }
    }
    Ok(())
}

impl Lane {
    fn attachment(&self) -> Result<Attachment<'_>> {
        Ok(Attachment {
            slot: 1,
            netns: self.pod.path(0)?,
        })
    }
}
