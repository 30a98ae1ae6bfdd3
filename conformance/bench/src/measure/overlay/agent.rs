//! `overlayd` itself: what memory it takes.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use conformance::deployment::{Agent, Deployment, Plan};
use fabric::{Peers, lease};
use serde_json::Value;

use crate::ground::Who;
use crate::report::Report;

pub const PEAK_RSS_KIB: &str = "overlay: peak RSS of overlayd with 5,000 peers, KiB";

/// Until it has heard of all, and has written down what it knows.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// As far as it grows: each time it reads all of the kernel's tables, and sets anew what is missing.
const LOSSES: usize = 3;

/// On a node of its own, with the peers as files.
pub fn measure(bin_dir: &Path, scratch: &Path, peers: &Peers, report: &mut Report) -> Result<()> {
    let mut plan = Plan::new(bin_dir, &scratch.join("peers"));
    plan.conf =
        r#"{"Network":"10.0.0.0/8","SubnetMin":"10.200.0.0","Backend":{"Type":"vxlan"}}"#.into();
    plan.options.push("--healthz-port=0".into());
    let mut only = Deployment::new(plan, 1)?;
    let subnets = only.peers().join("subnets");
    for entry in fs::read_dir(&subnets)? {
        fs::remove_file(entry?.path())?;
    }
    for peer in peers.values() {
        let site = peer.v4.as_ref().context("a site")?;
        let name = site.subnet.to_string().replace('/', "-");
        fs::write(subnets.join(name), lease::value(peer))?;
    }
    let node = only.nodes.first_mut().context("a node")?;
    node.start()?;
    wait(node, peers.len())?;
    for _ in 0..LOSSES {
        node.sh("ip link set flannel.1 down")?;
        wait(node, peers.len())?;
    }
    let pid = node.pid().context("its process")?;
    report.at_most(PEAK_RSS_KIB, Who::Ours, peak_rss_kib(pid)?);
    Ok(())
}

/// Until the kernel has a route to each peer, and the agent has written down what it knows: then it has done all.
fn wait(node: &Agent, peers: usize) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while routes(node)? != peers || known(node) != Some(peers) {
        if Instant::now() > end {
            bail!(
                "overlayd has not heard of {peers} peers in {PATIENCE:?}\n{}",
                node.log()
            );
        }
        thread::sleep(LOOK_EVERY);
    }
    // What was written before is no sign that it is done.
    fs::remove_file(node.path("state/state.json"))?;
    Ok(())
}

fn routes(node: &Agent) -> Result<usize> {
    Ok(node
        .sh("ip -4 route show dev flannel.1 | wc -l")?
        .trim()
        .parse()?)
}

fn known(node: &Agent) -> Option<usize> {
    let state: Value =
        serde_json::from_slice(&fs::read(node.path("state/state.json")).ok()?).ok()?;
    state.get("peers")?.as_object().map(serde_json::Map::len)
}

fn peak_rss_kib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("its status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = peak
        .and_then(|peak| peak.split_whitespace().next())
        .context("its peak RSS")?;
    Ok(number.parse()?)
}
