//! A node of one's own with a real containerd on it, and containers whose network comes from the plugins under test.
//!
//! The node is a set of fresh mount, network and pid namespaces: it has its own `/etc/cni`, `/opt/cni/bin`, `/var/lib/cni`,
//! `/run` and containerd, and everything in it ends with its first process. That process lives until a pipe from here
//! closes, so not even a SIGKILL of the owner leaves a link, a mount or a process on the machine.
//!
//! Containers are started with `ctr run --cni`: containerd's own go-cni reads the conflist and calls the plugins. What it
//! is not: a kubelet. `ctr` asks for ADD with `/proc/<pid>/ns/net` and for DEL, as the network namespace is gone by then,
//! with an empty `CNI_NETNS`.
//!
//! Needs root, and Debian's `containerd`, `runc`, `busybox-static` and `iproute2` (`make deps`).

mod container;
mod machine;
mod still;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub use container::Container;
pub use machine::{Footprint, Machine};
pub use still::{Rule, Still};

/// The image every container here is made of: busybox and its applets, built on the spot.
pub const IMAGE: &str = "localhost/busybox:local";

/// containerd's namespace, which go-cni puts before the container's name: `web` is `k8s.io-web` to the plugins.
pub const NAMESPACE: &str = "k8s.io";

/// Set it (from a signal handler, say) and whatever waits in this module gives up with an error, so that drops clean up.
pub static STOP: AtomicBool = AtomicBool::new(false);

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

const KEEPER_SH: &str = include_str!("containerd/keeper.sh");
const NODE_SH: &str = include_str!("containerd/node.sh");
const TAP_SH: &str = include_str!("containerd/tap.sh");
const CTR_TOML: &str = include_str!("containerd/ctr.toml");

/// A running node. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Node {
    keeper: Child,
    /// The node's first process, by the machine's numbering.
    pid: u32,
    name: String,
    containerd: String,
    before: Machine,
    quiet: Still,
}

/// One call of a plugin by the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// File name of the executable.
    pub plugin: String,
    /// `ADD`, `DEL`, ...
    pub verb: String,
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_IFNAME`
    pub ifname: String,
    /// `CNI_NETNS`, often empty on DEL.
    pub netns: String,
    /// Exit status.
    pub status: i32,
    /// From before its fork to after its end.
    pub took: Duration,
}

// === impl Node ===

impl Node {
    /// Starts a node whose `/opt/cni/bin` holds the executables of `plugins` and whose `/etc/cni/net.d` holds `conflist`,
    /// in a file named after its network. Calls of the plugins named in `tapped` are noted, see [`Node::calls`].
    ///
    /// Takes about 0.7 s. Errors name what is missing: root, a package, a plugin; or end with containerd's own words.
    pub fn start(plugins: &Path, conflist: &str, tapped: &[&str]) -> Result<Node> {
        Node::start_with(plugins, conflist, tapped, CTR_TOML)
    }

    /// Like [`Node::start`], with this configuration for containerd.
    pub(crate) fn start_with(
        plugins: &Path,
        conflist: &str,
        tapped: &[&str],
        containerd: &str,
    ) -> Result<Node> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "driving a real containerd needs root, for its mount, network and pid namespaces: \
             run it through `sudo --preserve-env=PATH` or as root"
        );
        for program in [
            "containerd",
            "ctr",
            "runc",
            "busybox",
            "ip",
            "bridge",
            "nft",
            "unshare",
            "nsenter",
        ] {
            ensure!(
                found(program),
                "{program} is not installed: `make deps` installs what this needs"
            );
        }
        let plugins = plugins
            .canonicalize()
            .with_context(|| format!("the plugin directory {}", plugins.display()))?;
        for plugin in tapped {
            ensure!(
                plugins.join(plugin).is_file(),
                "{} has no plugin {plugin}",
                plugins.display()
            );
        }

        // Other nodes of this process must not share the cgroup, the one thing that has no namespace here.
        static NODES: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "podwire-{}-{}",
            std::process::id(),
            NODES.fetch_add(1, Ordering::Relaxed)
        );
        let before = Machine::now()?;
        let parsed: Value = serde_json::from_str(conflist).context("the conflist")?;
        let network = text(&parsed, "/name");
        let keeper = Command::new("bash")
            .args(["-c", KEEPER_SH, "keeper"])
            .env("NODE_NAME", &name)
            .env("NODE_SCRIPT", NODE_SH)
            .env("NODE_PLUGINS", plugins)
            .env("NODE_CONFLIST", conflist.trim_end())
            .env("NODE_CONFLIST_FILE", format!("10-{network}.conflist"))
            .env("NODE_TAPPED", tapped.join(" "))
            .env("NODE_TAP", TAP_SH)
            .env("NODE_CONTAINERD", containerd.trim_end())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own process group: a Ctrl-C is answered here, by an orderly end.
            .process_group(0)
            .spawn()
            .context("start bash")?;
        let mut node = Node {
            keeper,
            pid: 0,
            name,
            containerd: String::new(),
            before,
            quiet: Still::default(),
        };
        node.greet().context("start a node of its own")?;
        node.quiet = Still::of(&node)?;
        Ok(node)
    }

    fn greet(&mut self) -> Result<()> {
        let stdout = self
            .keeper
            .stdout
            .take()
            .context("no output of the node's script")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            match line.split_once(' ') {
                Some(("pid", pid)) => self.pid = pid.parse()?,
                Some(("ready", version)) => {
                    // "containerd github.com/containerd/containerd 1.6.20~ds1 REVISION"
                    self.containerd = version
                        .split_whitespace()
                        .nth(2)
                        .unwrap_or(version)
                        .to_owned();
                    return Ok(());
                }
                _ => bail!("unexpected words from the node's script: {line}"),
            }
        }
        let mut said = String::new();
        if let Some(mut stderr) = self.keeper.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        bail!("the node's script gave up: {}", said.trim())
    }

    /// The cgroup that all of the node's containers belong under.
    pub(crate) fn cgroup(&self) -> String {
        format!("/{}", self.name)
    }

    /// containerd's version.
    pub fn containerd(&self) -> &str {
        &self.containerd
    }

    /// A file of the node, as a path that works from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// The text of a file of the node.
    pub fn read(&self, inside: &str) -> Result<String> {
        std::fs::read_to_string(self.path(inside))
            .with_context(|| format!("read the node's {inside}"))
    }

    /// Names in a directory of the node, sorted; none if there is no such directory.
    pub fn list(&self, inside: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(inside))
            .map(|entries| {
                entries
                    .flatten()
                    .map(|e| e.file_name().to_string_lossy().into_owned())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }

    /// Puts an executable on the node, wherever it lies on the machine; its path there.
    pub fn install(&self, executable: &Path) -> Result<String> {
        let name = executable.file_name().context("an executable has a name")?;
        let inside = format!("/opt/cni/tools/{}", name.to_string_lossy());
        std::fs::create_dir_all(self.path("/opt/cni/tools"))?;
        std::fs::copy(executable, self.path(&inside))
            .with_context(|| format!("copy {} to the node", executable.display()))?;
        Ok(inside)
    }

    /// A command that will run on the node.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.pid))
            .args([
                "--mount", "--net", "--ipc", "--uts", "--pid", "--wd=/", "--",
            ])
            .args(argv)
            .stdin(Stdio::null());
        command
    }

    /// Runs a program on the node; its standard output. An error holds the exit status and what it said.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        ensure!(!STOP.load(Ordering::Relaxed), "asked to stop");
        let output = self
            .command(argv)
            .output()
            .with_context(|| format!("start nsenter for {argv:?}"))?;
        ensure!(
            output.status.success(),
            "`{}`: {}: {}{}",
            argv.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim_end(),
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a program on the node that prints JSON, such as `ip -j link`. No output is an empty list.
    pub fn json(&self, argv: &[&str]) -> Result<Value> {
        let text = self.run(argv)?;
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("the output of `{}`", argv.join(" ")))
    }

    /// Runs `ctr` in the namespace of our containers.
    pub(crate) fn ctr(&self, argv: &[&str]) -> Result<String> {
        let mut whole = vec!["ctr", "--namespace", NAMESPACE];
        whole.extend_from_slice(argv);
        self.run(&whole)
    }

    /// Every call of a tapped plugin so far, in the order in which they ended.
    pub fn calls(&self) -> Result<Vec<Call>> {
        let path = self.path("/run/cni-calls");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(&path).context("read the note of plugin calls")?;
        text.lines().map(Call::parse).collect()
    }

    /// The node's nf_tables rules and set elements, in order.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        Ok(still::rules(&self.run(&["nft", "list", "ruleset"])?))
    }

    /// What is there that was not when the node started. After the last pod's end this should be empty, except for what
    /// is meant to stay: the bridge, `lock`, `last_reserved_ip.N` (which are not looked at).
    pub fn left_over(&self) -> Result<Still> {
        Ok(Still::of(self)?.without(&self.quiet))
    }

    /// Like [`Node::left_over`], for up to five seconds or until nothing is left: the kernel takes a dead pod's network
    /// namespace apart in its own time.
    pub fn left_over_at_last(&self) -> Result<Still> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.left_over()?;
            if left.is_empty() || Instant::now() > deadline {
                return Ok(left);
            }
            pause();
        }
    }

    /// Ends the node and everything in it. The answer is what that left on the machine: a line each, none if all is well.
    pub fn stop(mut self) -> Result<Vec<String>> {
        let footprint = Footprint::of(self.pid, &self.name)?;
        self.end();
        self.before.left_over(&footprint)
    }

    fn end(&mut self) {
        drop(self.keeper.stdin.take());
        // Nothing useful can be done here about a keeper that is gone already.
        let _ = self.keeper.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

// === impl Call ===

impl Call {
    fn parse(line: &str) -> Result<Call> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [plugin, verb, container, ifname, netns, status, micros] = fields[..] else {
            bail!("not a note of a plugin call: {line}");
        };
        Ok(Call {
            plugin: plugin.to_owned(),
            verb: verb.to_owned(),
            container: container.to_owned(),
            ifname: ifname.to_owned(),
            netns: netns.to_owned(),
            status: status.parse()?,
            took: Duration::from_micros(micros.parse()?),
        })
    }
}

/// The entries of a JSON list.
pub fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The string at a JSON pointer, or an empty one.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // As an ordinary user's PATH often lacks them.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .any(|directory| directory.join(program).is_file())
}

/// One turn of waiting for something that gives no notice of itself.
pub(crate) fn pause() {
    std::thread::sleep(LOOK_EVERY);
}
