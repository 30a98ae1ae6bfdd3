//! A second network namespace, as a container runtime makes one for a pod.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use crate::shell::{json_of, stdout_of};

/// A network namespace with a path (`/run/netns/NAME` of the test's own `/run`), usable as `CNI_NETNS`.
/// Its `lo` is down, as a runtime hands it over. Gone when dropped.
#[derive(Debug)]
pub struct Pod {
    path: PathBuf,
    netns: File,
}

impl Pod {
    /// Makes it. Only inside [`crate::in_netns`].
    pub fn new(name: &str) -> Self {
        let path = Path::new("/run/netns").join(name);
        File::create_new(&path)
            .unwrap_or_else(|e| panic!("{}: {e} (outside in_netns?)", path.display()));
        let target = path.clone();
        // A thread that leaves for a new namespace, pins it by a mount and ends.
        let made = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let none = None::<&str>;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                none,
                MsFlags::MS_BIND,
                none,
            )
        });
        made.join()
            .unwrap()
            .unwrap_or_else(|e| panic!("pod {name}: {e}"));
        let netns = File::open(&path).unwrap();
        Self { path, netns }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path as text, for `CNI_NETNS`.
    pub fn netns(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// A program to be run in it.
    pub fn command(&self, program: &str) -> Command {
        let netns = self.netns.try_clone().unwrap();
        let mut command = Command::new(program);
        command.env("PATH", crate::netns::tools_path());
        // SAFETY: setns is one system call on a descriptor opened before the fork.
        unsafe {
            command
                .pre_exec(move || setns(&netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        }
        command
    }

    /// Runs a program in it, panics when it fails, returns what it printed.
    #[track_caller]
    pub fn exec(&self, argv: &[&str]) -> String {
        let (program, args) = argv.split_first().expect("a program");
        stdout_of(self.command(program).args(args), &argv.join(" "))
    }

    /// Runs a shell script (`sh -eu`) in it, panics when it fails, returns what it printed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.exec(&["sh", "-euc", script])
    }

    /// `ip -j ARGS` in it.
    #[track_caller]
    pub fn ip_json(&self, args: &[&str]) -> Value {
        let argv = [&["ip", "-j"], args].concat();
        json_of(&self.exec(&argv))
    }

    /// Runs the closure on a thread that lives in it.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
            body()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A test may have removed it already, to see what the plugin does then.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{in_netns, sh};

    #[test]
    fn a_pod_is_another_namespace() {
        in_netns(|| {
            let pod = Pod::new("one");
            sh("ip link add br0 type bridge");
            assert_eq!(pod.ip_json(&["link"])[0]["operstate"], "DOWN");
            assert_eq!(pod.ip_json(&["link"]).as_array().unwrap().len(), 1);
            sh(&format!(
                "nsenter --net={} ip link add br1 type bridge",
                pod.netns()
            ));
            assert!(pod.sh("ip link show br1").contains("br1"));
            let inode = pod.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
            assert_ne!(inode, fs::read_link("/proc/self/ns/net").unwrap());
            let path = pod.path().to_owned();
            drop(pod);
            assert!(!path.exists());
        });
    }
}
