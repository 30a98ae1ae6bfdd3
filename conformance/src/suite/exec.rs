//! One run of something foreign: its streams capped, its end within a time, its process group with it.
//!
//! One poll(2) waits for the streams, the process (a pidfd) and the time. It reads its stdin from a pipe, as from a runtime.
//! If this program is killed, it ends, too.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::node;

/// How long shell of a case may take.
const SCRIPT_TIME: Duration = Duration::from_secs(20);
/// How much it may print.
pub const STDOUT_BYTES: usize = 1 << 20;
/// How much a script may, as that may be meant for a plugin's stdin.
const SCRIPT_BYTES: usize = 16 << 20;
/// How much of its stderr is kept, from its start.
const STDERR_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 8192;
/// As many as empty the largest pipe an ordinary user may have (1 MiB).
const PIPE_READS: usize = (1 << 20) / READ_BYTES;
/// How long its stdout may stay open after it has ended.
const AFTER_END: Duration = Duration::from_secs(1);
/// How much of what was printed a report repeats.
const TOLD_BYTES: usize = 600;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exit(i32),
    /// By this signal, which was not ours.
    Signal(i32),
    /// It was killed when this time was over.
    Late(Duration),
    /// It was killed, as it printed too much.
    Flood,
    /// It ended, but somebody it left kept its stdout open.
    Held,
}

/// What it did.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its end.
    pub end: End,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it printed for people.
    pub stderr: Vec<u8>,
    /// From its start to its end.
    pub took: Duration,
}

/// Runs a program (its environment is `env` and nothing else) and gives it `stdin`.
///
/// # Errors
/// It cannot be started or watched.
pub fn run(
    command: &mut Command,
    env: &[(String, String)],
    stdin: &[u8],
    limit: Duration,
) -> Result<Output> {
    run_as(Who::Judged(limit), command, env, stdin)
}

#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// For so long at most.
    Judged(Duration),
    /// A script of ours may start what goes on beside the calls.
    Script,
}

fn run_as(
    who: Who,
    command: &mut Command,
    env: &[(String, String)],
    stdin: &[u8],
) -> Result<Output> {
    let name = format!("run {}", command.get_program().display());
    let started = Instant::now();
    // SAFETY: one system call on a number, between fork and exec.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
    let mut child = command
        .env_clear()
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context(name)?;
    let attended = attend(&mut child, stdin, started, who);
    // Whoever is left of it. Not reaped yet, so that the group is no other's.
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    if who != Who::Script || !matches!(attended, Ok((None, ..))) {
        let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    }
    let status = child.wait()?;
    let (end, stdout, stderr) = attended?;
    let end = end.unwrap_or_else(|| match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    });
    Ok(Output {
        end,
        stdout,
        stderr,
        took: started.elapsed(),
    })
}

/// Until it has ended and its stdout is closed; or why not.
fn attend(
    child: &mut Child,
    stdin: &[u8],
    started: Instant,
    who: Who,
) -> Result<(Option<End>, Vec<u8>, Vec<u8>)> {
    let watch = pidfd(child).context("pidfd_open (Linux 5.3 or later)")?;
    let mut input = child.stdin.take();
    if let Some(pipe) = &input {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let mut rest = stdin;
    let (limit, most) = match who {
        Who::Judged(limit) => (limit, STDOUT_BYTES),
        Who::Script => (SCRIPT_TIME, SCRIPT_BYTES),
    };
    let mut stdout = Stream::of(child.stdout.take(), most + 1)?;
    let mut stderr = Stream::of(child.stderr.take(), STDERR_BYTES)?;
    let mut due = started + limit;
    let mut has_ended = false;
    let mut end = None;
    loop {
        feed(&mut input, &mut rest)?;
        stdout.read()?;
        stderr.read()?;
        if stdout.kept.len() > most {
            end = Some(End::Flood);
            break;
        }
        if !has_ended && is_ready(&watch)? {
            has_ended = true;
            due = due.min(Instant::now() + AFTER_END);
            continue;
        }
        // A pipe holds no more than was read just now.
        if has_ended && (stdout.pipe.is_none() || who == Who::Script) {
            break;
        }
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            end = Some(if has_ended {
                End::Held
            } else {
                End::Late(limit)
            });
            break;
        }
        let mut fds = Vec::new();
        for fd in [stdout.fd(), stderr.fd()].into_iter().flatten() {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        if let Some(pipe) = &input {
            fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
        }
        if !has_ended {
            fds.push(PollFd::new(watch.as_fd(), PollFlags::POLLIN));
        }
        // Rounded up, or the last millisecond would be spent asking.
        let millis = wait.as_millis().saturating_add(1);
        match poll(
            &mut fds,
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok((end, stdout.kept, stderr.kept))
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers. The process is a child that nobody has waited for.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = libc::c_int::try_from(fd).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: just opened, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn is_ready(fd: &OwnedFd) -> Result<bool> {
    match poll(
        &mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)],
        PollTimeout::ZERO,
    ) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes what fits, and closes the pipe after the last byte.
fn feed(input: &mut Option<std::process::ChildStdin>, rest: &mut &[u8]) -> io::Result<()> {
    while let Some(pipe) = input {
        if rest.is_empty() {
            *input = None;
            break;
        }
        match pipe.write(rest) {
            Ok(n) => *rest = rest.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // A plugin may refuse its environment before it reads.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => *input = None,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

struct Stream<R> {
    pipe: Option<R>,
    kept: Vec<u8>,
    most: usize,
}

impl<R: Read + AsFd> Stream<R> {
    fn of(pipe: Option<R>, most: usize) -> Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let kept = Vec::new();
        Ok(Self { pipe, kept, most })
    }

    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there, a pipe's worth at most: one that never stops writing must not keep us here.
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..PIPE_READS {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    let room = self.most.saturating_sub(self.kept.len()).min(n);
                    self.kept
                        .extend_from_slice(buffer.get(..room).unwrap_or_default());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Runs shell where the calling thread is.
///
/// # Errors
/// There is no shell.
pub fn sh(script: &str, env: &[(&str, &str)]) -> Result<Output> {
    let mut all = vec![("PATH".to_owned(), node::TOOLS.to_owned())];
    all.extend(env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let mut command = Command::new("/bin/sh");
    run_as(Who::Script, command.args(["-euc", script]), &all, b"")
}

// === impl Output ===

impl Output {
    /// It ended well by itself.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.end == End::Exit(0)
    }

    /// What it printed.
    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// If that is one JSON document.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.stdout).ok()
    }

    /// For a sentence's end: what it printed.
    #[must_use]
    pub fn printed(&self) -> String {
        match self.stdout.is_empty() {
            true => "; stdout is empty".to_owned(),
            false => format!("; stdout: {}", told(&self.stdout)),
        }
    }

    /// The same of stderr, if there is any.
    #[must_use]
    pub fn tail(&self) -> String {
        match self.stderr.is_empty() {
            true => String::new(),
            false => format!("; stderr: {}", told(&self.stderr)),
        }
    }
}

/// One line of text for people, whatever it was.
#[must_use]
pub fn told(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(value) = serde_json::from_str::<Value>(&text) {
        return cut(&value.to_string());
    }
    cut(text.trim_end())
}

fn cut(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c == '\n' { '|' } else { c })
        .filter(|c| !c.is_control())
        .collect();
    match clean.char_indices().nth(TOLD_BYTES) {
        None => clean,
        Some((at, _)) => format!("{}…", clean.get(..at).unwrap_or_default()),
    }
}
