//! Kill or fail a plugin at every system call; DEL and GC must then leave nothing.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Kill or fail a plugin at every system call; DEL and GC must then leave nothing
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of the executables to judge.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
}

impl Options {
    /// Whether all passed.
    ///
    /// # Errors
    /// It could not be run.
    pub fn run(self) -> Result<bool> {
        bail!("{} waits for its body", self.bin_dir.display())
    }
}
