//! `overlayd show`: the peers, whether the kernel has what they need, and how old the directory's word is.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use fabric::Status;
use serde_json::{Value, json};

use crate::cache::{self, Known};
use crate::options::NodeOptions;
use crate::survey::Survey;

/// One line of the table.
#[derive(Debug)]
struct Line {
    peer: String,
    subnets: String,
    public_ips: String,
    macs: String,
    /// What is wrong; nothing is "ok".
    state: Option<String>,
}

/// What the agent knew last, as the commands need it.
///
/// # Errors
/// There is nothing: what to do.
pub fn known(state_dir: &Path) -> anyhow::Result<Known> {
    Known::read(state_dir).with_context(|| {
        format!(
            "nothing is known of a network: {} is not there or torn. overlayd writes it seconds after it is ready; \
             give --state-dir as it has it",
            cache::path(state_dir).display()
        )
    })
}

/// Prints.
///
/// # Errors
/// Nothing is known, or the kernel does not tell.
pub fn show(node: &NodeOptions, as_json: bool) -> anyhow::Result<String> {
    let known = known(&node.state_dir)?;
    let status = Status::read(&node.subnet_file);
    let lines = lines(&known)?;
    Ok(if as_json {
        json(&known, status.as_ref(), &lines)
    } else {
        table(&known, status.as_ref(), &lines)
    })
}

fn lines(known: &Known) -> anyhow::Result<Vec<Line>> {
    let mut survey = Survey::of(&known.own).context("read the kernel's tables")?;
    let mut lines = Vec::new();
    for (key, peer) in &known.peers {
        let each = |of: &dyn Fn(&fabric::Site) -> String| {
            let sites: Vec<String> = [&peer.v4, &peer.v6].into_iter().flatten().map(of).collect();
            sites.join(" ")
        };
        let mut state = known.refused.get(key).map(|why| format!("refused: {why}"));
        for v6 in [false, true] {
            if state.is_none() && known.own.side(v6).is_some() {
                let steps = survey
                    .steps_to(peer, v6)
                    .with_context(|| format!("look for peer {key}"))?;
                state = steps
                    .into_iter()
                    .find_map(|step| step.fault.map(|fault| format!("{}: {fault}", step.what)));
            }
        }
        lines.push(Line {
            peer: peer.name.clone(),
            subnets: each(&|site| site.subnet.to_string()),
            public_ips: each(&|site| site.public_ip.to_string()),
            macs: each(&|site| {
                site.vtep
                    .map_or_else(|| "-".into(), |vtep| vtep.mac.to_string())
            }),
            state,
        });
    }
    let skipped = known.skipped.iter().map(|(key, why)| Line {
        peer: key.clone(),
        subnets: "-".into(),
        public_ips: "-".into(),
        macs: "-".into(),
        state: Some(format!("unreadable: {why}")),
    });
    lines.extend(skipped);
    Ok(lines)
}

fn table(known: &Known, status: Option<&Status>, lines: &[Line]) -> String {
    let own = &known.own;
    let mut text = String::new();
    let subnets: Vec<String> = [own.v4, own.v6]
        .iter()
        .flatten()
        .map(|side| format!("{} at {}", side.subnet, side.local))
        .collect();
    let devices: Vec<String> = [own.device(false), own.device(true)]
        .into_iter()
        .flatten()
        .collect();
    let tunnel = if devices.is_empty() {
        "plain routes".to_owned()
    } else {
        devices.join(" ")
    };
    let ready = match status {
        Some(status) if status.ready => format!("ready since {}", status.converged),
        Some(status) => format!("NOT READY: {}", status.reason),
        None => "unknown: no agent has told".to_owned(),
    };
    let away = known
        .away
        .as_ref()
        .map_or_else(String::new, |why| format!("; AWAY: {why}"));
    // A String takes whatever is written.
    let _ = writeln!(
        text,
        "this node   {} by {}, {tunnel}, pods' MTU {}",
        subnets.join(", "),
        own.parent.name,
        own.pod_mtu()
    );
    let _ = writeln!(text, "state       {ready}");
    let _ = writeln!(text, "directory   as of {}{away}", known.written);
    let _ = writeln!(text);
    let mut rows = vec![["PEER", "SUBNET", "ADDRESS", "VTEP", "STATE"].map(str::to_owned)];
    rows.extend(lines.iter().map(|line| {
        let state = line.state.clone().unwrap_or_else(|| "ok".into());
        [
            line.peer.clone(),
            line.subnets.clone(),
            line.public_ips.clone(),
            line.macs.clone(),
            state,
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..5)
        .map(|column| width(column).unwrap_or_default())
        .collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    let wrong = lines.iter().filter(|line| line.state.is_some()).count();
    let _ = writeln!(
        text,
        "\n{} peers, {wrong} not as they should be",
        lines.len()
    );
    text
}

fn json(known: &Known, status: Option<&Status>, lines: &[Line]) -> String {
    let peers: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "peer": line.peer, "subnets": line.subnets, "addresses": line.public_ips, "vteps": line.macs,
                "ok": line.state.is_none(), "state": line.state,
            })
        })
        .collect();
    let side = |side: &fabric::own::OwnSide| json!({"network": side.network.to_string(), "subnet": side.subnet.to_string(), "local": side.local.to_string()});
    let own = &known.own;
    let devices: Vec<String> = [own.device(false), own.device(true)]
        .into_iter()
        .flatten()
        .collect();
    let node = json!({
        "interface": own.parent.name, "mtu": own.pod_mtu(),
        "devices": devices,
        "v4": own.v4.as_ref().map(side), "v6": own.v6.as_ref().map(side),
        "ready": status.map(|status| status.ready), "reason": status.map(|status| status.reason.clone()),
    });
    format!(
        "{:#}\n",
        json!({"node": node, "as_of": known.written, "away": known.away, "peers": peers})
    )
}
