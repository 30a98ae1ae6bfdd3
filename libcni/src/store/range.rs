//! Ranges of addresses: their defaults, their validation, and the order addresses are handed out in.
//!
//! Pure. Texts and order are those of the reference's `plugins/ipam/host-local/backend/allocator`.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use thiserror::Error;

/// A range as the configuration has it, before defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawRange {
    /// `subnet`
    pub subnet: Option<IpNetwork>,
    /// `rangeStart`
    pub start: Option<IpAddr>,
    /// `rangeEnd`
    pub end: Option<IpAddr>,
    /// `gateway`
    pub gateway: Option<IpAddr>,
}

/// Consecutive addresses of one subnet, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The subnet, no host bits set. Its length becomes the length of every address given from here.
    pub subnet: IpNetwork,
    /// The lowest address that may be given.
    pub first: IpAddr,
    /// The highest address that may be given.
    pub last: IpAddr,
    /// Never given, even if inside; need not be inside.
    pub gateway: IpAddr,
}

/// One or more ranges of one family; an attachment gets one address from each set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
}

/// Why a range set cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RangeError {
    /// Also what the reference says of a range without `subnet`.
    #[error("IP <nil> not v4 nor v6")]
    NoSubnet,
    /// A /31, /32, /127 or /128.
    #[error("Network {0} too small to allocate from")]
    TooSmall(IpNetwork),
    /// `::/64` and the like, of which some addresses would be written as IPv4.
    #[error(
        "Network {0} contains the IPv4-mapped addresses ::ffff:0:0/96: take one of fd00::/8, say"
    )]
    Mapped(IpNetwork),
    /// `10.0.0.1/24` where `10.0.0.0/24` is meant.
    #[error(
        "Network has host bits set. For a subnet mask of length {prefix} the network address is {network}"
    )]
    HostBits {
        /// Length of the mask.
        prefix: u8,
        /// What the address should have been.
        network: IpAddr,
    },
    /// Outside the subnet, or after `rangeEnd`.
    #[error("RangeStart {0} not in network {1}")]
    StartOutside(IpAddr, IpNetwork),
    /// Outside the subnet, or before `rangeStart`.
    #[error("RangeEnd {0} not in network {1}")]
    EndOutside(IpAddr, IpNetwork),
    /// `[]`
    #[error("empty range set")]
    Empty,
    /// IPv4 and IPv6 in one set.
    #[error("mixed address families")]
    MixedFamilies,
    /// Two ranges of one set share an address.
    #[error("subnets {0} and {1} overlap")]
    Overlap(Box<Range>, Box<Range>),
}

/// A stretch of the lap an allocation makes: try every address from `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch<'a> {
    pub(super) first: u128,
    pub(super) last: u128,
    pub(super) range: &'a Range,
}

/// The first of the IPv4-mapped addresses (RFC 4291, 2.5.5.2).
const MAPPED: IpAddr = IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());

/// An address as a number; IPv4 in its v4-mapped place, so both families share one number line. No IPv6 range holds
/// that place.
pub(super) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a [`number`].
pub(super) fn address(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(number).to_canonical()
}

// === impl Range ===

impl Range {
    /// Fills in the defaults and validates.
    ///
    /// Defaults: gateway and start are the subnet's first host address, the end is the last but the
    /// broadcast address for IPv4 and the very last for IPv6.
    ///
    /// # Errors
    /// The first thing wrong, in the reference's order.
    pub fn new(raw: &RawRange) -> Result<Self, RangeError> {
        let subnet = raw.subnet.ok_or(RangeError::NoSubnet)?;
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > bits - 2 {
            return Err(RangeError::TooSmall(subnet));
        }
        let network = subnet.network();
        if subnet.ip() != network {
            return Err(RangeError::HostBits {
                prefix: subnet.prefix(),
                network,
            });
        }
        if subnet.contains(MAPPED) {
            return Err(RangeError::Mapped(subnet));
        }
        let next = address(number(network) + 1);
        let after_end = |ip| raw.end.is_some_and(|end| same_family(end, ip) && ip > end);
        if let Some(start) = raw.start
            && (!subnet.contains(start) || after_end(start))
        {
            return Err(RangeError::StartOutside(start, subnet));
        }
        let first = raw.start.unwrap_or(next);
        if let Some(end) = raw.end
            && (!subnet.contains(end) || end < first)
        {
            return Err(RangeError::EndOutside(end, subnet));
        }
        let all_ones = number(network) | ((1u128 << (bits - subnet.prefix())) - 1);
        let last = if subnet.is_ipv4() {
            all_ones - 1
        } else {
            all_ones
        };
        Ok(Self {
            subnet,
            first,
            last: raw.end.unwrap_or_else(|| address(last)),
            gateway: raw.gateway.unwrap_or(next),
        })
    }

    /// Whether an address may come from this range. True for the gateway if that is inside.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        same_family(ip, self.first) && self.first <= ip && ip <= self.last
    }

    /// How many addresses it can give; the gateway, if inside, does not count.
    #[must_use]
    pub fn capacity(&self) -> u128 {
        let all = number(self.last) - number(self.first);
        if self.contains(self.gateway) {
            all
        } else {
            all + 1
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        same_family(self.first, other.first) && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

// === impl Stretch ===

impl<'a> Stretch<'a> {
    fn whole(range: &'a Range) -> Self {
        Self {
            first: number(range.first),
            last: number(range.last),
            range,
        }
    }
}

// === impl RangeSet ===

impl RangeSet {
    /// Validates each range, then the set.
    ///
    /// # Errors
    /// The first thing wrong, in the reference's order.
    pub fn new(raw: &[RawRange]) -> Result<Self, RangeError> {
        let mut ranges: Vec<Range> = Vec::with_capacity(raw.len());
        for raw in raw {
            let range = Range::new(raw)?;
            if ranges
                .first()
                .is_some_and(|r| !same_family(r.first, range.first))
            {
                return Err(RangeError::MixedFamilies);
            }
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Err(RangeError::Empty);
        }
        let mut rest = ranges.as_slice();
        while let [one, others @ ..] = rest {
            if let Some(other) = others.iter().find(|other| one.overlaps(other)) {
                return Err(RangeError::Overlap(
                    one.clone().into(),
                    other.clone().into(),
                ));
            }
            rest = others;
        }
        Ok(Self { ranges })
    }

    /// The ranges, in the order they are used up; at least one.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// How many addresses its ranges can give together; 0 if each holds only its gateway.
    #[must_use]
    pub fn capacity(&self) -> u128 {
        self.ranges.iter().map(Range::capacity).sum()
    }

    /// Whether it gives IPv4 addresses.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.ranges.iter().any(|r| r.first.is_ipv4())
    }

    /// The range an address belongs to.
    #[must_use]
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|r| r.contains(ip))
    }

    /// Whether some address belongs to both sets.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ranges
            .iter()
            .any(|a| other.ranges.iter().any(|b| a.overlaps(b)))
    }

    /// One lap over the whole set: from just after `cursor` (the address last given) round to `cursor`
    /// itself, or from the first range's start if the cursor is not of this set. So a freed address is
    /// given again only after every other one.
    pub(super) fn lap(&self, cursor: Option<IpAddr>) -> Vec<Stretch<'_>> {
        let at = cursor.and_then(|ip| {
            let i = self.ranges.iter().position(|r| r.contains(ip))?;
            Some((i, number(ip)))
        });
        let Some((i, cursor)) = at else {
            return self.ranges.iter().map(Stretch::whole).collect();
        };
        let (before, from) = self.ranges.split_at(i);
        let mut lap = Vec::with_capacity(self.ranges.len() + 1);
        if let [range, after @ ..] = from {
            let Stretch { first, last, .. } = Stretch::whole(range);
            if cursor < last {
                lap.push(Stretch {
                    first: cursor + 1,
                    last,
                    range,
                });
            }
            lap.extend(after.iter().chain(before).map(Stretch::whole));
            lap.push(Stretch {
                first,
                last: cursor,
                range,
            });
        }
        lap
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.ranges.iter().enumerate() {
            write!(f, "{}{range}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
