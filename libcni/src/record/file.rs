//! A file of lines that many processes append to and that never grows beyond a limit.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

/// How long others may keep the file locked. Each of them does so for some 20 us.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);
/// The bit of a file's mode that it loses when it is full.
const SEAL: u32 = 0o200;
/// How often the file may be renamed under our hands. Twice would be a surprise.
const TRIES: u32 = 16;

/// The file before this one.
pub(super) fn previous(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

/// Appends `lines` in one write, all of it or nothing. If the file would become larger than `limit` bytes, it becomes
/// the previous one and a new one begins.
///
/// Under `flock(2)`: without, two that find the file full at once would both rename, and the second would put a new
/// file in the full one's place; and as many as looked before writing would all exceed the limit.
///
/// # Errors
/// It cannot be opened or written, is no regular file (a symlink is not followed: the directory may be anybody's), or
/// stayed locked.
pub(super) fn append(path: &Path, lines: &[u8], limit: u64) -> io::Result<()> {
    survive_limits();
    let give_up = Instant::now() + PATIENCE;
    for _ in 0..TRIES {
        let mut file = open(path)?;
        lock(&file, give_up)?;
        let meta = file.metadata()?;
        // Another name of it would be somebody else's file.
        if !meta.is_file() || meta.nlink() > 1 {
            return Err(io::Error::other("is no regular file with one name"));
        }
        let is_full = meta.len() > 0 && meta.len() + lines.len() as u64 > limit;
        if is_full || meta.mode() & SEAL == 0 {
            put_aside(path, &file, &meta)?;
            continue;
        }
        let written = file.write(lines);
        if matches!(written, Ok(n) if n == lines.len()) {
            return Ok(());
        }
        // The disk is full: half a line would spoil the next one as well.
        let _ = file.set_len(meta.len());
        return Err(written.err().unwrap_or(ErrorKind::StorageFull.into()));
    }
    Err(io::Error::other("is renamed again and again"))
}

/// Of files that become too large for `ulimit -f` is told by an errno, not by the end of the process: the answer has
/// been given.
#[allow(unsafe_code)]
fn survive_limits() {
    // SAFETY: no handler, so nothing runs in a signal's context.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// Makes a full file, whose lock we hold, the previous one. Before its name it loses its owner's right to write, by
/// which those who opened it under the old name know it without a look at the name, which each line would cost.
fn put_aside(path: &Path, file: &File, meta: &Metadata) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o400))?;
    match fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (meta.dev(), meta.ino()) => {
            fs::rename(path, previous(path))
        }
        // Somebody else did it while we waited for the lock.
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // Opening a FIFO that nobody reads must not wait.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn lock(file: &File, give_up: Instant) -> io::Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                std::thread::sleep(PAUSE);
            }
            Err(e) => return Err(e.into()),
        }
    }
}
