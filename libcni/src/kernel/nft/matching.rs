//! What rules look at, in the words of `nft`: each function says its part of a rule in that syntax.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Compare, Expr, Verdict};

/// `NFT_META_MARK`
const META_MARK: u32 = 3;
/// `NFT_META_IIFNAME`
const META_IIFNAME: u32 = 6;
/// `NFT_META_NFPROTO`
const META_NFPROTO: u32 = 15;
/// `NFT_PAYLOAD_LL_HEADER`
const LINK_HEADER: u32 = 0;
/// `NFT_PAYLOAD_NETWORK_HEADER`
const NETWORK_HEADER: u32 = 1;
const REG_1: u32 = 1;
const REG_2: u32 = 2;

/// The first part of a rule; a verdict ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match(Vec<Expr>);

/// Where an address is in the packet.
#[derive(Debug, Clone, Copy)]
struct Field {
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`
    protocol: u8,
    offset: u32,
    bytes: u32,
}

/// `ip saddr <first>-<last>`. The two are of one family.
pub fn source_range(first: IpAddr, last: IpAddr) -> Match {
    let field = Field::source(first.is_ipv4());
    let (low, high) = (octets(first), octets(last));
    let mut exprs = field.of_protocol();
    exprs.push(field.load());
    if low == high {
        exprs.push(compare(Compare::Equal, low));
    } else {
        exprs.push(compare(Compare::AtLeast, low));
        exprs.push(compare(Compare::AtMost, high));
    }
    Match(exprs)
}

/// `ip saddr <prefix>`
pub fn source(prefix: IpNetwork) -> Match {
    let field = Field::source(prefix.is_ipv4());
    let mut exprs = field.of_protocol();
    exprs.extend(field.in_prefix(prefix, Compare::Equal));
    Match(exprs)
}

/// `ip daddr <prefix>`
pub fn destination(prefix: IpNetwork) -> Match {
    let field = Field::destination(prefix.is_ipv4());
    let mut exprs = field.of_protocol();
    exprs.extend(field.in_prefix(prefix, Compare::Equal));
    Match(exprs)
}

/// `meta mark & <mark> == <mark>`, whatever other bits are set.
pub fn marked(mark: u32) -> Match {
    // A mark is a number of this machine, not bytes of a packet.
    let bits = mark.to_ne_bytes().to_vec();
    Match(vec![
        Expr::Meta {
            key: META_MARK,
            reg: REG_1,
        },
        Expr::Mask {
            reg: REG_1,
            mask: bits.clone(),
        },
        compare(Compare::Equal, bits),
    ])
}

/// `meta nfproto ipv4`, or `ipv6`: what a rule of an inet table begins with before it looks at addresses. `nft` prints it
/// only where no address follows.
pub fn protocol(ipv4: bool) -> Match {
    Match(Field::source(ipv4).of_protocol())
}

/// `ip saddr vmap @<map>`, or `ip6 saddr`.
pub fn source_vmap(ipv4: bool, map: &str) -> Vec<Expr> {
    let field = Field::source(ipv4);
    let mut exprs = field.of_protocol();
    exprs.push(field.load());
    exprs.push(Expr::VerdictMap {
        map: map.to_owned(),
        reg: REG_1,
    });
    exprs
}

/// `iifname @<set>`
pub fn input_in(set: &str) -> Match {
    Match(vec![
        Expr::Meta {
            key: META_IIFNAME,
            reg: REG_1,
        },
        Expr::Lookup {
            set: set.to_owned(),
            reg: REG_1,
            inverted: false,
        },
    ])
}

/// The addresses a rule that begins with [`source_range`] is for; `None` for other rules.
pub fn source_bounds(exprs: &[Expr]) -> Option<(IpAddr, IpAddr)> {
    let [
        Expr::Meta {
            key: META_NFPROTO, ..
        },
        Expr::Cmp {
            value: protocol, ..
        },
        load,
        compares @ ..,
    ] = exprs
    else {
        return None;
    };
    let field = [true, false]
        .map(Field::source)
        .into_iter()
        .find(|f| *protocol == [f.protocol] && *load == f.load())?;
    let (low, high) = match compares {
        [
            Expr::Cmp {
                op: Compare::Equal,
                value,
                ..
            },
            ..,
        ] => (value, value),
        [
            Expr::Cmp {
                op: Compare::AtLeast,
                value: low,
                ..
            },
            Expr::Cmp {
                op: Compare::AtMost,
                value: high,
                ..
            },
            ..,
        ] => (low, high),
        _ => return None,
    };
    let address = |value: &[u8]| match field.bytes {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
    };
    Some((address(low)?, address(high)?))
}

/// Does a rule of a table of one family look at the source address first, and would this one pass? As iptables writes
/// `-s <address>` and `-s <prefix>`: no protocol check, `bitwise` only where the prefix ends inside a byte.
pub fn source_passes(exprs: &[Expr], ip: IpAddr) -> bool {
    let field = Field::source(ip.is_ipv4());
    let (len, compares) = match exprs {
        [
            Expr::Payload {
                base: NETWORK_HEADER,
                offset,
                len,
                ..
            },
            rest @ ..,
        ] if *offset == field.offset => (*len, rest),
        _ => return false,
    };
    let mut bytes = octets(ip);
    bytes.truncate(usize::try_from(len).unwrap_or_default());
    match compares {
        [
            Expr::Cmp {
                op: Compare::Equal,
                value,
                ..
            },
            ..,
        ] => bytes == *value,
        [
            Expr::Mask { mask, .. },
            Expr::Cmp {
                op: Compare::Equal,
                value,
                ..
            },
            ..,
        ] => bytes
            .iter()
            .zip(mask)
            .map(|(byte, mask)| byte & mask)
            .eq(value.iter().copied()),
        _ => false,
    }
}

// === impl Match ===

impl Match {
    /// No condition.
    pub fn all() -> Match {
        Match(Vec::new())
    }

    /// `... ip saddr <prefix>`
    #[must_use]
    pub fn from(self, prefix: IpNetwork) -> Match {
        self.compared(Field::source(prefix.is_ipv4()), prefix, Compare::Equal)
    }

    /// `... ip saddr != <prefix>`
    #[must_use]
    pub fn not_from(self, prefix: IpNetwork) -> Match {
        self.compared(Field::source(prefix.is_ipv4()), prefix, Compare::NotEqual)
    }

    /// `... ip daddr <prefix>`
    #[must_use]
    pub fn to(self, prefix: IpNetwork) -> Match {
        self.compared(Field::destination(prefix.is_ipv4()), prefix, Compare::Equal)
    }

    /// `... ip daddr != <prefix>`, of the same family as what is before it.
    #[must_use]
    pub fn not_to(self, prefix: IpNetwork) -> Match {
        let field = Field::destination(prefix.is_ipv4());
        self.compared(field, prefix, Compare::NotEqual)
    }

    fn compared(mut self, field: Field, prefix: IpNetwork, op: Compare) -> Match {
        self.0.extend(field.in_prefix(prefix, op));
        self
    }

    /// `... counter`: how many packets came this far.
    #[must_use]
    pub fn counted(mut self) -> Match {
        self.0.push(Expr::Counter);
        self
    }

    /// `... iifname . ether saddr != @<set>`
    #[must_use]
    pub fn input_and_mac_not_in(mut self, set: &str) -> Match {
        self.0.push(Expr::Meta {
            key: META_IIFNAME,
            reg: REG_1,
        });
        self.0.push(Expr::Payload {
            base: LINK_HEADER,
            offset: 6,
            len: 6,
            reg: REG_2,
        });
        self.0.push(Expr::Lookup {
            set: set.to_owned(),
            reg: REG_1,
            inverted: true,
        });
        self
    }

    /// `... masquerade`
    pub fn masquerade(mut self) -> Vec<Expr> {
        self.0.push(Expr::Masquerade);
        self.0
    }

    /// `... masquerade fully-random`
    pub fn masquerade_fully_random(mut self) -> Vec<Expr> {
        self.0.push(Expr::MasqueradeFullyRandom);
        self.0
    }

    /// `... drop`, `... return`, ...
    pub fn verdict(mut self, verdict: Verdict) -> Vec<Expr> {
        self.0.push(Expr::Verdict(verdict));
        self.0
    }
}

// === impl Field ===

impl Field {
    fn source(ipv4: bool) -> Field {
        // struct iphdr, struct ipv6hdr.
        if ipv4 {
            Field {
                protocol: 2,
                offset: 12,
                bytes: 4,
            }
        } else {
            Field {
                protocol: 10,
                offset: 8,
                bytes: 16,
            }
        }
    }

    fn destination(ipv4: bool) -> Field {
        let source = Field::source(ipv4);
        Field {
            offset: source.offset + source.bytes,
            ..source
        }
    }

    /// `meta nfproto ipv4`: in an inet table the offset alone does not tell one from the other.
    fn of_protocol(self) -> Vec<Expr> {
        vec![
            Expr::Meta {
                key: META_NFPROTO,
                reg: REG_1,
            },
            compare(Compare::Equal, vec![self.protocol]),
        ]
    }

    fn load(self) -> Expr {
        Expr::Payload {
            base: NETWORK_HEADER,
            offset: self.offset,
            len: self.bytes,
            reg: REG_1,
        }
    }

    /// Compares the first bits. Whole bytes need no mask, as `nft` does it.
    fn in_prefix(self, prefix: IpNetwork, op: Compare) -> Vec<Expr> {
        let mut network = octets(prefix.network());
        match prefix.prefix() {
            bits if bits > 0 && bits % 8 == 0 => {
                network.truncate(usize::from(bits / 8));
                let load = Expr::Payload {
                    base: NETWORK_HEADER,
                    offset: self.offset,
                    len: u32::from(bits / 8),
                    reg: REG_1,
                };
                vec![load, compare(op, network)]
            }
            _ => vec![
                self.load(),
                Expr::Mask {
                    reg: REG_1,
                    mask: octets(prefix.mask()),
                },
                compare(op, network),
            ],
        }
    }
}

fn compare(op: Compare, value: Vec<u8>) -> Expr {
    Expr::Cmp {
        reg: REG_1,
        op,
        value,
    }
}

/// The address as it is in a packet.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
