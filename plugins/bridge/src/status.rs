//! STATUS: could ADD succeed now? Runtimes ask every few seconds, so it only reads.

use libcni::kernel::link;
use libcni::nl::{ROUTE, Socket};
use libcni::plugin::Call;
use libcni::plugin::ipam::Ipam;
use libcni::record;
use libcni::spec::error::{CniError, Code};

use crate::bridge;
use crate::conf::Conf;

/// The configuration, the bridge's name, and the IPAM's own answer.
pub fn status(call: &Call) -> Result<(), CniError> {
    let conf = Conf::parse(call).map_err(not_available)?;
    record::phase("bridge");
    let mut host = Socket::open(ROUTE)?;
    if let Some(link) = link::get(&mut host, conf.bridge.as_str())? {
        bridge::require_bridge(&link).map_err(not_available)?;
    }
    match &conf.ipam {
        Some(name) => {
            let ipam = Ipam::find(call, name).map_err(not_available)?;
            record::phase("lease");
            ipam.status(call).map_err(|e| match e.code {
                Code::InvalidConfig => not_available(e),
                _ => e,
            })
        }
        None => Ok(()),
    }
}

fn not_available(e: CniError) -> CniError {
    CniError {
        code: Code::NotAvailable,
        ..e
    }
}
