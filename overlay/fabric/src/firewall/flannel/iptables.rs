//! flannel's chains, made anew.

use std::path::Path;

use libcni::kernel::xtables::Family;

use super::{FORWARD, MASQUERADE, Place};
use crate::firewall::{Prefixes, Rules, program};

/// Makes the chains of each family, all of a family's in one run.
pub(super) fn make(rules: &Rules) -> Result<(), String> {
    for (family, ipv4) in [(Family::V4, true), (Family::V6, false)] {
        let Some(side) = rules.side(ipv4) else {
            continue;
        };
        let (list, restore) = programs(family)?;
        let mut tables = Vec::new();
        let wanted = [
            (
                MASQUERADE,
                rules
                    .masquerade
                    .then(|| masquerade(side, rules.random_fully)),
            ),
            (FORWARD, rules.forward.then(|| forward(side))),
        ];
        for (place, lines) in wanted {
            if let Some(lines) = lines {
                let listed = program::list(&list, place.table, place.base)?;
                tables.push((place.table, place.chain_with(&lines, &listed)));
            }
        }
        program::restore(&restore, &tables)?;
    }
    Ok(())
}

/// `iptables -S` and `iptables-restore`, of the kind this node uses: the old tables if somebody has rules in them, else
/// whatever goes by the plain name.
fn programs(family: Family) -> Result<(String, String), String> {
    let name = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let is_legacy = family.table("nat").is_ok_and(|table| table.is_some());
    let flavours: &[&str] = if is_legacy {
        &["-legacy", ""]
    } else {
        &["", "-nft"]
    };
    let found = flavours
        .iter()
        .flat_map(|flavour| ["/usr/sbin/", "/sbin/"].map(|dir| [dir, name, flavour].concat()))
        .find(|path| Path::new(path).exists());
    let list = found.ok_or_else(|| [name, " is not installed"].concat())?;
    let restore = [&list, "-restore"].concat();
    Ok((list, restore))
}

/// Everything but the beginning, which is the chain's name.
fn masquerade(side: &Prefixes, random_fully: bool) -> Vec<String> {
    let Prefixes { network, subnet } = side;
    let multicast = side.multicast();
    let comment = ["-m comment --comment \"", MASQUERADE.comment, "\""].concat();
    let random = if random_fully { " --random-fully" } else { "" };
    vec![
        format!("-m mark --mark 0x4000/0x4000 {comment} -j RETURN"),
        format!("-s {subnet} -d {network} {comment} -j RETURN"),
        format!("-s {network} -d {subnet} {comment} -j RETURN"),
        format!("! -s {network} -d {subnet} {comment} -j RETURN"),
        format!("-s {network} ! -d {multicast} {comment} -j MASQUERADE{random}"),
        format!("! -s {network} -d {network} {comment} -j MASQUERADE{random}"),
    ]
}

fn forward(side: &Prefixes) -> Vec<String> {
    let comment = ["-m comment --comment \"", FORWARD.comment, "\""].concat();
    ["-s", "-d"]
        .map(|option| format!("{option} {} {comment} -j ACCEPT", side.network))
        .into()
}

// === impl Place ===

impl Place {
    /// The chain, new or cleared, with these rules, and the jump to it unless `listed` has it.
    fn chain_with(&self, rules: &[String], listed: &str) -> Vec<String> {
        let mut lines = vec![[":", self.chain, " - [0:0]"].concat()];
        lines.extend(
            rules
                .iter()
                .map(|rule| ["-A ", self.chain, " ", rule].concat()),
        );
        let jump = format!(
            "-m comment --comment \"{}\" -j {}",
            self.comment, self.chain
        );
        if !listed.lines().any(|line| line.ends_with(&jump)) {
            lines.push(format!("-A {} {jump}", self.base));
        }
        lines
    }
}
