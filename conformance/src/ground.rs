//! Where this program works: user, network and mount namespaces of its own, so that no plugin under test can reach the
//! machine's links, rules and files below `/run` and `/var/lib/cni`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Each node has one of its own.
const CNI: &str = "/var/lib/cni";

/// Moves the process there. It must not have a second thread yet.
///
/// # Errors
/// The kernel forbids it (`kernel.unprivileged_userns_clone`, a container's seccomp filter).
pub fn enter() -> Result<()> {
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if geteuid().is_root() {
        unshare(namespaces).context("make network and mount namespaces")?;
    } else {
        let (uid, gid) = (geteuid(), getegid());
        unshare(namespaces | CloneFlags::CLONE_NEWUSER)
            .context("make a user namespace (as root none is needed)")?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    let none = None::<&str>;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(none, "/", none, private, none).context("keep mounts to ourselves")?;
    if !Path::new(CNI).is_dir() {
        // Making it for real would leave it behind, and an ordinary user could not.
        let tmpfs = Some("tmpfs");
        mount(
            tmpfs,
            "/var/lib",
            tmpfs,
            MsFlags::empty(),
            Some("mode=0755"),
        )
        .context("/var/lib")?;
        fs::create_dir(CNI)?;
    }
    Ok(())
}
