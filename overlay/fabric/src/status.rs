//! What the agent tells the node's plugins, in a file beside `subnet.env`: whether pods would have a network.
//!
//! ```json
//! {"ready":true,"reason":"","devices":["flannel.1"],"converged":"2026-11-21T09:00:00Z","pid":4711}
//! ```

use std::io;
use std::path::{Path, PathBuf};

use libcni::spec::json::{Fields, Node};

use crate::file;

/// Name of the file.
const FILE: &str = "overlayd.json";

/// What the agent knew when it wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Device, rules and peers stood.
    pub ready: bool,
    /// If not, what was missing, for people.
    pub reason: String,
    /// The tunnel's devices; none with plain routes.
    pub devices: Vec<String>,
    /// When the kernel last agreed with the directory, RFC 3339 in UTC; empty if never.
    pub converged: String,
    /// The agent's process ID.
    pub pid: u32,
}

/// Where it is, for a `subnet.env`.
pub fn path(subnet_file: &Path) -> PathBuf {
    subnet_file.with_file_name(FILE)
}

// === impl Status ===

impl Status {
    /// Reads the file beside a `subnet.env`. `None` if there is none, or it is torn: a node of flanneld, or of an agent
    /// that has not begun.
    pub fn read(subnet_file: &Path) -> Option<Self> {
        let node = Node::parse(&std::fs::read(path(subnet_file)).ok()?).ok()?;
        let fields = Fields::of(&node, "").ok()?;
        Some(Self {
            ready: fields.bool("ready").ok()??,
            reason: fields.str("reason").ok()?.unwrap_or_default(),
            devices: fields.strings("devices").ok()?.unwrap_or_default(),
            converged: fields.str("converged").ok()?.unwrap_or_default(),
            pid: fields.u32("pid").ok()?.unwrap_or_default(),
        })
    }

    /// Writes it, whole or not at all, readable by all.
    ///
    /// # Errors
    /// As the file system's.
    pub fn write(&self, subnet_file: &Path) -> io::Result<()> {
        let node = Node::obj()
            .put("ready", self.ready)
            .put("reason", self.reason.as_str())
            .put("devices", self.devices.as_slice())
            .put("converged", self.converged.as_str())
            .put("pid", self.pid)
            .build();
        let text = node.write_compact() + "\n";
        file::replace(&path(subnet_file), text.as_bytes(), 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let env = dir.path().join("flannel/subnet.env");
        assert_eq!(Status::read(&env), None);
        let status = Status {
            ready: true,
            reason: "a \"b\"\n".into(),
            devices: vec!["flannel.1".into(), "flannel-v6.1".into()],
            converged: "2026-11-21T09:00:00Z".into(),
            pid: 7,
        };
        status.write(&env).unwrap();
        assert_eq!(Status::read(&env).as_ref(), Some(&status));
        Status::default().write(&env).unwrap();
        assert_eq!(Status::read(&env), Some(Status::default()));
        std::fs::write(path(&env), "{\"ready\":tr").unwrap();
        assert_eq!(Status::read(&env), None, "torn");
    }
}
