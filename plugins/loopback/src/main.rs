//! `loopback`: sets `lo` of the pod up. CNI 1.1.0. See docs/loopback.md.
#![cfg_attr(not(test), no_main)]

mod verbs;

use libcni::plugin::{About, Call, Plugin};
use libcni::spec::{Attachment, CniError, CniResult, Version};

libcni::plugin_main!(Loopback, "loopback");

struct Loopback;

impl Plugin for Loopback {
    const ABOUT: About = About {
        name: "loopback",
        summary: "sets the pod's loopback interface up",
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
    fn gc(_call: &Call, _valid: &[Attachment]) -> Result<(), CniError> {
        Ok(()) // nothing of it outlives the pod's namespace
    }
    fn status(_call: &Call) -> Result<(), CniError> {
        Ok(())
    }
}
