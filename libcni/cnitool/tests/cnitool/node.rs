//! One node's directories, and the tool pointed at them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use testkit::{bin_dir, ip_json};

/// Directories of one node, and the tool pointed at them.
pub struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("net.d")).unwrap();
        let node = Self { dir };
        node.write("10-cbr0.conflist", &node.cbr0().to_string());
        node
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn cbr0(&self) -> Value {
        json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{
            "type": "bridge", "bridge": "cbr0", "isGateway": true, "ipMasq": true,
            "ipam": {"type": "host-local", "subnet": "10.40.1.0/29", "dataDir": self.at("store")}}]})
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.at("net.d").join(file), text).unwrap();
    }

    pub fn tool(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cnitool"));
        command.env_clear();
        command.env("NETCONFPATH", self.at("net.d"));
        command.env("CNI_PATH", bin_dir());
        command.arg("--cache-dir").arg(self.at("cache")).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.tool(args).output().unwrap()
    }

    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {stderr}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// What it says when it fails.
    #[track_caller]
    pub fn err(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {out:?}");
        assert!(out.stdout.is_empty(), "{args:?}: {out:?}");
        String::from_utf8(out.stderr).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    pub fn reservations(&self) -> Vec<String> {
        let names = fs::read_dir(self.at("store/cbr0")).into_iter().flatten();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("10.")).collect();
        names.sort();
        names
    }

    pub fn is_empty(&self) {
        assert_eq!(self.reservations(), [""; 0]);
        assert_eq!(self.json(&["list"]), json!([]));
        assert_eq!(links(), 0);
    }
}

/// Ports of the bridge.
pub fn links() -> usize {
    ip_json(&["link", "show", "type", "veth"])
        .as_array()
        .unwrap()
        .len()
}
