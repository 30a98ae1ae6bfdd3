//! A small cluster on one machine: nodes on a common underlay and a host that is in it but not of the cluster, each a
//! network namespace.
//!
//! The namespaces have no names and no files: they are held by descriptors of this process, so however it ends, nothing
//! is left. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN; in a user namespace of one's own is enough. What belongs to the
//! overlay is not made here, but for [`Node::vxlan_by_hand`] and [`Node::pod_by_hand`], which are what the documents
//! show, for whoever has no agent or no plugin at hand.
//!
//! ```no_run
//! # fn demo() -> anyhow::Result<()> {
//! let fleet = conformance::fleet::Fleet::new(3)?;
//! let here = &fleet.nodes[0];
//! here.space.sh("ip route")?;
//! here.space.command("overlayd").arg("run").spawn()?;
//! # Ok(())
//! # }
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

pub use space::Space;

mod space;

/// All pods.
pub const NETWORK: &str = "192.168.128.0/18";
/// All pods, IPv6.
pub const NETWORK6: &str = "fd00:128::/48";
/// flannel's default.
pub const VNI: u32 = 1;

/// Nodes, what is between them, and somebody outside.
#[derive(Debug)]
pub struct Fleet {
    /// The nodes, in order.
    pub nodes: Vec<Node>,
    /// [`OUTSIDE`], [`OUTSIDE6`]: in the nodes' network, and without a route to pods.
    pub outside: Space,
    /// Has the bridge `underlay`, whose ports are the nodes' and the outsider's: `node0`, ..., `outside`. To take a
    /// node's cable away, set its port down.
    pub underlay: Space,
}

/// The outsider's address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 100);
/// The outsider's IPv6 address.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 0x100);

/// A node. Nothing of the cluster is in it yet: an interface `eth0` with two addresses, default routes that end outside,
/// and forwarding on.
#[derive(Debug)]
pub struct Node {
    /// `node0`, ...
    pub name: String,
    /// Where its processes run.
    pub space: Space,
    number: u8,
}

// === impl Fleet ===

impl Fleet {
    /// So many nodes, at most 31.
    ///
    /// # Errors
    /// Namespaces or links cannot be made; names the step.
    pub fn new(nodes: u8) -> Result<Fleet> {
        let underlay = Space::new("underlay")?;
        underlay.sh("ip link add underlay type bridge; ip link set underlay up
             sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || true")?;
        let outside = Space::new("outside")?;
        plug(&underlay, &outside, OUTSIDE, OUTSIDE6)?;
        let fleet = Fleet {
            nodes: (0..nodes)
                .map(|number| Node::new(&underlay, number))
                .collect::<Result<_>>()?,
            outside,
            underlay,
        };
        Ok(fleet)
    }

    /// Replaces a node by a new one of the same name and addresses, as after a crash with a new disk.
    ///
    /// # Errors
    /// As [`Fleet::new`].
    pub fn replace(&mut self, at: usize) -> Result<()> {
        if let Some(node) = self.nodes.get_mut(at) {
            self.underlay.sh(&format!("ip link del {}", node.name))?;
            *node = Node::new(&self.underlay, node.number)?;
        }
        Ok(())
    }
}

/// A cable from the underlay's bridge to `eth0` there. Its MAC follows from the address: a node that is replaced has the
/// old one's, so that its neighbours need not find out.
fn plug(underlay: &Space, space: &Space, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    let (name, [.., last]) = (space.name(), v4.octets());
    underlay.sh(&format!(
        "ip link add {name} type veth peer eth0 address 02:00:5e:64:00:{last:02x} netns {}
         ip link set {name} master underlay up",
        space.path()
    ))?;
    space.sh(&format!(
        "ip link set eth0 up; ip addr add {v4}/24 dev eth0; ip addr add {v6}/64 dev eth0 nodad"
    ))?;
    Ok(())
}

// === impl Node ===

impl Node {
    fn new(underlay: &Space, number: u8) -> Result<Node> {
        let name = format!("node{number}");
        let node = Node {
            space: Space::new(&name)?,
            name,
            number,
        };
        plug(underlay, &node.space, node.address(), node.address6())?;
        let routes =
            format!("ip route add default via {OUTSIDE}; ip route add default via {OUTSIDE6}");
        node.space.sh(&routes)?;
        // Strict filtering of sources, as many distributions have it; traffic of bridges seen by iptables, as kube-proxy
        // needs it.
        node.space.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \\
                net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1
             sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null || true")?;
        Ok(node)
    }

    /// In the underlay: 192.168.64.3, .4, ...
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 64, 3 + self.number)
    }

    /// In the underlay: fd00:64::3, ...
    pub fn address6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, u16::from(3 + self.number))
    }

    /// An address of its pods' subnet 192.168.128.0/24, 192.168.132.0/24, ...: .0 is the tunnel's, .1 the bridge's.
    pub fn pods(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 128 + 4 * self.number, host)
    }

    /// The same of fd00:128:0:80::/64, fd00:128:0:84::/64, ...
    pub fn pods6(&self, host: u8) -> Ipv6Addr {
        let subnet = 0x80 + 4 * u16::from(self.number);
        Ipv6Addr::new(0xfd00, 0x128, 0, subnet, 0, 0, 0, host.into())
    }

    /// `192.168.132.0/24`
    pub fn subnet(&self) -> String {
        format!("{}/24", self.pods(0))
    }

    /// `fd00:128:0:84::/64`
    pub fn subnet6(&self) -> String {
        format!("{}/64", self.pods6(0))
    }

    /// Of its tunnel, as [`Node::vxlan_by_hand`] makes it; the IPv6 one's ends with 06 instead of 04.
    pub fn mac(&self, v6: bool) -> String {
        format!(
            "02:00:5e:{:02x}:00:{}",
            self.number,
            if v6 { "06" } else { "04" }
        )
    }

    /// The node's part of the overlay, with the usual tools: flannel's devices for both families, and for each other
    /// node a route, a neighbour and an FDB entry.
    ///
    /// # Errors
    /// A tool refused; all it said.
    pub fn vxlan_by_hand<'a>(&self, others: impl IntoIterator<Item = &'a Node>) -> Result<()> {
        let mut script = String::new();
        for (dev, v6, local, vtep) in [
            (
                "flannel.1",
                false,
                self.address().to_string(),
                format!("{}/32", self.pods(0)),
            ),
            (
                "flannel-v6.1",
                true,
                self.address6().to_string(),
                format!("{}/128", self.pods6(0)),
            ),
        ] {
            script += &format!(
                "ip link add {dev} address {mac} type vxlan id {VNI} local {local} dev eth0 dstport 8472 nolearning
                 ip addr add {vtep} dev {dev}
                 ip link set {dev} up\n",
                mac = self.mac(v6)
            );
        }
        for other in others
            .into_iter()
            .filter(|other| other.number != self.number)
        {
            for (dev, v6, subnet, gateway, remote) in [
                (
                    "flannel.1",
                    false,
                    other.subnet(),
                    other.pods(0).to_string(),
                    other.address().to_string(),
                ),
                (
                    "flannel-v6.1",
                    true,
                    other.subnet6(),
                    other.pods6(0).to_string(),
                    other.address6().to_string(),
                ),
            ] {
                let mac = other.mac(v6);
                script += &format!(
                    "ip neigh add {gateway} lladdr {mac} dev {dev} nud permanent
                     bridge fdb add {mac} dev {dev} dst {remote} self permanent
                     ip route add {subnet} via {gateway} dev {dev} onlink\n"
                );
            }
        }
        self.space.sh(&script).map(drop)
    }

    /// A pod with [`Node::pods`]`(host)`, as bridge and host-local make it under flannel; `host` from 2. The bridge `cni0`
    /// comes with the first.
    ///
    /// # Errors
    /// A tool refused; all it said.
    pub fn pod_by_hand(&self, host: u8) -> Result<Space> {
        let pod = Space::new(&format!("{}-{host}", self.name))?;
        let (gateway, gateway6) = (self.pods(1), self.pods6(1));
        self.space.sh(&format!(
            "if ! ip link show cni0 >/dev/null 2>&1; then
                 ip link add cni0 mtu 1430 type bridge; ip link set cni0 up
                 ip addr add {gateway}/24 dev cni0; ip addr add {gateway6}/64 dev cni0 nodad
             fi
             ip link add veth{host} mtu 1430 type veth peer eth0 mtu 1430 netns {path}
             ip link set veth{host} master cni0 up; bridge link set dev veth{host} hairpin on",
            path = pod.path()
        ))?;
        pod.sh(&format!(
            "ip link set eth0 up; ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad
             ip route add default via {gateway}; ip route add {NETWORK} via {gateway}
             ip route add default via {gateway6}; ip route add {NETWORK6} via {gateway6}",
            self.pods(host),
            self.pods6(host)
        ))?;
        Ok(pod)
    }
}
