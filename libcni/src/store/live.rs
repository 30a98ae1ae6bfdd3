//! Which addresses are in use in some network namespace of this machine, and which namespaces somebody is in.
//!
//! Asked once per boot, if an earlier one left reservations, and by whoever collects what nobody owns any more.
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};

/// Namespaces that were looked into, this one included.
#[derive(Debug, Default)]
pub struct Live {
    /// Inodes of the namespaces (`stat -L -c %i /run/netns/NAME`).
    pub namespaces: BTreeSet<u64>,
    /// The addresses in them.
    pub addresses: BTreeSet<IpAddr>,
}

/// Which namespaces count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that a process we may look at is in.
    Occupied,
    /// Also those that are pinned by a mount.
    All,
}

/// Looks into this network namespace and all others that count. Only the calling thread moves, and comes back.
///
/// # Errors
/// Some pinned namespace could not be looked into: then nothing may be concluded from what is missing.
pub fn look(which: Which) -> io::Result<Live> {
    let home = File::open("/proc/thread-self/ns/net")?;
    // If we may not come back, do not leave.
    setns(&home, CloneFlags::CLONE_NEWNET)?;
    let mut live = Live::default();
    live.namespaces.insert(home.metadata()?.ino());
    live.collect()?;
    if which == Which::All {
        for path in pinned(&fs::read("/proc/self/mountinfo")?) {
            match File::open(&path) {
                Ok(ns) => live.visit(&home, &ns)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    for process in fs::read_dir("/proc")?.flatten() {
        // Another user's process, or gone: its namespace is none of our pods'.
        if let Ok(ns) = File::open(process.path().join("ns/net")) {
            let _ = live.visit(&home, &ns);
        }
    }
    Ok(live)
}

impl Live {
    fn visit(&mut self, home: &File, ns: &File) -> io::Result<()> {
        if !self.namespaces.insert(ns.metadata()?.ino()) {
            return Ok(());
        }
        setns(ns, CloneFlags::CLONE_NEWNET)?;
        let collected = self.collect();
        if setns(home, CloneFlags::CLONE_NEWNET).is_err() {
            // It worked a moment ago. Going on in a pod's namespace as if it were the host's must not happen.
            std::process::abort();
        }
        collected
    }

    fn collect(&mut self) -> io::Result<()> {
        for interface in getifaddrs()? {
            let Some(address) = interface.address else {
                continue;
            };
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
            self.addresses.extend(v4.into_iter().chain(v6));
        }
        Ok(())
    }
}

/// Mount points of network namespaces. A line of proc_pid_mountinfo(5):
/// `512 28 0:4 net:[4026532345] /run/netns/pod1 rw shared:290 - nsfs nsfs rw`
fn pinned(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|b| *b == b'\n');
    let paths = lines.filter_map(|line| {
        let mut words = line.split(|b| *b == b' ');
        let (root, at) = (words.nth(3)?, words.next()?);
        root.starts_with(b"net:[")
            .then(|| PathBuf::from(std::ffi::OsString::from_vec(unescaped(at))))
    });
    paths.collect()
}

/// Space, tab, newline and backslash are written `\ooo`.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((byte, rest)) = text.split_first() {
        text = rest;
        let octal = rest.split_at_checked(3).filter(|_| *byte == b'\\');
        match octal.and_then(|(digits, rest)| {
            let code = u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()?;
            Some((code, rest))
        }) {
            Some((code, after)) => {
                plain.push(code);
                text = after;
            }
            None => plain.push(*byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_of_network_namespaces() {
        let mountinfo = b"21 28 0:20 / /proc rw,nosuid shared:5 - proc proc rw\n\
            512 28 0:4 net:[4026532345] /run/netns/pod1 rw shared:290 - nsfs nsfs rw\n\
            513 28 0:4 mnt:[4026532346] /run/mntns/pod1 rw - nsfs nsfs rw\n\
            514 28 0:4 net:[4026532347] /run/a\\040b\\134c rw - nsfs nsfs rw\n";
        assert_eq!(
            pinned(mountinfo),
            [
                PathBuf::from("/run/netns/pod1"),
                PathBuf::from("/run/a b\\c")
            ]
        );
    }
}
