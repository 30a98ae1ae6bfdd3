//! Checking our bytes against somebody else's reading of the header files, and against captured ones.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

use crate::nl::{Message, Reply};

/// What `netlink-packet-route` makes of a message of ours.
pub(super) fn decoded(message: &Message) -> RouteNetlinkMessage {
    let bytes = message.to_bytes();
    let theirs = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).unwrap();
    match theirs.payload {
        NetlinkPayload::InnerMessage(inner) => inner,
        other => panic!("{other:?}"),
    }
}

/// What our reader makes of a message of theirs.
pub(super) fn read_back<T>(theirs: RouteNetlinkMessage, read: impl FnOnce(Reply<'_>) -> T) -> T {
    let mut message = NetlinkMessage::from(theirs);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut read = Some(read);
    let mut results = each_reply(&bytes, |reply| (read.take().unwrap())(reply));
    results.remove(0)
}

/// The same for what the kernel once sent, in hex (Linux 6.18, x86-64).
pub(super) fn captured<T>(hex: &str, read: impl FnMut(Reply<'_>) -> T) -> Vec<T> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    each_reply(&bytes, read)
}

fn each_reply<T>(mut bytes: &[u8], mut read: impl FnMut(Reply<'_>) -> T) -> Vec<T> {
    let mut all = Vec::new();
    while bytes.len() >= 16 {
        let length = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
        let msg_type = u16::from_ne_bytes(bytes[4..6].try_into().unwrap());
        let flags = u16::from_ne_bytes(bytes[6..8].try_into().unwrap());
        all.push(read(Reply {
            msg_type,
            flags,
            payload: &bytes[16..length],
        }));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    all
}
