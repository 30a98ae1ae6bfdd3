//! A place of one's own to run a real container runtime in, with the plugins under test.
//!
//! It is a set of fresh mount, network, IPC, UTS and pid namespaces with its own `/etc`, `/opt/cni/bin`, `/var/lib`, `/run`,
//! `/tmp` and `/dev/shm`. Everything in it ends with its first process, and that process lives until a pipe from here
//! closes, so not even a SIGKILL of the owner leaves a link, a mount or a process on the machine.
//!
//! Needs root.

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

pub use machine::{Footprint, Machine};
pub use still::{Rule, Still};

/// Set it (from a signal handler, say) and whatever waits in this crate gives up with an error, so that drops clean up.
pub static STOP: AtomicBool = AtomicBool::new(false);

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What every place needs, beside its runtime.
const PROGRAMS: [&str; 6] = ["busybox", "ip", "bridge", "nft", "unshare", "nsenter"];

const KEEPER_SH: &str = include_str!("place/keeper.sh");
const ROOM_SH: &str = include_str!("place/room.sh");
const TAP_SH: &str = include_str!("place/tap.sh");

/// A place that runs. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Place {
    keeper: Child,
    /// Its first process, by the machine's numbering.
    pid: u32,
    name: String,
    before: Machine,
}

/// What a place is made of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The programs of its runtime, which must be installed.
    pub(crate) programs: &'a [&'a str],
    /// The directory whose executables its `/opt/cni/bin` holds.
    pub(crate) plugins: &'a Path,
    /// Plugins whose calls are noted, see [`Place::calls`].
    pub(crate) tapped: &'a [&'a str],
    /// Bash that starts the runtime, after `place/room.sh`.
    pub(crate) script: &'a str,
    /// Environment for it.
    pub(crate) env: &'a [(&'a str, &'a str)],
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

// === impl Place ===

impl Place {
    /// Starts it; the second part is what its script said it had made ready.
    ///
    /// Errors name what is missing: root, a package, a plugin; or end with the script's own words.
    pub(crate) fn start(plan: &Plan<'_>) -> Result<(Place, String)> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "driving a real container runtime needs root, for its mount, network and pid namespaces: \
             run it through `sudo --preserve-env=PATH` or as root"
        );
        require(&PROGRAMS)?;
        require(plan.programs)?;
        let plugins = plan
            .plugins
            .canonicalize()
            .with_context(|| format!("the plugin directory {}", plan.plugins.display()))?;
        for plugin in plan.tapped {
            ensure!(
                plugins.join(plugin).is_file(),
                "{} has no plugin {plugin}",
                plugins.display()
            );
        }

        // Other places of this process must not share the cgroup, the one thing that has no namespace here.
        static PLACES: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "podwire-{}-{}",
            std::process::id(),
            PLACES.fetch_add(1, Ordering::Relaxed)
        );
        let before = Machine::now()?;
        let keeper = Command::new("bash")
            .args(["-c", KEEPER_SH, "keeper"])
            .env("PLACE_NAME", &name)
            .env("PLACE_SCRIPT", [ROOM_SH, plan.script].concat())
            .env("PLACE_PLUGINS", plugins)
            .env("PLACE_TAPPED", plan.tapped.join(" "))
            .env("PLACE_TAP", TAP_SH)
            .envs(plan.env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own process group: a Ctrl-C is answered here, by an orderly end.
            .process_group(0)
            .spawn()
            .context("start bash")?;
        let mut place = Place {
            keeper,
            pid: 0,
            name,
            before,
        };
        let ready = place.greet().context("start a place of its own")?;
        Ok((place, ready))
    }

    fn greet(&mut self) -> Result<String> {
        let stdout = self
            .keeper
            .stdout
            .take()
            .context("no output of the place's script")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            match line.split_once(' ') {
                Some(("pid", pid)) => self.pid = pid.parse()?,
                Some(("ready", what)) => return Ok(what.to_owned()),
                _ => bail!("unexpected words from the place's script: {line}"),
            }
        }
        let mut said = String::new();
        if let Some(mut stderr) = self.keeper.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        bail!("the place's script gave up: {}", said.trim())
    }

    /// The cgroup that everything in it which has one belongs under.
    pub(crate) fn cgroup(&self) -> String {
        format!("/{}", self.name)
    }

    /// A file of the place, as a path that works from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// The text of a file of the place.
    pub fn read(&self, inside: &str) -> Result<String> {
        std::fs::read_to_string(self.path(inside))
            .with_context(|| format!("read the place's {inside}"))
    }

    /// Names in a directory of the place, sorted; none if there is no such directory.
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

    /// Puts an executable there, wherever it lies on the machine; its path in the place.
    pub fn install(&self, executable: &Path) -> Result<String> {
        let name = executable.file_name().context("an executable has a name")?;
        let inside = format!("/opt/cni/tools/{}", name.to_string_lossy());
        std::fs::create_dir_all(self.path("/opt/cni/tools"))?;
        std::fs::copy(executable, self.path(&inside))
            .with_context(|| format!("copy {} to the place", executable.display()))?;
        Ok(inside)
    }

    /// A command that will run in the place.
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

    /// Runs a program in the place; its standard output. An error holds the exit status and what it said.
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

    /// Runs a program in the place that prints JSON, such as `ip -j link`. No output is an empty list.
    pub fn json(&self, argv: &[&str]) -> Result<Value> {
        let text = self.run(argv)?;
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("the output of `{}`", argv.join(" ")))
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

    /// The place's nf_tables rules and set elements, in order.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        Ok(still::rules(&self.run(&["nft", "list", "ruleset"])?))
    }

    /// What there is now, as far as the kernel and the plugins' files tell.
    pub(crate) fn still(&self) -> Result<Still> {
        Still::of(self)
    }

    /// Ends it and everything in it. The answer is what that left on the machine: a line each, none if all is well.
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

impl Drop for Place {
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

/// What is left over, once nothing is, or after fifteen seconds.
pub(crate) fn left_over_at_last(left_over: impl Fn() -> Result<Still>) -> Result<Still> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let left = left_over()?;
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
        pause();
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

/// These programs are installed.
pub(crate) fn require(programs: &[&str]) -> Result<()> {
    for program in programs {
        ensure!(
            found(program),
            "{program} is not installed: `make deps` installs what this needs"
        );
    }
    Ok(())
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
