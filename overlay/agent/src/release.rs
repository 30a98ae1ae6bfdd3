//! `overlayd release`: gives the node back to flanneld, or takes everything away.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, bail};
use fabric::converge::Fabric;
use fabric::{Status, status};

use crate::options::NodeOptions;
use crate::rules::Rules;
use crate::show::known;

/// Releases; says what was done.
///
/// # Errors
/// The agent runs, nothing is known, or the kernel refuses.
pub fn release(node: &NodeOptions, remove: bool) -> anyhow::Result<String> {
    if let Some(pid) = Status::read(&node.subnet_file)
        .map(|status| status.pid)
        .filter(|pid| is_overlayd(*pid))
    {
        bail!("overlayd runs (process {pid}) and would make everything anew: stop it first");
    }
    let known = known(&node.state_dir)?;
    let rules = Rules::of(node);
    let mut fabric = Fabric::open(known.own.clone())?;
    let done = if remove {
        rules
            .remove()
            .map_err(anyhow::Error::msg)
            .context("remove the rules")?;
        fabric
            .remove()
            .context("remove device, routes and next hops")?;
        forget(&node.subnet_file)?;
        "removed: device, routes, rules, subnet.env. Peers drop this node when its lease ends or is deleted".to_owned()
    } else {
        // flannel's rules stand before ours go: no packet meets neither.
        rules
            .give_back(&known)
            .map_err(anyhow::Error::msg)
            .context("make flannel's rules")?;
        let report = fabric.release().context("make flannel's routes")?;
        format!(
            "released: {} objects changed to flannel's form; flanneld can start",
            report.changed + report.added
        )
    };
    forget(&status::path(&node.subnet_file))?;
    Ok(done + "\n")
}

fn forget(file: &std::path::Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

fn is_overlayd(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == env!("CARGO_PKG_NAME")) && pid != std::process::id()
}
