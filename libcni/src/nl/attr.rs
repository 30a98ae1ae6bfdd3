//! Attributes of a received message. Hostile bytes end the walk early; nothing here panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `NLA_TYPE_MASK`: what is left without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;
/// `struct nlattr`: u16 length, u16 type.
const HEADER_BYTES: usize = 4;

/// The attributes in a run of bytes, as `(type, payload)` with the flag bits taken off the type.
///
/// Ends at the first attribute whose length is impossible, as the kernel's own parser does.
#[derive(Debug, Clone)]
pub struct Attrs<'a>(&'a [u8]);

/// Unsigned 8 bit; `None` when the payload is empty. Longer payloads are fine, here and below: a
/// newer kernel may append to a structure.
pub fn u8(payload: &[u8]) -> Option<u8> {
    payload.first().copied()
}

/// Unsigned 16 bit, host byte order.
pub fn u16(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

/// Unsigned 32 bit, host byte order.
pub fn u32(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// Signed 32 bit, host byte order.
pub fn i32(payload: &[u8]) -> Option<i32> {
    payload.first_chunk().map(|b| i32::from_ne_bytes(*b))
}

/// Unsigned 64 bit, host byte order.
pub fn u64(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|b| u64::from_ne_bytes(*b))
}

/// Unsigned 16 bit, network byte order.
pub fn be16(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// Unsigned 32 bit, network byte order.
pub fn be32(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Unsigned 64 bit, network byte order.
pub fn be64(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|b| u64::from_be_bytes(*b))
}

/// Text up to the first NUL; `None` when it is not UTF-8.
pub fn str(payload: &[u8]) -> Option<&str> {
    let end = payload
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(payload.len());
    std::str::from_utf8(payload.get(..end)?).ok()
}

/// An address, 4 or 16 bytes; `None` for any other length.
pub fn ip(payload: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(payload) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(payload)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

// === impl Attrs ===

impl<'a> Attrs<'a> {
    /// Over the attributes of a nest, or of a message behind its family header.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Over what follows a family header of `header_bytes` (a multiple of 4); nothing when the
    /// message is shorter than its header.
    pub fn after(payload: &'a [u8], header_bytes: usize) -> Self {
        Self(payload.get(header_bytes..).unwrap_or_default())
    }

    /// The payload of the first attribute of this type.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.by_ref()
            .find(|(k, _)| *k == kind)
            .map(|(_, payload)| payload)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16(self.0)?);
        let kind = u16(self.0.get(2..)?)? & TYPE_MASK;
        let Some(payload) = self.0.get(HEADER_BYTES..length) else {
            self.0 = &[];
            return None;
        };
        // The last attribute may come without its padding.
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}
