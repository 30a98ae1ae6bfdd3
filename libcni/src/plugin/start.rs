//! What Rust's own entry point does before `main` and a plugin needs as well (see [`crate::plugin_main!`]).
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::IntoRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

/// Makes the process fit to work: nothing it opens becomes its stdout, and a reader that went away is an error of
/// the write, not the end of the process in the middle of its work.
pub(super) fn prepare() {
    // SAFETY: no handler, so nothing runs in a signal's context.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    for fd in 0..=2 {
        // SAFETY: F_GETFD reads a flag of the descriptor, if there is one.
        let open = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if open == -1 && Errno::last() == Errno::EBADF {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null");
            // The lowest free number: this one.
            let _ = null.map(IntoRawFd::into_raw_fd);
        }
    }
}
