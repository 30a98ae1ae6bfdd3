//! A data directory, and calls of either executable on it.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Call;

/// This workspace's executable.
pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_host-local");
/// Debian's: containernetworking-plugins 1.1.1, up to spec 1.0.0.
pub(crate) const THEIRS: &str = "/usr/lib/cni/host-local";

pub(crate) struct Bed {
    root: TempDir,
    version: String,
    ipam: Value,
    rest: Value,
}

impl Bed {
    /// `ipam` is that object without `type` and `dataDir`.
    pub(crate) fn new(ipam: Value) -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            version: "1.0.0".to_owned(),
            ipam,
            rest: json!({}),
        }
    }

    /// The same directory, another config version.
    pub(crate) fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// Further keys of the config.
    pub(crate) fn with(mut self, rest: Value) -> Self {
        self.rest = rest;
        self
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("n")
    }

    pub(crate) fn config(&self) -> Value {
        let mut config = json!({"cniVersion": self.version, "name": "n", "type": "host-local"});
        merge(&mut config, &self.rest);
        config["ipam"] = json!({"type": "host-local", "dataDir": self.root.path()});
        merge(&mut config["ipam"], &self.ipam);
        config
    }

    pub(crate) fn call(&self, program: &str, verb: &str, id: &str) -> Call {
        Call::new(program)
            .verb(verb)
            .container(id)
            .netns("/run/netns/none")
            .ifname("eth0")
            .cni_path("/usr/lib/cni")
            .stdin(self.config().to_string())
    }

    /// ADD; the addresses without length.
    #[track_caller]
    pub(crate) fn add(&self, program: &str, id: &str) -> Vec<String> {
        addresses(&self.call(program, "ADD", id).ok())
    }

    #[track_caller]
    pub(crate) fn del(&self, program: &str, id: &str) {
        self.call(program, "DEL", id).ok();
    }

    /// Every file but ours, with its content.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        files(&self.dir())
    }

    /// Only the reservations.
    pub(crate) fn reservations(&self) -> BTreeMap<String, String> {
        let mut files = self.files();
        files.retain(|name, _| name.parse::<std::net::IpAddr>().is_ok());
        files
    }
}

fn files(dir: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    let entries = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // It may go while we look.
            (name, fs::read_to_string(path).unwrap_or_default())
        })
        .collect()
}

pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap();
    let plain = ips.iter().map(|ip| {
        ip["address"]
            .as_str()
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .to_owned()
    });
    plain.collect()
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}
