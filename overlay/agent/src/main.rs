//! `overlayd`: see docs/overlayd.md.

use overlayd::options::{Command, Options};
use overlayd::run;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let options = Options::read();
    let filter = EnvFilter::try_from_env("OVERLAYD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match options.command {
        None => runtime.block_on(run::run(options)),
        Some(Command::Show { .. } | Command::Path { .. } | Command::Release { .. }) => Ok(()),
    }
}
