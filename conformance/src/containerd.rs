//! A node of one's own with a real containerd on it, and containers whose network comes from the plugins under test.
//!
//! The node is a [`Place`]: it has its own `/etc/cni`, `/opt/cni/bin`, `/var/lib/cni`, `/run` and containerd, and everything
//! in it ends with it, whatever ends its owner.
//!
//! Containers are started with `ctr run --cni`: containerd's own go-cni reads the conflist and calls the plugins. What it
//! is not: a kubelet. `ctr` asks for ADD with `/proc/<pid>/ns/net` and for DEL, as the network namespace is gone by then,
//! with an empty `CNI_NETNS`.
//!
//! Needs root, and Debian's `containerd`, `runc`, `busybox-static` and `iproute2` (`make deps`).

mod container;

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

pub use crate::place::{Call, Footprint, Machine, Rule, STOP, Still, each, text};
use crate::place::{Place, Plan, left_over_at_last};
pub use container::Container;

/// The image every container here is made of: busybox and its applets, built on the spot.
pub const IMAGE: &str = "localhost/busybox:local";

/// containerd's namespace, which go-cni puts before the container's name: `web` is `k8s.io-web` to the plugins.
pub const NAMESPACE: &str = "k8s.io";

const PATIENCE: Duration = Duration::from_secs(60);

const NODE_SH: &str = include_str!("containerd/node.sh");
const CTR_TOML: &str = include_str!("containerd/ctr.toml");

/// A running node: a [`Place`] with containerd. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Node {
    place: Place,
    containerd: String,
    quiet: Still,
}

// === impl Node ===

impl Deref for Node {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Node {
    /// Starts a node whose `/opt/cni/bin` holds the executables of `plugins` and whose `/etc/cni/net.d` holds `conflist`,
    /// in a file named after its network. Calls of the plugins named in `tapped` are noted, see [`Place::calls`].
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
        let parsed: Value = serde_json::from_str(conflist).context("the conflist")?;
        let (place, version) = Place::start(&Plan {
            programs: &["containerd", "ctr", "runc"],
            plugins,
            tapped,
            script: NODE_SH,
            env: &[
                ("NODE_CONFLIST", conflist.trim_end()),
                (
                    "NODE_CONFLIST_FILE",
                    &format!("10-{}.conflist", text(&parsed, "/name")),
                ),
                ("NODE_CONTAINERD", containerd.trim_end()),
            ],
        })?;
        // "containerd github.com/containerd/containerd 1.6.20~ds1 REVISION"
        let version = version
            .split_whitespace()
            .nth(2)
            .unwrap_or(&version)
            .to_owned();
        let mut node = Node {
            place,
            containerd: version,
            quiet: Still::default(),
        };
        node.quiet = node.still()?;
        Ok(node)
    }

    /// containerd's version.
    pub fn containerd(&self) -> &str {
        &self.containerd
    }

    /// Runs `ctr` in the namespace of our containers.
    pub(crate) fn ctr(&self, argv: &[&str]) -> Result<String> {
        let mut whole = vec!["ctr", "--namespace", NAMESPACE];
        whole.extend_from_slice(argv);
        self.run(&whole)
    }

    fn still(&self) -> Result<Still> {
        let mut still = self.place.still()?;
        for (what, argv) in [
            ("container", &["containers", "ls", "-q"][..]),
            ("task", &["tasks", "ls", "-q"][..]),
        ] {
            still
                .containers
                .extend(self.ctr(argv)?.lines().map(|id| format!("{what} {id}")));
        }
        // The image's own layer is a snapshot too, but a committed one.
        for line in self
            .ctr(&["snapshots", "ls"])?
            .lines()
            .filter(|line| line.ends_with("Active"))
        {
            still.containers.extend(
                line.split_whitespace()
                    .next()
                    .map(|key| format!("snapshot {key}")),
            );
        }
        Ok(still)
    }

    /// What is there that was not when the node started. After the last pod's end this should be empty, except for what
    /// is meant to stay: the bridge, `lock`, `last_reserved_ip.N` (which are not looked at).
    pub fn left_over(&self) -> Result<Still> {
        Ok(self.still()?.without(&self.quiet))
    }

    /// Like [`Node::left_over`], for up to fifteen seconds or until nothing is left: the kernel takes a dead pod's network
    /// namespace apart in its own time.
    pub fn left_over_at_last(&self) -> Result<Still> {
        left_over_at_last(|| self.left_over())
    }

    /// Ends the node and everything in it. The answer is what that left on the machine: a line each, none if all is well.
    pub fn stop(self) -> Result<Vec<String>> {
        self.place.stop()
    }
}
