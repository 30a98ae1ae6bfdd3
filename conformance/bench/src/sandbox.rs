//! Where the measuring happens: namespaces of its own, and a directory that is removed whatever happens.
//!
//! Two processes. The outer one owns the work directory on the real file system (a store on tmpfs would flatter
//! everyone) and waits; the inner one, the same executable again, moves into new user (unless root), network and mount
//! namespaces, so that a crash of it leaves nothing but the directory that the outer one removes.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getegid, geteuid};

/// Set in the inner process to the work directory.
const INNER: &str = "PODWIRE_BENCH_WORK_DIR";

/// The work directory, when this is the inner process.
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(INNER).map(PathBuf::from)
}

/// Runs this executable again with the same arguments as the inner process; removes the work directory afterwards,
/// also when interrupted.
pub fn run_inside(work_root: &Path) -> Result<ExitCode> {
    let work = WorkDir::create(work_root)?;
    // Blocked, not ignored: std gives the child an empty mask again, so there ^C still kills.
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;

    let mut inner = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INNER, &work.0)
        .spawn()
        .context("start the measuring process")?;
    let mut interrupted = false;
    loop {
        if let Some(status) = inner.try_wait()? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            if code.is_none() && !interrupted {
                eprintln!("bench: the measuring process died: {status}");
            }
            return Ok(ExitCode::from(if interrupted {
                130
            } else {
                code.unwrap_or(101)
            }));
        }
        let signal = signals.wait().context("wait for the measuring process")?;
        if signal != Signal::SIGCHLD {
            eprintln!("bench: stopped by {signal}");
            interrupted = true;
            inner.kill().context("stop the measuring process")?;
        }
    }
}

/// Moves this process (single-threaded: unshare demands it) into its namespaces and gives it a `/run` on tmpfs and an
/// empty `/var/lib` inside `work`, on the real file system.
pub fn enter(work: &Path) -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).context("make namespaces (is kernel.unprivileged_userns_clone off?)")?;
    if !uid.is_root() {
        // A mapping of one's own group needs setgroups denied first: user_namespaces(7).
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make mounts private")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)
        .context("mount a tmpfs on /run")?;
    let var_lib = work.join("var-lib");
    fs::create_dir(&var_lib)?;
    mount(Some(&var_lib), "/var/lib", none, MsFlags::MS_BIND, none).context("cover /var/lib")?;
    fs::create_dir("/run/netns")?;
    Ok(())
}

/// A new directory, removed with all in it on drop.
#[derive(Debug)]
struct WorkDir(PathBuf);

impl WorkDir {
    fn create(root: &Path) -> Result<Self> {
        let path = root.join(format!("podwire-bench-{}", Pid::this()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("make the work directory {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: could not remove {}: {error}", self.0.display());
        }
    }
}
