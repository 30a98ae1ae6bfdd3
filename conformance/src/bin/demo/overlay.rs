//! The second part: three nodes with `overlayd`, two pods each.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conformance::deployment::{Agent, Deployment, Plan, Pod};

use super::say;

/// Where the nodes' files are, in a mount namespace of the demo's own.
const DIR: &str = "/run/overlay";
const HEALED_WITHIN: Duration = Duration::from_secs(5);
/// Tells the process that it is in the namespaces it needs.
pub const INSIDE: &str = "--overlay-inside";

/// Runs the demo again for its second part, where neither mounts nor links are the machine's.
///
/// # Errors
/// It failed; it has said why.
pub fn run(plugins: &Path) -> Result<()> {
    let script = "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib; exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--", "sh", "-euc", script, "sh"])
        .arg(std::env::current_exe().context("the demo's own name")?)
        .arg(INSIDE)
        .arg(plugins.canonicalize()?)
        .status()
        .context("run unshare")?;
    ensure!(status.success(), "the overlay's part failed");
    Ok(())
}

/// The part itself.
///
/// # Errors
/// Somebody was not reached, or something was left.
pub fn demo(plugins: &Path) -> Result<()> {
    let mut all = Deployment::new(Plan::new(plugins, Path::new(DIR)), 3)?;
    say("three nodes on one underlay, each with overlayd; they hear of each other by files");
    let begun = Instant::now();
    all.start()?;
    say(&format!(
        "all ready, and in each other's tables: {} ms",
        begun.elapsed().as_millis()
    ));

    let mut pods = Vec::new();
    for node in &all.nodes {
        for at in ["a", "b"] {
            pods.push(node.pod(&format!("{}-{at}", node.name()))?);
        }
    }
    mesh(&pods)?;
    let [first, .., last] = &pods[..] else {
        return Ok(());
    };
    let [here, _, there] = &mut all.nodes[..] else {
        return Ok(());
    };
    println!("\n$ overlayd show\n{}", told(here.overlayd().arg("show"))?);
    println!(
        "$ overlayd path {} {}\n{}",
        first.ip,
        last.ip,
        told(here.overlayd().args(["path", &first.ip, &last.ip]))?
    );

    there.kill();
    there.sh("ip link del flannel.1")?;
    say(&format!(
        "{}: its agent killed, its device deleted",
        there.name()
    ));
    println!(
        "\n$ overlayd path {} {}\n{}",
        last.ip,
        first.ip,
        told(there.overlayd().args(["path", &last.ip, &first.ip]))?
    );
    let begun = Instant::now();
    there.start()?;
    there.wait(HEALED_WITHIN, "healed", |node| {
        node.ready() && node.shown_ok() == Some(2)
    })?;
    say(&format!(
        "{}: its agent started again, all in place: {} ms",
        there.name(),
        begun.elapsed().as_millis()
    ));
    mesh(&pods)?;

    let of_node = pods.len() / all.nodes.len();
    let mut pods = pods.into_iter();
    for node in &mut all.nodes {
        for pod in pods.by_ref().take(of_node) {
            node.remove(pod)?;
        }
        node.kill();
        told(node.overlayd().args(["release", "--remove"]))?;
    }
    for node in &all.nodes {
        let left = left(node)?;
        ensure!(
            left.is_empty(),
            "left on {}: {}",
            node.name(),
            left.join(", ")
        );
    }
    say("pods removed, nodes released: no device, route, neighbour, rule or reservation is left");
    Ok(())
}

fn mesh(pods: &[Pod]) -> Result<()> {
    let begun = Instant::now();
    let mut pairs = 0;
    for from in pods {
        for to in pods.iter().filter(|to| to.ip != from.ip) {
            ensure!(
                from.pings(&to.ip, 2),
                "{} does not reach {}",
                from.ip,
                to.ip
            );
            pairs += 1;
        }
    }
    say(&format!(
        "{pairs} pairs of pods pinged twice, all answered, in {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// What a command printed, whatever it answered.
fn told(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    let (said, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(!said.is_empty(), "{command:?}: {error}");
    Ok(said.into_owned())
}

/// What of the overlay and of pods a node still has. The bridge stays, as any bridge plugin leaves it.
fn left(node: &Agent) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (what, script) in [
        ("link", "ip -br link | grep -E '^(flannel|veth)' || true"),
        ("route", "ip route | grep flannel || true"),
        ("next hop", "ip nexthop || true"),
        ("rule", "nft list ruleset | grep overlay || true"),
    ] {
        left.extend(
            node.sh(script)?
                .lines()
                .map(|line| format!("{what} {line}")),
        );
    }
    for found in std::fs::read_dir(node.path("networks/cbr0"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = found.file_name().to_string_lossy().into_owned();
        if name.parse::<std::net::IpAddr>().is_ok() {
            left.push(format!("reservation {name}"));
        }
    }
    Ok(left)
}
