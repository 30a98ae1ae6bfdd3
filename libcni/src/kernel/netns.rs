//! Network namespaces by path: opening, recognising, entering.
//!
//! A netlink socket belongs to the namespace it was opened in, so a visit is short: enter, open a
//! [`crate::nl::Socket`], return. Source: namespaces(7), setns(2), `include/uapi/linux/magic.h`.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, statfs};
use thiserror::Error;

use crate::nl::{ROUTE, Socket};
use crate::spec::error::{CniError, Code};

/// `_IO(0xb7, 0x3)`, `include/uapi/linux/nsfs.h`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// `include/uapi/linux/sockios.h`
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// A network namespace somebody else keeps (a container runtime's `CNI_NETNS`), held open, and the way
/// back from it.
#[derive(Debug)]
pub struct Netns {
    there: File,
    /// The namespace of the thread that opened this.
    here: Arc<File>,
    /// By which that was found.
    probe: Mutex<Option<Socket>>,
    path: PathBuf,
}

/// Why a namespace cannot be had.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// There is nothing at the path, or the path is empty. DEL takes it as "the pod is gone".
    #[error("failed to Statfs {path:?}: no such file or directory")]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// There is something else: a file left when a namespace was unmounted.
    #[error("unknown FS magic on {path:?}: {magic:x}")]
    NotNetns {
        /// As given.
        path: PathBuf,
        /// The file system's magic number (`statfs.f_type`).
        magic: u64,
    },
    /// It is a namespace, but of mounts, processes, ...
    #[error("{path:?} is a namespace of another kind, not a network namespace")]
    OtherKind {
        /// As given.
        path: PathBuf,
    },
    /// The kernel refused a step.
    #[error("{step} {path:?}: {source}")]
    Io {
        /// What was tried: "open", "enter", ...
        step: &'static str,
        /// Of which namespace.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

thread_local! {
    /// The ways back of the visits this thread is on, the innermost last.
    static AWAY: RefCell<Vec<Arc<File>>> = const { RefCell::new(Vec::new()) };
}

/// Ends all visits of this thread at once: for a panic hook, which runs where the panic happened, before
/// any guard, and which may undo things that are to be undone on the node. Without a visit it does nothing.
pub fn come_home() -> io::Result<()> {
    let home = AWAY.with_borrow(|ways| ways.first().cloned());
    home.map_or(Ok(()), |home| Ok(setns(&home, CloneFlags::CLONE_NEWNET)?))
}

// === impl Netns ===

impl Netns {
    /// Opens the namespace at a path (`/run/netns/NAME`, `/proc/PID/ns/net`). Eight system calls,
    /// four of which are those of the socket that [`Netns::take_home_socket`] gives.
    ///
    /// The file system is looked at first, as the reference does: opening blindly would wait for ever on
    /// a FIFO.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        match statfs(path) {
            Ok(fs) if matches!(fs.filesystem_type(), NSFS_MAGIC | PROC_SUPER_MAGIC) => {}
            Ok(fs) => {
                // f_type is a long; no file system's magic is negative or beyond 32 bits.
                let magic = u64::try_from(fs.filesystem_type().0).unwrap_or_default();
                return Err(NetnsError::NotNetns {
                    path: path.into(),
                    magic,
                });
            }
            // The last two: nothing can be there, today or tomorrow.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP) => {
                return Err(NetnsError::Missing { path: path.into() });
            }
            Err(e) => return Err(failed("statfs", path, e.into())),
        }
        let there = File::open(path).map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
            // Removed between the two calls; /proc/PID/ns/net of a process that ended.
            Some(Errno::ENOENT | Errno::ESRCH) => NetnsError::Missing { path: path.into() },
            _ => failed("open", path, e),
        })?;
        if !may_be_netns(&there) {
            return Err(NetnsError::OtherKind { path: path.into() });
        }
        let own = Path::new("/proc/thread-self/ns/net");
        let probe = Socket::open(ROUTE).ok();
        let here = match probe.as_ref().and_then(netns_of) {
            Some(here) => here,
            None => File::open(own).map_err(|e| failed("open", own, e))?,
        };
        Ok(Self {
            there,
            here: Arc::new(here),
            probe: Mutex::new(probe),
            path: path.into(),
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The route socket by which the way back was found, in the namespace of the thread that opened this: for the
    /// first who asks.
    pub fn take_home_socket(&self) -> Option<Socket> {
        let mut probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        probe.take()
    }

    /// Is it the very namespace that this thread was in when it opened this?
    pub fn is_current(&self) -> bool {
        match (inode(&self.there), inode(&self.here)) {
            (Ok(there), Ok(here)) => there == here,
            _ => false,
        }
    }

    /// Device and inode: what identifies a namespace as long as somebody holds it.
    pub fn id(&self) -> Result<(u64, u64), NetnsError> {
        inode(&self.there).map_err(|e| failed("stat", &self.path, e))
    }

    /// Runs `visit` in the namespace and comes back, to where the thread was when it opened this; also
    /// when `visit` panics (see [`come_home`] for hooks and for programs that do not unwind). Two system
    /// calls. Only the calling thread moves.
    ///
    /// Should the way back be refused (nobody has seen it), the process aborts on a panic and gets an error
    /// otherwise: it must not go on in the pod as if it were the node.
    pub fn enter<R>(&self, visit: impl FnOnce() -> R) -> Result<R, NetnsError> {
        setns(&self.there, CloneFlags::CLONE_NEWNET)
            .map_err(|e| failed("enter", &self.path, e.into()))?;
        AWAY.with_borrow_mut(|ways| ways.push(Arc::clone(&self.here)));
        let outcome = catch_unwind(AssertUnwindSafe(visit));
        let back = setns(&self.here, CloneFlags::CLONE_NEWNET);
        if back.is_ok() {
            AWAY.with_borrow_mut(Vec::pop);
        }
        match outcome {
            Ok(value) => match back {
                Ok(()) => Ok(value),
                Err(e) => Err(failed("come back from", &self.path, e.into())),
            },
            Err(_) if back.is_err() => std::process::abort(),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.there.as_fd()
    }
}

/// False if the kernel says that it is another kind of namespace; before 4.11 it says nothing.
fn may_be_netns(file: &File) -> bool {
    // SAFETY: NS_GET_NSTYPE takes no argument and returns a number (ioctl_ns(2)).
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind < 0 || kind == libc::CLONE_NEWNET
}

/// The namespace of a socket. By its path below `/proc` the kernel would first make four directories of the process:
/// 2 % of an ADD. `None` before Linux 4.9, and without `CAP_NET_ADMIN` over it.
fn netns_of(socket: &Socket) -> Option<File> {
    // SAFETY: SIOCGSKNS takes no argument and returns a new close-on-exec descriptor (`net/socket.c`).
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    // SAFETY: The descriptor is new, so nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

fn inode(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|m| (m.dev(), m.ino()))
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> NetnsError {
    NetnsError::Io {
        step,
        path: path.into(),
        source,
    }
}

// === impl NetnsError ===

impl From<NetnsError> for CniError {
    fn from(error: NetnsError) -> Self {
        let remedy = match &error {
            NetnsError::Missing { .. } => {
                "the pod is gone, or the runtime gave a path of another mount namespace"
            }
            NetnsError::NotNetns { .. } => {
                "not a network namespace: a file left behind by an unmount? Remove it"
            }
            NetnsError::OtherKind { .. } => {
                "give the path of the pod's network namespace, as in /proc/PID/ns/net"
            }
            NetnsError::Io { .. } => "entering a namespace needs CAP_SYS_ADMIN",
        };
        Self::new(Code::InvalidNetns, error.to_string()).with_details(remedy)
    }
}

#[cfg(test)]
mod tests;
