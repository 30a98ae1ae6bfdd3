//! One run of a plugin: its streams, its end, and a deadline it cannot ignore.
//!
//! No threads: one poll(2) waits for the streams, for the process (a pidfd) and for the time. A plugin that is late is
//! asked to stop (SIGTERM), which lets it undo what it began, and killed when the grace is over. The signals go to a
//! process group of its own, so that its delegates end with it: a forgotten `host-local` must not go on reserving
//! while the attachment is being undone.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{self, SigHandler, SigSet, Signal, killpg};
use nix::unistd::Pid;

use crate::kernel::process::Ended;
use crate::spec::json;

/// How much of a plugin's stderr an error keeps, from its end.
pub const STDERR_TAIL_BYTES: usize = 2048;
/// How much of it is kept at all, from its end: the log of a plugin that succeeded is handed on.
pub const STDERR_BYTES: usize = 64 * 1024;

/// A file being replaced cannot be executed for a moment: tries, and the pause in between.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const READ_BYTES: usize = 8192;
/// As many as empty the largest pipe an ordinary user may have (1 MiB).
const PIPE_READS: usize = (1 << 20) / READ_BYTES;
/// How long the end of a killed process may take: it has to give its memory back, on a node without CPU time.
const KILLING: Duration = Duration::from_secs(10);
/// How often a process is looked at on kernels without pidfds (before 5.3).
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What to run, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The executable.
    pub file: &'a Path,
    /// Variables to set in this process's environment.
    pub env: &'a [(&'a str, &'a str)],
    /// What it reads.
    pub stdin: &'a [u8],
    /// When it is asked to stop.
    pub deadline: Instant,
    /// From then to when it is killed.
    pub grace: Duration,
}

/// How it ended and what it wrote.
#[derive(Debug)]
pub struct Output {
    /// Its end.
    pub ended: Ended,
    /// It did not end by itself before the deadline.
    pub late: bool,
    /// What it wrote to stdout; nothing after the first 16 MiB is kept, which is more than JSON may have.
    pub stdout: Vec<u8>,
    /// The last [`STDERR_BYTES`] that it wrote to stderr.
    pub stderr: Vec<u8>,
    /// Its process ID, which may be another's by now.
    pub pid: u32,
}

/// Why a plugin could not be run to its end.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct ExecError {
    /// It was started, so it may have done something.
    pub started: bool,
    /// The errno of what could not be done. [`ErrorKind::TimedOut`]: not even SIGKILL ended it, because it hangs in the
    /// kernel.
    pub source: io::Error,
}

/// Runs a plugin to its end. What it leaves running with its streams open is not waited for.
///
/// ```
/// use std::path::Path;
/// use std::time::{Duration, Instant};
///
/// use libcni::kernel::process::Ended;
/// use libcni::runtime::exec::{self, Job};
///
/// let out = exec::run(&Job {
///     file: Path::new("/bin/cat"),
///     env: &[("CNI_COMMAND", "VERSION")],
///     stdin: b"{}",
///     deadline: Instant::now() + Duration::from_secs(60),
///     grace: Duration::from_secs(5),
/// })?;
/// assert_eq!((out.ended, out.late, out.stdout.as_slice()), (Ended::Exit(0), false, &b"{}"[..]));
/// # Ok::<(), exec::ExecError>(())
/// ```
///
/// # Errors
/// It could not be started, or its end not be seen.
pub fn run(job: &Job<'_>) -> Result<Output, ExecError> {
    let begin = || {
        let mut input = File::from(memfd_create(c"cni", MFdFlags::MFD_CLOEXEC)?);
        input.write_all(job.stdin)?;
        start(job, &mut input)
    };
    let failed = |started| move |source| ExecError { started, source };
    let mut child = begin().map_err(failed(false))?;
    let watch = pidfd(&child);
    attend(job, &mut child, watch).map_err(|source| {
        signal(&child, Signal::SIGKILL);
        failed(true)(source)
    })
}

fn attend(job: &Job<'_>, child: &mut Child, watch: Option<OwnedFd>) -> io::Result<Output> {
    let mut stdout = Stream::of(child.stdout.take())?;
    let mut stderr = Stream::of(child.stderr.take())?;
    let mut stages = Stages::of(job);
    while !ended(child, watch.as_ref())? {
        let wait = stages.due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            stages.next(child)?;
            continue;
        }
        let wait = match watch {
            Some(_) => wait,
            None => wait.min(LOOK_EVERY),
        };
        let fds = [stdout.fd(), stderr.fd(), watch.as_ref().map(AsFd::as_fd)];
        let mut fds: Vec<PollFd<'_>> = fds
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Rounded up, or the last millisecond would be spent asking.
        let millis = wait.as_millis().saturating_add(1);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        stdout.read(1, keep_start)?;
        stderr.read(1, keep_end)?;
    }
    // Whoever is left of a plugin that had to be stopped. As long as it is not reaped, its group is no other's.
    if stages.late() && watch.is_some() {
        signal(child, Signal::SIGKILL);
    }
    let status = child.wait()?;
    stdout.read(PIPE_READS, keep_start)?;
    stderr.read(PIPE_READS, keep_end)?;
    Ok(Output {
        ended: how(status),
        late: stages.late(),
        stdout: stdout.kept,
        stderr: stderr.kept,
        pid: child.id(),
    })
}

/// What happens when time is up, and then up again.
struct Stages {
    due: Instant,
    grace: Duration,
    signals: std::slice::Iter<'static, Signal>,
}

impl Stages {
    fn of(job: &Job<'_>) -> Self {
        Self {
            due: job.deadline,
            grace: job.grace,
            signals: [Signal::SIGTERM, Signal::SIGKILL].iter(),
        }
    }

    fn late(&self) -> bool {
        self.signals.len() < 2
    }

    fn next(&mut self, child: &Child) -> io::Result<()> {
        let Some(how) = self.signals.next() else {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!(
                    "process {} hangs in the kernel: SIGKILL does not end it",
                    child.id()
                ),
            ));
        };
        signal(child, *how);
        self.due = Instant::now()
            + match how {
                Signal::SIGKILL => KILLING,
                _ => self.grace,
            };
        Ok(())
    }
}

fn start(job: &Job<'_>, input: &mut File) -> io::Result<Child> {
    for _ in 1..BUSY_TRIES {
        input.seek(SeekFrom::Start(0))?;
        let mut command = Command::new(job.file);
        command
            .envs(job.env.iter().copied())
            .stdin(Stdio::from(input.try_clone()?))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // SAFETY: two system calls on plain data, between fork and exec.
        unsafe { command.pre_exec(hear_sigterm) };
        match command.spawn() {
            Err(e)
                if e.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < job.deadline =>
            {
                std::thread::sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
    Err(ErrorKind::ExecutableFileBusy.into())
}

/// A runtime may ignore or block the signal that its plugins are asked to stop with, and they would inherit that.
fn hear_sigterm() -> io::Result<()> {
    // SAFETY: no handler, so nothing runs in a signal's context.
    unsafe { signal::signal(Signal::SIGTERM, SigHandler::SigDfl) }?;
    Ok(SigSet::empty().thread_set_mask()?)
}

/// None before Linux 5.3, or where a sandbox forbids it.
fn pidfd(child: &Child) -> Option<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers. The process is a child that nobody has waited for.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = libc::c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: just opened, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether it has ended. With a pidfd it stays unreaped, and its process group its own.
fn ended(child: &mut Child, watch: Option<&OwnedFd>) -> io::Result<bool> {
    let Some(watch) = watch else {
        return Ok(child.try_wait()?.is_some());
    };
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// To all of its group; that nobody is left is no error.
fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}

fn how(status: ExitStatus) -> Ended {
    match status.signal().and_then(|n| Signal::try_from(n).ok()) {
        Some(signal) => Ended::Signal(signal),
        None => Ended::Exit(status.code().unwrap_or(-1)),
    }
}

impl Output {
    /// What of stderr an error keeps.
    #[must_use]
    pub fn stderr_tail(&self) -> &[u8] {
        let from = self.stderr.len().saturating_sub(STDERR_TAIL_BYTES);
        self.stderr.get(from..).unwrap_or_default()
    }
}

// === streams ===

/// One of the plugin's output streams, as far as it was read.
struct Stream<R> {
    pipe: Option<R>,
    kept: Vec<u8>,
}

impl<R: Read + AsFd> Stream<R> {
    fn of(pipe: Option<R>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let kept = Vec::new();
        Ok(Self { pipe, kept })
    }

    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there now, in so many reads at most: a program that never stops writing must not keep us here.
    fn read(&mut self, reads: usize, keep: fn(&mut Vec<u8>, &[u8])) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..reads {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(n) => keep(&mut self.kept, buffer.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// One byte more than JSON may have is kept, so that too much is an error and not half a document.
fn keep_start(kept: &mut Vec<u8>, new: &[u8]) {
    let room = (json::MAX_BYTES + 1).saturating_sub(kept.len());
    kept.extend_from_slice(new.get(..room.min(new.len())).unwrap_or_default());
}

fn keep_end(kept: &mut Vec<u8>, new: &[u8]) {
    kept.extend_from_slice(new);
    kept.drain(..kept.len().saturating_sub(STDERR_BYTES));
}

#[cfg(test)]
mod tests;
