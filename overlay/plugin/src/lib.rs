//! `overlay`, and under that name `flannel`: joins pods to a flannel network, by delegating to `bridge` with the subnet
//! that the node's agent leased. CNI 1.1.0. Keys, files and errors: docs/overlay.md.

#[doc(hidden)]
pub mod conf;
mod delegate;
mod embedded;
#[doc(hidden)]
pub mod peers;
mod ready;
mod scratch;
mod verbs;

use libcni::plugin::{About, Call, Plugin};
use libcni::spec::{Attachment, CniError, CniResult, Version};

/// The plugin.
#[derive(Debug)]
pub struct Overlay;

impl Plugin for Overlay {
    const ABOUT: About = About {
        name: "overlay",
        summary: "joins pods to a flannel network",
        versions: &Version::ALL,
    };

    fn add(call: &'static Call) -> Result<CniResult, CniError> {
        verbs::add(call)
    }
    fn del(call: &Call) -> Result<(), CniError> {
        verbs::del(call)
    }
    fn check(call: &Call) -> Result<(), CniError> {
        verbs::check(call)
    }
    fn gc(call: &Call, valid: &[Attachment]) -> Result<(), CniError> {
        verbs::gc(call, valid)
    }
    fn status(call: &Call) -> Result<(), CniError> {
        verbs::status(call)
    }
}
