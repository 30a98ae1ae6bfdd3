//! What there is in a [`Place`], to be compared before and after a pod.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Place, each, machine, text};

/// What a place holds that a pod could have left behind, each entry a line fit for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Still {
    /// Links other than `lo` and bridges.
    pub links: BTreeSet<String>,
    /// Unicast entries of bridges' forwarding databases that are not the bridges' own.
    pub fdb: BTreeSet<String>,
    /// Neighbour entries (ARP, NDP).
    pub neighbours: BTreeSet<String>,
    /// Routes, except those of the bridges' own addresses.
    pub routes: BTreeSet<String>,
    /// Rules and set elements of nf_tables, each with its chain or set.
    pub rules: BTreeSet<String>,
    /// Reserved addresses, results caches: all files below `/var/lib/cni` but each network's `lock`,
    /// `last_reserved_ip.N` and hidden ones; and network configurations that the runtime wrote.
    pub files: BTreeSet<String>,
    /// Mount points.
    pub mounts: BTreeSet<String>,
    /// Network namespaces, by their inode, with a process or a mount that holds them.
    pub netns: BTreeSet<String>,
    /// What the runtime knows: containers, tasks, snapshots, networks.
    pub containers: BTreeSet<String>,
    /// Processes, by name.
    pub processes: BTreeSet<String>,
}

/// A rule of a chain or an element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Name of the chain or set.
    pub place: String,
    /// In nft's words, without its counter, which says nothing of what it does.
    pub text: String,
}

// === impl Still ===

impl Still {
    /// What is there now, but for what only the runtime knows.
    pub(super) fn of(place: &Place) -> Result<Still> {
        let mut still = Still::default();
        let links = place.json(&["ip", "-j", "-d", "link"])?;
        let mut bridges = BTreeSet::new();
        for link in each(&links) {
            let name = text(link, "/ifname");
            if text(link, "/linkinfo/info_kind") == "bridge" {
                bridges.insert(name.to_owned());
            } else if name != "lo" {
                still.links.insert(name.to_owned());
            }
        }
        for entry in each(&place.json(&["bridge", "-j", "fdb", "show"])?) {
            // Multicast groups come and go as each link joins and leaves them.
            let group = ["33:33:", "01:00:5e:"]
                .iter()
                .any(|prefix| text(entry, "/mac").starts_with(prefix));
            if !group && !bridges.contains(text(entry, "/ifname")) {
                still.fdb.insert(format!(
                    "{} dev {}",
                    text(entry, "/mac"),
                    text(entry, "/ifname")
                ));
            }
        }
        for entry in each(&place.json(&["ip", "-j", "neigh"])?) {
            still.neighbours.insert(format!(
                "{} dev {}",
                text(entry, "/dst"),
                text(entry, "/dev")
            ));
        }
        for route in each(&place.json(&["ip", "-j", "route", "show", "table", "all"])?) {
            let own = text(route, "/protocol") == "kernel" && bridges.contains(text(route, "/dev"));
            if !own && text(route, "/dev") != "lo" {
                still.routes.insert(format!(
                    "{} dev {}",
                    text(route, "/dst"),
                    text(route, "/dev")
                ));
            }
        }
        still.rules = place
            .rules()?
            .into_iter()
            .map(|rule| format!("{}: {}", rule.place, rule.text))
            .collect();
        for network in place.list("/var/lib/cni/networks") {
            for file in place.list(&format!("/var/lib/cni/networks/{network}")) {
                // A hidden name is not an address: an index that some IPAM plugin keeps of its files, say.
                let meant_to_stay = file == "lock"
                    || file.starts_with("last_reserved_ip.")
                    || file.starts_with('.');
                if !meant_to_stay {
                    still.files.insert(format!("networks/{network}/{file}"));
                }
            }
        }
        for file in place.list("/var/lib/cni/results") {
            still.files.insert(format!("results/{file}"));
        }
        for line in place.read("/proc/1/mountinfo")?.lines() {
            still
                .mounts
                .extend(line.split(' ').nth(4).map(str::to_owned));
        }
        for name in place.list("/run/netns") {
            still.netns.insert(format!("/run/netns/{name}"));
        }
        for process in machine::processes_of(place.pid)? {
            still.netns.insert(process.netns().to_owned());
            still.processes.insert(process.name);
        }
        Ok(still)
    }

    /// Each kind with the word people use for it.
    pub fn kinds(&self) -> [(&'static str, &BTreeSet<String>); 10] {
        [
            ("links", &self.links),
            ("FDB entries", &self.fdb),
            ("neighbours", &self.neighbours),
            ("routes", &self.routes),
            ("rules", &self.rules),
            ("reservations and cached results", &self.files),
            ("mounts", &self.mounts),
            ("network namespaces", &self.netns),
            ("containers", &self.containers),
            ("processes", &self.processes),
        ]
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.kinds().iter().all(|(_, entries)| entries.is_empty())
    }

    /// What is here and not there.
    pub fn without(self, other: &Still) -> Still {
        let less = |a: BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect();
        Still {
            links: less(self.links, &other.links),
            fdb: less(self.fdb, &other.fdb),
            neighbours: less(self.neighbours, &other.neighbours),
            routes: less(self.routes, &other.routes),
            rules: less(self.rules, &other.rules),
            files: less(self.files, &other.files),
            mounts: less(self.mounts, &other.mounts),
            netns: less(self.netns, &other.netns),
            containers: less(self.containers, &other.containers),
            processes: less(self.processes, &other.processes),
        }
    }
}

/// What acts on packets in a ruleset as `nft list ruleset` prints it: rules and elements, in order, without the tables,
/// chains and sets that frame them.
pub(super) fn rules(ruleset: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut place = String::new();
    let mut in_elements = false;
    for line in ruleset.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["chain" | "set" | "map", name, "{"] => name.clone_into(&mut place),
            []
            | ["}"]
            | [
                "table" | "type" | "typeof" | "flags" | "policy" | "comment" | "size",
                ..,
            ] => {}
            _ if in_elements || words.starts_with(&["elements"]) => {
                let list = line
                    .trim_start_matches("elements = {")
                    .trim_end_matches('}');
                in_elements = !line.ends_with('}');
                let elements = list
                    .split(',')
                    .map(str::trim)
                    .filter(|element| !element.is_empty());
                rules.extend(elements.map(|element| Rule {
                    place: place.clone(),
                    text: element.to_owned(),
                }));
            }
            _ => rules.push(Rule {
                place: place.clone(),
                text: without_counter(&words),
            }),
        }
    }
    rules
}

/// `ip saddr 10.40.1.2 counter packets 1 bytes 84 accept` without the middle.
fn without_counter(words: &[&str]) -> String {
    match words.iter().position(|word| *word == "counter") {
        Some(at) => {
            let (before, from) = words.split_at(at);
            [before, from.get(5..).unwrap_or_default()]
                .concat()
                .join(" ")
        }
        None => words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_elements_are_told_from_what_frames_them() {
        let ruleset = r#"
table inet podwire {
	map pods/cbr0/4 {
		type ipv4_addr : verdict
		flags interval
		elements = { 10.40.1.2 comment "cbr0 web eth0" : goto a,
			     10.40.1.3 comment "cbr0 client eth0" : goto a }
	}

	chain a {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 10.40.1.0/24 counter packets 3 bytes 252 return
		ip daddr { 10.0.0.0/8, 224.0.0.0/4 } return
		masquerade
	}
}
"#;
        let found: Vec<_> = rules(ruleset)
            .into_iter()
            .map(|rule| format!("{}: {}", rule.place, rule.text))
            .collect();
        assert_eq!(
            found,
            [
                r#"pods/cbr0/4: 10.40.1.2 comment "cbr0 web eth0" : goto a"#,
                r#"pods/cbr0/4: 10.40.1.3 comment "cbr0 client eth0" : goto a"#,
                "a: ip daddr 10.40.1.0/24 return",
                "a: ip daddr { 10.0.0.0/8, 224.0.0.0/4 } return",
                "a: masquerade",
            ]
        );
    }
}
