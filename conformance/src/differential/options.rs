//! The command line of `conformance diff`.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Give two directories of plugins the same inputs; tell what differs, and which differences are known
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of the executables to judge.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Directory of those that are the measure.
    #[arg(long, value_name = "DIR")]
    against: PathBuf,
}

impl Options {
    /// Whether every difference is known.
    ///
    /// # Errors
    /// It could not be run.
    pub fn run(self) -> Result<bool> {
        bail!(
            "{} and {} wait for a body",
            self.bin_dir.display(),
            self.against.display()
        )
    }
}
