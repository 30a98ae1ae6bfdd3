//! What flannel has in the tables of iptables-legacy.

use libcni::kernel::xtables::Family;

use super::{PLACES, Place, TakenOver};
use crate::firewall::program;

/// Removes it, one program run for each table that has some.
pub(super) fn remove(taken: &mut TakenOver) {
    for (family, name) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
        for place in &PLACES {
            let what = format!("{} in table {} of {name}-legacy", place.chain, place.table);
            match remove_from(family, place) {
                Ok(false) => {}
                Ok(true) => taken.removed.push(what),
                Err(reason) => taken.left.push(format!("{what}: {reason}")),
            }
        }
    }
}

fn remove_from(family: Family, place: &Place) -> Result<bool, String> {
    let (chain, rules) = place.is_in(family).map_err(|errno| errno.to_string())?;
    if !chain && !rules {
        return Ok(false);
    }
    let missing = || "no iptables-legacy is installed".to_owned();
    let list = family.program("").ok_or_else(missing)?;
    let restore = family.program("-restore").ok_or_else(missing)?;
    let listed = program::list(&list, place.table, place.base)?;
    let mut changes: Vec<String> = listed
        .lines()
        .filter(|line| place.wrote(line))
        .filter_map(|line| Some(["-D ", line.strip_prefix("-A ")?].concat()))
        .collect();
    if chain {
        changes.extend(["-F ", "-X "].map(|verb| [verb, place.chain].concat()));
    }
    program::restore(&restore, &[(place.table, changes)])?;
    Ok(true)
}

// === impl Place ===

impl Place {
    /// Is there its chain; are there rules of its in the base chain?
    fn is_in(&self, family: Family) -> nix::Result<(bool, bool)> {
        let Some(table) = family.table(self.table)? else {
            return Ok((false, false));
        };
        let base = table
            .base_chain(self.hook)
            .map(|chain| chain.rules)
            .unwrap_or_default();
        let direct = base.iter().any(|rule| rule.comment == self.comment);
        Ok((table.has_chain(self.chain), direct))
    }

    /// A line of `iptables -S`.
    fn wrote(&self, line: &str) -> bool {
        let comment = ["--comment \"", self.comment, "\""].concat();
        let jump = [" -j ", self.chain].concat();
        line.ends_with(&jump) || line.contains(&comment)
    }
}
