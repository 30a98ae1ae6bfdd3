//! Runs a program and follows it and all it starts, system call by system call.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{self, c_int};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::calls::{Fault, name};
use super::stop::{self, Begun, Stop};

/// How long a program may take, however much it is slowed down by being followed.
/// Many at once take turns at the kernel's locks.
const LIMIT: Duration = Duration::from_secs(60);
/// What it may print on stdout or stderr; with more it waits, until [`LIMIT`].
const OUTPUT: c_int = 256 << 10;

/// What is to happen, and when. Points are counted from 1, over the program and all it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Nothing, and system calls are not looked at.
    Never,
    /// Nothing, but each call is noted.
    Watch,
    /// All are killed after that many calls.
    Kill(usize),
    /// Of the calls that may return this error, this one does.
    Fail(Fault, usize),
}

/// How it ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Exit status; none if a signal ended it.
    pub(super) code: Option<c_int>,
    /// It took longer than [`LIMIT`], and did this then.
    pub(super) late: Option<String>,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// The call at which it happened, if it came to that.
    pub(super) point: Option<String>,
    /// How many calls there were.
    pub(super) calls: usize,
    /// How many of them may return each error.
    pub(super) may_fail: BTreeMap<Fault, usize>,
}

/// Those that live, for the guard of the time; and what they did when it was over.
type Living = Arc<Mutex<(BTreeSet<Pid>, Option<String>)>>;

struct Tracer {
    root: Pid,
    at: At,
    living: Living,
    /// Those that have yet to stop for the first time.
    born: BTreeSet<Pid>,
    /// Those between the beginning and the end of the call in question.
    within: BTreeSet<Pid>,
    /// The program has begun to read its configuration: until then it cannot be asked for an answer.
    asked: bool,
    killed: bool,
    ended: Ended,
}

/// Runs it, on a thread that has no other children.
pub(super) fn run(command: &mut Command, stdin: &[u8], at: At) -> Result<Ended> {
    stop::follow(command);
    let (input, mut feed) = pipe()?;
    let (output, stdout) = limited_pipe()?;
    let (errors, stderr) = limited_pipe()?;
    let child = command
        .stdin(Stdio::from(OwnedFd::from(input)))
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    // The ends that are the program's; otherwise they would stay open here.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null());
    let root = Pid::from_raw(i32::try_from(child.id())?);
    let living: Living = Arc::default();
    lock(&living).0.insert(root);
    let (over, guard) = mpsc::channel::<()>();
    let watched = Arc::clone(&living);
    let guard = thread::spawn(move || {
        if guard.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            let mut living = lock(&watched);
            living.1 = Some(
                living
                    .0
                    .iter()
                    .map(|pid| doing(*pid))
                    .collect::<Vec<_>>()
                    .join(", "),
            );
            living.0.iter().for_each(|pid| end(*pid));
        }
    });
    // It has not run yet, and what a plugin is given fits a pipe: so this does not wait, and cannot break.
    fcntl(feed.as_fd(), FcntlArg::F_SETPIPE_SZ(OUTPUT))?;
    feed.write_all(stdin)?;
    drop(feed);
    let mut tracer = Tracer {
        root,
        at,
        living,
        born: BTreeSet::new(),
        within: BTreeSet::new(),
        asked: false,
        killed: false,
        ended: Ended::default(),
    };
    stop_first(root)?;
    while let Some((pid, stop)) = stop::next()? {
        tracer.stopped(pid, stop);
    }
    drop(over);
    let _ = guard.join();
    tracer.ended.late.clone_from(&lock(&tracer.living).1);
    tracer.ended.stdout = read(output)?;
    tracer.ended.stderr = read(errors)?;
    Ok(tracer.ended)
}

/// Its first stop is after its `execve`.
fn stop_first(root: Pid) -> Result<()> {
    if let Some((pid, Stop::Signal(_))) = stop::next()? {
        // Unless it has been killed meanwhile.
        let _ = stop::follow_children(pid);
        stop::go_on(root, 0, true);
    }
    Ok(())
}

impl Tracer {
    fn stopped(&mut self, pid: Pid, stop: Stop) {
        if let Stop::Ended(status) = stop {
            lock(&self.living).0.remove(&pid);
            self.within.remove(&pid);
            if pid == self.root {
                self.ended.code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            }
            return;
        }
        let is_new = lock(&self.living).0.insert(pid) || self.born.remove(&pid);
        let late = lock(&self.living).1.is_some();
        if self.killed || late {
            end(pid);
        }
        let mut signal = 0;
        match stop {
            Stop::Event(Some(child)) => {
                if lock(&self.living).0.insert(child) {
                    self.born.insert(child);
                }
            }
            Stop::Event(None) | Stop::Ended(_) => {}
            // The kernel's, to say that it follows it.
            Stop::Signal(libc::SIGSTOP) if is_new => {}
            // It has stopped; nobody here would wake it up.
            Stop::Signal(libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => {}
            Stop::Signal(other) => signal = other,
            Stop::Call if self.at == At::Never => {}
            Stop::Call => match stop::begun(pid) {
                Some(call) => self.begins(pid, &call),
                None => self.ends(pid),
            },
        }
        stop::go_on(pid, signal, self.at != At::Never);
    }

    fn begins(&mut self, pid: Pid, call: &Begun) {
        self.ended.calls += 1;
        // It, or a child that does it for it.
        self.asked |= call.number == libc::SYS_read && call.args[0] == 0;
        if self.asked {
            for fault in Fault::ALL {
                if fault.may_come_of(call, pid) {
                    *self.ended.may_fail.entry(fault).or_default() += 1;
                }
            }
        }
        let here = match self.at {
            At::Never | At::Watch => false,
            At::Kill(n) => self.ended.calls == n,
            At::Fail(fault, n) => {
                self.asked
                    && fault.may_come_of(call, pid)
                    && self.ended.may_fail.get(&fault) == Some(&n)
                    && stop::skip(pid).is_ok()
            }
        };
        if here {
            let by = if pid == self.root { "" } else { " of a child" };
            self.ended.point = Some(format!("{}{by}", name(call.number)));
            self.within.insert(pid);
        }
    }

    fn ends(&mut self, pid: Pid) {
        if !self.within.remove(&pid) {
            return;
        }
        match self.at {
            At::Kill(_) => {
                self.killed = true;
                lock(&self.living).0.iter().for_each(|pid| end(*pid));
            }
            // If it has gone, so has the call.
            At::Fail(fault, _) => drop(stop::answer(pid, fault.errno())),
            At::Never | At::Watch => {}
        }
    }
}

/// `bridge: S (sleeping) in flock_lock_inode_wait`
fn doing(pid: Pid) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let of = |key: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .unwrap_or("?")
            .trim()
    };
    format!("{}: {} in {}", of("Name:"), of("State:"), read("wchan"))
}

/// One that is gone already need not be.
fn end(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
}

fn lock(living: &Living) -> MutexGuard<'_, (BTreeSet<Pid>, Option<String>)> {
    living.lock().unwrap_or_else(PoisonError::into_inner)
}

fn limited_pipe() -> Result<(PipeReader, OwnedFd)> {
    let (reader, writer) = pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(OUTPUT))?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer.into()))
}

/// What is in it. Whoever could have written more is gone.
fn read(pipe: PipeReader) -> Result<String> {
    let mut bytes = Vec::new();
    match File::from(OwnedFd::from(pipe)).read_to_end(&mut bytes) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        read => drop(read?),
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
