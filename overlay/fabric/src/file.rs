//! Small files that others read: whole or not there, on disk before they have their name.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use libcni::file::{self, Lasting};

/// Puts `bytes` in the place of whatever has that name, with these permissions. Directories that are missing are made,
/// 0755.
///
/// # Errors
/// As the file system's; what was there before is there still.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    file::replace(path, bytes, mode, Lasting::OnDisk)
}
