//! Addresses and prefixes as Go's `net` package reads them.
//!
//! `ipnetwork` alone would also take `10.0.0.1`, `10.0.0.1/255.255.0.0` and `10.0.0.1/+24`, which the reference refuses;
//! a config that one of the two accepts and the other does not is a trap when swapping them.

use std::net::{IpAddr, Ipv4Addr};

pub use ipnetwork::IpNetwork;

/// Reads one address: a dotted quad without leading zeros or an RFC 4291 IPv6 address without zone.
/// An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is the IPv4 address. `None` for anything else, including `""`.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    // std's grammar is Go's netip.ParseAddr minus zones; both refuse octets with leading zeros.
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Reads `address/length` and keeps the host bits: `10.2.3.4/24` stays `.4`.
///
/// The length is decimal digits only, at most 32 or 128. An IPv4-mapped address with a length of 96 or more becomes
/// IPv4 (`::ffff:10.0.0.1/120` is `10.0.0.1/24`); with less it covers more than IPv4 and is refused.
pub fn parse_cidr(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let ip = address.parse::<IpAddr>().ok()?;
    match ip {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => mapped(v4, length),
            None => IpNetwork::new(ip, length).ok(),
        },
        IpAddr::V4(_) => IpNetwork::new(ip, length).ok(),
    }
}

fn mapped(v4: Ipv4Addr, length: u8) -> Option<IpNetwork> {
    IpNetwork::new(IpAddr::V4(v4), length.checked_sub(96)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        for (text, want) in [
            ("10.1.2.3", Some("10.1.2.3")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("::ffff:10.1.2.3", Some("10.1.2.3")),
            ("::FFFF:a01:203", Some("10.1.2.3")),
            ("FD00::0:1", Some("fd00::1")),
            ("::1.2.3.4", Some("::102:304")),
            ("1:2:3:4:5:6:7::", Some("1:2:3:4:5:6:7:0")),
            ("", None),
            ("10.1.2", None),
            ("10.01.2.3", None),
            ("010.1.2.3", None),
            ("10.1.2.256", None),
            ("10.1.2.3 ", None),
            ("10.1.2.3/24", None),
            ("fe80::1%eth0", None),
            ("1::2:3:4:5:6:7:8", None),
            ("1:2:3:4:5:6:7", None),
            (":::", None),
            ("12345::", None),
        ] {
            assert_eq!(
                parse_ip(text).map(|ip| ip.to_string()).as_deref(),
                want,
                "{text:?}"
            );
        }
    }

    #[test]
    fn prefixes_are_read_as_go_reads_them() {
        for (text, want) in [
            ("10.2.3.4/24", Some("10.2.3.4/24")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("10.0.0.1/32", Some("10.0.0.1/32")),
            ("::/0", Some("::/0")),
            ("fd99::2/64", Some("fd99::2/64")),
            ("::ffff:10.0.0.1/120", Some("10.0.0.1/24")),
            // Go's net.ParseCIDR (unlike netip.ParsePrefix) takes zeros before the length.
            ("10.0.0.1/024", Some("10.0.0.1/24")),
            ("::ffff:10.0.0.1/64", None),
            ("10.0.0.1", None),
            ("10.0.0.1/", None),
            ("10.0.0.1/33", None),
            ("10.0.0.1/+24", None),
            ("10.0.0.1/-1", None),
            ("10.0.0.1/255.255.255.0", None),
            ("10.0.0.01/24", None),
            ("10.0.0/24", None),
            ("fd99::2/129", None),
            ("fd99::2/99999999999999999999", None),
            ("fe80::1%eth0/64", None),
            ("/24", None),
            ("", None),
        ] {
            assert_eq!(
                parse_cidr(text).map(|net| net.to_string()).as_deref(),
                want,
                "{text:?}"
            );
        }
    }
}
