//! One side: a node and its pods, in network namespaces of their own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Where either side finds its plugins: their messages name `CNI_PATH`.
pub const PLUGINS: &str = "/run/plugins";
pub(crate) const TOOLS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// The calling thread's network and mount namespace, private to it until it ends.
#[derive(Debug)]
pub struct Node {
    netns: File,
    pods: Vec<Pod>,
}

/// A pod's namespace, at `/run/netns/NAME`.
#[derive(Debug)]
pub struct Pod {
    /// As the case calls it.
    pub name: String,
    netns: File,
}

// === impl Node ===

impl Node {
    /// Takes the calling thread away from the rest of the process: a new node, its `lo` up, `/run` and `/var/lib/cni`
    /// empty, with the plugins at [`PLUGINS`].
    pub fn enter(plugins: &Path, pods: &[String], dad: bool) -> Result<Node> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("new namespaces")?;
        let empty = |dir: &'static str| {
            let tmpfs = Some("tmpfs");
            mount(tmpfs, dir, tmpfs, MsFlags::empty(), Some("mode=0755")).context(dir)
        };
        empty("/run")?;
        if !Path::new("/var/lib/cni").is_dir() {
            // A machine that never had a plugin: the directory is made where nobody else sees it.
            empty("/var/lib")?;
            fs::create_dir("/var/lib/cni")?;
        }
        empty("/var/lib/cni")?;
        fs::create_dir("/run/netns")?;
        fs::create_dir(PLUGINS)?;
        let none = None::<&str>;
        mount(Some(plugins), PLUGINS, none, MsFlags::MS_BIND, none)
            .with_context(|| plugins.display().to_string())?;
        let mut node = Node {
            netns: File::open(OWN_NETNS)?,
            pods: Vec::new(),
        };
        // Otherwise each address is tentative for 1 to 2 s, with its routes yet to come.
        let quicken = || match dad {
            true => Ok(()),
            false => fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"),
        };
        quicken()?;
        node.sh("ip link set lo up")?;
        for name in pods {
            let pod = node.make_pod(name)?;
            node.inside(&pod, || Ok(quicken()?))?;
            node.pods.push(pod);
        }
        Ok(node)
    }

    fn make_pod(&self, name: &str) -> Result<Pod> {
        let path = Path::new("/run/netns").join(name);
        File::create_new(&path)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let none = None::<&str>;
        mount(Some(OWN_NETNS), &path, none, MsFlags::MS_BIND, none)?;
        setns(&self.netns, CloneFlags::CLONE_NEWNET)?;
        Ok(Pod {
            name: name.to_owned(),
            netns: File::open(&path)?,
        })
    }

    /// The pods, in the case's order.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Does something in a pod. The thread comes back in any case but a panic, after which it is not used again.
    pub fn inside<T>(&self, pod: &Pod, work: impl FnOnce() -> Result<T>) -> Result<T> {
        setns(&pod.netns, CloneFlags::CLONE_NEWNET)?;
        let done = work();
        setns(&self.netns, CloneFlags::CLONE_NEWNET)?;
        done
    }

    /// Runs a shell script where the thread is.
    pub fn sh(&self, script: &str) -> Result<()> {
        if script.is_empty() {
            return Ok(());
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-euc", script]);
        let output = run(&mut command, &[], b"")?;
        ensure!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// What a plugin is told by environment about an interface of a pod's (`""` is no pod), and the `PATH` of its tools;
/// `more` goes over it, and without a value takes away.
pub fn environment(
    verb: &str,
    (container, pod, ifname): (&str, &str, &str),
    more: &BTreeMap<String, Option<String>>,
) -> Vec<(String, String)> {
    let netns = match pod {
        "" => String::new(),
        pod => format!("/run/netns/{pod}"),
    };
    let usual = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", container),
        ("CNI_NETNS", &netns),
        ("CNI_IFNAME", ifname),
        ("CNI_PATH", PLUGINS),
        ("PATH", TOOLS),
    ];
    let mut env =
        BTreeMap::from(usual.map(|(key, value)| (key.to_owned(), Some(value.to_owned()))));
    env.extend(more.clone());
    env.into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

/// Runs a program with this environment (besides `PATH`) and this stdin.
pub fn run(command: &mut Command, env: &[(String, String)], stdin: &[u8]) -> Result<Output> {
    let mut child = command
        .env_clear()
        .env("PATH", TOOLS)
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let Some(mut pipe) = child.stdin.take() else {
        bail!("no stdin");
    };
    match pipe.write_all(stdin) {
        // A plugin may refuse its environment before it reads.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    drop(pipe);
    Ok(child.wait_with_output()?)
}

/// Where a tool is. With a path that is no longer looked up, the standard library need not fork this large process.
pub fn tool(name: &str) -> PathBuf {
    let paths = TOOLS.split(':').map(|dir| Path::new(dir).join(name));
    let found = paths.into_iter().find(|p| p.is_file());
    found.unwrap_or_else(|| name.into())
}

/// The executable of either side.
pub fn plugin(name: &str) -> PathBuf {
    Path::new(PLUGINS).join(name)
}
