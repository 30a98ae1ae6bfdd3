//! A node whose containerd serves CRI, with pods that are asked for the way a kubelet asks, and ways to lose some.
//!
//! It is a [`containerd::Node`](crate::containerd::Node): in namespaces of its own, gone when dropped. Pods are sandboxes,
//! without containers: the network is the sandbox's.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cri::{Client, Sandbox, SandboxConfig};

use crate::containerd::Node;
use crate::place::{pause, require};

const CRI_TOML: &str = include_str!("cri/cri.toml");
const SOCKET: &str = "/run/containerd/containerd.sock";
/// For each call; dozens of pods at once keep a small machine busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node with CRI. Dropping it ends everything in it.
#[derive(Debug)]
pub struct CriNode {
    node: Node,
}

/// A pod that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The pod's name.
    pub name: String,
    /// The sandbox's ID, which is `CNI_CONTAINERID`.
    pub id: String,
    /// Its address, as the runtime has it from the plugins' result.
    pub ip: String,
}

/// When containerd is killed, see [`CriNode::crash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The chain of the pod's network has run, and the runtime did not hear of its end: nothing is in the results cache.
    BeforeTheCache,
    /// The pod's network is made and its result cached; containerd waits for `lo`, which it makes beside it.
    AfterTheCache,
}

/// While it lives, every ADD of one plugin does its work and then waits.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
    // The plugin's stand-in waits for this lock; a test that dies gives it up.
    _shut: File,
}

// === impl CriNode ===

impl CriNode {
    /// Starts a node whose `/opt/cni/bin` holds the executables of `plugins`, which must have `bridge` and `loopback`, and
    /// whose `/etc/cni/net.d` holds `conflist`; returns when containerd calls itself and its network ready.
    pub fn start(plugins: &Path, conflist: &str) -> Result<CriNode> {
        require(&["flock", "pgrep"])?;
        let node = Node::start_with(plugins, conflist, &["bridge", "loopback"], CRI_TOML)?;
        let node = CriNode { node };
        node.ready()?;
        Ok(node)
    }

    /// The node itself, to look around.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// containerd's socket, as a path that works from here.
    pub fn socket(&self) -> PathBuf {
        self.node.path(SOCKET)
    }

    /// A connection to it.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.socket(), PATIENCE)?)
    }

    fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let conditions = self.client().and_then(|client| Ok(client.status()?));
            if conditions
                .as_ref()
                .is_ok_and(|all| all.iter().all(|condition| condition.holds))
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = self.node.read("/run/containerd.log").unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(20).collect();
                bail!(
                    "containerd's CRI is not ready: {conditions:?}\n{}",
                    end.join("\n")
                );
            }
            pause();
        }
    }

    /// Runs these pods, all at once.
    pub fn run(&self, names: &[String]) -> Result<Vec<Pod>> {
        at_once(names, |name| self.run_one(name))
    }

    fn run_one(&self, name: &str) -> Result<Pod> {
        let client = self.client()?;
        let config = SandboxConfig {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            uid: format!("{name}-uid"),
            hostname: name.to_owned(),
            cgroup_parent: self.node.cgroup(),
            ..SandboxConfig::default()
        };
        let id = client
            .run_pod_sandbox(&config)
            .with_context(|| format!("run pod {name}"))?;
        let status = client.pod_sandbox_status(&id)?;
        ensure!(status.sandbox.ready, "pod {name} is not ready");
        let ip = status
            .ips
            .into_iter()
            .next()
            .with_context(|| format!("pod {name} has no address"))?;
        Ok(Pod {
            name: name.to_owned(),
            id,
            ip,
        })
    }

    /// Stops and removes these sandboxes, all at once.
    pub fn remove(&self, ids: &[String]) -> Result<()> {
        at_once(ids, |id| {
            let client = self.client()?;
            client.stop_pod_sandbox(id)?;
            Ok(client.remove_pod_sandbox(id)?)
        })?;
        Ok(())
    }

    /// The sandboxes that containerd knows.
    pub fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        Ok(self.client()?.list_pod_sandboxes()?)
    }

    /// The containers for which an ADD of this plugin did its work.
    pub fn added(&self, plugin: &str) -> Result<BTreeSet<String>> {
        let calls = self.node.calls()?.into_iter();
        Ok(calls
            .filter(|call| call.plugin == plugin && call.verb == "ADD" && call.status == 0)
            .map(|call| call.container)
            .collect())
    }

    /// Shuts the gate behind this plugin.
    pub fn shut(&self, plugin: &str) -> Result<Gate> {
        let gates = self.node.path("/run/gate");
        std::fs::create_dir_all(&gates)?;
        let path = gates.join(plugin);
        let lock = File::create(&path)?;
        lock.lock()?;
        Ok(Gate { path, _shut: lock })
    }

    /// Kills containerd with SIGKILL. Its shims, the pods and the plugins that run go on.
    pub fn kill_containerd(&self) -> Result<()> {
        self.node
            .run(&["sh", "-c", "kill -KILL $(cat /run/containerd.pid)"])?;
        until("containerd is dead", || Ok(self.client().is_err()))
    }

    /// Starts it again, when the plugins it called before have ended; returns when it is ready.
    pub fn start_containerd(&self) -> Result<()> {
        // So that no ADD comes after the DEL of the same pod, and no call of then is taken for one of now.
        until("the plugins of the killed containerd have ended", || {
            Ok(self
                .node
                .run(&["pgrep", "-f", "^/bin/bash /opt/cni/bin/"])
                .is_err())
        })?;
        self.node.run(&["sh", "/run/start-containerd"])?;
        self.ready()
    }

    /// Kills containerd when it is just adding these pods and starts it again; their container IDs. containerd 1.6.20
    /// records a sandbox before it calls the plugins, so it knows them all, as not ready.
    pub fn crash(&self, names: &[String], moment: Moment) -> Result<BTreeSet<String>> {
        self.kill_while_adding(names, moment, |_| Ok(()))
    }

    /// Like [`CriNode::crash`], and the record is lost with it, as older containerds lose it (they write it after the
    /// plugins' end) and as all do whose state is wiped: what the plugins made is leaked. The pods' network namespaces stay.
    pub fn leak(&self, names: &[String], moment: Moment) -> Result<BTreeSet<String>> {
        self.kill_while_adding(names, moment, |ids| {
            let delete = ["containers", "delete"].into_iter();
            let delete: Vec<&str> = delete.chain(ids.iter().map(String::as_str)).collect();
            self.node.ctr(&delete).map(drop)
        })
    }

    fn kill_while_adding(
        &self,
        names: &[String],
        moment: Moment,
        just_before: impl FnOnce(&BTreeSet<String>) -> Result<()>,
    ) -> Result<BTreeSet<String>> {
        let before = self.added("bridge")?;
        let gate = self.shut(match moment {
            Moment::BeforeTheCache => "bridge",
            Moment::AfterTheCache => "loopback",
        })?;
        let ids = thread::scope(|scope| {
            let asked: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(|| self.run_one(name)))
                .collect();
            let ids = self.wait_for_adds(&before, names.len(), moment);
            let done = ids.and_then(|ids| just_before(&ids).map(|()| ids));
            // Whatever came of that: the calls end with containerd.
            self.kill_containerd()?;
            for pod in asked {
                let pod = pod.join().map_err(|_| anyhow!("a thread panicked"))?;
                ensure!(
                    pod.is_err(),
                    "a pod came to be while it should wait: {pod:?}"
                );
            }
            done
        })?;
        drop(gate);
        self.start_containerd()?;
        Ok(ids)
    }

    /// Waits until this many more pods than before are attached; their container IDs.
    fn wait_for_adds(
        &self,
        before: &BTreeSet<String>,
        more: usize,
        moment: Moment,
    ) -> Result<BTreeSet<String>> {
        let mut new = BTreeSet::new();
        until("all are attached", || {
            new = self.added("bridge")?.difference(before).cloned().collect();
            let with_lo = self.added("loopback")?;
            let cached = self.node.list("/var/lib/cni/results");
            let is_cached = |id: &String| {
                cached
                    .iter()
                    .any(|file| file.ends_with(&format!("-{id}-eth0")))
            };
            Ok(new.len() == more
                && new.is_subset(&with_lo)
                && (moment == Moment::BeforeTheCache || new.iter().all(is_cached)))
        })?;
        Ok(new)
    }

    /// Runs these pods and, when each of them has its network but its ADD has not ended, does `meanwhile`; then lets them
    /// come to be.
    pub fn while_adding<T>(
        &self,
        names: &[String],
        meanwhile: impl FnOnce() -> Result<T>,
    ) -> Result<(Vec<Pod>, T)> {
        let before = self.added("bridge")?;
        let gate = self.shut("bridge")?;
        thread::scope(|scope| {
            let pods = scope.spawn(|| self.run(names));
            let told = self
                .wait_for_adds(&before, names.len(), Moment::BeforeTheCache)
                .and_then(|_| meanwhile());
            drop(gate);
            let pods = pods.join().map_err(|_| anyhow!("a thread panicked"))??;
            Ok((pods, told?))
        })
    }

    /// Unmounts the network namespaces of pods that the runtime forgot: it never does. For when no other pod is left, and
    /// for last, since the kernel takes a namespace's links with it.
    pub fn remove_lost_netns(&self) -> Result<()> {
        let script = "for ns in /run/netns/*; do [ ! -e \"$ns\" ] || { umount \"$ns\" && rm \"$ns\"; }; done";
        self.node.run(&["sh", "-euc", script]).map(drop)
    }

    /// Ends the node and everything in it. The answer is what that left on the machine: a line each, none if all is well.
    pub fn stop(self) -> Result<Vec<String>> {
        self.node.stop()
    }
}

// === impl Gate ===

impl Drop for Gate {
    fn drop(&mut self) {
        // Who waits has the file open and goes on with the lock's end; who comes later finds no gate.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Pod names: `web-0`, `web-1`, ...
pub fn names(stem: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{stem}-{n}")).collect()
}

/// Does this for each, in a thread each; the answers in the same order, or the first error.
fn at_once<T: Send>(each: &[String], work: impl Fn(&str) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = each.iter().map(|one| scope.spawn(|| work(one))).collect();
        let done: Vec<Result<T>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
            })
            .collect();
        done.into_iter().collect()
    })
}

fn until(what: &str, mut true_yet: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !true_yet()? {
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        pause();
    }
    Ok(())
}
