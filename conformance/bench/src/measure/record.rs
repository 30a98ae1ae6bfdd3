//! What a record of every operation, with its spans, adds to an ADD.
//!
//! The promise is 2 %, some 60 us, where single ADDs differ by several times that. So each ADD that is recorded has a
//! neighbour in time that is not: of the same network, with one pod more or less on the bridge, which of the two comes
//! first being left to chance. What disturbs a machine lasts longer than two ADDs and cancels in their difference; the
//! median of the differences ignores the pairs that something came between. With 1,000 pairs it is repeatable to
//! 0.3 % of an ADD.

use std::fs;

use anyhow::{Result, bail};

use crate::args::Options;
use crate::ground::{Attachment, Features, Ground, Who};
use crate::measure::burst::clear;
use crate::measure::{Turns, WARM_UP};
use crate::pods::Pods;
use crate::report::Report;

pub const ADD_OFF: &str = "ADD, not recorded";
pub const ADD_ON: &str = "ADD, recorded, with spans";

/// In one round: few enough for a bridge not to become slow, as many as make the clearing worth its time.
const PAIRS: usize = 25;
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    report.expect_rows(&[ADD_OFF, ADD_ON]);
    if ground.program_dir(Who::Ours).is_none() {
        return Ok(());
    }
    let network = ground.network(Who::Ours, Features::default())?;
    let pods = Pods::create(&format!("{}-", network.bridge), 2 * PAIRS)?;
    let attachments: Vec<Attachment<'_>> = pods
        .iter()
        .enumerate()
        .map(|(number, netns)| Attachment {
            slot: number + 1,
            netns,
        })
        .collect();
    // On the real file system, as below /var/log.
    let file = ground.store_dir("records")?.join("operations");
    let mut turns = Turns::new();
    for round in 0..WARM_UP + options.rounds(40, 12) {
        for pair in attachments.chunks(2) {
            let mut order = [(ADD_OFF, false), (ADD_ON, true)];
            turns.shuffle(&mut order);
            for (attachment, (row, recorded)) in pair.iter().zip(order) {
                let mut job = network.add(*attachment);
                if recorded {
                    let file = file.display().to_string();
                    job.env.push(("PODWIRE_RECORD", file));
                    job.env.push(("TRACEPARENT", PARENT.to_owned()));
                }
                let time_ms = job.time()?;
                if round >= WARM_UP {
                    report.push(row, Who::Ours, time_ms);
                }
            }
        }
        clear(&network, &attachments)?;
    }
    if !fs::read_to_string(&file).is_ok_and(|lines| lines.contains("resourceSpans")) {
        bail!("nothing was recorded in {}", file.display());
    }
    Ok(())
}
