//! What the records of docs/records.md add to an ADD.
//!
//! The promise is 2 % of an ADD, some 40 us, where single ADDs differ by several times that. What is added is taken in
//! processor time: the plugin's whole process from fork to exit and all that the kernel does in it, but not how long
//! others kept it from running. A record waits for nobody, so that is what a caller waits longer. What it is added to is
//! what a caller waits for, by the wall: an ADD is also what the kernel does for it elsewhere. All on one processor,
//! because a cold cache costs an ADD more than its record does.
//!
//! Each ADD that is recorded has a neighbour in time that is not: of the same network, with a pod more or less on the
//! bridge, which of them comes first being left to chance. What disturbs a machine lasts longer than two ADDs and cancels
//! in their difference; the mean of the middle half of the differences ignores the pairs that something came between.
//! Its standard error, by bootstrap, on a machine that was compiling at the same time: 0.3 % of an ADD with 900 pairs, so
//! some 0.12 % with 5,000. A quick run is too short to judge by.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::args::Options;
use crate::ground::{Attachment, Features, Ground, Who};
use crate::job::Job;
use crate::measure::burst::clear;
use crate::measure::{Turns, WARM_UP};
use crate::pods::Pods;
use crate::report::Report;

/// By the wall.
pub const ADD: &str = "ADD, ipMasq, beside recorded ones";
pub const ADD_OFF: &str = "CPU of ADD, ipMasq, not recorded";
/// On the real file system, as below /var/log.
pub const ADD_ON: &str = "CPU of ADD, ipMasq, recorded on disk";
/// On tmpfs, as below /run. Ten times the bytes: on a disk their pages cost as much as all the rest.
pub const ADD_SPANS: &str = "CPU of ADD, ipMasq, recorded in /run, with spans";

const ROWS: [&str; 3] = [ADD_OFF, ADD_ON, ADD_SPANS];
/// In one round: few enough for a bridge not to become slow, as many as make the clearing worth its time.
const PODS: usize = 17 * ROWS.len();
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    report.expect_rows(&[ADD]);
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
    let pinned = Pinned::here()?;
    for round in 0..WARM_UP + options.rounds(300, 18) {
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
                let (time_ms, cpu_ms) = job.cost()?;
                if round >= WARM_UP {
                    if row == ADD_OFF {
                        report.push(ADD, Who::Ours, time_ms);
                    }
                    report.push(row, Who::Ours, cpu_ms);
                }
            }
        }
        clear(&network, &attachments)?;
    }
    drop(pinned);
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

/// This process and its children to come on one processor, until dropped.
struct Pinned(CpuSet);

impl Pinned {
    fn here() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::this()).context("sched_getaffinity")?;
        let last = (0..CpuSet::count()).rev();
        let mut last = last.filter(|cpu| allowed.is_set(*cpu) == Ok(true));
        let mut one = CpuSet::new();
        one.set(last.next().context("no processor is allowed")?)?;
        sched_setaffinity(Pid::this(), &one).context("sched_setaffinity")?;
        Ok(Self(allowed))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::this(), &self.0);
    }
}
