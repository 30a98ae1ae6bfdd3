//! The command line: flanneld's options under flanneld's names, each also as `FLANNELD_<NAME>`, and a few of our own.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Keeps this node in the overlay: leases its subnet, follows the other nodes, and keeps the kernel as it has to be.
///
/// Without a command it runs as the node's agent.
#[derive(Debug, Parser)]
#[command(name = "overlayd", version, disable_help_subcommand = true)]
pub struct Options {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where nodes hear of each other.
    #[command(flatten)]
    pub directory: DirectoryOptions,
    /// By which interface and address this node is reached.
    #[command(flatten)]
    pub place: PlaceOptions,
    /// What the node's pods get.
    #[command(flatten)]
    pub node: NodeOptions,
}

/// What to do instead of running as an agent. None of these needs one that runs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the peers, whether the kernel has what they need, and how old the directory's word is
    Show {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Walk a packet's way from one pod to another, and name the first step that is missing or wrong
    Path {
        /// The pod that sends
        from: IpAddr,
        /// The pod that is to receive
        to: IpAddr,
    },
    /// Give this node back to flanneld: its routes, rules and device, as flanneld makes them, and nothing of ours
    Release {
        /// Remove everything instead: device, routes, rules
        #[arg(long)]
        remove: bool,
    },
}

/// Where nodes hear of each other.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Directory")]
pub struct DirectoryOptions {
    /// Which one; unless given, the one whose options are: kubernetes, file, else etcd
    #[arg(long, env = "OVERLAYD_DIRECTORY")]
    pub directory: Option<DirectoryKind>,
    /// Directory of the file directory: `config`, and `subnets/` with a file for each node
    #[arg(long, value_name = "DIR", env = "OVERLAYD_PEERS_DIR")]
    pub peers_dir: Option<PathBuf>,
    /// This node's name; with Kubernetes that of its Node, unless NODE_NAME or POD_NAME tell
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// etcd's addresses, separated by commas
    #[arg(
        long,
        value_name = "URLS",
        env = "FLANNELD_ETCD_ENDPOINTS",
        default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379"
    )]
    pub etcd_endpoints: String,
    /// Prefix of all keys
    #[arg(
        long,
        value_name = "PREFIX",
        env = "FLANNELD_ETCD_PREFIX",
        default_value = "/coreos.com/network"
    )]
    pub etcd_prefix: String,
    /// Key of the client's certificate
    #[arg(long, value_name = "FILE", env = "FLANNELD_ETCD_KEYFILE")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Certificate of the client
    #[arg(long, value_name = "FILE", env = "FLANNELD_ETCD_CERTFILE")]
    pub etcd_certfile: Option<PathBuf>,
    /// Certificate of the authority that etcd's is to be signed by
    #[arg(long, value_name = "FILE", env = "FLANNELD_ETCD_CAFILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// User of etcd
    #[arg(long, value_name = "NAME", env = "FLANNELD_ETCD_USERNAME")]
    pub etcd_username: Option<String>,
    /// Password of that user
    #[arg(
        long,
        value_name = "TEXT",
        env = "FLANNELD_ETCD_PASSWORD",
        hide_env_values = true
    )]
    pub etcd_password: Option<String>,

    /// Kubernetes is the directory
    #[arg(long, env = "FLANNELD_KUBE_SUBNET_MGR", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub kube_subnet_mgr: bool,
    /// Address of the Kubernetes API, if not from a kubeconfig or the cluster's own
    #[arg(long, value_name = "URL", env = "FLANNELD_KUBE_API_URL")]
    pub kube_api_url: Option<String>,
    /// A kubeconfig
    #[arg(long, value_name = "FILE", env = "FLANNELD_KUBECONFIG_FILE")]
    pub kubeconfig_file: Option<PathBuf>,
    /// Prefix of the annotations
    #[arg(
        long,
        value_name = "PREFIX",
        env = "FLANNELD_KUBE_ANNOTATION_PREFIX",
        default_value = "flannel.alpha.coreos.com"
    )]
    pub kube_annotation_prefix: String,
    /// The network's configuration, with Kubernetes
    #[arg(
        long,
        value_name = "FILE",
        env = "FLANNELD_NET_CONFIG_PATH",
        default_value = "/etc/kube-flannel/net-conf.json"
    )]
    pub net_config_path: PathBuf,
    /// Keep the Node's condition NetworkUnavailable true to fact
    #[arg(long, env = "FLANNELD_SET_NODE_NETWORK_UNAVAILABLE", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub set_node_network_unavailable: bool,
}

/// The kinds of directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DirectoryKind {
    /// Files
    File,
    /// etcd, version 3 of its API
    Etcd,
    /// Nodes of Kubernetes
    Kubernetes,
}

/// By which interface and address this node is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Interface")]
pub struct PlaceOptions {
    /// Interface to the other nodes, by name or address; the first of several that is there
    #[arg(
        long,
        value_name = "NAME|IP",
        env = "FLANNELD_IFACE",
        value_delimiter = ','
    )]
    pub iface: Vec<String>,
    /// The same by a regular expression over addresses, then names
    #[arg(
        long,
        value_name = "REGEX",
        env = "FLANNELD_IFACE_REGEX",
        value_delimiter = ','
    )]
    pub iface_regex: Vec<String>,
    /// The interface by which this address is reached
    #[arg(long, value_name = "IP", env = "FLANNELD_IFACE_CAN_REACH")]
    pub iface_can_reach: Option<IpAddr>,
    /// Address the other nodes are told; the interface's own unless given
    #[arg(long, value_name = "IP", env = "FLANNELD_PUBLIC_IP")]
    pub public_ip: Option<IpAddr>,
    /// The same of IPv6
    #[arg(long, value_name = "IP", env = "FLANNELD_PUBLIC_IPV6")]
    pub public_ipv6: Option<IpAddr>,
}

/// What the node's pods get.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node")]
pub struct NodeOptions {
    /// File for the CNI plugin: the node's subnet and MTU
    #[arg(
        long,
        value_name = "FILE",
        env = "FLANNELD_SUBNET_FILE",
        default_value = "/run/flannel/subnet.env"
    )]
    pub subnet_file: PathBuf,
    /// What outlives a reboot: the VTEP's MAC, the peers as last known
    #[arg(
        long,
        value_name = "DIR",
        env = "OVERLAYD_STATE_DIR",
        default_value = "/var/lib/overlayd"
    )]
    pub state_dir: PathBuf,
    /// CNI configuration to write once the node is ready, if none is there; empty for none
    #[arg(
        long,
        value_name = "FILE",
        env = "OVERLAYD_CNI_CONF",
        default_value = "/etc/cni/net.d/10-flannel.conflist"
    )]
    pub cni_conf: PathBuf,
    /// What to write there; ours unless given
    #[arg(long, value_name = "FILE", env = "OVERLAYD_CNI_CONF_TEMPLATE")]
    pub cni_conf_template: Option<PathBuf>,
    /// Masquerade what leaves the network
    #[arg(long, env = "FLANNELD_IP_MASQ", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    pub ip_masq: bool,
    /// Let the kernel keep source ports where it can
    #[arg(long, env = "FLANNELD_IP_MASQ_FULLY_RANDOM_DISABLE", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub ip_masq_fully_random_disable: bool,
    /// Accept what is forwarded from and to the network
    #[arg(long, env = "FLANNELD_IPTABLES_FORWARD_RULES", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true")]
    pub iptables_forward_rules: bool,
    /// Address of /healthz, /readyz and /metrics
    #[arg(
        long,
        value_name = "IP",
        env = "FLANNELD_HEALTHZ_IP",
        default_value = "127.0.0.1"
    )]
    pub healthz_ip: IpAddr,
    /// Port of them; 0 for none
    #[arg(
        long,
        value_name = "PORT",
        env = "FLANNELD_HEALTHZ_PORT",
        default_value_t = 8081
    )]
    pub healthz_port: u16,
    /// How often everything is compared with the kernel, in seconds, should nothing call for it earlier
    #[arg(long, value_name = "S", env = "OVERLAYD_RESYNC", default_value_t = 60)]
    pub resync: u64,
    /// Taken for flanneld's sake, and not needed here: rules are compared when they change
    #[arg(long, value_name = "S", hide = true, env = "FLANNELD_IPTABLES_RESYNC")]
    pub iptables_resync: Option<u64>,
    /// Taken for flanneld's sake, and not needed here: leases are kept alive all the time
    #[arg(
        long,
        value_name = "MIN",
        hide = true,
        env = "FLANNELD_SUBNET_LEASE_RENEW_MARGIN"
    )]
    pub subnet_lease_renew_margin: Option<u64>,
}

// === impl Options ===

impl Options {
    /// From the process's arguments; with one dash as well, as flanneld takes them (`-iface=eth0`).
    pub fn read() -> Self {
        Self::parse_from(std::env::args_os().map(|arg| match arg.to_str() {
            Some(text) if is_long_with_one_dash(text) => format!("-{text}").into(),
            _ => arg,
        }))
    }
}

fn is_long_with_one_dash(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next() == Some(b'-') && bytes.take(2).filter(u8::is_ascii_lowercase).count() == 2
}

// === impl DirectoryOptions ===

impl DirectoryOptions {
    /// The kind that is wanted.
    pub fn kind(&self) -> DirectoryKind {
        match self.directory {
            Some(kind) => kind,
            None if self.kube_subnet_mgr => DirectoryKind::Kubernetes,
            None if self.peers_dir.is_some() => DirectoryKind::File,
            None => DirectoryKind::Etcd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Options {
        Options::parse_from(std::iter::once(&"overlayd").chain(args))
    }

    #[test]
    fn flannelds_flags_are_taken() {
        let options = parse(&[
            "--ip-masq",
            "--kube-subnet-mgr",
            "--iface=eth1",
            "--iface",
            "eth0",
            "--iptables-forward-rules=false",
            "--healthz-port=8081",
            "--iptables-resync=5",
            "--set-node-network-unavailable=false",
        ]);
        assert!(options.node.ip_masq && !options.node.iptables_forward_rules);
        assert_eq!(options.place.iface, ["eth1", "eth0"]);
        assert_eq!(options.directory.kind(), DirectoryKind::Kubernetes);
        assert!(!options.directory.set_node_network_unavailable);
    }

    #[test]
    fn the_directory_is_the_one_whose_options_are_given() {
        assert_eq!(parse(&[]).directory.kind(), DirectoryKind::Etcd);
        assert_eq!(
            parse(&["--peers-dir=/x"]).directory.kind(),
            DirectoryKind::File
        );
        assert_eq!(
            parse(&["--peers-dir=/x", "--directory=etcd"])
                .directory
                .kind(),
            DirectoryKind::Etcd
        );
    }

    #[test]
    fn one_dash_is_enough_for_a_long_name() {
        assert!(is_long_with_one_dash("-iface=eth0") && is_long_with_one_dash("-ip-masq"));
        for other in ["--iface", "-v", "-V", "-", "10.0.0.1", "-h", "-v=5"] {
            assert!(!is_long_with_one_dash(other), "{other}");
        }
    }
}
