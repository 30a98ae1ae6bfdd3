//! A node that an agent has been on. Not every test file uses all of it.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Call, bin_dir, sh};

/// A lease.
pub const ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/// A node that a flannel agent has been on.
pub struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        let node = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        node.lease(ENV);
        fs::create_dir(node.at("bin")).unwrap();
        node.delegates(&bin_dir());
        node
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn lease(&self, text: &str) {
        fs::write(self.at("subnet.env"), text).unwrap();
    }

    /// Whose bridge and host-local are run.
    pub fn delegates(&self, dir: &Path) {
        for name in ["bridge", "host-local"] {
            let _ = fs::remove_file(self.at("bin").join(name));
            symlink(dir.join(name), self.at("bin").join(name)).unwrap();
        }
    }

    /// Of the stock manifest, with directories of this test's.
    pub fn conf(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "cbr0", "type": "flannel",
            "subnetFile": self.at("subnet.env"), "dataDir": self.at("flannel"),
            "ipam": {"dataDir": self.at("store")},
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
        })
    }

    pub fn call(&self, verb: &str, id: &str, netns: &str) -> Call {
        Call::new(env!("CARGO_BIN_EXE_overlay"))
            .verb(verb)
            .container(id)
            .netns(netns)
            .ifname("eth0")
            .cni_path(self.at("bin"))
            .stdin(self.conf().to_string())
    }

    pub fn with(&self, call: Call, key: &str, value: Value) -> Call {
        let mut conf = self.conf();
        conf[key] = value;
        call.stdin(conf.to_string())
    }

    pub fn files(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(dir)).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with(['.', 'l'])).collect();
        names.sort();
        names
    }

    pub fn is_empty(&self) {
        assert_eq!(self.files("flannel"), [""; 0]);
        assert_eq!(self.files("store/cbr0"), [""; 0]);
        assert_eq!(sh("ip -o link show type veth"), "");
    }
}
