//! Forwarding entries of a VXLAN device: `bridge fdb`. Source: `include/uapi/linux/neighbour.h`,
//! `drivers/net/vxlan/vxlan_core.c`.

use std::net::IpAddr;

use super::mac::Mac;
use super::{AF_BRIDGE, ip_attr};
use crate::nl::attr::{self, Attrs};
use crate::nl::{CREATE, Message, NlError, REPLACE, Reply, Socket};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;

const NUD_PERMANENT: u16 = 0x80;
/// The device's own table, not its bridge's.
const NTF_SELF: u8 = 2;
/// `sizeof(struct ndmsg)`: u8 family, pad, u16 pad, i32 index, u16 state, u8 flags, type.
const NDMSG_BYTES: usize = 12;

/// Frames to this MAC go to that node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The far VTEP's MAC; all zeros is the default entry, for what is not known.
    pub mac: Mac,
    /// The far VTEP's address in the underlay.
    pub dst: IpAddr,
    /// Made by an administrator or agent: it does not age.
    pub permanent: bool,
}

/// `bridge fdb replace MAC dev INDEX dst DST self permanent`: a MAC that is there moves to `dst`.
pub fn replace(index: u32, mac: Mac, dst: IpAddr) -> Message {
    let words = |payload: &[u8]| words("send frames for", "to", payload);
    about(RTM_NEWNEIGH, CREATE | REPLACE, words, index, mac, dst)
}

/// `bridge fdb del MAC dev INDEX dst DST self`; ENOENT when the MAC is not there. One that is there with another
/// `dst` stays, and the kernel calls that a success: give the `dst` that [`list`] told.
pub fn del(index: u32, mac: Mac, dst: IpAddr) -> Message {
    let words = |payload: &[u8]| words("forget", "at", payload);
    about(RTM_DELNEIGH, 0, words, index, mac, dst)
}

/// The entries of a VXLAN device that name a node.
pub fn list(sock: &mut Socket, index: u32) -> Result<Vec<Entry>, NlError> {
    let message = Message::new(RTM_GETNEIGH, 0, format!("list forwarding of link {index}"))
        .header(&ndmsg(0, 0, 0))
        .u32(NDA_IFINDEX, index);
    // Kernels without strict checks list all devices'.
    let found = sock.dump(message, Entry::from_reply)?;
    let of_device = found.into_iter().filter(|(of, _)| *of == index);
    Ok(of_device.map(|(_, entry)| entry).collect())
}

fn about(
    msg_type: u16,
    flags: u16,
    words: fn(&[u8]) -> String,
    index: u32,
    mac: Mac,
    dst: IpAddr,
) -> Message {
    let message =
        Message::readable(msg_type, flags, words).header(&ndmsg(index, NUD_PERMANENT, NTF_SELF));
    ip_attr(message, NDA_DST, dst).bytes(NDA_LLADDR, &mac.0)
}

/// What a message of ours does, for people.
fn words(what: &str, at: &str, payload: &[u8]) -> String {
    let Some((index, Entry { mac, dst, .. })) = Entry::read(payload) else {
        return what.to_owned();
    };
    format!("{what} {mac} {at} {dst} on link {index}")
}

fn ndmsg(index: u32, state: u16, flags: u8) -> [u8; NDMSG_BYTES] {
    let [a, b, c, d] = index.to_ne_bytes();
    let [low, high] = state.to_ne_bytes();
    [AF_BRIDGE, 0, 0, 0, a, b, c, d, low, high, flags, 0]
}

// === impl Entry ===

impl Entry {
    /// With the index of its device.
    pub(super) fn from_reply(reply: Reply<'_>) -> Option<(u32, Self)> {
        if reply.msg_type != RTM_NEWNEIGH || reply.payload.first() != Some(&AF_BRIDGE) {
            return None;
        }
        Self::read(reply.payload)
    }

    fn read(payload: &[u8]) -> Option<(u32, Self)> {
        let index = attr::u32(payload.get(4..)?)?;
        let state = attr::u16(payload.get(8..)?)?;
        let attrs = Attrs::after(payload, NDMSG_BYTES);
        let mac = attrs.clone().find(NDA_LLADDR).and_then(Mac::from_bytes)?;
        // Entries of bridges and of hardware filters have none.
        let dst = attrs.clone().find(NDA_DST).and_then(attr::ip)?;
        let permanent = state & NUD_PERMANENT != 0;
        Some((
            index,
            Self {
                mac,
                dst,
                permanent,
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use testkit::{in_netns, sh};

    use super::*;
    use crate::kernel::link;
    use crate::nl::{Batch, ROUTE};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn permanent(dst: &str) -> Entry {
        let (mac, dst) = (MAC, ip(dst));
        Entry {
            mac,
            dst,
            permanent: true,
        }
    }

    #[test]
    fn entries_come_move_and_go() {
        in_netns(|| {
            sh("ip link add v1 type vxlan id 1 dstport 8472 local 127.0.0.1 nolearning");
            sh("ip link add v2 type vxlan id 2 dstport 8473 local ::1 nolearning");
            let mut sock = Socket::open(ROUTE).unwrap();
            let mut index = |name| link::get(&mut sock, name).unwrap().unwrap().index;
            let (v1, v2) = (index("v1"), index("v2"));
            assert_eq!(list(&mut sock, v1).unwrap(), []);
            sock.run(&Batch::from_iter([
                replace(v1, MAC, ip("192.0.2.1")),
                replace(v2, MAC, ip("2001:db8::1")),
            ]))
            .unwrap();
            let shown = sh("bridge fdb show dev v1");
            assert_eq!(shown.trim(), format!("{MAC} dst 192.0.2.1 self permanent"));
            assert_eq!(list(&mut sock, v1).unwrap(), [permanent("192.0.2.1")]);
            assert_eq!(list(&mut sock, v2).unwrap(), [permanent("2001:db8::1")]);

            sock.request(replace(v1, MAC, ip("192.0.2.2"))).unwrap();
            assert_eq!(list(&mut sock, v1).unwrap(), [permanent("192.0.2.2")]);
            // The wrong node: nothing happens, and nobody says so.
            sock.request(del(v1, MAC, ip("192.0.2.1"))).unwrap();
            assert_eq!(list(&mut sock, v1).unwrap().len(), 1);
            sock.request(del(v1, MAC, ip("192.0.2.2"))).unwrap();
            assert_eq!(list(&mut sock, v1).unwrap(), []);
            let gone = sock.request(del(v1, MAC, ip("192.0.2.2"))).unwrap_err();
            assert!(gone.is(Errno::ENOENT), "{gone}");
            assert_eq!(gone.step, format!("forget {MAC} at 192.0.2.2 on link {v1}"));
            let set = replace(v1, MAC, ip("192.0.2.2"));
            assert_eq!(
                set.step(),
                format!("send frames for {MAC} to 192.0.2.2 on link {v1}")
            );
            assert_eq!(list(&mut sock, v2).unwrap().len(), 1);
        });
    }

    #[test]
    fn a_thousand_peers_in_one_send() {
        in_netns(|| {
            sh("ip link add v1 type vxlan id 1 dstport 8472 local 127.0.0.1 nolearning");
            let mut sock = Socket::open(ROUTE).unwrap();
            let index = link::get(&mut sock, "v1").unwrap().unwrap().index;
            let peers = 0..1000u16;
            let messages = peers.map(|n| {
                let [high, low] = n.to_be_bytes();
                replace(
                    index,
                    Mac([2, 0, 0, 0, high, low]),
                    [192, 0, high, low].into(),
                )
            });
            sock.run(&messages.collect::<Batch>()).unwrap();
            assert_eq!(list(&mut sock, index).unwrap().len(), 1000);
        });
    }
}
