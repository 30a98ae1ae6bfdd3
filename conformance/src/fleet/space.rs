//! A network namespace.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A user's PATH often lacks where administrators' tools live.
const TOOLS_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// A network namespace, with `lo` up. It ends with this value, and with what runs in it.
#[derive(Debug)]
pub struct Space {
    name: String,
    netns: File,
}

// === impl Space ===

impl Space {
    /// Makes it; the name is for people.
    ///
    /// # Errors
    /// Not permitted, mostly.
    pub fn new(name: &str) -> Result<Space> {
        // A thread that leaves for a new namespace, holds it open and ends.
        let made = thread::spawn(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let netns = made
            .join()
            .map_err(|_| anyhow!("the thread that made it panicked"));
        let space = Space {
            name: name.to_owned(),
            netns: netns?.with_context(|| format!("a network namespace for {name}"))?,
        };
        // Addresses are unique by construction, and nobody waits for a second or two until that is found out.
        space.sh("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip link set lo up")?;
        Ok(space)
    }

    /// What it was called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, for `ip link set netns`, `nsenter --net=` and `CNI_NETNS`; good as long as this process has it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd())
    }

    /// A program to be run in it.
    pub fn command(&self, program: &str) -> Command {
        let netns = self.netns.as_raw_fd();
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", [&path, ":", TOOLS_PATH].concat());
        // SAFETY: between fork and exec, setns is one system call, on a descriptor that the parent keeps open while it
        // starts the program.
        unsafe {
            command.pre_exec(move || {
                let netns = std::os::fd::BorrowedFd::borrow_raw(netns);
                setns(netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
            });
        }
        command
    }

    /// Runs a shell script (`sh -eu`) in it; what it printed.
    ///
    /// # Errors
    /// It failed; with all it said.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self
            .command("sh")
            .args(["-euc", script])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("a shell in {}", self.name))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "in {}: {script}: {}\n{stdout}{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stdout)
    }

    /// Runs the closure on a thread that lives in it.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    ///
    /// # Panics
    /// If the closure does.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || -> Result<T> {
            setns(&self.netns, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("enter {}", self.name))?;
            Ok(body())
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
