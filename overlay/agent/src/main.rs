//! `overlayd`: see docs/overlayd.md.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use overlayd::options::{Command, Options};
use overlayd::{path, release, run, show};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let options = Options::read();
    let outcome = match &options.command {
        None => agent(options),
        Some(Command::Show { json }) => show::show(&options.node, *json).map(said),
        Some(Command::Path { from, to }) => path::walk(&options.node, *from, *to).map(|way| {
            said(way.text);
            if way.whole {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }),
        Some(Command::Release { remove }) => release::release(&options.node, *remove).map(said),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "overlayd: {error:#}");
        ExitCode::from(2)
    })
}

fn agent(options: Options) -> anyhow::Result<ExitCode> {
    share_memory();
    let filter = EnvFilter::try_from_env("OVERLAYD_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false);
    log.with_ansi(io::stderr().is_terminal()).init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run::run(options))?;
    Ok(ExitCode::SUCCESS)
}

/// One heap for all threads. The kernel's side of the work is done by threads that come and go; with a heap of its own,
/// which each would get, what one has freed is no other's to use: 6 MiB of 30 at 5,000 peers.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn share_memory() {
    // SAFETY: it sets a number, before there is any other thread.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
}

#[cfg(not(target_env = "gnu"))]
fn share_memory() {}

fn said(text: String) -> ExitCode {
    // A reader that has seen enough (`overlayd show | head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
