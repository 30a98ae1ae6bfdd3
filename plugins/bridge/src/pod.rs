//! The pod end: sysctls, addresses, up, routes.

use std::net::IpAddr;

use libcni::kernel::mac::Mac;
use libcni::kernel::netns::Netns;
use libcni::kernel::nft::Netfilter;
use libcni::kernel::{addr, conntrack, link, route, sysctl};
use libcni::nl::{Batch, ROUTE, Socket};
use libcni::spec::error::CniError;

use crate::conf::{Conf, internal};
use crate::plan::Layer3;
use crate::veth::Veth;

/// How long duplicate address detection may take (`enabledad`).
const DAD_MS: u32 = 5000;

/// How long the kernel may take to deliver to a new IPv6 address. Microseconds as a rule; but its work queue waits
/// for the same lock as the removal of namespaces, which a drained node does by the hundred.
pub const LOCAL_MS: u32 = 30_000;

/// The pod end, and a socket in its namespace.
pub struct Pod {
    sock: Socket,
    index: u32,
    mac: Mac,
}

/// Sets the pod end up with its addresses and routes, in one send.
pub fn configure(
    conf: &Conf,
    netns: &Netns,
    veth: &Veth,
    layer3: &Layer3,
    reused: bool,
) -> Result<Pod, CniError> {
    let name = veth.pod_name.as_str();
    let mut sock = netns.enter(|| -> Result<Socket, CniError> {
        write_sysctls(conf, name, layer3, reused)?;
        Ok(Socket::open(ROUTE)?)
    })??;
    let index = match veth.pod_index {
        Some(index) => index,
        None => {
            let link = link::get(&mut sock, name)?;
            link.ok_or_else(|| internal(format!("{name} vanished from the pod")))?
                .index
        }
    };
    let mut pod = Pod {
        sock,
        index,
        mac: veth.pod_mac,
    };
    if !conf.disable_container_interface {
        pod.bring_up(conf, layer3)?;
    }
    Ok(pod)
}

impl Pod {
    fn bring_up(&mut self, conf: &Conf, layer3: &Layer3) -> Result<(), CniError> {
        let mut batch = Batch::new();
        for &address in &layer3.addresses {
            batch.push(addr::add(self.index, address, !conf.enable_dad));
        }
        // Not announced yet: the port does not forward yet.
        batch.push(if layer3.addresses.is_empty() {
            link::up(self.index)
        } else {
            link::up_then_arp_notify(self.index)
        });
        if conf.enable_dad && layer3.has_v6() {
            self.sock.run(&batch)?;
            addr::wait_settled(&mut self.sock, self.index, DAD_MS)?;
            batch = Batch::new();
        }
        for route in &layer3.routes {
            batch.push(route::add(&route::Spec::from_result(route, self.index)));
        }
        self.sock.run(&batch)?;
        let v6 = layer3.addresses.iter().filter(|a| a.is_ipv6());
        let v6: Vec<IpAddr> = v6.map(|a| a.ip()).collect();
        Ok(addr::wait_local(&mut self.sock, &v6, LOCAL_MS)?)
    }

    /// Corrects what others remember of the last owner of addresses that are given again, so that the first packet
    /// arrives. The port must forward by now. Not for an address that is new since boot: an announcement is a
    /// broadcast, which the kernel copies to every pod of the bridge (at 1,000 pods it takes longer than all the
    /// rest of ADD).
    pub fn announce(&mut self, layer3: &Layer3, netfilter: &mut Netfilter) -> Result<(), CniError> {
        let ips: Vec<IpAddr> = layer3.addresses.iter().map(|a| a.ip()).collect();
        conntrack::forget(netfilter, &ips)?;
        // The MAC it has already: the kernel announces the addresses, with `arp_notify` and `ndisc_notify` set.
        Ok(self
            .sock
            .run(&Batch::from(link::set_mac(self.index, self.mac)))?)
    }
}

/// What IPv6 needs before the link goes up, for which it has no netlink. An IPv4-only pod needs nothing: its
/// link-local address may take its second of duplicate address detection, and opening a file below
/// `/proc/sys/net` costs the kernel a walk over all namespaces that ever did (dentries of one name in one
/// hash chain: 0.5 ms with 800 pods).
fn write_sysctls(conf: &Conf, ifname: &str, layer3: &Layer3, reused: bool) -> Result<(), CniError> {
    if !layer3.has_v6() {
        return Ok(());
    }
    for name in ["lo", ifname] {
        sysctl::ensure(sysctl::ipv6_conf(name, "disable_ipv6"), "0")?;
    }
    let set = |key: &str, value: &str| sysctl::write(sysctl::ipv6_conf(ifname, key), value);
    if conf.enable_dad {
        set("enhanced_dad", "1")?;
        set("accept_dad", "1")?;
    } else {
        set("accept_dad", "0")?;
    }
    set("keep_addr_on_down", "1")?;
    if reused {
        set("ndisc_notify", "1")?;
    }
    Ok(())
}
