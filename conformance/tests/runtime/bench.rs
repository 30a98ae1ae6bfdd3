//! A node's network with a gate before each plugin of its chain.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use libcni::runtime::{Attach, NetworkList, Runtime};
use serde_json::json;
use testkit::{bin_dir, ip_json, sh};

/// The chain: what makes the interface has a plugin before and one behind it.
pub const CHAIN: [&str; 3] = ["first", "bridge", "last"];
const NETWORK: &str = "net";

/// Directories of one network, in one temporary directory.
pub struct Bench {
    dir: tempfile::TempDir,
    pub runtime: Runtime,
    /// Rules of the node without a pod.
    quiet: String,
}

impl Bench {
    /// The gates, the real plugins behind them, and the network brought up once so that what stays is known.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["real", "faults", "marks"] {
            fs::create_dir(at(name)).unwrap();
        }
        testkit::script(&at("gate"), include_str!("gate.sh"));
        testkit::script(&at("mark"), include_str!("mark.sh"));
        for plugin in CHAIN {
            symlink(at("gate"), at(plugin)).unwrap();
        }
        symlink(bin_dir().join("bridge"), at("real/bridge")).unwrap();
        symlink(at("mark"), at("real/first")).unwrap();
        symlink(at("mark"), at("real/last")).unwrap();
        let runtime = Runtime::new([at(""), bin_dir()]).cache_dir(at("cache"));
        let mut bench = Self {
            dir,
            runtime,
            quiet: String::new(),
        };
        let pod = testkit::Pod::new("warm-up");
        let warm = Attach::new("warm-up", pod.netns(), "eth0");
        let list = bench.list("1.1.0");
        bench.runtime.add(&list, &warm).unwrap();
        bench.runtime.del(&list, &warm).unwrap();
        bench.calls();
        bench.quiet = rules();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The network in this version.
    pub fn list(&self, version: &str) -> NetworkList {
        let ipam =
            json!({"type": "host-local", "subnet": "10.9.0.0/16", "dataDir": self.path("store")});
        let bridge = json!({
            "type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true, "ipam": ipam,
        });
        let conf = json!({
            "cniVersion": version, "name": NETWORK,
            "plugins": [{"type": "first"}, bridge, {"type": "last"}],
        });
        NetworkList::parse(conf.to_string().as_bytes(), None).unwrap()
    }

    /// The next call of this kind goes wrong.
    pub fn fault(&self, name: &str) {
        fs::write(self.path("faults").join(name), "").unwrap();
    }

    /// The calls since the last question: `ADD bridge`.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        text.lines().map(str::to_owned).collect()
    }

    /// Where the cache keeps an attachment.
    pub fn cached(&self, id: &str) -> PathBuf {
        self.path("cache/results")
            .join(format!("{NETWORK}-{id}-eth0"))
    }

    /// Where the runtime records what is not finished.
    pub fn pending(&self, id: &str) -> PathBuf {
        self.path("cache/podwire/pending")
            .join(format!("{NETWORK}-{id}-eth0"))
    }

    /// What any attachment has left, a line each.
    pub fn left_over(&self) -> Vec<String> {
        let mut left = names(&self.path("faults"));
        left.extend(names(&self.path("marks")));
        left.extend(names(&self.path("cache/results")));
        left.extend(names(&self.path("cache/podwire/pending")));
        let addresses = names(&self.path("store").join(NETWORK));
        left.extend(addresses.into_iter().filter(|name| name.starts_with("10.")));
        let links = ip_json(&["link", "show", "type", "veth"]);
        left.extend(
            links
                .as_array()
                .unwrap()
                .iter()
                .map(|link| link["ifname"].to_string()),
        );
        let rules = rules();
        if rules != self.quiet {
            left.push(rules);
        }
        left
    }
}

fn rules() -> String {
    sh("nft list ruleset")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}
