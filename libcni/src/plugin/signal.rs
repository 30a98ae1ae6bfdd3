//! Being asked to stop: SIGTERM, SIGINT, and the deadline (SIGALRM) all end in an undo and an error object.
//!
//! The handler only sets [`STOP`] and passes the signal on to a running delegate. Waiting system calls come
//! back with EINTR, see the flag, and the error travels the ordinary way.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;

use crate::kernel::process;
use crate::nl::STOP;
use crate::spec::error::{CniError, Code};

/// kubelet gives a sandbox four minutes and containerd's CNI calls two; be done, and undone, before that.
const DEADLINE_S: u32 = 110;

/// How long a delegate has between being asked to stop and being killed.
const GRACE_S: u32 = 5;

static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(signal: i32) {
    let again = STOP.swap(true, Ordering::Relaxed);
    if !again {
        CAUGHT.store(signal, Ordering::Relaxed);
    }
    let how = if again {
        Signal::SIGKILL
    } else {
        Signal::SIGTERM
    };
    if process::signal_child(how) {
        alarm::set(GRACE_S);
    }
}

/// Catches the signals that ask to stop and starts the deadline.
pub(super) fn install() {
    let action = SigAction::new(
        SigHandler::Handler(on_signal),
        SaFlags::empty(), // no SA_RESTART: a waiting call must come back
        SigSet::empty(),
    );
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGALRM] {
        // SAFETY: the handler stores to atomics and calls kill(2), both async-signal-safe.
        let _ = unsafe { sigaction(signal, &action) };
    }
    alarm::set(DEADLINE_S);
}

/// An error if the process was asked to stop. Called between steps, so nothing new is begun.
///
/// # Errors
/// Code 11: the same call may well succeed later.
pub fn check() -> Result<(), CniError> {
    if !STOP.load(Ordering::Relaxed) {
        return Ok(());
    }
    let (why, details) = match Signal::try_from(CAUGHT.load(Ordering::Relaxed)) {
        Ok(Signal::SIGALRM) => (
            format!("deadline of {DEADLINE_S} s passed"),
            "the node is overloaded or a delegate hangs",
        ),
        Ok(signal) => (
            format!("stopped by {signal}"),
            "the runtime gave up waiting",
        ),
        Err(_) => ("stopped".to_owned(), ""),
    };
    Err(CniError::new(Code::TryAgain, why).with_details(details))
}

/// From here on nothing stops the process: undo and DEL's last steps run to their end.
pub(super) fn ignore() {
    STOP.store(false, Ordering::Relaxed);
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGALRM] {
        // SAFETY: SIG_IGN installs no handler.
        let _ = unsafe { sigaction(signal, &action) };
    }
}
