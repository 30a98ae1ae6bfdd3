//! The least a program can do to give a pod its network, as a measure of what the kernel itself costs.
//!
//! ADD is one veth into the pod's netns with its host end up and on the bridge, one address and one default route:
//! two netlink sends, one per namespace. DEL deletes the veth by its host end's name. Nothing is checked, chosen,
//! remembered, printed or undone, no configuration is read, and the bridge must exist. It shares no code with the
//! plugins, so that a slow encoder of ours cannot hide in both sides of a ratio.
//!
//! Everything comes from the environment: `CNI_COMMAND`, `CNI_NETNS`, `CNI_IFNAME` as for a plugin, and
//! `FLOOR_HOST_NAME`, `FLOOR_BRIDGE_INDEX`, `FLOOR_ADDRESS` (`10.0.0.2/16`), `FLOOR_GATEWAY` (`10.0.0.1`).
//!
//! Constants are from `linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h` and `linux/veth.h`.
#![allow(unsafe_code)] // One call, to enter the pod's namespace without another crate's checks.

use std::env;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

fn main() -> Result<()> {
    if var("CNI_COMMAND")? == "ADD" {
        add()
    } else {
        del()
    }
}

/// `ip link add HOST up master BRIDGE type veth peer name IFNAME netns POD`, then in the pod
/// `ip link set IFNAME up; ip addr add ADDRESS dev IFNAME; ip route add default via GATEWAY`.
fn add() -> Result<()> {
    let pod_name = var("CNI_IFNAME")?;
    let bridge_index: u32 = parse(&var("FLOOR_BRIDGE_INDEX")?)?;
    let address_text = var("FLOOR_ADDRESS")?;
    let (ip_text, prefix_text) = address_text
        .split_once('/')
        .ok_or(ErrorKind::InvalidInput)?;
    let ip: Ipv4Addr = parse(ip_text)?;
    let prefix_len: u8 = parse(prefix_text)?;
    let gateway: Ipv4Addr = parse(&var("FLOOR_GATEWAY")?)?;

    let pod = File::open(var("CNI_NETNS")?)?;
    let host_socket = Socket::new(NETLINK_ROUTE)?;

    let mut request = Request::default();
    request.message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, |m| {
        m.ifinfo(0, IFF_UP);
        m.name(IFLA_IFNAME, &var("FLOOR_HOST_NAME")?);
        m.attribute(IFLA_MASTER, &bridge_index.to_ne_bytes());
        m.nest(IFLA_LINKINFO, |m| {
            m.attribute(IFLA_INFO_KIND, b"veth");
            m.nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.ifinfo(0, 0);
                    m.name(IFLA_IFNAME, &pod_name);
                    m.attribute(IFLA_NET_NS_FD, &pod.as_raw_fd().to_ne_bytes());
                });
            });
        });
        Ok(())
    })?;
    request.send(&host_socket)?;

    // SAFETY: setns takes a descriptor we own and no pointers; the process has one thread.
    if unsafe { libc::setns(pod.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(Error::last_os_error());
    }
    let pod_socket = Socket::new(NETLINK_ROUTE)?;
    let index = nix::net::if_::if_nametoindex(pod_name.as_str())?;

    // Only the last message asks for an ack: the kernel reports failures of the others unasked, and in order.
    let mut request = Request::default();
    request.message(RTM_NEWLINK, 0, |m| {
        m.ifinfo(index, IFF_UP);
        Ok(())
    })?;
    request.message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, |m| {
        m.bytes(&[AF_INET, prefix_len, 0, RT_SCOPE_UNIVERSE]);
        m.bytes(&index.to_ne_bytes());
        m.attribute(IFA_LOCAL, &ip.octets());
        m.attribute(IFA_ADDRESS, &ip.octets());
        Ok(())
    })?;
    request.message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, |m| {
        m.bytes(&[
            AF_INET,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            RT_SCOPE_UNIVERSE,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ]);
        m.attribute(RTA_GATEWAY, &gateway.octets());
        Ok(())
    })?;
    request.send(&pod_socket)
}

/// `ip link del HOST`. The kernel waits for RCU grace periods here: about 20 ms that no program can save.
fn del() -> Result<()> {
    let host_socket = Socket::new(NETLINK_ROUTE)?;
    let mut request = Request::default();
    request.message(RTM_DELLINK, NLM_F_ACK, |m| {
        m.ifinfo(0, 0);
        m.name(IFLA_IFNAME, &var("FLOOR_HOST_NAME")?);
        Ok(())
    })?;
    request.send(&host_socket)
}

fn var(name: &str) -> Result<String> {
    env::var(name).map_err(|_| Error::new(ErrorKind::NotFound, name.to_owned()))
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| Error::new(ErrorKind::InvalidInput, text.to_owned()))
}

/// Several netlink messages in one buffer; each message's sequence number is its place, from 1.
#[derive(Default)]
struct Request {
    buffer: Vec<u8>,
    messages: u32,
}

impl Request {
    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let start = self.buffer.len();
        self.messages += 1;
        self.bytes(&[0; 4]);
        self.bytes(&kind.to_ne_bytes());
        self.bytes(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes(&self.messages.to_ne_bytes());
        self.bytes(&[0; 4]);
        fill(self)?;
        let len = u32::try_from(self.buffer.len() - start).map_err(Error::other)?;
        self.patch(start, &len.to_ne_bytes());
        Ok(())
    }

    /// `struct ifinfomsg`: family, pad, type, index, flags, change mask.
    fn ifinfo(&mut self, index: u32, flags: u32) {
        self.bytes(&[0; 4]);
        self.bytes(&index.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes());
    }

    fn name(&mut self, kind: u16, name: &str) {
        self.nest(kind, |m| {
            m.buffer.extend_from_slice(name.as_bytes());
            m.buffer.push(0);
        });
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |m| m.buffer.extend_from_slice(value));
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.bytes(&[0; 2]);
        self.bytes(&kind.to_ne_bytes());
        fill(self);
        // Attributes here are far below 64 KiB: a name, an address, or a nest of five of them.
        let len = u16::try_from(self.buffer.len() - start).unwrap_or(u16::MAX);
        self.patch(start, &len.to_ne_bytes());
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.buffer.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// One send, and one receive: the ack of the last message, or the first failure.
    fn send(&self, socket: &Socket) -> Result<()> {
        socket.send(&self.buffer, 0)?;
        let mut answer = Vec::with_capacity(8192);
        socket.recv(&mut answer, 0)?;
        if answer.get(4..6) != Some(&NLMSG_ERROR.to_ne_bytes()) {
            return Err(ErrorKind::InvalidData.into());
        }
        match (word(&answer, 8), word(&answer, 16).map(u32::cast_signed)) {
            (Some(sequence), Some(0)) if sequence == self.messages => Ok(()),
            (_, Some(code)) if code < 0 => Err(Error::from_raw_os_error(-code)),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(four))
}
