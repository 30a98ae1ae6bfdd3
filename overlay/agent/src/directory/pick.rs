//! Choosing a subnet nobody has: by hash of the node's name first, so that nodes that start together choose differently
//! and a node that was forgotten gets its old subnet again; at random when that one is taken.
//!
//! The choice is over the whole free set (flanneld's is over its first hundred, so that every cold start of a cluster
//! is a race). It is counted, never enumerated: the cost is that of sorting what is taken, whatever the network's size.

use std::hash::{BuildHasher, RandomState};

use fabric::Network;
use fabric::conf::{address, number};
use libcni::spec::IpNetwork;

/// By so many bits at least a node's subnet is longer than the network (flannel, `pkg/subnet/config.go`).
const NODE_BITS: u8 = 2;

/// A free subnet of the network: `before` if it is free and may be leased, else one of the choice of `identity`.
/// `None` if all are taken. What is taken may have any length and be anywhere; what is larger than flannel lets any
/// node's subnet of the network be is nobody's, and does not keep others from joining.
pub fn pick<'a>(
    network: &Network,
    taken: impl IntoIterator<Item = &'a IpNetwork>,
    before: Option<&IpNetwork>,
    identity: &str,
) -> Option<IpNetwork> {
    let slots = Slots::of(network);
    let taken = slots.spans(taken);
    let before = before.filter(|subnet| network.leases(subnet));
    if let Some(slot) = before.and_then(|subnet| slots.slot(number(subnet.network())))
        && is_free(&taken, slot)
    {
        return slots.subnet(slot);
    }
    let free = slots.count - taken.iter().map(Span::len).sum::<u128>();
    if free == 0 {
        return None;
    }
    let wished = hash(identity) % slots.count;
    if is_free(&taken, wished) {
        return slots.subnet(wished);
    }
    slots.subnet(nth_free(&taken, random() % free))
}

/// What may be leased, numbered from 0.
struct Slots {
    first: u128,
    step: u128,
    count: u128,
    len: u8,
    /// The shortest prefix that a node's subnet can have.
    least_len: u8,
    v6: bool,
}

/// Taken slots, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    from: u128,
    to: u128,
}

// === impl Slots ===

impl Slots {
    fn of(network: &Network) -> Self {
        let v6 = network.net.is_ipv6();
        let host_bits = if v6 { 128_u32 } else { 32 } - u32::from(network.subnet_len);
        let step = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let (first, last) = (number(network.subnet_min), number(network.subnet_max));
        Self {
            first,
            step,
            count: last.saturating_sub(first) / step + 1,
            len: network.subnet_len,
            least_len: network.net.prefix().saturating_add(NODE_BITS),
            v6,
        }
    }

    fn slot(&self, at: u128) -> Option<u128> {
        let slot = at.checked_sub(self.first)? / self.step;
        (slot < self.count).then_some(slot)
    }

    fn subnet(&self, slot: u128) -> Option<IpNetwork> {
        IpNetwork::new(address(self.first + slot * self.step, self.v6), self.len).ok()
    }

    /// What is taken: in order, apart from each other.
    fn spans<'a>(&self, taken: impl IntoIterator<Item = &'a IpNetwork>) -> Vec<Span> {
        let end = self.first + (self.count - 1) * self.step + (self.step - 1);
        let mut spans: Vec<Span> = taken
            .into_iter()
            .filter(|net| net.is_ipv6() == self.v6 && net.prefix() >= self.least_len)
            .filter_map(|net| {
                let from = number(net.network()).max(self.first);
                let to = number(net.broadcast()).min(end);
                (from <= to).then_some(())?;
                let (from, to) = (self.slot(from)?, self.slot(to)?);
                Some(Span { from, to })
            })
            .collect();
        spans.sort_unstable();
        let mut apart: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match apart.last_mut() {
                Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
                _ => apart.push(span),
            }
        }
        apart
    }
}

// === impl Span ===

impl Span {
    fn len(&self) -> u128 {
        self.to - self.from + 1
    }
}

fn is_free(taken: &[Span], slot: u128) -> bool {
    let behind = taken.partition_point(|span| span.from <= slot);
    let before = behind.checked_sub(1).and_then(|i| taken.get(i));
    before.is_none_or(|span| span.to < slot)
}

/// The free slot that has `n` free ones before it.
fn nth_free(taken: &[Span], n: u128) -> u128 {
    let mut slot = n;
    for span in taken {
        if slot < span.from {
            break;
        }
        slot += span.len();
    }
    slot
}

/// FNV-1a of 128 bits: the same everywhere and for ever, so that a name's wish does not change with a version of ours.
fn hash(text: &str) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    text.bytes().fold(BASIS, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    })
}

/// The standard library keys its hash tables from getrandom(2).
fn random() -> u128 {
    let word = || u128::from(RandomState::new().hash_one(0_u8));
    (word() << 64) | word()
}

#[cfg(test)]
mod tests;
