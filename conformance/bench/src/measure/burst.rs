//! A node that starts full: 110 pods (the kubelet's default limit) asked for at the same moment.

use std::process::Command;

use anyhow::{Context, Result};

use crate::args::Options;
use crate::ground::{Attachment, Features, Ground, Network, Who};
use crate::job::{Job, time_at_once};
use crate::measure::Turns;
use crate::pods::Pods;
use crate::report::Report;

pub const ADD_ALL: &str = "110 ADDs at once, ipMasq";

const PODS: usize = 110;

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    let mut lanes = Vec::new();
    for who in ground.present(&Who::ALL) {
        let network = ground.network(
            who,
            Features {
                ip_masq: true,
                ..Features::default()
            },
        )?;
        let pods = Pods::create(&format!("{}-", network.bridge), PODS)?;
        lanes.push((network, pods));
    }
    let mut turns = Turns::new();
    // The first round warms up and is not counted.
    for round in 0..=options.rounds(11, 3) {
        turns.shuffle(&mut lanes);
        for (network, pods) in &lanes {
            if network.who == Who::Reference && round % 2 == 0 && round > 0 {
                continue;
            }
            let attachments: Vec<Attachment<'_>> = pods
                .iter()
                .enumerate()
                .map(|(number, netns)| Attachment {
                    slot: number + 1,
                    netns,
                })
                .collect();
            let jobs: Vec<Job> = attachments
                .iter()
                .map(|attachment| network.add(*attachment))
                .collect();
            let time_ms = time_at_once(&jobs)?;
            if round > 0 {
                report.push(ADD_ALL, network.who, time_ms);
            }
            clear(network, &attachments)?;
        }
    }
    Ok(())
}

/// Not timed, so by the quickest way that still lets the plugins free their reservations.
pub(super) fn clear(network: &Network, attachments: &[Attachment<'_>]) -> Result<()> {
    network.unplug()?;
    if network.who == Who::Floor {
        return Ok(());
    }
    let jobs = attachments
        .iter()
        .map(|attachment| network.del(*attachment))
        .collect::<Result<Vec<_>>>()?;
    time_at_once(&jobs)?;
    if network.who == Who::Reference {
        // Its DEL learns from the pod's link which rules to delete, and the link is gone. They are the only iptables
        // rules in this namespace.
        for what in ["-F", "-X"] {
            Command::new("iptables")
                .args(["-t", "nat", what])
                .status()
                .context("start iptables")?;
        }
    }
    Ok(())
}
