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

/// Entries for the fuzz targets.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use libcni::plugin::Call;
    use libcni::spec::CniError;
    use libcni::spec::json::Fields;

    /// The configuration as ADD, CHECK and STATUS read it, in words.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn conf(call: &Call) -> Result<String, CniError> {
        crate::conf::Conf::parse(call).map(|conf| format!("{conf:?}"))
    }

    /// The bridge's name, which is all that DEL and GC read.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn bridge_name(call: &Call) -> Result<String, CniError> {
        let fields = Fields::of(&call.node, "")?;
        crate::conf::bridge_name(&fields).map(|name| name.as_str().to_owned())
    }
}

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
