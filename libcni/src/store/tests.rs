//! The verbs on real directories.
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::spec::error::{CniError, Code};
use crate::spec::{Attachment, ContainerId, IfName, Node, Version};

mod boots;
mod faults;
mod foreign;
mod model;
mod slope;
mod verbs;

/// A data directory and a network in it.
struct Net {
    root: TempDir,
    ipam: String,
}

impl Net {
    /// `ipam` is the inside of that object, without dataDir.
    fn new(ipam: &str) -> Self {
        Self::at(tempfile::tempdir().unwrap(), ipam)
    }

    fn at(root: TempDir, ipam: &str) -> Self {
        Self {
            root,
            ipam: ipam.to_owned(),
        }
    }

    fn conf(&self) -> IpamConf {
        self.conf_with("")
    }

    /// `rest` are further keys of the config.
    fn conf_with(&self, rest: &str) -> IpamConf {
        let root = self.root.path().display();
        let config = format!(
            r#"{{"name": "n", "ipam": {{"dataDir": "{root}", {}}}{rest}}}"#,
            self.ipam
        );
        let config = Node::parse(config.as_bytes()).unwrap();
        let mut conf = IpamConf::parse(&config, "", Version::V1_1_0).unwrap();
        conf.dir.boot_id = self.boot_id();
        conf.dir.lock_wait = Duration::from_secs(10);
        conf
    }

    /// The kernel's, or what [`Net::reboot`] made.
    fn boot_id(&self) -> std::path::PathBuf {
        let fake = self.root.path().join("boot_id");
        if fake.exists() {
            fake
        } else {
            boot::BOOT_ID.into()
        }
    }

    fn reboot(&self, n: u8) {
        let text = format!("0000{n:02x}00-1234-4321-8888-000000000000\n");
        fs::write(self.root.path().join("boot_id"), text).unwrap();
    }

    fn dir(&self) -> std::path::PathBuf {
        self.root.path().join("n")
    }

    fn requesting(&self, ips: &[&str]) -> IpamConf {
        let quoted: Vec<_> = ips.iter().map(|ip| format!("\"{ip}\"")).collect();
        self.conf_with(&format!(
            r#", "runtimeConfig": {{"ips": [{}]}}"#,
            quoted.join(",")
        ))
    }

    fn add(&self, id: &str) -> Result<Vec<String>, CniError> {
        add(&self.conf(), id)
    }

    fn del(&self, id: &str) -> Vec<String> {
        let freed = self.conf().dir.release(&attachment(id), || ()).unwrap();
        freed.iter().map(ToString::to_string).collect()
    }

    fn held(&self, id: &str) -> Vec<String> {
        let held = self.conf().dir.held(&attachment(id)).unwrap();
        held.iter().map(ToString::to_string).collect()
    }

    /// Names of the files, and of nothing below `.podwire`.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir().join(name)).unwrap()
    }

    /// What the reference does when it reserves.
    fn reserve_as_reference(&self, ip: &str, content: &str) {
        let path = self.dir().join(ip);
        fs::File::create_new(&path).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Whether the next verb will believe the index.
    fn index_is_fresh(&self) -> bool {
        let conf = self.conf();
        let Some(dir) = dir::Dir::open(conf.dir.path()).unwrap() else {
            return false;
        };
        let Some(index) = dir.side(false).ok().as_ref().and_then(index::Index::open) else {
            return false;
        };
        index.is_fresh(boot::BootId::read(&conf.dir.boot_id), dir.stamp().unwrap())
    }
}

fn attachment(id: &str) -> Attachment {
    on(id, "eth0")
}

fn on(id: &str, ifname: &str) -> Attachment {
    Attachment {
        container_id: ContainerId::parse(id).unwrap(),
        ifname: IfName::parse(ifname).unwrap(),
    }
}

/// Addresses without prefix length.
fn add(conf: &IpamConf, id: &str) -> Result<Vec<String>, CniError> {
    let lease = conf.add(&attachment(id))?;
    Ok(lease
        .result
        .ips
        .iter()
        .map(|ip| ip.address.ip().to_string())
        .collect())
}
