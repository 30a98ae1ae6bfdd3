//! A [`Fleet`] with `overlayd` on each node, and pods by the CNI configuration that it writes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::fleet::{Fleet, NETWORK, Node, Space};

const AGENT: &str = "overlayd";
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long agents may take to find each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it is set up.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `overlayd`, `cnitool` and the plugins.
    pub bin_dir: PathBuf,
    /// Where the nodes' files are to be.
    pub dir: PathBuf,
    /// The network's configuration.
    pub conf: String,
    /// More options for each agent.
    pub options: Vec<String>,
    /// Whether agents hear of each other by files; else `options` say how.
    pub files: bool,
}

/// All of it.
#[derive(Debug)]
pub struct Deployment {
    /// The nodes, in order.
    pub nodes: Vec<Agent>,
    /// In the nodes' network, and without a route to pods.
    pub outside: Space,
    /// What joins them.
    pub underlay: Space,
    plan: Plan,
}

/// A node with its agent.
#[derive(Debug)]
pub struct Agent {
    /// The node.
    pub node: Node,
    dir: PathBuf,
    bin_dir: PathBuf,
    options: Vec<String>,
    process: Option<Child>,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// Its network namespace.
    pub space: Space,
    /// Its address.
    pub ip: String,
}

// === impl Plan ===

impl Plan {
    /// VXLAN, and files.
    pub fn new(bin_dir: &Path, dir: &Path) -> Self {
        Self {
            bin_dir: bin_dir.to_owned(),
            dir: dir.to_owned(),
            // The first subnet is leased only where the operator says so.
            conf: format!(
                r#"{{"Network":"{NETWORK}","SubnetMin":"192.168.128.0","Backend":{{"Type":"vxlan"}}}}"#
            ),
            options: Vec::new(),
            files: true,
        }
    }
}

// === impl Deployment ===

impl Deployment {
    /// Makes so many nodes; no agent runs yet. With files, each has leased the subnet before that the fleet gives it.
    ///
    /// # Errors
    /// Namespaces or files cannot be made.
    pub fn new(plan: Plan, nodes: u8) -> Result<Self> {
        let peers = plan.dir.join("peers/subnets");
        fs::create_dir_all(&peers)?;
        fs::write(plan.dir.join("peers/config"), &plan.conf)?;
        let Fleet {
            nodes,
            outside,
            underlay,
        } = Fleet::new(nodes)?;
        let nodes = nodes.into_iter().map(|node| {
            let lease = format!(r#"{{"PublicIP":"{}"}}"#, node.address());
            fs::write(peers.join(node.subnet().replace('/', "-")), lease)?;
            Agent::new(&plan, node)
        });
        let nodes = nodes.collect::<Result<_>>()?;
        Ok(Self {
            nodes,
            outside,
            underlay,
            plan,
        })
    }

    /// Starts every agent, and waits until all are ready and know each other.
    ///
    /// # Errors
    /// They are not within ten seconds: with their logs.
    pub fn start(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start()?;
        }
        let others = self.nodes.len() - 1;
        for node in &self.nodes {
            node.wait(PATIENCE, &format!("{others} peers"), |node| {
                node.ready() && node.shown_ok() == Some(others)
            })?;
        }
        Ok(())
    }

    /// The directory of files.
    pub fn peers(&self) -> PathBuf {
        self.plan.dir.join("peers")
    }
}

// === impl Agent ===

impl Agent {
    fn new(plan: &Plan, node: Node) -> Result<Self> {
        let dir = plan.dir.join(&node.name);
        fs::create_dir_all(dir.join("net.d"))?;
        let data = |what: &str| dir.join(what).display().to_string();
        let conflist = format!(
            r#"{{"name": "cbr0", "cniVersion": "1.0.0", "plugins": [{{"type": "flannel", "subnetFile": "{}", "dataDir": "{}",
  "delegate": {{"hairpinMode": true, "isDefaultGateway": true}}, "ipam": {{"dataDir": "{}"}}}}]}}"#,
            data("subnet.env"),
            data("flannel"),
            data("networks"),
        );
        fs::write(dir.join("template"), conflist)?;
        let mut options = plan.options.clone();
        if plan.files {
            options.push(format!("--peers-dir={}", plan.dir.join("peers").display()));
        }
        Ok(Self {
            node,
            dir,
            bin_dir: plan.bin_dir.clone(),
            options,
            process: None,
        })
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Runs a script (`sh -eu`) on the node; what it printed.
    ///
    /// # Errors
    /// It failed: with what it said.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.node.space.sh(script)
    }

    /// A file of the node.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `overlayd` with the node's options.
    pub fn overlayd(&self) -> Command {
        let program = self.bin_dir.join(AGENT);
        let mut command = self.node.space.command(&program.to_string_lossy());
        command
            .arg(format!("--node-name={}", self.name()))
            .arg(format!(
                "--subnet-file={}",
                self.path("subnet.env").display()
            ))
            .arg(format!("--state-dir={}", self.path("state").display()))
            .arg(format!(
                "--cni-conf={}",
                self.path("net.d/10-flannel.conflist").display()
            ))
            .arg(format!(
                "--cni-conf-template={}",
                self.path("template").display()
            ))
            .args(&self.options);
        command
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// It runs already, or cannot be executed.
    pub fn start(&mut self) -> Result<()> {
        ensure!(
            self.process.is_none(),
            "the agent of {} runs already",
            self.name()
        );
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))?;
        let mut command = self.overlayd();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.process = Some(
            command
                .spawn()
                .with_context(|| format!("start {AGENT} on {}", self.name()))?,
        );
        Ok(())
    }

    /// Kills the agent, at once (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Process ID of its agent.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Whether its agent, the one that runs, says that pods have a network.
    pub fn ready(&self) -> bool {
        let status = fs::read_to_string(self.path("overlayd.json")).unwrap_or_default();
        let by = self.pid().map(|pid| format!(r#""pid":{pid}"#));
        status.contains(r#""ready":true"#) && by.is_some_and(|pid| status.contains(&pid))
    }

    /// How many peers there are, if the kernel has all that each needs.
    pub fn shown_ok(&self) -> Option<usize> {
        let shown = run(self.overlayd().args(["show", "--json"])).ok()?;
        let shown: Value = serde_json::from_str(&shown).ok()?;
        let peers = shown.get("peers")?.as_array()?;
        let ok = |peer: &Value| peer.get("ok") == Some(&Value::Bool(true));
        peers.iter().all(ok).then_some(peers.len())
    }

    /// Waits for the node to be as `is` says.
    ///
    /// # Errors
    /// It is not in time: with its log.
    pub fn wait(&self, limit: Duration, what: &str, is: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        while !is(self) {
            if Instant::now() > end {
                bail!("{}: not in {limit:?}: {what}\n{}", self.name(), self.log());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// What its agents said so far.
    pub fn log(&self) -> String {
        let mut log = String::new();
        if let Ok(mut file) = File::open(self.path("log")) {
            let _ = file.read_to_string(&mut log);
        }
        log
    }

    /// Attaches a pod, by the configuration that the agent wrote.
    ///
    /// # Errors
    /// A plugin failed: its words.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let space = Space::new(name)?;
        let result: Value =
            serde_json::from_str(&self.cni("add", &space)?).context("the plugin's result")?;
        let address = result
            .pointer("/ips/0/address")
            .and_then(Value::as_str)
            .context("an address")?;
        let ip = address.split('/').next().unwrap_or_default().to_owned();
        Ok(Pod { space, ip })
    }

    /// Detaches a pod.
    ///
    /// # Errors
    /// A plugin failed: its words.
    pub fn remove(&self, pod: Pod) -> Result<()> {
        self.cni("del", &pod.space).map(drop)
    }

    fn cni(&self, verb: &str, pod: &Space) -> Result<String> {
        let cnitool = self.bin_dir.join("cnitool");
        run(self
            .node
            .space
            .command(&cnitool.to_string_lossy())
            .env("CNI_PATH", &self.bin_dir)
            .env("NETCONFPATH", self.path("net.d"))
            .args([verb, "cbr0", pod.path().as_str()]))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Pod ===

impl Pod {
    /// Whether so many echo requests, 20 ms apart, are all answered.
    pub fn pings(&self, ip: &str, count: u32) -> bool {
        let mut ping = self.space.command("ping");
        ping.args([
            "-n",
            "-q",
            "-i",
            "0.02",
            "-W",
            "1",
            "-c",
            &count.to_string(),
            ip,
        ]);
        let said = ping
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        said.is_ok_and(|said| said.contains(" 0% packet loss"))
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.with_context(|| format!("run {command:?}"))?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    ensure!(
        status.success(),
        "{command:?}: {status}: {}{}",
        stderr.trim(),
        stdout.trim()
    );
    Ok(stdout.into_owned())
}
