//! The plugin's keys, and the configuration its delegate gets. Pure.

use std::net::IpAddr;
use std::path::PathBuf;

use fabric::{SubnetEnv, Vxlan};
use libcni::plugin::Call;
use libcni::spec::error::CniError;
use libcni::spec::json::{FieldError, Fields, Node};
use libcni::spec::{IpNetwork, invalid_config, parse_cidr, parse_ip};

const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DATA_DIR: &str = "/var/lib/cni/flannel";
const DELEGATE: &str = "bridge";
const MAC_FILE: &str = "/var/lib/cni/podwire/vtep.mac";

/// Where things are; all that DEL needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `subnetFile`
    pub subnet_file: PathBuf,
    /// `dataDir`: one file per attachment, the delegate's configuration.
    pub data_dir: PathBuf,
}

/// The keys of a node without an agent: there with `vxlan`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// `vxlan`
    pub vxlan: Vxlan,
    /// `network` and `networks`: all pods of all nodes, one of each family at most; IPv4 is there.
    pub networks: Vec<IpNetwork>,
    /// `subnet`: this node's, unless its entry is to be found by its address.
    pub subnet: Option<IpNetwork>,
    /// The same of IPv6, for a node without an entry.
    pub subnet_v6: Option<IpNetwork>,
    /// `peersFile`
    pub peers_file: PathBuf,
    /// `iface`: names or addresses, the first that fits.
    pub ifaces: Vec<String>,
    /// `publicIP`
    pub public_ip: Option<IpAddr>,
    /// `publicIPv6`
    pub public_ipv6: Option<IpAddr>,
    /// `macFile`: where the VTEP's MAC is kept if the node has no entry.
    pub mac_file: PathBuf,
    /// `ipMasq`
    pub ip_masq: bool,
}

const CIDR: &str = "a network such as 10.244.0.0/16";

impl Embedded {
    /// Reads the keys; `None` without `vxlan`.
    ///
    /// # Errors
    /// A wrong type or value, or a key that is missing: code 7.
    pub fn of(conf: &Node) -> Result<Option<Self>, CniError> {
        let fields = Fields::of(conf, "")?;
        let Some(vxlan) = fields.fields("vxlan")? else {
            return Ok(None);
        };
        let text =
            |key: &str| Ok::<_, FieldError>(fields.str(key)?.filter(|text| !text.is_empty()));
        let [network, networks] = ["network", "networks"].map(|key| cidrs(&fields, key));
        let networks = [network?, networks?].concat();
        let [subnet, subnet_v6] = two(&cidrs(&fields, "subnet")?, "subnet")?;
        let peers_file = text("peersFile")?;
        let peers_file = peers_file.ok_or_else(|| FieldError::missing("peersFile", "a path"))?;
        if two(&networks, "networks")?[0].is_none() {
            return Err(FieldError::missing("network", CIDR).into());
        }
        let ip = |key: &str, v6: bool| {
            let Some(text) = text(key)? else {
                return Ok(None);
            };
            match parse_ip(&text).filter(|ip| ip.is_ipv6() == v6) {
                Some(ip) => Ok(Some(ip)),
                None => Err(FieldError::bad_value(key, text, "an address of its family")),
            }
        };
        Ok(Some(Self {
            vxlan: Vxlan::parse(&vxlan)?,
            networks,
            subnet,
            subnet_v6,
            peers_file: peers_file.into(),
            ifaces: one_or_more(&fields, "iface")?,
            public_ip: ip("publicIP", false)?,
            public_ipv6: ip("publicIPv6", true)?,
            mac_file: text("macFile")?.unwrap_or_else(|| MAC_FILE.into()).into(),
            ip_masq: fields.bool("ipMasq")?.unwrap_or(true),
        }))
    }
}

/// A text, or several in an array.
fn one_or_more(fields: &Fields<'_>, key: &str) -> Result<Vec<String>, FieldError> {
    match fields.node(key).as_deref() {
        Some(Node::Array(_)) => Ok(fields.strings(key)?.unwrap_or_default()),
        _ => Ok(fields
            .str(key)?
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect()),
    }
}

fn cidrs(fields: &Fields<'_>, key: &str) -> Result<Vec<IpNetwork>, FieldError> {
    let texts = one_or_more(fields, key)?.into_iter();
    let masked = |text: &str| {
        let cidr = parse_cidr(text)?;
        IpNetwork::new(cidr.network(), cidr.prefix()).ok()
    };
    let all = texts.map(|text| masked(&text).ok_or_else(|| FieldError::bad_value(key, text, CIDR)));
    all.collect()
}

/// One of each family at most.
fn two(nets: &[IpNetwork], key: &str) -> Result<[Option<IpNetwork>; 2], CniError> {
    let of = |v6: bool| -> Vec<IpNetwork> {
        nets.iter()
            .filter(|net| net.is_ipv6() == v6)
            .copied()
            .collect()
    };
    match (of(false).as_slice(), of(true).as_slice()) {
        (v4 @ ([] | [_]), v6 @ ([] | [_])) => Ok([v4.first().copied(), v6.first().copied()]),
        _ => Err(invalid_config(
            format!("key {key:?}: more than one of a family"),
            "one network of IPv4 and one of IPv6 at most",
        )),
    }
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
