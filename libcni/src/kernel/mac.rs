//! Ethernet addresses.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

/// An Ethernet address; the default is all zeroes, "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

// === impl Mac ===

impl Mac {
    /// A fresh unicast address from the locally administered range (first byte xxxxxx10).
    ///
    /// 46 random bits: among 10,000 pods of one segment two are alike once in 1.4 million clusters.
    pub fn random_local() -> Self {
        // The standard library keys its hash tables from getrandom(2), without blocking at early boot;
        // the hash of nothing under a random key is a random number. It is the only way to that system
        // call without `unsafe` or another crate.
        let [a, b, c, d, e, f, ..] = RandomState::new().hash_one(()).to_ne_bytes();
        Self([(a & 0xfc) | 0x02, b, c, d, e, f])
    }

    /// `aa:bb:cc:dd:ee:ff` or with `-`, either case; what Go's `net.ParseMAC` takes of six bytes, its
    /// dotted form `aabb.ccdd.eeff` included.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = [0; 12];
        let (separator, group) = match text.as_bytes() {
            [_, _, s @ (b':' | b'-'), ..] if text.len() == 17 => (*s, 2),
            [_, _, _, _, b'.', ..] if text.len() == 14 => (b'.', 4),
            _ => return None,
        };
        let mut parts = text.as_bytes().chunks(group + 1);
        for place in digits.chunks_mut(group) {
            let part = parts.next()?;
            if part.get(group).is_some_and(|s| *s != separator) {
                return None;
            }
            place.copy_from_slice(part.get(..group)?);
        }
        let mut mac = [0; 6];
        for (byte, pair) in mac.iter_mut().zip(digits.chunks(2)) {
            // from_str_radix takes a sign, too.
            if !pair.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(mac))
    }

    /// From exactly six bytes, as netlink has it; links without Ethernet have other lengths.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// All zeroes: a bridge without ports, `lo`.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// Has the group bit set: no interface can have it.
    pub fn is_multicast(self) -> bool {
        let Self([first, ..]) = self;
        first & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, e, f]) = self;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_go_parses() {
        let mac = Mac([0xc2, 0x11, 0x22, 0x33, 0x44, 0xff]);
        for text in ["c2:11:22:33:44:ff", "C2-11-22-33-44-FF", "c211.2233.44ff"] {
            assert_eq!(Mac::parse(text), Some(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "c2:11:22:33:44:ff");
        for text in [
            "",
            "c2:11:22:33:44",
            "c2:11:22:33:44:ff:00",
            "c2:11:22-33:44:ff",
            "c2:11:22:33:44:fg",
            "c2:11:22:33:44:+f",
            "c211:2233:44ff",
            "c2.11.22.33.44.ff",
            "c2:11:22:33:44:f\u{e9}",
            "c211.2233-44ff",
            "0c2:11:22:33:44:f",
        ] {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }

    #[test]
    fn random_ones_are_local_unicast_and_differ() {
        let some: std::collections::HashSet<Mac> = (0..1000).map(|_| Mac::random_local()).collect();
        assert_eq!(some.len(), 1000);
        for mac in some {
            assert_eq!(mac.0[0] & 0x03, 0x02, "{mac}");
            assert!(!mac.is_multicast() && !mac.is_zero());
        }
    }
}
