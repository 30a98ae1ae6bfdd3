//! Many pods at once: latencies, failures, residue.
//!
//! Each directory has a node of its own with all pods' namespaces, made before. A round is an ADD for each pod and then a
//! DEL for each, so many at a time. With a second directory the rounds take turns, and which is first changes with each:
//! what the machine does beside falls on both. One pod comes and goes twice before the first round; what that leaves on the node
//! (a bridge, a cursor) is the network's, and not counted as left over by the pods.

mod network;
mod round;
mod side;
mod told;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::format::Format;

use side::Side;
use told::Told;

pub use network::Network;

/// Each has a namespace, and a descriptor of it.
const MOST_PODS: usize = 4000;
/// More only wait for the kernel's one lock.
const MOST_AT_ONCE: usize = 512;

/// Many pods at once: latencies, failures, residue
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Directory of the executables to judge.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// A second directory, for comparison; it is not judged.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// The plugin: bridge, ptp, loopback, host-local, overlay, flannel, or any other with --config.
    #[arg(long, value_name = "NAME", default_value = "bridge")]
    plugin: String,
    /// How many pods there are at the same time.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pods: usize,
    /// How many calls run at the same time.
    #[arg(long, value_name = "P", default_value_t = 8)]
    parallel: usize,
    /// How often all pods come and go.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Hide the pods' addresses behind the node's.
    #[arg(long)]
    ip_masq: bool,
    /// The version of the specification.
    #[arg(long, value_name = "VERSION", default_value = "1.0.0")]
    spec: String,
    /// A network configuration instead of the plugin's usual one. Its subnet needs an address for each pod.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Options {
    /// Whether the judged directory's plugin never failed, gave no address twice and left nothing.
    ///
    /// # Errors
    /// It could not be run.
    #[expect(clippy::print_stdout, reason = "it talks to people")]
    pub fn run(self) -> Result<bool> {
        ensure!(
            (1..=MOST_PODS).contains(&self.pods),
            "--pods is a number from 1 to {MOST_PODS}"
        );
        ensure!(
            (1..=MOST_AT_ONCE).contains(&self.parallel),
            "--parallel is a number from 1 to {MOST_AT_ONCE}"
        );
        ensure!(self.rounds > 0, "--rounds is at least 1");
        raise_descriptors()?;
        let network = Network::of(&self)?;
        let dirs = [Some(&self.bin_dir), self.against.as_ref()];
        let mut sides = Vec::new();
        for dir in dirs.into_iter().flatten() {
            let side = Side::start(dir, &network, self.pods, self.parallel);
            sides.push(side.with_context(|| dir.display().to_string())?);
        }
        for round in 0..self.rounds {
            let mut order: Vec<usize> = (0..sides.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                if let Some(side) = sides.get_mut(at) {
                    side.round()?;
                }
            }
        }
        let sides: Result<Vec<_>> = sides.into_iter().map(Side::end).collect();
        let told = Told::of(&self, sides?);
        match self.format {
            Format::Table => print!("{told}"),
            Format::Json => println!("{:#}", told.to_json()),
        }
        Ok(told.is_well())
    }
}

/// As many as the machine lets us have: two for each pod, where there are two directories.
fn raise_descriptors() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 20), hard)?;
    }
    Ok(())
}
