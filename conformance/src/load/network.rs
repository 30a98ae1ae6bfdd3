//! What the pods are joined to.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::Options;

/// A network, and what a node needs for it.
#[derive(Debug, Clone)]
pub struct Network {
    /// The executable's name.
    pub plugin: String,
    /// The pods' interface.
    pub ifname: String,
    /// Shell in the node, before everything.
    pub setup: String,
    /// `cniVersion`
    pub version: String,
    config: Map<String, Value>,
}

/// Room for the largest number of pods, and more.
const SUBNET: &str = "10.64.0.0/16";
/// From then on `lo` has its addresses, whoever takes it down.
const ONCE_UP: &str = "for pod in /run/netns/*; do
        ip -n ${pod##*/} link set lo up; ip -n ${pod##*/} link set lo down
    done";
const FLANNEL: &str = "mkdir -p /run/flannel
    printf 'FLANNEL_NETWORK=10.64.0.0/10\\nFLANNEL_SUBNET=10.64.0.1/16\\nFLANNEL_MTU=1450\\nFLANNEL_IPMASQ=true\\n' \\
        >/run/flannel/subnet.env";

impl Network {
    /// The one that was asked for.
    ///
    /// # Errors
    /// Nothing is known of the plugin, or the file is no configuration.
    pub fn of(options: &Options) -> Result<Network> {
        let masq = options.ip_masq;
        let ipam =
            json!({"type": "host-local", "subnet": SUBNET, "routes": [{"dst": "0.0.0.0/0"}]});
        let (mut plugin, mut setup) = (options.plugin.clone(), "");
        let config = match (&options.config, plugin.as_str()) {
            (Some(file), _) => {
                let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
                serde_json::from_str(&text).with_context(|| file.display().to_string())?
            }
            (None, "bridge") => {
                json!({"bridge": "cni0", "isGateway": true, "ipMasq": masq, "ipam": ipam})
            }
            (None, "ptp") => json!({"ipMasq": masq, "ipam": ipam}),
            (None, "host-local") => json!({"ipam": ipam}),
            (None, "loopback") => {
                setup = ONCE_UP;
                json!({})
            }
            (None, "overlay" | "flannel") => {
                setup = FLANNEL;
                json!({"delegate": {"isDefaultGateway": true, "ipMasq": masq}})
            }
            (None, other) => bail!(
                "nothing is known of the plugin {other}: give a network configuration for it with --config FILE"
            ),
        };
        let Value::Object(mut config) = config else {
            bail!("a network configuration is an object, {{\"type\": ...}}");
        };
        if options.config.is_some()
            && let Some(kind) = config.get("type").and_then(Value::as_str)
        {
            plugin = kind.to_owned();
        }
        ensure!(
            !plugin.is_empty() && !plugin.contains('/'),
            "a plugin's name is the name of its executable, not {plugin:?}"
        );
        let named = config.get("cniVersion").and_then(Value::as_str);
        let version = named.unwrap_or(&options.spec).to_owned();
        config.insert("cniVersion".into(), version.as_str().into());
        config.insert("type".into(), plugin.as_str().into());
        config.entry("name").or_insert_with(|| "testnet".into());
        Ok(Network {
            ifname: if plugin == "loopback" { "lo" } else { "eth0" }.to_owned(),
            setup: setup.to_owned(),
            plugin,
            version,
            config,
        })
    }

    /// A call's stdin, with the result of the pod's ADD where the version passes it on.
    pub fn stdin(&self, prev: Option<&Value>) -> Vec<u8> {
        let mut config = self.config.clone();
        if let Some(prev) = prev
            && self.version.as_str() >= "0.4.0"
        {
            config.insert("prevResult".into(), prev.clone());
        }
        Value::Object(config).to_string().into_bytes()
    }
}
