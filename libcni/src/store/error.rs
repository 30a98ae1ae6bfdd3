//! What can go wrong with the store, and what to do about each.
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::range::RangeSet;
use crate::spec::ContainerId;
use crate::spec::error::{CniError, Code};

/// CHECK: something is not as ADD left it; the same code as the interface plugins'.
const NOT_AS_LEFT: Code = Code::Other(103);
/// A second ADD of the same attachment.
const DUPLICATE: Code = Code::Other(104);

/// A verb on the store that did not succeed. Texts are the reference's where it has one.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("host-local: {step} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody held the directory's lock all the time.
    #[error("host-local: {} is locked by {holder} for more than {waited_s} s", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// `process 1234 (host-local)`, or that it is unknown.
        holder: String,
        /// How long we waited.
        waited_s: u64,
    },
    /// SIGTERM or the deadline came while waiting for the lock.
    #[error("host-local: asked to stop while waiting for {}", path.display())]
    Stopped {
        /// The lock file.
        path: PathBuf,
    },
    /// Allocating from one range set failed.
    #[error("failed to allocate for range {set}: {why}")]
    Allocate {
        /// Index of the range set.
        set: usize,
        /// What happened.
        why: AllocateError,
    },
    /// Requested addresses no range set can give.
    #[error("failed to allocate all requested IPs:{}", spaced(.0))]
    Unmatched(Vec<IpAddr>),
    /// CHECK: the attachment has no address.
    #[error("host-local: Failed to find address added by container {0}")]
    NotHeld(ContainerId),
    /// STATUS: the next ADD could not get an address.
    #[error("host-local: {0}")]
    Full(Exhausted),
    /// STATUS: the next ADD could not write its reservation.
    #[error("host-local: {} is not writable: {source}", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why one range set gave no address.
#[derive(Debug, Error)]
pub enum AllocateError {
    /// None is free.
    #[error(transparent)]
    Exhausted(Exhausted),
    /// The attachment has an address of this set already.
    #[error("{ip} has been allocated to {id}, duplicate allocation is not allowed")]
    Duplicate {
        /// The address.
        ip: IpAddr,
        /// The container.
        id: ContainerId,
    },
    /// The requested address is the gateway's.
    #[error("requested ip {0} is subnet's gateway")]
    Gateway(IpAddr),
    /// The requested address is another attachment's.
    #[error("requested IP address {ip} is not available in range set {ranges}")]
    Taken {
        /// The address.
        ip: IpAddr,
        /// The set.
        ranges: String,
        /// Whose it is.
        holder: String,
    },
    /// A file could not be written.
    #[error(transparent)]
    Store(Box<StoreError>),
}

/// A range set that has no free address: every one is reserved, or there never was one.
#[derive(Debug, Error)]
#[error("no IP addresses available in range set: {ranges}")]
pub struct Exhausted {
    /// The set, as `first-last,first-last`.
    ranges: String,
    /// How many addresses it can give at all.
    capacity: u128,
    /// The network's directory.
    dir: PathBuf,
}

fn spaced(ips: &[IpAddr]) -> String {
    ips.iter().map(|ip| format!(" {ip}")).collect()
}

// === impl StoreError ===

impl StoreError {
    pub(super) fn io(step: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            step,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Io { .. } => Code::Io,
            Self::Locked { .. } | Self::Stopped { .. } => Code::TryAgain,
            Self::Allocate { why, .. } => match why {
                // Nothing but gateways: no wait helps.
                AllocateError::Exhausted(why) if why.capacity == 0 => Code::InvalidConfig,
                // A pod that goes frees an address, so these may pass.
                AllocateError::Exhausted(_) | AllocateError::Taken { .. } => Code::TryAgain,
                AllocateError::Duplicate { .. } => DUPLICATE,
                AllocateError::Gateway(_) => Code::InvalidConfig,
                AllocateError::Store(inner) => inner.code(),
            },
            Self::Unmatched(_) => Code::InvalidConfig,
            Self::NotHeld(_) => NOT_AS_LEFT,
            // Existing pods keep their addresses and their connectivity: 50, not 51.
            Self::Full(_) | Self::Unwritable { .. } => Code::NotAvailable,
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::Io { source, path, .. } | Self::Unwritable { source, path } => {
                remedy_io(source, path)
            }
            Self::Locked { .. } => {
                "a process stopped or hanging in the middle of its work: let it go on or end it; \
                                    the lock goes with it"
                    .to_owned()
            }
            Self::Stopped { .. } => "the runtime gave up waiting; nothing was changed".to_owned(),
            Self::Allocate { why, .. } => match why {
                AllocateError::Exhausted(why) => why.remedy(),
                AllocateError::Duplicate { id, .. } => {
                    format!(
                        "DEL the attachment of {id} first; a second ADD without DEL is not allowed by the spec"
                    )
                }
                AllocateError::Gateway(_) => {
                    "request another address, or give the range another gateway".to_owned()
                }
                AllocateError::Taken { holder, .. } => format!("held by {holder}"),
                AllocateError::Store(inner) => inner.remedy(),
            },
            Self::Unmatched(_) => {
                "each range set gives one address: request one of its own, at most one per set"
                    .to_owned()
            }
            Self::NotHeld(_) => String::new(),
            Self::Full(why) => why.remedy(),
        }
    }
}

// === impl Exhausted ===

impl Exhausted {
    pub(super) fn of(set: &RangeSet, dir: &Path) -> Self {
        Self {
            ranges: set.to_string(),
            capacity: set.capacity(),
            dir: dir.to_owned(),
        }
    }

    fn remedy(&self) -> String {
        let Self { capacity, dir, .. } = self;
        if *capacity == 0 {
            return "it holds nothing but the gateway, which is never given: enlarge it (rangeStart, rangeEnd), \
                    or set another gateway"
                .to_owned();
        }
        format!(
            "all {capacity} addresses are reserved; each file in {} names the container that holds its address; \
             if those are gone, let the runtime call GC or DEL, else add a range or enlarge it",
            dir.display()
        )
    }
}

fn remedy_io(source: &io::Error, path: &Path) -> String {
    let remedy = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on that file system (bytes or inodes)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount it writable, or set ipam.dataDir to a writable directory"
        }
        io::ErrorKind::PermissionDenied => {
            "run as the owner of that directory, or set ipam.dataDir to one that is yours"
        }
        io::ErrorKind::NotADirectory => "a file is in the way: remove it or set ipam.dataDir",
        io::ErrorKind::NotFound => "the file does not exist",
        _ => "",
    };
    let errno = source.raw_os_error().map_or_else(String::new, |n| {
        format!("{:?}", nix::errno::Errno::from_raw(n))
    });
    match (errno.is_empty(), remedy.is_empty()) {
        (true, _) => remedy.to_owned(),
        (false, true) => format!("{errno} on {}", path.display()),
        (false, false) => format!("{errno}: {remedy}"),
    }
}

impl From<StoreError> for AllocateError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<StoreError> for CniError {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string()).with_details(error.remedy())
    }
}
