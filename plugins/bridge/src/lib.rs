//! `bridge`: one veth pair per attachment, the host end a port of a Linux bridge. CNI 1.1.0.
//! Keys, files and errors: docs/bridge.md.
//!
//! A library, so that `overlay` can have it in its own process.

mod add;
mod bridge;
mod check;
mod conf;
mod del;
mod gateway;
mod gc;
mod plan;
mod pod;
mod settle;
mod status;
mod veth;
mod vlan;

use libcni::plugin::{About, Call, Plugin};
use libcni::spec::{Attachment, CniError, CniResult, Version};

/// The plugin.
#[derive(Debug)]
pub struct Bridge;

impl Plugin for Bridge {
    const ABOUT: About = About {
        name: "bridge",
        summary: "connects pods to a Linux bridge",
        versions: &Version::ALL,
    };

    fn add(call: &'static Call) -> Result<CniResult, CniError> {
        add::add(call)
    }
    fn del(call: &Call) -> Result<(), CniError> {
        del::del(call)
    }
    fn check(call: &Call) -> Result<(), CniError> {
        check::check(call)
    }
    fn gc(call: &Call, valid: &[Attachment]) -> Result<(), CniError> {
        gc::gc(call, valid)
    }
    fn status(call: &Call) -> Result<(), CniError> {
        status::status(call)
    }
}
