//! What a case left, without what may stay: that of the network instead of an attachment.

use super::steps::Steps;
use crate::differential::glob;
use crate::residue::Moment;

/// Any plugin may leave these.
const ALLOWED: [&str; 20] = [
    // A directory; what is in it has a line of its own.
    "file */",
    "file */lock*",
    "file *.lock*",
    "file *.lck*",
    "file */last_reserved_ip.*",
    // Indexes and the like: no store takes one for a reservation.
    "file */.*",
    // The kernel forgets these by itself.
    "*neigh *",
    "*fdb * dev *",
    // Tables and chains every container of the node goes through; their rules are compared.
    "table *",
    "chain * POSTROUTING",
    "chain * PREROUTING",
    "chain * INPUT",
    "chain * OUTPUT",
    "chain * FORWARD",
    "rule * type * hook *",
    // The reference's names for such.
    "chain * CNI-*",
    // The kernel's own: of a `lo` that was up, and of the node's groups.
    "*link lo qdisc: *",
    "pod *: addr lo 127.0.0.1/8",
    "conntrack * dst=224.0.0.* *",
    "conntrack * dst=ff02:* *",
];

/// Lines of what is there and was not, or was and is not (`gone: …`).
pub fn left(before: &Moment, after: &Moment, steps: &Steps) -> Vec<String> {
    let mut lines = before.left_over(after);
    let gone = before.missing(after);
    lines.extend(gone.into_iter().map(|line| format!("gone: {line}")));
    lines.retain(|line| !may_stay(line, steps));
    lines
}

fn may_stay(line: &str, steps: &Steps) -> bool {
    let fits = |pattern: &str| glob(pattern, line);
    ALLOWED.iter().any(|pattern| fits(pattern))
        || steps.leaves.iter().any(|pattern| fits(pattern))
        || steps.bridges.iter().any(|name| is_of_bridge(line, name))
}

/// The bridge that the first ADD of a network makes, with its addresses and routes.
fn is_of_bridge(line: &str, name: &str) -> bool {
    let mut words = line.split(' ');
    match words.next() {
        Some("link" | "addr" | "altname") => words.next() == Some(name),
        Some("route") => line.contains(&format!(" dev {name}")),
        _ => false,
    }
}
