//! What has to be known of a plugin to call it at all: `profiles.json`, or the file of `--config`.
//!
//! ```json
//! {"bridge": {
//!     "config": {"bridge": "cni0", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}},
//!     "kind": "interface", "needs": ["host-local"], "verbs": ["ADD", "CHECK", "DEL", "GC", "STATUS"],
//!     "ifname": "eth0", "env": {}, "setup": "", "kernel": [], "prev": {}, "like": "bridge", "leaves": []
//! }}
//! ```
//!
//! `kind`: `interface` makes one, `ipam` gives addresses to another plugin, `meta` is chained after one and gets `prev` as
//! the `prevResult` of ADD (written as of 1.0.0), `device` moves an interface, so one attachment at a time. `like`: the cases of that plugin are for this one, too. Or the file is a
//! network configuration: then that is the `config` of an interface plugin.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::keys::Keys;

/// What a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Makes an interface.
    #[default]
    Interface,
    /// Gives addresses to another plugin.
    Ipam,
    /// Is chained after another.
    Meta,
    /// Moves an interface that there is: one attachment at a time.
    Device,
}

/// How a plugin is called.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// What it does.
    pub kind: Kind,
    /// The least it needs, without `cniVersion`, `name` and `type`.
    pub config: Map<String, Value>,
    /// Its environment.
    pub env: BTreeMap<String, Option<String>>,
    /// Other executables.
    pub needs: Vec<String>,
    /// Link kinds.
    pub kernel: Vec<String>,
    /// Shell in the node.
    pub setup: String,
    /// The verbs it has a body for; all if none are named.
    pub verbs: Vec<String>,
    /// Instead of `eth0`.
    pub ifname: Option<String>,
    /// `prevResult` of ADD.
    pub prev: Option<Value>,
    /// A plugin whose cases are for this one, too.
    pub like: Option<String>,
    /// Globs of what it may leave behind.
    pub leaves: Vec<String>,
}

/// By plugin.
#[derive(Debug, Clone, Default)]
pub struct Profiles(BTreeMap<String, Profile>);

impl Kind {
    pub(super) fn read(name: &str) -> Result<Kind> {
        Ok(match name {
            "interface" => Kind::Interface,
            "ipam" => Kind::Ipam,
            "meta" => Kind::Meta,
            "device" => Kind::Device,
            other => bail!("a kind is interface, ipam, meta or device, not {other}"),
        })
    }
}

impl Profiles {
    /// Takes in those of a file; one of the same name is replaced.
    pub fn read(&mut self, file: &str, text: &str) -> Result<()> {
        self.take(text).with_context(|| file.to_owned())
    }

    fn take(&mut self, text: &str) -> Result<()> {
        let value = serde_json::from_str::<Value>(text)?;
        let mut keys = Keys::of(value, "the file")?;
        if let Some(Value::String(name)) = keys.0.get("type").cloned() {
            for key in ["cniVersion", "name", "type"] {
                keys.take(key);
            }
            let profile = Profile {
                config: keys.0,
                ..Profile::default()
            };
            self.0.insert(name, profile);
            return Ok(());
        }
        for (name, value) in keys.0 {
            let profile = Profile::read(value).with_context(|| name.clone())?;
            self.0.insert(name, profile);
        }
        Ok(())
    }

    /// A plugin's.
    #[must_use]
    pub fn of(&self, plugin: &str) -> Option<&Profile> {
        self.0.get(plugin)
    }
}

impl Profile {
    fn read(value: Value) -> Result<Profile> {
        let mut keys = Keys::of(value, "a profile")?;
        keys.take("why");
        let profile = Profile {
            kind: Kind::read(&keys.text("kind")?.context("kind")?)?,
            config: keys.object("config")?.unwrap_or_default(),
            env: keys.env()?,
            needs: keys.texts("needs")?.unwrap_or_default(),
            kernel: keys.texts("kernel")?.unwrap_or_default(),
            setup: keys.script("setup")?,
            verbs: keys.texts("verbs")?.unwrap_or_default(),
            ifname: keys.text("ifname")?,
            prev: keys.object("prev")?.map(Value::Object),
            like: keys.text("like")?,
            leaves: keys.texts("leaves")?.unwrap_or_default(),
        };
        keys.finish()?;
        Ok(profile)
    }
}
