//! The kernel's side of following a process: everything here that needs `unsafe`, or a processor's registers.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc::{self, c_int, c_long};
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;

/// What a process that is followed stopped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is gone: the status as `wait` has it.
    Ended(c_int),
    /// Before or after a system call.
    Call,
    /// It made this one, or became another program.
    Event(Option<Pid>),
    /// A signal, to be given on.
    Signal(c_int),
}

/// A system call as it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) number: c_long,
    pub(super) args: [u64; 6],
}

/// Makes the program one that is followed from its start.
pub(super) fn follow(command: &mut Command) {
    // SAFETY: between fork and exec just one system call is made, which takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
}

/// Its children are followed, too, and all of them end with this thread.
pub(super) fn follow_children(pid: Pid) -> nix::Result<()> {
    ptrace::setoptions(
        pid,
        Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACESYSGOOD,
    )
}

/// The next stop of anything this thread follows; `None` when there is nothing more to follow. Other threads' processes
/// are theirs.
pub(super) fn next() -> Result<Option<(Pid, Stop)>> {
    let mut status: c_int = 0;
    let pid = loop {
        // SAFETY: `status` outlives the call, which writes nothing but it.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        match (pid, Error::last_os_error().raw_os_error()) {
            (-1, Some(libc::EINTR)) => {}
            (-1, Some(libc::ECHILD)) => return Ok(None),
            (-1, _) => return Err(Error::last_os_error()),
            _ => break Pid::from_raw(pid),
        }
    };
    // By hand: the library's type has no place for real-time signals, which a C library uses between its threads.
    let stop = if !libc::WIFSTOPPED(status) {
        Stop::Ended(status)
    } else if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
        Stop::Call
    } else {
        match status >> 16 {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                let child = ptrace::getevent(pid).ok();
                let child = child.and_then(|c| i32::try_from(c).ok());
                Stop::Event(child.map(Pid::from_raw))
            }
            0 => Stop::Signal(libc::WSTOPSIG(status)),
            _ => Stop::Event(None),
        }
    };
    Ok(Some((pid, stop)))
}

/// Lets it run on, with this signal or none; to its next system call, or, without `calls`, just to what else happens.
pub(super) fn go_on(pid: Pid, signal: c_int, calls: bool) {
    let request = if calls {
        libc::PTRACE_SYSCALL
    } else {
        libc::PTRACE_CONT
    };
    // SAFETY: neither request touches this process's memory. It fails only if the other has been killed meanwhile.
    unsafe {
        libc::ptrace(request, pid.as_raw(), 0 as c_long, c_long::from(signal));
    }
}

/// What it is about to do; `None` if it is about to return from it (or has been killed meanwhile).
pub(super) fn begun(pid: Pid) -> Option<Begun> {
    let info = ptrace::syscall_info(pid).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that the kernel filled this variant.
    let entry = unsafe { info.u.entry };
    Some(Begun {
        number: c_long::try_from(entry.nr).unwrap_or(-1),
        args: entry.args,
    })
}

/// Whether calls can be failed on this processor.
pub(super) const CAN_FAIL: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Has the kernel pass over the call that has been begun.
#[cfg(target_arch = "x86_64")]
pub(super) fn skip(pid: Pid) -> nix::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    registers.orig_rax = u64::MAX;
    ptrace::setregs(pid, registers)
}

/// Has the call that was passed over return this error.
#[cfg(target_arch = "x86_64")]
pub(super) fn answer(pid: Pid, errno: c_int) -> nix::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    registers.rax = i64::from(-errno).cast_unsigned();
    ptrace::setregs(pid, registers)
}

/// Has the kernel pass over the call that has been begun.
#[cfg(target_arch = "aarch64")]
pub(super) fn skip(pid: Pid) -> nix::Result<()> {
    /// The call's number is in a register set of its own.
    const NT_ARM_SYSTEM_CALL: c_int = 0x404;
    let mut number: c_int = -1;
    let mut io = libc::iovec {
        iov_base: (&raw mut number).cast(),
        iov_len: size_of::<c_int>(),
    };
    // SAFETY: `io` and what it points to outlive the call, which reads just that many bytes.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET,
            pid.as_raw(),
            NT_ARM_SYSTEM_CALL,
            &raw mut io,
        )
    };
    nix::errno::Errno::result(done).map(drop)
}

/// Has the call that was passed over return this error.
#[cfg(target_arch = "aarch64")]
pub(super) fn answer(pid: Pid, errno: c_int) -> nix::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    if let Some(first) = registers.regs.first_mut() {
        *first = i64::from(-errno).cast_unsigned();
    }
    ptrace::setregs(pid, registers)
}

/// Has the kernel pass over the call that has been begun.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn skip(_pid: Pid) -> nix::Result<()> {
    Err(nix::errno::Errno::ENOSYS)
}

/// Has the call that was passed over return this error.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn answer(_pid: Pid, _errno: c_int) -> nix::Result<()> {
    Err(nix::errno::Errno::ENOSYS)
}
