//! Network namespaces for pods to be, made before anything is timed: a runtime makes them before it calls a plugin too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

const PINS: &str = "/run/netns";

/// Namespaces pinned under `/run/netns`, released on drop. The kernel takes them down later and in the background,
/// holding RTNL for long: keep a pool until nothing is timed any more.
#[derive(Debug)]
pub struct Pods {
    paths: Vec<PathBuf>,
}

impl Pods {
    /// `prefix` tells the pools of a run apart.
    pub fn create(prefix: &str, count: usize) -> Result<Self> {
        let home = File::open("/proc/self/ns/net")?;
        let mut pods = Self {
            paths: Vec::with_capacity(count),
        };
        for number in 0..count {
            let path = Path::new(PINS).join(format!("{prefix}{number}"));
            File::create(&path)?;
            pods.paths.push(path.clone());
            unshare(CloneFlags::CLONE_NEWNET).context("make a pod's netns")?;
            let pinned = mount(
                Some("/proc/self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            );
            setns(&home, CloneFlags::CLONE_NEWNET).context("return from a pod's netns")?;
            pinned.context("pin a pod's netns")?;
        }
        Ok(pods)
    }

    pub fn path(&self, number: usize) -> Result<&Path> {
        match self.paths.get(number) {
            Some(path) => Ok(path),
            None => bail!("pod {number} was never made"),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for path in &self.paths {
            // Nothing better can be done with an error: the mount namespace ends with this process anyway.
            let _ = umount2(path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(path);
        }
    }
}

/// Runs `work` inside the namespace at `path`. Sockets opened there stay there.
pub fn within<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = File::open("/proc/self/ns/net")?;
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET).context("enter a pod's netns")?;
    let outcome = work();
    setns(home, CloneFlags::CLONE_NEWNET).context("return from a pod's netns")?;
    outcome
}
