//! A node without an agent: the overlay made by the plugin itself, from a file of all nodes.
//!
//! Every ADD reads what the kernel has and sends the difference, in one batch; where all stands already that is nothing.
//! The overlay stays when pods go.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use fabric::converge::{Others, Report};
use fabric::firewall::{self, FirewallError, Rules};
use fabric::own::device_name;
use fabric::parent::{self, Wishes};
use fabric::{Backend, Fabric, FabricError, Own, OwnSide, Peer, Peers, SubnetEnv, mac};
use libcni::kernel::Mac;
use libcni::kernel::nft::Netfilter;
use libcni::nl::{ROUTE, Socket};
use libcni::plugin::{self, signal};
use libcni::record;
use libcni::spec::IpNetwork;
use libcni::spec::error::{CniError, Code};

use crate::conf::Embedded;
use crate::peers::{self, Fleet};

/// Of those who make devices at the same moment: of one name there can be one.
const LOCK_DIR: &str = "/run/podwire";
/// What is missing, in a CHECK. See docs/overlay.md.
const INCOMPLETE: Code = Code::Other(120);
/// So many peers are named in one line of the log.
const NAMED: usize = 5;

/// This node and the others, as the configuration and the file have it.
#[derive(Debug)]
pub struct View {
    own: Own,
    peers: Peers,
    /// What `subnet.env` would say.
    pub env: SubnetEnv,
    notes: Vec<String>,
}

// === impl Embedded ===

impl Embedded {
    /// Finds out. Changes nothing but the file that keeps the MAC, and that only if nothing else tells it.
    ///
    /// # Errors
    /// Code 50: the file, this node's entry in it, or the interface is not there (yet). Code 7: they cannot be used.
    pub fn view(&self) -> Result<View, CniError> {
        let mut fleet = peers::read(&self.peers_file)?;
        let known = self.subnet.and_then(|subnet| fleet.of_subnet(&subnet));
        let hints: Vec<_> = known
            .iter()
            .flat_map(|(_, peer)| public_ips(peer))
            .collect();
        let mut sock = Socket::open(ROUTE)?;
        let wishes = Wishes {
            ifaces: &self.ifaces,
            public_ip: self.public_ip,
            public_ipv6: self.public_ipv6,
            internal_ips: &hints,
            v4: true,
            v6: self.network(true).is_some(),
            ..Wishes::default()
        };
        let parent = parent::choose(&mut sock, &wishes).map_err(|e| {
            CniError::new(Code::NotAvailable, e.to_string())
                .with_details("set `iface` or `publicIP`")
        })?;
        let address = self.public_ip.or(parent.v4.map(Into::into));
        let me = known.or_else(|| fleet.of_address(address?));
        let subnet = |v6: bool| match (&me, v6) {
            (Some((_, peer)), _) => peer.site(v6).map(|site| site.subnet),
            (None, false) => self.subnet,
            (None, true) => self.subnet_v6,
        };
        let side = |v6: bool, sock: &mut Socket| {
            let Some(network) = self.network(v6) else {
                return Ok(None);
            };
            let subnet = subnet(v6).ok_or_else(|| self.unknown(v6, address))?;
            within(subnet, network)?;
            let local = if v6 {
                parent.v6.map(Into::into)
            } else {
                parent.v4.map(Into::into)
            };
            let local = local.ok_or_else(|| self.unknown(v6, address))?;
            let told = me.as_ref().and_then(|(_, peer)| peer.site(v6)?.vtep);
            let mac = match told {
                // The others send to this one.
                Some(vtep) => vtep.mac,
                None => self.mac(sock, v6)?,
            };
            Ok::<_, CniError>(Some(OwnSide {
                network,
                subnet,
                local,
                mac,
            }))
        };
        let own = Own {
            backend: Backend::Vxlan(self.vxlan),
            v4: side(false, &mut sock)?,
            v6: side(true, &mut sock)?,
            parent,
        };
        if let Some((key, _)) = me {
            fleet.peers.remove(&key);
        }
        let sides = || [&own.v4, &own.v6].into_iter().flatten();
        let env = SubnetEnv {
            networks: sides().map(|side| side.network).collect(),
            subnets: sides().map(|side| side.subnet).collect(),
            mtu: own.pod_mtu(),
            ip_masq: self.ip_masq,
        };
        let Fleet { peers, notes } = fleet;
        Ok(View {
            own,
            peers,
            env,
            notes,
        })
    }

    /// What this node is, and the overlay with it.
    ///
    /// # Errors
    /// As [`Embedded::view`]; or no device, no rules. A peer that the kernel refuses is a line in the log.
    pub fn program(&self) -> Result<View, CniError> {
        record::phase("overlay");
        let _lock = lock(self.vxlan.vni)?;
        let view = self.view()?;
        let mut fabric = Fabric::open(view.own.clone()).map_err(|e| failed(&e))?;
        let report = fabric
            .converge(&view.peers, Others::Remove)
            .map_err(|e| failed(&e))?;
        view.tell(&report);
        record::phase("masquerade");
        let mut netfilter = Netfilter::unopened();
        firewall::ensure(&mut netfilter, &self.rules(&view)).map_err(|e| rules_failed(&e))?;
        Ok(view)
    }

    /// Whether what [`Embedded::program`] made stands.
    ///
    /// # Errors
    /// Code 120: the first thing that does not.
    pub fn check(&self) -> Result<(), CniError> {
        record::phase("overlay");
        let view = self.view()?;
        let mut fabric = Fabric::open(view.own.clone()).map_err(|e| failed(&e))?;
        let mut faults = fabric.look(&view.peers).map_err(|e| failed(&e))?;
        if faults.is_empty() {
            record::phase("masquerade");
            let mut netfilter = Netfilter::unopened();
            let rules = firewall::check(&mut netfilter, &self.rules(&view));
            faults = rules.map_err(|e| rules_failed(&e))?;
        }
        match faults.first() {
            None => Ok(()),
            Some(first) => Err(CniError::new(INCOMPLETE, first).with_details(format!(
                "{} such differences; the next ADD on this node repairs them",
                faults.len()
            ))),
        }
    }

    fn network(&self, v6: bool) -> Option<IpNetwork> {
        self.networks
            .iter()
            .find(|net| net.is_ipv6() == v6)
            .copied()
    }

    fn rules(&self, view: &View) -> Rules {
        Rules::of(&view.own, self.ip_masq, true, true)
    }

    fn mac(&self, sock: &mut Socket, v6: bool) -> Result<Mac, CniError> {
        let file = if v6 {
            self.mac_file.with_added_extension("v6")
        } else {
            self.mac_file.clone()
        };
        let device = device_name(self.vxlan.vni, v6);
        mac::choose(sock, &device, None, &file)
            .map_err(|e| CniError::new(Code::Io, e.to_string()).with_details("`macFile`"))
    }

    fn unknown(&self, v6: bool, address: Option<std::net::IpAddr>) -> CniError {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let address = address.map_or("unknown".to_owned(), |ip| ip.to_string());
        let file = self.peers_file.display();
        let msg = format!("this node (address {address}) has no {family} subnet in {file}");
        CniError::new(Code::NotAvailable, msg).with_details(
            "add its entry there, or set `subnet`; `iface` or `publicIP` if the address is wrong",
        )
    }
}

// === impl View ===

impl View {
    /// What the log should have of it.
    fn tell(&self, report: &Report) {
        let say = |what: &str, all: Vec<String>| {
            if !all.is_empty() {
                let shown: Vec<&str> = all.iter().take(NAMED).map(String::as_str).collect();
                let more = if all.len() > NAMED { "; ..." } else { "" };
                let count = all.len();
                plugin::log(format_args!(
                    "overlay: {count} {what}: {}{more}",
                    shown.join("; ")
                ));
            }
        };
        say("entries are no peers", self.notes.clone());
        let refused = report.refused.iter();
        say(
            "peers are not believed",
            refused
                .map(|r| format!("{}: {}", r.key, r.reason))
                .collect(),
        );
        let failed = report.failed.iter();
        say(
            "peers could not be set",
            failed.map(|(key, e)| format!("{key}: {e}")).collect(),
        );
    }
}

fn public_ips(peer: &Peer) -> impl Iterator<Item = std::net::IpAddr> + use<> {
    [peer.v4, peer.v6]
        .into_iter()
        .flatten()
        .map(|site| site.public_ip)
}

fn within(subnet: IpNetwork, network: IpNetwork) -> Result<(), CniError> {
    if network.contains(subnet.network()) && subnet.prefix() > network.prefix() {
        return Ok(());
    }
    let msg = format!("this node's subnet {subnet} is not within the network {network}");
    Err(CniError::new(Code::InvalidConfig, msg)
        .with_details("correct `network`, `subnet` or the peers file"))
}

/// Waits for its turn, unless it is asked to stop.
fn lock(vni: u32) -> Result<File, CniError> {
    let path = Path::new(LOCK_DIR).join(format!("overlay-{vni}.lock"));
    let io = |e: std::io::Error| CniError::new(Code::Io, format!("lock {}: {e}", path.display()));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(LOCK_DIR)
        .map_err(io)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            Err(e) if e.kind() == ErrorKind::Interrupted => signal::check()?,
            Err(e) => return Err(io(e)),
        }
    }
}

fn failed(e: &FabricError) -> CniError {
    CniError::new(Code::Other(121), format!("the overlay cannot be made: {e}"))
}

fn rules_failed(e: &FirewallError) -> CniError {
    CniError::new(
        Code::Other(121),
        format!("the overlay's rules cannot be made: {e}"),
    )
}
