//! The contenders, and the networks each is given to itself: bridge, subnet, network name and store are never shared,
//! so that nobody's rules, ports or reservations slow another.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::args::Options;
use crate::job::Job;
use crate::pods::Pods;

/// Who does the work of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Ours,
    Floor,
    Reference,
}

/// The contenders found, and where this run keeps its files.
#[derive(Debug)]
pub struct Ground {
    ours: Option<PathBuf>,
    floor: PathBuf,
    reference: Option<PathBuf>,
    /// On the real file system: stores.
    work: PathBuf,
    /// On tmpfs: what goes into and comes out of programs.
    scratch: PathBuf,
    networks_made: Cell<u8>,
}

/// What a network's configuration asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Features {
    pub ip_masq: bool,
    pub dual_stack: bool,
}

/// A bridge network of one contender with one pod that stays, as on a node in use: the bridge keeps its carrier, and
/// what a network's first pod costs once is not charged to every ADD.
#[derive(Debug)]
pub struct Network {
    pub who: Who,
    pub bridge: String,
    ordinal: u8,
    programs: PathBuf,
    scratch: PathBuf,
    conf: Value,
    conf_path: PathBuf,
    bridge_index: String,
    /// Host ends on the bridge before anything was measured: the resident's.
    residents: Vec<String>,
    _resident_pod: Pods,
}

/// One pod's place in a network. `slot` is unique in the network and chooses container ID and the floor's address;
/// 0 is the resident's.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    pub slot: usize,
    pub netns: &'a Path,
}

// === impl Who ===

impl Who {
    pub const ALL: [Self; 3] = [Self::Ours, Self::Floor, Self::Reference];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Floor => "floor",
            Self::Reference => "reference",
        }
    }
}

// === impl Ground ===

impl Ground {
    /// The floor must lie beside this executable. Plugins may be absent: their rows stay empty.
    pub fn survey(options: &Options, work: &Path) -> Result<Self> {
        let floor = std::env::current_exe()?.with_file_name("floor");
        if !floor.is_file() {
            bail!(
                "{} is missing: build it with this program (cargo build -p bench)",
                floor.display()
            );
        }
        if !crate::elf::is_static(&floor)? {
            eprintln!(
                "bench: {} is dynamically linked: it starts slower than the plugins",
                floor.display()
            );
        }
        let plugins = |dir: &Path| -> Option<PathBuf> {
            let dir = fs::canonicalize(dir).ok()?;
            ["bridge", "host-local", "loopback"]
                .iter()
                .all(|name| dir.join(name).is_file())
                .then_some(dir)
        };
        let scratch = PathBuf::from("/run/bench");
        fs::create_dir(&scratch)?;
        Ok(Self {
            ours: plugins(&options.bin_dir),
            floor,
            reference: plugins(&options.reference_dir),
            work: work.to_owned(),
            scratch,
            networks_made: Cell::new(0),
        })
    }

    /// Those of `wanted` that were found.
    pub fn present(&self, wanted: &[Who]) -> Vec<Who> {
        wanted
            .iter()
            .copied()
            .filter(|who| self.program_dir(*who).is_some())
            .collect()
    }

    /// The plugin directory (the executable itself for the floor).
    pub fn program_dir(&self, who: Who) -> Option<&Path> {
        match who {
            Who::Ours => self.ours.as_deref(),
            Who::Floor => Some(&self.floor),
            Who::Reference => self.reference.as_deref(),
        }
    }

    /// Ours, if the overlay's agent is among it.
    pub fn overlay_dir(&self) -> Option<&Path> {
        self.ours
            .as_deref()
            .filter(|dir| dir.join("overlayd").is_file())
    }

    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// An empty directory on the real file system.
    pub fn store_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.work.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// A new network with its resident pod. The floor's bridge is made here; plugins make theirs.
    pub fn network(&self, who: Who, features: Features) -> Result<Network> {
        let programs = self
            .program_dir(who)
            .with_context(|| format!("no {} to measure", who.name()))?
            .to_owned();
        let ordinal = self.networks_made.get() + 1;
        self.networks_made.set(ordinal);
        let bridge = format!("{}{ordinal}", who.name());
        let mut ranges = vec![json!([{ "subnet": format!("10.{ordinal}.0.0/16") }])];
        let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
        if features.dual_stack {
            ranges.push(json!([{ "subnet": format!("fd00:{ordinal}::/64") }]));
            routes.push(json!({ "dst": "::/0" }));
        }
        let conf = json!({
            "cniVersion": "1.0.0",
            "name": format!("bench-{bridge}"),
            "type": "bridge",
            "bridge": bridge,
            "isGateway": true,
            "ipMasq": features.ip_masq,
            "ipam": {
                "type": "host-local",
                "ranges": ranges,
                "routes": routes,
                "dataDir": self.store_dir(&bridge)?,
            },
        });
        let conf_path = self.scratch.join(format!("{bridge}.conf"));
        fs::write(&conf_path, conf.to_string())?;

        let mut network = Network {
            who,
            ordinal,
            programs,
            scratch: self.scratch.clone(),
            conf,
            conf_path,
            bridge_index: String::new(),
            residents: Vec::new(),
            _resident_pod: Pods::create(&format!("{bridge}-resident-"), 1)?,
            bridge,
        };
        if who == Who::Floor {
            network.make_bridge()?;
        }
        let resident = Attachment {
            slot: 0,
            netns: network._resident_pod.path(0)?,
        };
        network
            .add(resident)
            .time()
            .context("the first ADD of a network")?;
        network.residents = network.ports()?;
        Ok(network)
    }
}

// === impl Network ===

impl Network {
    pub fn add(&self, attachment: Attachment<'_>) -> Job {
        self.job("ADD", attachment, self.conf_path.clone())
    }

    /// After `add` ran: as a runtime does, its Result goes along as `prevResult`.
    pub fn del(&self, attachment: Attachment<'_>) -> Result<Job> {
        if self.who == Who::Floor {
            return Ok(self.job("DEL", attachment, self.conf_path.clone()));
        }
        let result = fs::read(self.file(attachment.slot, "ADD.out"))?;
        let mut conf = self.conf.clone();
        if let Value::Object(keys) = &mut conf {
            keys.insert(
                "prevResult".into(),
                serde_json::from_slice(&result).context("the Result of an ADD")?,
            );
        }
        let stdin = self.file(attachment.slot, "DEL.in");
        fs::write(&stdin, conf.to_string())?;
        Ok(self.job("DEL", attachment, stdin))
    }

    /// The Result of the last ADD of this slot.
    pub fn result(&self, slot: usize) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(
            self.file(slot, "ADD.out"),
        )?)?)
    }

    /// Takes every veth but the resident's off the node in one go, 20 times quicker than one by one. The plugins' DEL
    /// must still run, to free what they keep elsewhere.
    pub fn unplug(&self) -> Result<()> {
        /// Any device group nobody else uses.
        const DOOMED: &str = "4242";
        let mut batch = String::new();
        for port in self
            .ports()?
            .iter()
            .filter(|port| !self.residents.contains(port))
        {
            batch += &format!("link set dev {port} group {DOOMED}\n");
        }
        if batch.is_empty() {
            return Ok(());
        }
        batch += &format!("link del group {DOOMED}\n");
        let mut ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("start ip")?;
        ip.stdin
            .take()
            .context("ip's stdin")?
            .write_all(batch.as_bytes())?;
        if !ip.wait()?.success() {
            bail!("ip could not delete the ports of {}", self.bridge);
        }
        Ok(())
    }

    /// Whether there are ports beside the resident's.
    pub fn has_guests(&self) -> Result<bool> {
        Ok(self.ports()?.len() > self.residents.len())
    }

    /// Names of the host ends on the bridge.
    fn ports(&self) -> Result<Vec<String>> {
        let links: Vec<Value> =
            serde_json::from_str(&ip(&["-j", "link", "show", "master", &self.bridge])?)?;
        Ok(links
            .iter()
            .filter_map(|link| link.get("ifname")?.as_str().map(str::to_owned))
            .collect())
    }

    fn make_bridge(&mut self) -> Result<()> {
        // With a MAC of its own, as the plugins give theirs: else the bridge takes a new one with every port.
        let mac = format!("02:00:00:00:00:{:02x}", self.ordinal);
        ip(&[
            "link",
            "add",
            &self.bridge,
            "address",
            &mac,
            "type",
            "bridge",
        ])?;
        ip(&["link", "set", &self.bridge, "up"])?;
        ip(&[
            "address",
            "add",
            &format!("{}/16", self.gateway()),
            "dev",
            &self.bridge,
        ])?;
        let links: Vec<Value> = serde_json::from_str(&ip(&["-j", "link", "show", &self.bridge])?)?;
        let index = links
            .first()
            .and_then(|link| link.get("ifindex")?.as_u64())
            .context("the bridge's index")?;
        self.bridge_index = index.to_string();
        Ok(())
    }

    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.ordinal, 0, 1)
    }

    fn file(&self, slot: usize, what: &str) -> PathBuf {
        self.scratch.join(format!("{}-{slot}-{what}", self.bridge))
    }

    fn job(&self, verb: &'static str, attachment: Attachment<'_>, stdin: PathBuf) -> Job {
        let Attachment { slot, netns } = attachment;
        let mut env = vec![
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_NETNS", netns.display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
        ];
        let program = if self.who == Who::Floor {
            let [.., high, low] = (slot + 2).to_be_bytes();
            env.push(("FLOOR_HOST_NAME", format!("f{}v{slot}", self.ordinal)));
            env.push(("FLOOR_BRIDGE_INDEX", self.bridge_index.clone()));
            env.push((
                "FLOOR_ADDRESS",
                format!("10.{}.{high}.{low}/16", self.ordinal),
            ));
            env.push(("FLOOR_GATEWAY", self.gateway().to_string()));
            self.programs.clone()
        } else {
            let id = container_id(self.ordinal, slot);
            // What containerd passes.
            let args = format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{slot};K8S_POD_INFRA_CONTAINER_ID={id};\
                 K8S_POD_UID=00000000-0000-4000-8000-{slot:012x}"
            );
            env.push(("CNI_CONTAINERID", id));
            env.push(("CNI_ARGS", args));
            env.push(("CNI_PATH", self.programs.display().to_string()));
            env.push(("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()));
            self.programs.join("bridge")
        };
        Job {
            program,
            env,
            stdin,
            stdout: self.file(slot, &format!("{verb}.out")),
            stderr: self.file(slot, &format!("{verb}.err")),
        }
    }
}

/// 64 hexadecimal digits, as a runtime makes them.
pub fn container_id(ordinal: u8, slot: usize) -> String {
    format!("{ordinal:02x}{slot:014x}").repeat(4)
}

/// For preparing and tearing down, never inside anything timed.
fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .context("start ip (package iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
