//! The plugin's keys, and the configuration its delegate gets. Pure.

use std::path::PathBuf;

use fabric::SubnetEnv;
use libcni::plugin::Call;
use libcni::spec::error::CniError;
use libcni::spec::invalid_config;
use libcni::spec::json::{Fields, Node};

const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DATA_DIR: &str = "/var/lib/cni/flannel";
const DELEGATE: &str = "bridge";

/// Where things are; all that DEL needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `subnetFile`
    pub subnet_file: PathBuf,
    /// `dataDir`: one file per attachment, the delegate's configuration.
    pub data_dir: PathBuf,
}

impl Places {
    /// Reads `subnetFile` and `dataDir`.
    ///
    /// # Errors
    /// A wrong type: code 7.
    pub fn of(conf: &Node) -> Result<Self, CniError> {
        let fields = Fields::of(conf, "")?;
        let path = |key: &str, usual: &str| {
            let text = fields.str(key)?.filter(|text| !text.is_empty());
            Ok::<_, CniError>(PathBuf::from(text.unwrap_or_else(|| usual.into())))
        };
        Ok(Self {
            subnet_file: path("subnetFile", SUBNET_FILE)?,
            data_dir: path("dataDir", DATA_DIR)?,
        })
    }
}

/// The delegate's configuration: `delegate` of the configuration, completed by the node's lease.
///
/// # Errors
/// `delegate` has a key that is not the user's to set, or a wrong type.
pub fn delegate_conf(call: &Call, env: &SubnetEnv) -> Result<Node, CniError> {
    let fields = Fields::of(&call.node, "")?;
    let mut conf = members(fields.node("delegate").as_deref(), "delegate")?;
    for key in ["name", "ipam"] {
        if has(&conf, key) {
            return Err(invalid_config(
                format!(
                    "'delegate' dictionary must not have '{key}' field, it'll be set by flannel"
                ),
                format!("move `{key}` out of `delegate`, to the plugin's own keys"),
            ));
        }
    }
    let typed = Node::Object(conf.clone());
    let kind = Fields::of(&typed, "delegate")?
        .str("type")?
        .filter(|kind| !kind.is_empty());
    let kind = kind.unwrap_or_else(|| DELEGATE.into());
    set(&mut conf, "name", call.network().as_str().into());
    default(&mut conf, "ipMasq", (!env.ip_masq).into());
    default(&mut conf, "mtu", env.mtu.into());
    if kind == DELEGATE {
        default(&mut conf, "isGateway", true.into());
    }
    set(&mut conf, "type", kind.into());
    if let Some(version) = fields
        .str("cniVersion")?
        .filter(|version| !version.is_empty())
    {
        set(&mut conf, "cniVersion", version.into());
    }
    if let Some(runtime_config) = fields.node("runtimeConfig") {
        set(&mut conf, "runtimeConfig", runtime_config.into_owned());
    }
    set(&mut conf, "ipam", ipam(&fields, env)?);
    let mut conf = Node::Object(conf);
    conf.sort_keys();
    Ok(conf)
}

/// The user's `ipam`, with this node's subnets as ranges and a route to each of the cluster's networks.
fn ipam(fields: &Fields<'_>, env: &SubnetEnv) -> Result<Node, CniError> {
    let mut ipam = members(fields.node("ipam").as_deref(), "ipam")?;
    default(&mut ipam, "type", "host-local".into());
    let range = |subnet: &_| {
        let range = Node::obj().put("subnet", format!("{subnet}")).build();
        Node::Array(vec![range])
    };
    set(
        &mut ipam,
        "ranges",
        Node::Array(env.subnets.iter().map(range).collect()),
    );
    let typed = Node::Object(ipam.clone());
    let routes = Fields::of(&typed, "ipam")?
        .array("routes")?
        .unwrap_or_default();
    let mut routes: Vec<Node> = routes.into_iter().cloned().collect();
    let mut seen = Vec::new();
    for network in &env.networks {
        if !seen.contains(network) {
            routes.push(Node::obj().put("dst", network.to_string()).build());
            seen.push(*network);
        }
    }
    set(&mut ipam, "routes", Node::Array(routes));
    Ok(Node::Object(ipam))
}

fn members(node: Option<&Node>, key: &str) -> Result<Vec<(String, Node)>, CniError> {
    match node {
        None => Ok(Vec::new()),
        Some(Node::Object(members)) => Ok(members.clone()),
        Some(other) => Err(invalid_config(
            format!("key {key:?}: {} was found", other.kind()),
            "an object is allowed",
        )),
    }
}

fn has(members: &[(String, Node)], key: &str) -> bool {
    let mut of_key = members.iter().filter(|(k, _)| k.eq_ignore_ascii_case(key));
    of_key
        .next_back()
        .is_some_and(|(_, value)| *value != Node::Null)
}

fn set(members: &mut Vec<(String, Node)>, key: &str, value: Node) {
    members.retain(|(k, _)| !k.eq_ignore_ascii_case(key));
    members.push((key.to_owned(), value));
}

fn default(members: &mut Vec<(String, Node)>, key: &str, value: Node) {
    if !has(members, key) {
        set(members, key, value);
    }
}
