//! A host of one's own for podman with its CNI backend: `podman network create`, `run`, `rm` on the plugins under test.
//!
//! It is a [`Place`]: in namespaces of its own, with its own image store and settings, gone when dropped. Plugins of podman's
//! chain that the directory under test lacks (`portmap`, `firewall`, `tuning`) come from Debian's `/usr/lib/cni`.

use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::place::{Place, Plan, Still, left_over_at_last, text};

/// The image every container here is made of: busybox and its applets, built on the spot.
pub const IMAGE: &str = "localhost/busybox:local";

const HOST_SH: &str = include_str!("podman/host.sh");
/// Nothing of the caller's environment or home must reach podman's settings.
const PODMAN: [&str; 6] = [
    "env",
    "-i",
    "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/run/home",
    "TMPDIR=/tmp",
    "podman",
];

/// A running host. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Host {
    place: Place,
    version: String,
    quiet: Still,
}

// === impl Host ===

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Host {
    /// Starts a host whose `/opt/cni/bin` holds the executables of `plugins`, which must have `bridge`: its calls are noted.
    pub fn start(plugins: &Path) -> Result<Host> {
        let (place, version) = Place::start(&Plan {
            programs: &["podman", "conmon", "runc", "iptables"],
            plugins,
            tapped: &["bridge"],
            script: HOST_SH,
            env: &[],
        })?;
        let mut host = Host {
            place,
            version: version.trim_start_matches("podman version ").to_owned(),
            quiet: Still::default(),
        };
        host.quiet = host.still()?;
        Ok(host)
    }

    /// podman's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs podman; its standard output.
    pub fn podman(&self, argv: &[&str]) -> Result<String> {
        self.run(&[&PODMAN, argv].concat())
    }

    /// Starts a container on this network, with these words more before the image's name.
    pub fn begin(&self, name: &str, network: &str, more: &[&str], argv: &[&str]) -> Result<()> {
        let cgroup = self.cgroup();
        let run = [
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            network,
            "--cgroup-parent",
            &cgroup,
            // Not among podman's defaults; ping needs it.
            "--cap-add",
            "NET_RAW",
        ];
        self.podman(&[&run, more, &[IMAGE], argv].concat())
            .map(drop)
    }

    /// Ends a container and removes it.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.podman(&["rm", "--force", "--time", "0", name])
            .map(drop)
    }

    /// What `podman inspect` says of a container's network.
    pub fn inspect(&self, name: &str, network: &str) -> Result<Value> {
        let said = self.podman(&[
            "inspect",
            name,
            "--format",
            "{{json .NetworkSettings.Networks}}",
        ])?;
        let networks: Value = serde_json::from_str(&said).context("podman's words")?;
        networks
            .get(network)
            .cloned()
            .with_context(|| format!("{name} is not on {network}: {said}"))
    }

    /// Puts `bridge` and `host-local` of this directory in the place of those that are there, while containers run.
    pub fn swap(&self, plugins: &Path) -> Result<()> {
        for (name, inside) in [
            ("bridge", "/opt/cni/plugins/bridge"),
            ("host-local", "/opt/cni/bin/host-local"),
        ] {
            // Whole at every moment, as `make install` does it.
            let new = self.path(&format!("{inside}.new"));
            std::fs::copy(plugins.join(name), &new).with_context(|| format!("copy {name}"))?;
            std::fs::rename(new, self.path(inside))?;
        }
        Ok(())
    }

    fn still(&self) -> Result<Still> {
        let mut still = self.place.still()?;
        for (what, argv) in [
            ("container", &["ps", "--all", "--quiet", "--no-trunc"][..]),
            ("network", &["network", "ls", "--quiet"]),
        ] {
            still
                .containers
                .extend(self.podman(argv)?.lines().map(|id| format!("{what} {id}")));
        }
        for file in self.list("/etc/cni/net.d") {
            still.files.insert(format!("net.d/{file}"));
        }
        Ok(still)
    }

    /// What is there that was not when the host started. What is meant to stay is not looked at: `lock`,
    /// `last_reserved_ip.N`.
    pub fn left_over(&self) -> Result<Still> {
        Ok(self.still()?.without(&self.quiet))
    }

    /// Like [`Host::left_over`], for up to fifteen seconds or until nothing is left `but` this.
    pub fn left_over_at_last(&self, but: &Still) -> Result<Still> {
        left_over_at_last(|| Ok(self.left_over()?.without(but)))
    }

    /// Ends the host and everything in it. The answer is what that left on the machine: a line each, none if all is well.
    pub fn stop(self) -> Result<Vec<String>> {
        self.place.stop()
    }
}

/// The address and prefix length of what [`Host::inspect`] says: `10.41.0.2/24`.
pub fn address(inspected: &Value) -> String {
    let length = inspected
        .pointer("/IPPrefixLen")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    format!("{}/{length}", text(inspected, "/IPAddress"))
}
