//! What the records of docs/records.md add to an ADD.
//!
//! The promise is 2 %, some 40 us, where single ADDs differ by several times that. So each ADD that is recorded has a
//! neighbour in time that is not: of the same network, with a pod more or less on the bridge, which of them comes first
//! being left to chance. What disturbs a machine lasts longer than two ADDs and cancels in their difference; the median
//! of the differences ignores the pairs that something came between. Its standard error is 0.6 % of an ADD with 1,000
//! pairs and 0.35 % with 3,000 (by bootstrap): a quick run is too short to judge by.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::args::Options;
use crate::ground::{Attachment, Features, Ground, Who};
use crate::job::Job;
use crate::measure::burst::clear;
use crate::measure::{Turns, WARM_UP};
use crate::pods::Pods;
use crate::report::Report;

pub const ADD_OFF: &str = "ADD, ipMasq, not recorded";
/// On the real file system, as below /var/log.
pub const ADD_ON: &str = "ADD, ipMasq, recorded on disk";
/// On tmpfs, as below /run. Ten times the bytes: on a disk their pages cost as much as all the rest.
pub const ADD_SPANS: &str = "ADD, ipMasq, recorded in /run, with spans";

const ROWS: [&str; 3] = [ADD_OFF, ADD_ON, ADD_SPANS];
/// In one round: few enough for a bridge not to become slow, as many as make the clearing worth its time.
const PODS: usize = 17 * ROWS.len();
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    report.expect_rows(&ROWS);
    if ground.program_dir(Who::Ours).is_none() {
        return Ok(());
    }
    let network = ground.network(
        Who::Ours,
        Features {
            ip_masq: true,
            ..Features::default()
        },
    )?;
    let pods = Pods::create(&format!("{}-", network.bridge), PODS)?;
    let attachments: Vec<Attachment<'_>> = pods
        .iter()
        .enumerate()
        .map(|(number, netns)| Attachment {
            slot: number + 1,
            netns,
        })
        .collect();
    let on_disk = ground.store_dir("records")?.join("operations");
    let in_run = ground.scratch().join("operations");
    let mut turns = Turns::new();
    for round in 0..WARM_UP + options.rounds(180, 18) {
        for neighbours in attachments.chunks(ROWS.len()) {
            let mut order = ROWS;
            turns.shuffle(&mut order);
            for (attachment, row) in neighbours.iter().zip(order) {
                let mut job = network.add(*attachment);
                match row {
                    ADD_ON => record(&mut job, &on_disk),
                    ADD_SPANS => {
                        record(&mut job, &in_run);
                        job.env.push(("TRACEPARENT", PARENT.to_owned()));
                    }
                    _ => {}
                }
                let time_ms = job.time()?;
                if round >= WARM_UP {
                    report.push(row, Who::Ours, time_ms);
                }
            }
        }
        clear(&network, &attachments)?;
    }
    // A plugin that knows no records would be the fastest.
    for (file, wanted) in [(&on_disk, "\"verb\":\"ADD\""), (&in_run, "resourceSpans")] {
        if !fs::read_to_string(file).is_ok_and(|lines| lines.contains(wanted)) {
            bail!("nothing was recorded in {}", file.display());
        }
    }
    Ok(())
}

fn record(job: &mut Job, file: &Path) {
    job.env.push(("PODWIRE_RECORD", file.display().to_string()));
}
