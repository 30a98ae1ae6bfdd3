//! `host-local`: addresses of a node's own ranges, one file per reservation. CNI 1.1.0. See docs/host-local.md.
//!
//! A shell around [`libcni::store`], which `bridge` calls without executing this.
#![cfg_attr(not(test), no_main)]

mod verbs;

use libcni::plugin::{About, Call, Plugin};
use libcni::spec::{Attachment, CniError, CniResult, Version};

libcni::plugin_main!(HostLocal, "host-local");

struct HostLocal;

impl Plugin for HostLocal {
    const ABOUT: About = About {
        name: "host-local",
        summary: "gives pods addresses from ranges of this node",
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
