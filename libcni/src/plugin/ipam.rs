//! The IPAM delegate of an interface plugin.
//!
//! `host-local` is called in-process when the executable of that name in `CNI_PATH` is this suite's own (it
//! costs no exec then); anything else is run as the spec has it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Call, delegate, suite};
use crate::spec::error::{CniError, Code};
use crate::spec::json::Node;
use crate::spec::result::CniResult;
use crate::spec::{Attachment, Verb};
use crate::store::{IpamConf, Lease, NetDir, Range};

/// The IPAM that this suite brings along.
const OWN: &str = "host-local";

/// Who hands out this network's addresses.
#[derive(Debug, Clone)]
pub enum Ipam {
    /// This suite's `host-local`, without an exec.
    InProcess,
    /// Any other executable of `CNI_PATH`.
    Executable(PathBuf),
}

impl Ipam {
    /// Looks the executable up in `CNI_PATH`.
    ///
    /// # Errors
    /// See [`delegate::find`] and [`suite::is_own`].
    pub fn find(call: &Call, name: &str) -> Result<Self, CniError> {
        let file = delegate::find(name, &call.env.path)?;
        Ok(if name == OWN && suite::is_own(&file, OWN)? {
            Self::InProcess
        } else {
            Self::Executable(file)
        })
    }

    /// As [`Ipam::find`], but `host-local`'s reservations can be released even where its executable is gone or the
    /// disk does not give it.
    ///
    /// # Errors
    /// See [`delegate::find`].
    pub fn find_for_release(call: &Call, name: &str) -> Result<Self, CniError> {
        match Self::find(call, name) {
            Err(_) if name == OWN => Ok(Self::InProcess),
            other => other,
        }
    }

    /// Whether no executable is run.
    #[must_use]
    pub fn is_in_process(&self) -> bool {
        matches!(self, Self::InProcess)
    }

    /// Reserves. If a foreign IPAM's ADD fails, its DEL is called, as the spec asks.
    ///
    /// # Errors
    /// The IPAM's own.
    pub fn add(&self, call: &Call) -> Result<Lease, CniError> {
        let file = match self {
            Self::InProcess => return Ok(conf(call)?.add(call.attachment()?)?),
            Self::Executable(file) => file,
        };
        let result = delegate::exec(file, Verb::Add, &call.stdin).and_then(|printed| {
            let node = if printed.is_empty() {
                Node::Null
            } else {
                Node::parse(&printed).map_err(|e| no_result(file, &e.to_string()))?
            };
            CniResult::parse(&node, call.version())
        });
        if result.is_err()
            && let Err(e) = delegate::exec(file, Verb::Del, &call.stdin)
        {
            super::log(format_args!("undo: release after a failed ADD: {e}"));
        }
        // Nobody knows what a foreign IPAM gave to whom before.
        result.map(|result| Lease {
            result,
            reused: true,
        })
    }

    /// Takes [`Ipam::add`] back: exactly the addresses of that lease.
    ///
    /// # Errors
    /// The IPAM's own, as text for the log.
    pub fn undo_add(&self, call: &Call, lease: &[IpAddr]) -> Result<(), String> {
        match self {
            Self::InProcess => NetDir::of(&call.node)
                .and_then(|dir| Ok(dir.release_only(call.attachment()?, lease)?))
                .map_err(|e| e.to_string()),
            Self::Executable(_) => self.del(call, || ()).map_err(|e| e.to_string()),
        }
    }

    /// Releases whatever the attachment holds. `on_empty` runs if that was the last of the network; no ADD can
    /// come in between.
    ///
    /// # Errors
    /// The IPAM's own.
    pub fn del(&self, call: &Call, on_empty: impl FnOnce()) -> Result<(), CniError> {
        match self {
            Self::InProcess => {
                NetDir::of(&call.node)?.release(call.attachment()?, on_empty)?;
                Ok(())
            }
            Self::Executable(file) => run(file, Verb::Del, call),
        }
    }

    /// Whether the attachment still holds what it was given.
    ///
    /// # Errors
    /// The IPAM's own.
    pub fn check(&self, call: &Call) -> Result<(), CniError> {
        match self {
            Self::InProcess => Ok(conf(call)?.dir.check(call.attachment()?)?),
            Self::Executable(file) => run(file, Verb::Check, call),
        }
    }

    /// Whether it could serve an ADD.
    ///
    /// # Errors
    /// The IPAM's own.
    pub fn status(&self, call: &Call) -> Result<(), CniError> {
        match self {
            Self::InProcess => Ok(conf(call)?.status()?),
            Self::Executable(file) => run(file, Verb::Status, call),
        }
    }

    /// Frees what no attachment in `valid` holds, and returns it as far as it is known. `on_empty` as for
    /// [`Ipam::del`].
    ///
    /// # Errors
    /// The IPAM's own.
    pub fn gc(
        &self,
        call: &Call,
        valid: &[Attachment],
        on_empty: impl FnOnce(),
    ) -> Result<Vec<IpAddr>, CniError> {
        match self {
            Self::InProcess => {
                let mut freed = Vec::new();
                NetDir::of(&call.node)?.gc(valid, |ip| freed.push(ip), on_empty)?;
                Ok(freed)
            }
            Self::Executable(file) => run(file, Verb::Gc, call).map(|()| Vec::new()),
        }
    }

    /// The addresses the attachment holds; empty where only the foreign IPAM knows.
    #[must_use]
    pub fn held(&self, call: &Call) -> Vec<IpAddr> {
        let held = || Ok::<_, CniError>(NetDir::of(&call.node)?.held(call.attachment()?)?);
        match self {
            Self::InProcess => held().unwrap_or_default(),
            Self::Executable(_) => Vec::new(),
        }
    }

    /// Every address that is reserved in the network, as the file names tell; empty where only the foreign IPAM
    /// knows.
    #[must_use]
    pub fn in_use(&self, call: &Call) -> Vec<IpAddr> {
        let Ok(dir) = NetDir::of(&call.node) else {
            return Vec::new();
        };
        match (self, std::fs::read_dir(dir.path())) {
            (Self::InProcess, Ok(files)) => files
                .flatten()
                .filter_map(|file| file.file_name().to_str()?.parse().ok())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Every range addresses come from; `None` where only the foreign IPAM knows.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn ranges(&self, call: &Call) -> Result<Option<Vec<Range>>, CniError> {
        match self {
            Self::InProcess => Ok(Some(conf(call)?.ranges().cloned().collect())),
            Self::Executable(_) => Ok(None),
        }
    }

    /// Runs `last` if the attachment is the only one that holds anything in this network. No ADD can come in
    /// between: the reservations are locked meanwhile.
    ///
    /// # Errors
    /// The reservations cannot be read; or `last`'s own.
    pub fn when_sole<E: Into<CniError>>(
        &self,
        call: &Call,
        last: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), CniError> {
        match self {
            Self::InProcess => match NetDir::of(&call.node)?.when_sole(call.attachment()?, last)? {
                Some(outcome) => outcome.map_err(Into::into),
                None => Ok(()),
            },
            Self::Executable(_) => Ok(()),
        }
    }
}

fn no_result(file: &Path, why: &str) -> CniError {
    let msg = format!("IPAM plugin {} printed no result: {why}", file.display());
    CniError::new(Code::Decode, msg).with_details(
        "run it by hand with the same configuration; it must print JSON and nothing else",
    )
}

fn conf(call: &Call) -> Result<IpamConf, CniError> {
    IpamConf::parse(&call.node, &call.env.args, call.version())
}

fn run(file: &Path, verb: Verb, call: &Call) -> Result<(), CniError> {
    delegate::exec(file, verb, &call.stdin).map(drop)
}
