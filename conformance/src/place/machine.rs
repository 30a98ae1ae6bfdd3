//! What the machine itself looked like before a node, and whether the node left a trace on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
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

/// What tells a node's processes from all others, once it is over.
#[derive(Debug)]
pub struct Footprint {
    node: String,
    /// The node's pid namespace and its containers'. Held open, or the kernel would give their numbers to the next ones.
    pid_namespaces: BTreeMap<String, File>,
}

/// The machine's state that has to be the same after a node as before: its own links, mounts, and files.
#[derive(Debug)]
pub struct Machine {
    links: BTreeSet<String>,
    mounts: BTreeSet<String>,
    files: BTreeSet<String>,
}

// === impl Machine ===

impl Machine {
    /// What there is now.
    pub fn now() -> Result<Machine> {
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

    /// What is there now and was not, a line each: links, mounts, files; and the cgroups and processes of one node.
    pub fn left_over(&self, of: &Footprint) -> Result<Vec<String>> {
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
            let path = format!("/sys/fs/cgroup{group}/{}", of.node);
            if Path::new(&path).exists() {
                left.push(format!("cgroup {path}"));
            }
        }
        for pid in pids("/proc") {
            let process = Process::read("/proc", pid);
            if of.pid_namespaces.contains_key(process.pid_namespace()) {
                left.push(format!("process {pid} ({})", process.name));
            }
        }
        Ok(left)
    }
}

// === impl Footprint ===

impl Footprint {
    /// Of the node called `node` whose first process is `first`, by the machine's numbering, as it is now.
    pub fn of(first: u32, node: &str) -> Result<Footprint> {
        let mut pid_namespaces = BTreeMap::new();
        for process in processes_of(first)? {
            let namespace = process.pid_namespace().to_owned();
            // A process may have ended since.
            if let Ok(held) = File::open(format!("{}/ns/pid", process.directory)) {
                pid_namespaces.insert(namespace, held);
            }
        }
        Ok(Footprint {
            node: node.to_owned(),
            pid_namespaces,
        })
    }

    /// How many containers the node had.
    pub fn containers(&self) -> usize {
        self.pid_namespaces.len().saturating_sub(1)
    }
}

/// A process as some `/proc` shows it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    directory: String,
    /// pid and network namespace: `net:[4026532561]`; empty if it has ended.
    namespaces: [String; 2],
}

/// All processes of the node that process `first` began, those in its containers too. They are read from the node's own
/// `/proc`, which shows just these.
pub(super) fn processes_of(first: u32) -> Result<Vec<Process>> {
    let proc = format!("/proc/{first}/root/proc");
    let processes: Vec<Process> = pids(&proc)
        .map(|pid| Process::read(&proc, pid))
        .filter(|p| !p.ended())
        .collect();
    anyhow::ensure!(
        !processes.is_empty(),
        "the node's first process {first} is gone"
    );
    Ok(processes)
}

// === impl Process ===

impl Process {
    fn read(proc: &str, pid: u32) -> Process {
        let directory = format!("{proc}/{pid}");
        let namespace = |kind: &str| {
            std::fs::read_link(format!("{directory}/ns/{kind}"))
                .map(|target| target.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let name = std::fs::read_to_string(format!("{directory}/comm")).unwrap_or_default();
        Process {
            name: name.trim().to_owned(),
            namespaces: ["pid", "net"].map(namespace),
            directory,
        }
    }

    /// A zombie still has a name, but no namespaces.
    fn ended(&self) -> bool {
        self.namespaces.iter().any(String::is_empty)
    }

    fn pid_namespace(&self) -> &str {
        let [pid_namespace, _] = &self.namespaces;
        pid_namespace
    }

    pub(super) fn netns(&self) -> &str {
        let [_, netns] = &self.namespaces;
        netns
    }
}

fn pids(proc: &str) -> impl Iterator<Item = u32> {
    names(proc).filter_map(|name| name.parse().ok())
}

fn names(directory: &str) -> impl Iterator<Item = String> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}
