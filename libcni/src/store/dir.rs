//! The network directory's files: reservations, cursors, the lock; each read and written whole.
//!
//! Nothing here is synced to disk. A reservation means something while its attachment lives, which ends with the
//! boot; after a power loss there is no attachment, and whatever the disk kept, complete, empty or torn, is
//! reclaimed (see [`super::rebuild`]). An fsync would cost ADD more than all its other work and buy nothing.
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fstat, futimens, mkdirat};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::StoreError;
use super::index::Stamp;
use super::owner::Owner;
use crate::spec::parse_ip;

const LOCK: &str = "lock";
const CURSOR: &str = "last_reserved_ip.";
/// Ours. The reference walks into it and reads what it finds, but acts only on files whose whole content is an
/// owner; so none of that may stay here.
const SIDE: &str = ".podwire";
/// In [`SIDE`], while the lock is held.
const NEW: &str = "new";
/// In [`SIDE`]: changes places with the cursor that is written next.
const SPARE: &str = "cursor";

/// An open network directory.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// A reservation file that has no name yet, so that it appears with its content or not at all, and vanishes by
/// itself if we are killed.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    /// See [`file_mark`].
    pub(super) mark: u64,
}

/// A file named like an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) holder: Holder,
    /// See [`file_mark`].
    pub(super) mark: u64,
}

/// Whose the address is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Who is written in the file.
    Owner(Owner),
    /// Nobody: the file is torn.
    Nobody,
    /// No regular file, or one we may not read. The address is not free, and the file none of our business.
    Unknown,
}

impl Dir {
    /// None if it does not exist.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match openat(AT_FDCWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self {
                fd,
                path: path.to_owned(),
            })),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(StoreError::io("open", path, e)),
        }
    }

    /// Makes it and what is above it if need be.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        if let Some(dir) = Self::open(path)? {
            return Ok(dir);
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder
            .create(path)
            .map_err(|e| StoreError::io("create", path, e))?;
        Self::open(path)?.ok_or_else(|| StoreError::io("open", path, Errno::ENOENT))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn path_of(&self, ip: IpAddr) -> PathBuf {
        self.path.join(ip.to_string())
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    /// The lock file, made if need be; mode as the reference's.
    pub(super) fn lock_file(&self) -> Result<File, StoreError> {
        let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o750);
        match openat(&self.fd, LOCK, flags, mode) {
            Ok(fd) => Ok(File::from(fd)),
            Err(e) => Err(StoreError::io("open", &self.lock_path(), e)),
        }
    }

    /// Opens `.podwire`; made if need be and `make` says so.
    pub(super) fn side(&self, make: bool) -> io::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let open = || openat(&self.fd, SIDE, flags, Mode::empty());
        match open() {
            Err(Errno::ENOENT) if make => {
                mkdirat(&self.fd, SIDE, Mode::from_bits_truncate(0o700))?;
                Ok(open()?)
            }
            other => Ok(other?),
        }
    }

    /// Whether only this machine can change the directory, and shows every change in its time: the file systems
    /// known to. On another (NFS, say) hosts may share it, and nothing may be kept about it.
    pub(super) fn is_local(&self) -> bool {
        const LOCAL: [FsType; 6] = [
            EXT4_SUPER_MAGIC, // and ext2, ext3
            XFS_SUPER_MAGIC,
            BTRFS_SUPER_MAGIC,
            TMPFS_MAGIC,
            OVERLAYFS_SUPER_MAGIC,
            F2FS_SUPER_MAGIC,
        ];
        fstatfs(&self.fd).is_ok_and(|fs| LOCAL.contains(&fs.filesystem_type()))
    }

    /// The directory's identity and time of last change.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        let stat = fstat(&self.fd)?;
        Ok(Stamp {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mtime_s: stat.st_mtime,
            mtime_ns: stat.st_mtime_nsec,
        })
    }

    /// Sets the time of last change to now, to the nanosecond, and returns what stuck. None if the file system
    /// keeps less than that.
    pub(super) fn restamp(&self) -> io::Result<Option<Stamp>> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = TimeSpec::from_duration(now);
        futimens(&self.fd, &TimeSpec::UTIME_OMIT, &now)?;
        let stamp = self.stamp()?;
        Ok((stamp.mtime_s == now.tv_sec() && stamp.mtime_ns == now.tv_nsec()).then_some(stamp))
    }

    /// What is reserved for `ip`; None if nothing is.
    pub(super) fn read(&self, ip: IpAddr) -> io::Result<Option<Found>> {
        self.read_name(&ip.to_string())
    }

    fn read_name(&self, name: &str) -> io::Result<Option<Found>> {
        const UNKNOWN: Found = Found {
            holder: Holder::Unknown,
            mark: 0,
        };
        // NONBLOCK: a FIFO of that name must not stop us.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP | Errno::ENXIO | Errno::EACCES | Errno::EPERM) => {
                return Ok(Some(UNKNOWN));
            }
            Err(e) => return Err(e.into()),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(Some(UNKNOWN));
        }
        // Longer than any owner but an absurd one; that is read on.
        let mut buffer = [0u8; 256];
        let n = file.read(&mut buffer)?;
        let read = buffer.get(..n).unwrap_or_default();
        let owner = if n < buffer.len() {
            Owner::read(read)
        } else {
            let mut all = read.to_vec();
            file.read_to_end(&mut all)?;
            Owner::read(&all)
        };
        Ok(Some(Found {
            holder: owner.map_or(Holder::Nobody, Holder::Owner),
            mark: file_mark(&meta),
        }))
    }

    /// Every file named like an address, torn ones too. A name that is not an address as we and the reference write it is
    /// not a reservation.
    pub(super) fn each(
        &self,
        mut f: impl FnMut(IpAddr, Found) -> io::Result<()>,
    ) -> io::Result<()> {
        for ip in self.addresses()? {
            let (name, ip) = ip?;
            if let Some(found) = self.read_name(&name)? {
                f(ip, found)?;
            }
        }
        Ok(())
    }

    /// How many files there are that are named like reservations.
    pub(super) fn count(&self) -> io::Result<u64> {
        self.addresses()?.try_fold(0, |n, ip| ip.map(|_| n + 1))
    }

    fn addresses(&self) -> io::Result<impl Iterator<Item = io::Result<(String, IpAddr)>>> {
        let names =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(
            names.filter_map(|name: io::Result<Option<String>>| match name {
                Ok(name) => name.and_then(|name| {
                    let ip = parse_ip(&name).filter(|ip| ip.to_string() == name)?;
                    Some(Ok((name, ip)))
                }),
                Err(e) => Some(Err(e)),
            }),
        )
    }

    /// Whether any address was ever given from here.
    pub(super) fn has_cursor(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.path)? {
            if entry?.file_name().to_string_lossy().starts_with(CURSOR) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a reservation without a name. None if the file system cannot (then see [`Dir::put_slowly`]).
    pub(super) fn draft(&self, owner: &Owner) -> Result<Option<Draft>, StoreError> {
        let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        let mut file = match openat(&self.fd, ".", flags, Mode::from_bits_truncate(0o600)) {
            Ok(fd) => File::from(fd),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => return Ok(None),
            Err(e) => return Err(StoreError::io("write a reservation in", &self.path, e)),
        };
        let written = file
            .write_all(owner.as_bytes())
            .and_then(|()| file.metadata());
        match written {
            Ok(meta) => Ok(Some(Draft {
                file,
                mark: file_mark(&meta),
            })),
            Err(e) => Err(StoreError::io("write a reservation in", &self.path, e)),
        }
    }

    /// Gives a draft its name. False if there is a file of that name already.
    pub(super) fn put(&self, draft: &Draft, ip: IpAddr) -> io::Result<bool> {
        match self.name(draft, &self.fd, &ip.to_string()) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn name(&self, draft: &Draft, dir: &OwnedFd, name: &str) -> nix::Result<()> {
        // By descriptor if we may (Linux 6.10, or CAP_DAC_READ_SEARCH), else as open(2) describes it.
        match linkat(&draft.file, "", dir, name, AtFlags::AT_EMPTY_PATH) {
            Err(Errno::ENOENT | Errno::EINVAL) => {
                let path = format!("/proc/self/fd/{}", draft.file.as_raw_fd());
                linkat(
                    AT_FDCWD,
                    path.as_str(),
                    dir,
                    name,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )
            }
            other => other,
        }
    }

    /// Puts a reservation in the place of a torn one.
    pub(super) fn replace(&self, draft: &Draft, side: &OwnedFd, ip: IpAddr) -> io::Result<()> {
        remove(side, NEW)?; // of somebody killed here
        self.name(draft, side, NEW)?;
        Ok(renameat(side, NEW, &self.fd, ip.to_string().as_str())?)
    }

    /// [`Dir::put`] for file systems without unnamed files: a temporary name, and a second link to it. Returns
    /// the file's mark, or None if the name is taken.
    pub(super) fn put_slowly(
        &self,
        owner: &Owner,
        side: &OwnedFd,
        ip: IpAddr,
    ) -> io::Result<Option<u64>> {
        let mark = write(side, owner.as_bytes())?;
        let linked = linkat(
            side,
            NEW,
            &self.fd,
            ip.to_string().as_str(),
            AtFlags::empty(),
        );
        remove(side, NEW)?;
        match linked {
            Ok(()) => Ok(Some(mark)),
            Err(Errno::EEXIST) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// [`Dir::replace`] for file systems without unnamed files.
    pub(super) fn replace_slowly(
        &self,
        owner: &Owner,
        side: &OwnedFd,
        ip: IpAddr,
    ) -> io::Result<u64> {
        let mark = write(side, owner.as_bytes())?;
        renameat(side, NEW, &self.fd, ip.to_string().as_str())?;
        Ok(mark)
    }

    /// Removes a reservation; one that is not there is as good as removed.
    pub(super) fn remove(&self, ip: IpAddr) -> io::Result<()> {
        remove(&self.fd, &ip.to_string())
    }

    /// The address last given from range set `set`. None if there is none or it cannot be read: then the lap
    /// starts anew, as in the reference.
    pub(super) fn cursor(&self, set: usize) -> Option<IpAddr> {
        let name = format!("{CURSOR}{set}");
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mut file = File::from(openat(&self.fd, name.as_str(), flags, Mode::empty()).ok()?);
        let mut buffer = [0u8; 64];
        let n = file.read(&mut buffer).ok()?;
        parse_ip(str::from_utf8(buffer.get(..n)?).ok()?)
    }

    /// Remembers the address last given, for the reference and for us.
    ///
    /// Two files change places instead of a new one taking the place of the old: ext4 starts to write out a
    /// file that replaces another (mount option `auto_da_alloc`), which takes ten times as long and is of no
    /// use here.
    pub(super) fn set_cursor(
        &self,
        side: Option<&OwnedFd>,
        set: usize,
        ip: IpAddr,
    ) -> Result<(), StoreError> {
        let name = format!("{CURSOR}{set}");
        let name = name.as_str();
        let text = ip.to_string();
        let done = match side {
            Some(side) => overwrite(side, SPARE, text.as_bytes()).and_then(|()| {
                match renameat2(side, SPARE, &self.fd, name, RenameFlags::RENAME_EXCHANGE) {
                    // The first time; or a file system that cannot exchange.
                    Err(Errno::ENOENT | Errno::EINVAL) => {
                        Ok(renameat(side, SPARE, &self.fd, name)?)
                    }
                    other => Ok(other?),
                }
            }),
            None => overwrite(&self.fd, name, text.as_bytes()),
        };
        done.map_err(|e| StoreError::io("write", &self.path.join(name), e))
    }
}

/// Writes a small file in place, made if need be.
fn overwrite(dir: &OwnedFd, name: &str, content: &[u8]) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = File::from(openat(dir, name, flags, Mode::from_bits_truncate(0o600))?);
    file.write_all_at(content, 0)?;
    let length = content.len() as u64;
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    Ok(())
}

/// Writes `.podwire/new`, whatever it held before.
fn write(side: &OwnedFd, content: &[u8]) -> io::Result<u64> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut file = File::from(openat(side, NEW, flags, Mode::from_bits_truncate(0o600))?);
    let written = file.write_all(content).and_then(|()| file.metadata());
    if written.is_err() {
        remove(side, NEW)?;
    }
    Ok(file_mark(&written?))
}

fn remove(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A number that differs between any two files that ever had the same name: inode number and time of last
/// write. (Not ctime: that changes when a file is linked or relabelled.)
fn file_mark(meta: &Metadata) -> u64 {
    let time = meta
        .mtime()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(meta.mtime_nsec());
    meta.ino().rotate_left(32) ^ time.cast_unsigned()
}
