//! The veth pair: made straight into both namespaces, under its final names, with MACs of ours, so that
//! nothing has to be read back, renamed or moved.

use std::os::fd::AsFd;

use libcni::firewall::spoof;
use libcni::kernel::link::{self, Link, VethSpec};
use libcni::kernel::mac::Mac;
use libcni::kernel::nft::Netfilter;
use libcni::nl::{Batch, NlError, ROUTE, Socket};
use libcni::plugin::{Call, Undo, identity};
use libcni::spec::error::{CniError, Code};
use libcni::spec::{Attachment, IfName};
use nix::errno::Errno;

use crate::conf::{Conf, internal};
use crate::vlan;

/// The interface is there already.
const EXISTS: Code = Code::Other(101);

/// The pair, as made.
pub struct Veth {
    /// The host end.
    pub host: Link,
    pub host_mac: Mac,
    /// `CNI_IFNAME`.
    pub pod_name: String,
    pub pod_mac: Mac,
    /// Index of the pod end in the pod, if the kernel told.
    pub pod_index: Option<u32>,
}

/// Makes the pair and sets the port up: one send, unless the port has VLANs or a MAC filter.
pub fn connect(
    call: &'static Call,
    conf: &Conf,
    host: &mut Socket,
    netfilter: &mut Netfilter,
    bridge: &Link,
    mtu: Option<u32>,
    undo: &mut Undo,
) -> Result<Veth, CniError> {
    let attachment = call.attachment()?;
    let net = call.network();
    let veth = create(call, conf, host, bridge, mtu, undo)?;
    let port = IfName::parse(&veth.host.name)?;
    vlan::set_port(host, &conf.vlans, veth.host.index)?;
    if conf.macspoofchk {
        undo.push("remove the MAC filter", move || {
            let outcome = spoof::remove(&mut Netfilter::unopened(), net, attachment);
            outcome.map_err(|e| e.to_string())
        });
        spoof::add(netfilter, net, attachment, &port, veth.pod_mac)?;
    }
    Ok(veth)
}

fn create(
    call: &Call,
    conf: &Conf,
    host: &mut Socket,
    bridge: &Link,
    mtu: Option<u32>,
    undo: &mut Undo,
) -> Result<Veth, CniError> {
    let attachment = call.attachment()?;
    let alias = identity::alias(call.network(), attachment);
    let netns = call.netns()?;
    let host_mac = Mac::random_local();
    let pod_mac = conf.mac.unwrap_or_else(Mac::random_local);
    for attempt in 0..identity::HOST_NAME_TRIES {
        let name = identity::host_ifname(call.network(), attachment, attempt);
        let mut batch = Batch::new();
        batch.push(link::veth_echoed(&VethSpec {
            host_name: name.as_str(),
            host_mac,
            mtu,
            master: Some(bridge.index),
            host_up: true,
            pod_name: attachment.ifname.as_str(),
            pod_mac,
            pod_netns: netns.as_fd(),
        }));
        batch.push(link::set_alias(name.as_str(), &alias));
        if conf.hairpin || conf.port_isolation {
            let (hairpin, isolated) = (conf.hairpin, conf.port_isolation);
            batch.push(link::set_bridge_port(name.as_str(), hairpin, isolated));
        }
        // Before the send: its first message may succeed and another fail.
        let to_undo = name.clone();
        undo.push("delete the veth pair", move || {
            delete_by_mac(&to_undo, host_mac).map_err(|e| e.to_string())
        });
        let mut made = None;
        let outcome = host.exchange(&batch, |at, reply| {
            if at == 0 {
                made = Link::from_reply(reply);
            }
        });
        match outcome {
            Ok(()) => {}
            Err(e) if e.is(Errno::EEXIST) => match in_the_way(host, &name, &alias)? {
                InTheWay::AnotherAttachment => continue,
                InTheWay::Interface => return Err(exists(attachment, &e)),
            },
            Err(e) => return Err(e.into()),
        }
        // Kernels before 6.2 do not tell what they made.
        let link = match made {
            Some(link) => Some(link),
            None => link::get(host, name.as_str())?,
        };
        let link = link.ok_or_else(|| internal(format!("{name} vanished")))?;
        let veth = Veth {
            pod_index: link.peer_index,
            host: link,
            host_mac,
            pod_name: attachment.ifname.to_string(),
            pod_mac,
        };
        return Ok(veth);
    }
    let id = &attachment.container_id;
    Err(
        internal(format!("no free name for the host end of {id}")).with_details(
            "`ip link | grep podwire:` shows which attachments hold the names it may have",
        ),
    )
}

/// Deletes the link if it is the one with our random MAC, and not another attachment's of that name.
fn delete_by_mac(name: &IfName, mac: Mac) -> Result<(), NlError> {
    let mut host = Socket::open(ROUTE)?;
    match link::get(&mut host, name.as_str())? {
        Some(link) if link.mac == Some(mac) => host.run(&Batch::from(link::del(link.index))),
        _ => Ok(()),
    }
}

enum InTheWay {
    /// The host name is another attachment's: take the next name.
    AnotherAttachment,
    /// This attachment's own pair, or an interface of that name in the pod.
    Interface,
}

fn in_the_way(host: &mut Socket, name: &IfName, alias: &str) -> Result<InTheWay, NlError> {
    Ok(match link::get(host, name.as_str())? {
        Some(link) if link.alias.as_deref() != Some(alias) => InTheWay::AnotherAttachment,
        _ => InTheWay::Interface,
    })
}

fn exists(attachment: &Attachment, cause: &NlError) -> CniError {
    let ifname = &attachment.ifname;
    let msg =
        format!("interface {ifname} already exists in the pod, or this attachment already stands");
    CniError::new(EXISTS, msg).with_details(format!(
        "{cause}; call DEL for this container and interface first"
    ))
}
