//! What a run costs besides time: system calls, programs executed, memory. By ptrace, so never while timing.
//!
//! Peak memory is read from `/proc` as each process is about to exit. `wait4`'s `ru_maxrss` would be simpler but is
//! wrong here: it includes what the process was before its exec, a copy of this one.
#![allow(unsafe_code)] // `pre_exec`: the child must ask to be traced before it becomes the program.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::job::Job;

/// Sums over a program and everything it started.
#[derive(Debug, Default, Clone, Copy)]
pub struct Footprint {
    /// Counted as `strace -f -c` does, with the program's own execve; 0 with `Detail::Memory`.
    pub syscalls: u32,
    /// Programs executed by the program: its own execve does not count.
    pub execs: u32,
    /// The largest of any one process.
    pub peak_rss_kib: u64,
}

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Stops at every system call: many times slower than normal.
    Syscalls,
    /// Stops at exec and exit only: about normal speed.
    Memory,
}

/// Runs the job to its end and the end of all it started; an exit code other than 0 is an error.
pub fn trace(job: &Job, detail: Detail) -> Result<Footprint> {
    let mut command = job.command()?;
    // SAFETY: the closure makes one system call and allocates nothing, which is allowed between fork and exec.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
    let child = command
        .spawn()
        .with_context(|| format!("start {}", job.program.display()))?;
    let program = Pid::from_raw(child.id().cast_signed());

    let mut seen = Footprint {
        syscalls: u32::from(detail == Detail::Syscalls),
        ..Footprint::default()
    };
    let mut program_status = None;
    let resume = |pid, signal: Option<Signal>| {
        let resumed = match detail {
            Detail::Syscalls => ptrace::syscall(pid, signal),
            Detail::Memory => ptrace::cont(pid, signal),
        };
        // A process killed meanwhile is gone: its exit will still be reported.
        if resumed == Err(Errno::ESRCH) {
            Ok(())
        } else {
            resumed
        }
    };

    // The stop at the program's own exec comes before any option is set, hence as a plain SIGTRAP.
    waitpid(program, None)?;
    ptrace::setoptions(
        program,
        Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEEXIT
            | Options::PTRACE_O_EXITKILL,
    )?;
    resume(program, None)?;

    loop {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => status,
            Err(Errno::ECHILD) => break,
            Err(error) => return Err(error).context("wait for a traced process"),
        };
        match status {
            WaitStatus::PtraceSyscall(pid) => {
                if ptrace::syscall_info(pid)
                    .is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
                {
                    seen.syscalls += 1;
                }
                resume(pid, None)?;
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == Event::PTRACE_EVENT_EXEC as i32 {
                    seen.execs += 1;
                } else if event == Event::PTRACE_EVENT_EXIT as i32 {
                    seen.peak_rss_kib = seen.peak_rss_kib.max(peak_rss_kib(pid));
                }
                resume(pid, None)?;
            }
            // A new process or thread begins with a SIGSTOP that is ptrace's own.
            WaitStatus::Stopped(pid, Signal::SIGSTOP) => resume(pid, None)?,
            WaitStatus::Stopped(pid, signal) => resume(pid, Some(signal))?,
            WaitStatus::Exited(pid, code) if pid == program => {
                program_status = Some(ExitStatus::from_raw(code << 8))
            }
            WaitStatus::Signaled(pid, signal, _) if pid == program => {
                program_status = Some(ExitStatus::from_raw(signal as i32));
            }
            _ => {}
        }
    }
    job.must_have_succeeded(program_status.context("the traced program vanished")?)?;
    Ok(seen)
}

/// The larger of the high-water mark, which the kernel sums up only now and then, and the exact size at this moment.
fn peak_rss_kib(pid: Pid) -> u64 {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let high_water: Option<u64> = field("status", "VmHWM:");
    let now: Option<u64> = field("smaps_rollup", "Rss:");
    high_water.max(now).unwrap_or(0)
}
