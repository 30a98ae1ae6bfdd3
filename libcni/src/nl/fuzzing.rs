//! A datagram as the kernel sends it, for the fuzz targets.

use super::frame::Frames;
use super::{NlError, Reply};

/// Walks over its messages: each as an answer, and as the verdict on a request.
pub fn walk(datagram: &[u8], mut each: impl FnMut(Reply<'_>, Result<(), NlError>)) {
    for frame in Frames::new(datagram) {
        each(Reply::from(frame), frame.verdict("a step"));
    }
}
