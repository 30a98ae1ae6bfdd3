//! Small files that others read: whole or not there. They are written under a hidden name and then renamed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::linkat;

/// Whether a file has to be there after a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// It is on disk before it has its name. Costs what the disk costs.
    OnDisk,
    /// It need not: what it is about does not outlive the boot either, and a torn one reads as absent.
    UntilReboot,
}

/// A file's place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its name.
    pub path: &'a Path,
    /// Where it is until it is complete; of the same file system.
    pub draft_dir: &'a Path,
    /// Its permissions. Directories that are missing are made, searchable by those who may read the file.
    pub mode: u32,
    /// For how long.
    pub lasting: Lasting,
}

/// Puts `bytes` in the place of whatever has that name, with these permissions whatever the umask is.
///
/// ```
/// use libcni::file::{self, Lasting};
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("made/on/the/way");
/// file::replace(&path, b"whole", 0o644, Lasting::UntilReboot)?;
/// assert_eq!(std::fs::read(&path)?, b"whole");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// As the file system's; what was there before is there still, and nothing else.
pub fn replace(path: &Path, bytes: &[u8], mode: u32, lasting: Lasting) -> io::Result<()> {
    let place = Place {
        path,
        draft_dir: path.parent().unwrap_or(Path::new(".")),
        mode,
        lasting,
    };
    place.replace(bytes, |_| Ok(())).map(drop)
}

/// Makes a file that is not there yet. Whoever is killed on the way leaves nothing: until it is whole, it has no name at
/// all.
///
/// # Errors
/// `AlreadyExists`; the file system cannot (NFS): nothing was made, [`replace`] will do.
pub fn make(path: &Path, bytes: &[u8], mode: u32, lasting: Lasting) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let place = Place {
        path,
        draft_dir: dir,
        mode,
        lasting,
    };
    let mut file = place.in_dir(dir, || {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_TMPFILE);
        options.mode(mode).open(dir)
    })?;
    place.permit(&file)?;
    file.write_all(bytes)?;
    if lasting == Lasting::OnDisk {
        file.sync_all()?;
    }
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(
        AT_FDCWD,
        nameless.as_str(),
        AT_FDCWD,
        path,
        AtFlags::AT_SYMLINK_FOLLOW,
    )?;
    Ok(())
}

// === impl Place ===

impl Place<'_> {
    /// Puts a file there, in the place of whatever has its name. `ready` sees it before it has the name; the answer is
    /// the open file.
    ///
    /// # Errors
    /// As [`replace`]; or `ready`'s.
    pub fn replace(
        &self,
        bytes: &[u8],
        ready: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<File> {
        self.put(bytes, ready, |draft| fs::rename(draft, self.path))
    }

    /// As [`Place::replace`], but what is there already stays, and is an error (`AlreadyExists`).
    ///
    /// # Errors
    /// As there.
    pub fn create_new(
        &self,
        bytes: &[u8],
        ready: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<File> {
        self.put(bytes, ready, |draft| {
            fs::hard_link(draft, self.path)?;
            fs::remove_file(draft)
        })
    }

    fn put(
        &self,
        bytes: &[u8],
        ready: impl FnOnce(&File) -> io::Result<()>,
        name: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<File> {
        let draft = self.draft_dir.join(draft_name());
        let write = || {
            let mut file = self.in_dir(self.draft_dir, || self.create(&draft))?;
            file.write_all(bytes)?;
            if self.lasting == Lasting::OnDisk {
                file.sync_all()?;
            }
            ready(&file)?;
            let dir = self.path.parent().unwrap_or(Path::new("."));
            self.in_dir(dir, || name(&draft))?;
            Ok(file)
        };
        write().inspect_err(|_: &io::Error| {
            // Perhaps it was never made.
            let _ = fs::remove_file(&draft);
        })
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let file = options.mode(self.mode).open(path)?;
        self.permit(&file)?;
        Ok(file)
    }

    /// The umask may be in the way of others, never of oneself.
    fn permit(&self, file: &File) -> io::Result<()> {
        if self.mode & 0o077 == 0 {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(self.mode))
    }

    /// Tries again with the directory made, if that is what is missing.
    fn in_dir<T>(&self, dir: &Path, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match attempt() {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let mode = self.mode | (self.mode & 0o444) >> 2;
                DirBuilder::new().recursive(true).mode(mode).create(dir)?;
                attempt()
            }
            outcome => outcome,
        }
    }
}

/// A hidden name that no other writer has.
fn draft_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".new.{}.{next}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_file_is_made_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/name");
        make(&path, b"one", 0o600, Lasting::OnDisk).unwrap();
        let again = make(&path, b"two", 0o600, Lasting::UntilReboot).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            (fs::read(&path).unwrap(), mode(&path)),
            (b"one".to_vec(), 0o600)
        );
        assert_eq!(names(path.parent().unwrap()), ["name"]);
    }

    #[test]
    fn who_may_read_the_file_may_find_it() {
        let dir = tempfile::tempdir().unwrap();
        for (file, of_dir) in [(0o600, 0o700), (0o644, 0o755)] {
            let path = dir.path().join(format!("{file:o}/deep/name"));
            for lasting in [Lasting::OnDisk, Lasting::UntilReboot] {
                replace(&path, b"x", file, lasting).unwrap();
            }
            assert_eq!(mode(&path), file);
            assert_eq!(mode(path.parent().unwrap()), of_dir);
            assert_eq!(names(path.parent().unwrap()), ["name"]);
        }
    }

    #[test]
    fn what_fails_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name");
        let place = Place {
            path: &path,
            draft_dir: dir.path(),
            mode: 0o600,
            lasting: Lasting::UntilReboot,
        };
        place.create_new(b"first", |_| Ok(())).unwrap();
        let error = place.create_new(b"second", |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        place
            .replace(b"third", |_| Err(io::Error::other("no")))
            .unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["name"]);
    }
}
