//! What the machine itself looked like before a node, and whether the node left a trace on it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

/// Directories that containerd, its shims or plugins would write to if a node were not closed.
const DIRECTORIES: [&str; 7] = [
    "/etc/cni/net.d",
    "/opt/cni/bin",
    "/var/lib/cni/networks",
    "/var/lib/cni/results",
    "/run/netns",
    "/run/containerd",
    "/run/runc",
];

/// The state that has to be the same afterwards.
#[derive(Debug)]
pub(super) struct Machine {
    links: BTreeSet<String>,
    mounts: BTreeSet<String>,
    files: BTreeSet<String>,
}

// === impl Machine ===

impl Machine {
    pub(super) fn now() -> Result<Machine> {
        Ok(Machine {
            links: names("/sys/class/net").collect(),
            mounts: std::fs::read_to_string("/proc/self/mountinfo")
                .context("read /proc/self/mountinfo")?
                .lines()
                .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
                .collect(),
            files: DIRECTORIES
                .iter()
                .flat_map(|directory| {
                    names(directory).map(move |name| format!("{directory}/{name}"))
                })
                .collect(),
        })
    }

    /// What is there now and was not: links, mounts, files, cgroups, and processes that live in one of `namespaces`.
    pub(super) fn left_over(
        &self,
        namespaces: &BTreeSet<String>,
        node: &str,
    ) -> Result<Vec<String>> {
        let now = Machine::now()?;
        let mut left: Vec<String> = Vec::new();
        left.extend(
            now.links
                .difference(&self.links)
                .map(|link| format!("link {link}")),
        );
        left.extend(
            now.mounts
                .difference(&self.mounts)
                .map(|mount| format!("mount {mount}")),
        );
        left.extend(
            now.files
                .difference(&self.files)
                .map(|file| format!("file {file}")),
        );
        for group in std::iter::once(String::new())
            .chain(names("/sys/fs/cgroup").map(|name| format!("/{name}")))
        {
            let path = format!("/sys/fs/cgroup{group}/{node}");
            if Path::new(&path).exists() {
                left.push(format!("cgroup {path}"));
            }
        }
        for pid in pids() {
            if ["pid", "net", "mnt"]
                .iter()
                .any(|kind| namespaces.contains(&namespace(pid, kind)))
            {
                left.push(format!("process {pid} ({})", comm(pid)));
            }
        }
        Ok(left)
    }
}

/// The pid, mount and network namespaces in which processes of the node that `first` began live.
pub(super) fn namespaces_of(first: u32) -> Result<BTreeSet<String>> {
    let mut namespaces = BTreeSet::new();
    for (pid, _, netns) in processes_of(first)? {
        namespaces.extend([namespace(pid, "pid"), namespace(pid, "mnt"), netns]);
    }
    namespaces.remove("");
    Ok(namespaces)
}

/// All processes of the node's pid namespace: number, name, network namespace.
pub(super) fn processes_of(first: u32) -> Result<Vec<(u32, String, String)>> {
    let node = namespace(first, "pid");
    anyhow::ensure!(!node.is_empty(), "the node's first process {first} is gone");
    Ok(pids()
        .filter(|pid| namespace(*pid, "pid") == node)
        .map(|pid| (pid, comm(pid), namespace(pid, "net")))
        .filter(|(_, _, netns)| !netns.is_empty())
        .collect())
}

/// `net:[4026532561]`; empty for a process that has ended.
pub(super) fn namespace(pid: u32, kind: &str) -> String {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))
        .map(|target| target.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn pids() -> impl Iterator<Item = u32> {
    names("/proc").filter_map(|name| name.parse().ok())
}

fn names(directory: &str) -> impl Iterator<Item = String> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}
