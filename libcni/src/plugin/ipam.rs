//! The IPAM delegate of an interface plugin.
//!
//! `host-local` is called in-process when the executable of that name in `CNI_PATH` is this suite's own (it
//! costs no exec then); anything else is run as the spec has it.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{Call, delegate, suite};
use crate::spec::error::{CniError, Code};
use crate::spec::json::Node;
use crate::spec::result::CniResult;
use crate::store::{self, IpamConf, Range};

/// The IPAM that this suite brings along.
const OWN: &str = "host-local";

/// Who hands out this network's addresses.
#[derive(Debug)]
pub enum Ipam {
    /// This suite's `host-local`, without an exec.
    InProcess,
    /// Any other executable of `CNI_PATH`.
    Executable(PathBuf),
}

/// What ADD was given.
#[derive(Debug, Default)]
pub struct Lease {
    /// Addresses, routes and DNS.
    pub result: CniResult,
    /// Whether some address may have belonged to another pod since boot, so that neighbours and connection
    /// tracking may remember it.
    pub reused: bool,
}

impl Ipam {
    /// Looks the executable up in `CNI_PATH`.
    ///
    /// # Errors
    /// See [`delegate::find`].
    pub fn find(call: &Call, name: &str) -> Result<Self, CniError> {
        let file = delegate::find(name, &call.env.path)?;
        Ok(if name == OWN && suite::is_own(&file, OWN) {
            Self::InProcess
        } else {
            Self::Executable(file)
        })
    }

    /// As [`Ipam::find`], but `host-local`'s reservations can be released even where its executable is gone.
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
        match self {
            Self::InProcess => {
                let conf = IpamConf::parse(&call.node, &call.env.args, call.version())?;
                let lease = store::add(&conf, call.network(), &call.attachment()?)?;
                Ok(Lease {
                    result: lease.result,
                    reused: lease.reused,
                })
            }
            Self::Executable(file) => {
                let lease = delegate::exec(file, "ADD", &call.stdin)
                    .and_then(|printed| parse(call, &printed))
                    .map(|result| Lease {
                        result,
                        reused: true,
                    });
                if lease.is_err() {
                    if let Err(e) = delegate::exec(file, "DEL", &call.stdin) {
                        eprintln!("undo: release after a failed ADD: {e}");
                    }
                }
                lease
            }
        }
    }
}
