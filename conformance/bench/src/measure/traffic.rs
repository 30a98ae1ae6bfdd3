//! A TCP connection between pods of two nodes, beside one between the nodes themselves: what the tunnel costs.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use conformance::deployment::{Deployment, Plan};
use conformance::fleet::{Fleet, Space};
use serde_json::Value;

use crate::args::Options;
use crate::ground::{Ground, Who};
use crate::report::Report;

/// The nodes' own is the floor's time.
pub const GIB: &str = "overlay: a GiB by TCP from pod to pod across nodes";
/// The floor is the same kind of pods and tunnel, made with `ip` and `bridge`, without masquerading and firewall rules.
pub const GIB_BY_HAND: &str = "overlay: the same beside a tunnel made by hand";
/// The same where the wire is what limits it, as it is between machines: headers are then all that a tunnel costs.
pub const GIB_WIRE: &str = "overlay: the same on a wire of 5 Gbit/s";

const GIB_BITS: f64 = 8.0 * 1024.0 * 1024.0 * 1024.0;
const HAND_HOST: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `iperf3 -s`, which ends with this value.
struct Server<'a> {
    space: &'a Space,
    ip: String,
    process: Child,
}

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    report.expect_rows(&[GIB, GIB_BY_HAND, GIB_WIRE]);
    let Some(bin_dir) = ground.overlay_dir() else {
        return Ok(());
    };
    let mut plan = Plan::new(bin_dir, &ground.scratch().join("traffic"));
    plan.options.push("--healthz-port=0".into());
    let mut all = Deployment::new(plan, 2)?;
    all.start()?;
    let [here, there] = all.nodes.as_slice() else {
        bail!("two nodes");
    };
    let (from, to) = (here.pod("from")?, there.pod("to")?);
    let node = Server::start(&there.node.space, there.node.address().to_string())?;
    let pod = Server::start(&to.space, to.ip.clone())?;
    let (ours, nodes) = ((&from.space, &pod), (&here.node.space, &node));
    {
        let fleet = Fleet::new(2)?;
        let [hand_from, hand_to] = by_hand(&fleet)?;
        let server = Server::start(&hand_to, hand_ip(&fleet)?)?;
        let contenders = [
            (&[(GIB, Who::Ours), (GIB_BY_HAND, Who::Ours)][..], ours),
            (&[(GIB, Who::Floor)][..], nodes),
            (&[(GIB_BY_HAND, Who::Floor)][..], (&hand_from, &server)),
        ];
        rounds(contenders, options.rounds(15, 3), report)?;
    }
    for node in &all.nodes {
        node.sh("tc qdisc add dev eth0 root tbf rate 5gbit burst 2mb latency 5ms")?;
    }
    let contenders = [
        (&[(GIB_WIRE, Who::Ours)][..], ours),
        (&[(GIB_WIRE, Who::Floor)][..], nodes),
    ];
    rounds(contenders, options.rounds(5, 2), report)?;
    drop((node, pod));
    here.remove(from)?;
    there.remove(to)
}

/// A pod on each of two nodes.
fn by_hand(fleet: &Fleet) -> Result<[Space; 2]> {
    let [here, there] = fleet.nodes.as_slice() else {
        bail!("two nodes");
    };
    here.vxlan_by_hand(&fleet.nodes)?;
    there.vxlan_by_hand(&fleet.nodes)?;
    Ok([here.pod_by_hand(HAND_HOST)?, there.pod_by_hand(HAND_HOST)?])
}

fn hand_ip(fleet: &Fleet) -> Result<String> {
    let there = fleet.nodes.last().context("a node")?;
    Ok(there.pods(HAND_HOST).to_string())
}

/// The rows that a time goes into, and who is measured there.
type Rows<'a> = &'a [(&'static str, Who)];

fn rounds<const N: usize>(
    contenders: [(Rows<'_>, (&Space, &Server<'_>)); N],
    count: usize,
    report: &mut Report,
) -> Result<()> {
    for round in 0..=count {
        let mut turns = contenders;
        if round % 2 == 1 {
            turns.reverse();
        }
        for (rows, (space, server)) in turns {
            let time_ms = server.gib_ms(space)?;
            // The first warms up.
            if round > 0 {
                for (row, who) in rows {
                    report.push(row, *who, time_ms);
                }
            }
        }
    }
    Ok(())
}

// === impl Server ===

impl<'a> Server<'a> {
    fn start(space: &'a Space, ip: String) -> Result<Self> {
        let mut command = first(space);
        command.args(["-s", "-B", &ip]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().context("start iperf3 (Debian: iperf3)")?;
        let server = Self { space, ip, process };
        let end = Instant::now() + PATIENCE;
        while server.space.sh("ss -Hltn sport = :5201")?.is_empty() {
            ensure!(
                Instant::now() < end,
                "iperf3 does not listen on {}",
                server.ip
            );
            thread::sleep(LOOK_EVERY);
        }
        Ok(server)
    }

    /// How long a GiB takes from there, by a second's traffic.
    fn gib_ms(&self, from: &Space) -> Result<f64> {
        let mut client = first(from);
        let output = client
            .args(["-c", &self.ip, "-t", "1", "-J"])
            .output()
            .context("run iperf3")?;
        let said: Value = serde_json::from_slice(&output.stdout).context("what iperf3 says")?;
        let rate = said
            .pointer("/end/sum_received/bits_per_second")
            .and_then(Value::as_f64);
        match rate {
            Some(rate) if rate > 0.0 => Ok(GIB_BITS / rate * 1e3),
            _ => bail!(
                "iperf3 to {}: {}",
                self.ip,
                said.get("error").unwrap_or(&said)
            ),
        }
    }
}

/// iperf3, ahead of whatever else runs here, if that is permitted.
fn first(space: &Space) -> Command {
    let mut command = space.command("nice");
    command.args(["-n", "-20", "iperf3"]);
    command
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
