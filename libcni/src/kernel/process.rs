//! Running another program and waiting for it: fork, exec, wait.
//!
//! What `std::process` does and plugins need of it, in a twentieth of its size: one child, no shell, no threads.
//! Its three standard streams are anonymous files, so neither side can block on the other.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Output {
    /// Its end.
    pub ended: Ended,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exit(i32),
    /// A signal ended it.
    Signal(Signal),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {}", signal.as_str()),
        }
    }
}

/// The child being waited for, 0 for none.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// Sends a signal to the program that [`run`] waits for, if it does. For signal handlers (async-signal-safe): a
/// process that is asked to stop asks its child.
pub fn signal_child(signal: Signal) -> bool {
    let child = CHILD.load(Ordering::Relaxed);
    // One that is gone already changes nothing.
    child > 0 && kill(Pid::from_raw(child), signal).is_ok()
}

/// The environment of a program.
#[derive(Debug, Clone, Copy)]
pub enum Environment<'a> {
    /// None.
    Empty,
    /// This process's, with these variables set.
    With(&'a [(&'a str, &'a str)]),
}

/// Runs `file` with `args` (the name it is called by included). It dies with this process: a caller that is killed
/// must not leave it working. Signals that come meanwhile: see [`signal_child`].
///
/// # Errors
/// It could not be started: the errno of `execve(2)`, or of what had to be set up for it.
pub fn run(file: &Path, args: &[&str], env: Environment<'_>, stdin: &[u8]) -> io::Result<Output> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    let args = strings(args.iter().map(|a| a.as_bytes().to_vec()))?;
    let env = match env {
        Environment::Empty => Vec::new(),
        Environment::With(set) => strings(environment(set))?,
    };
    let mut input = anonymous()?;
    input.write_all(stdin)?;
    input.seek(SeekFrom::Start(0))?;
    let (stdout, stderr, failure) = (anonymous()?, anonymous()?, anonymous()?);
    let (args, env) = (pointers(&args), pointers(&env));
    let streams = [input.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()];
    let parent = getpid();
    // SAFETY: the process has one thread, and until execve or _exit the child makes system calls only; all memory
    // it reads was laid out above.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            CHILD.store(child.as_raw(), Ordering::Relaxed);
            let ended = wait(child);
            CHILD.store(0, Ordering::Relaxed);
            let ended = ended?;
            if let Some(errno) = reported(&failure) {
                return Err(errno.into());
            }
            Ok(Output {
                ended,
                stdout: content(stdout)?,
                stderr: content(stderr)?,
            })
        }
        ForkResult::Child => {
            let errno = exec(parent, &streams, &path, &args, &env);
            let _ = failure.write_all_at(&(errno as i32).to_ne_bytes(), 0);
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(127) }
        }
    }
}

/// What an administrator's program printed: run by absolute path, with these words after its name and no environment.
///
/// # Errors
/// The command, and why it failed: how it ended and the first line of its stderr.
pub fn told(program: &str, args: &[&str], stdin: &str) -> Result<String, String> {
    let failed = |reason: &str| [program, " ", &args.join(" "), ": ", reason].concat();
    let words = [&[program], args].concat();
    let file = Path::new(program);
    let output = run(file, &words, Environment::Empty, stdin.as_bytes())
        .map_err(|error| failed(&error.to_string()))?;
    match output.ended {
        Ended::Exit(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        ended => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default();
            Err(failed(&[&ended.to_string(), " ", said].concat()))
        }
    }
}

/// The child's part. Returns only if it failed.
fn exec(
    parent: Pid,
    streams: &[i32; 3],
    path: &CString,
    args: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> Errno {
    if let Err(errno) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        return errno;
    }
    if getppid() != parent {
        return Errno::ESRCH; // it died before that took effect
    }
    for (to, from) in (0..).zip(streams) {
        // SAFETY: plain descriptor numbers, all open. The anonymous files are close-on-exec, their copies not.
        if unsafe { libc::dup2(*from, to) } < 0 {
            return Errno::last();
        }
    }
    // SAFETY: NUL-terminated strings in NULL-terminated arrays that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Errno::last()
}

fn wait(child: Pid) -> io::Result<Ended> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(Ended::Exit(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ended::Signal(signal)),
            // A signal to us is passed on to the child by the handler; its end is still to be waited for.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The errno of an exec that failed.
fn reported(failure: &File) -> Option<Errno> {
    let mut errno = [0; 4];
    failure.read_exact_at(&mut errno, 0).ok()?;
    Some(Errno::from_raw(i32::from_ne_bytes(errno)))
}

fn anonymous() -> io::Result<File> {
    Ok(memfd_create(c"cni", MFdFlags::MFD_CLOEXEC)?.into())
}

fn content(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `KEY=VALUE` of this process, those of `set` replaced.
fn environment(set: &[(&str, &str)]) -> impl Iterator<Item = Vec<u8>> {
    let join = |key: &[u8], value: &[u8]| [key, b"=", value].concat();
    let inherited = std::env::vars_os()
        .filter(|(key, _)| !set.iter().any(|(replaced, _)| OsStr::new(replaced) == key))
        .map(move |(key, value)| join(key.as_bytes(), value.as_bytes()));
    inherited.chain(
        set.iter()
            .map(move |(key, value)| join(key.as_bytes(), value.as_bytes())),
    )
}

fn strings(all: impl Iterator<Item = Vec<u8>>) -> io::Result<Vec<CString>> {
    let strings: Result<Vec<CString>, _> = all.map(CString::new).collect();
    Ok(strings?)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let ends = [std::ptr::null()];
    strings.iter().map(|s| s.as_ptr()).chain(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, env: &[(&str, &str)], stdin: &[u8]) -> Output {
        let args = ["sh", "-c", script];
        run(Path::new("/bin/sh"), &args, Environment::With(env), stdin).unwrap()
    }

    #[test]
    fn streams_environment_and_status() {
        let out = sh(
            "cat; echo $WORD >&2; exit 3",
            &[("WORD", "x y")],
            b"in\0put",
        );
        assert_eq!(out.ended, Ended::Exit(3));
        assert_eq!(
            (out.stdout.as_slice(), out.stderr.as_slice()),
            (&b"in\0put"[..], &b"x y\n"[..])
        );
    }

    #[test]
    fn more_than_any_pipe_holds() {
        let big = vec![b'a'; 3 << 20];
        assert_eq!(sh("cat; cat /dev/null", &[], &big).stdout.len(), big.len());
    }

    #[test]
    fn a_signal_and_a_missing_file() {
        assert_eq!(
            sh("kill -9 $$", &[], b"").ended,
            Ended::Signal(Signal::SIGKILL)
        );
        let missing = run(Path::new("/nowhere/x"), &["x"], Environment::Empty, b"");
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
