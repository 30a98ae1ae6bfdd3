//! What one side did and left, as text.

use std::collections::BTreeMap;

/// Facts by path: `add/stdout`, `add/host/link/cni0/mtu`, `del/store/var/lib/cni/...`. The first part is the call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    facts: BTreeMap<String, String>,
    /// Path and name of each link.
    links: BTreeMap<String, String>,
}

impl Trace {
    /// Adds a fact. A second one of the same path is kept beside it, under `path#2`: two equal routes are not one.
    pub fn put(&mut self, path: impl Into<String>, value: impl Into<String>) {
        let path = path.into();
        let mut free = path.clone();
        for n in 2.. {
            if !self.facts.contains_key(&free) {
                break;
            }
            free = format!("{path}#{n}");
        }
        self.facts.insert(free, value.into());
    }

    /// One fact.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.facts.get(path).map(String::as_str)
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// Whether a link is there, as a fact of its own: `add/host/link/cni0`.
    pub fn put_link(&mut self, path: String, name: String) {
        self.put(path.clone(), "there");
        self.links.insert(path, name);
    }

    /// Paths that either has, with both values. Of a link that only one side has that alone is told, not each of its
    /// attributes, addresses, routes and sysctls.
    pub fn beside<'a>(
        &'a self,
        other: &'a Trace,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
        let mut lonely = self.links_unlike(other);
        lonely.extend(other.links_unlike(self));
        let ours = other.facts.keys().filter(|k| !self.facts.contains_key(*k));
        self.facts
            .keys()
            .chain(ours)
            .filter(move |path| !lonely.iter().any(|l| l.owns(path)))
            .map(|path| (path.as_str(), self.get(path), other.get(path)))
    }

    fn links_unlike(&self, other: &Trace) -> Vec<Lonely> {
        let unlike = self
            .links
            .iter()
            .filter(|(path, _)| !other.links.contains_key(*path));
        unlike.map(|(path, name)| Lonely::new(path, name)).collect()
    }
}

/// A link that one side has.
struct Lonely {
    /// `add/host/`
    place: String,
    /// What its facts begin with, after the place.
    own: Vec<String>,
    /// And what is in the middle of them, where a table or family comes first.
    middle: Vec<(&'static str, String)>,
}

impl Lonely {
    fn new(path: &str, name: &str) -> Lonely {
        let place = path.strip_suffix(&format!("link/{name}")).unwrap_or(path);
        Lonely {
            place: place.to_owned(),
            own: vec![format!("link/{name}/"), format!("addr/{name}/")],
            middle: vec![
                ("route/", format!("/{name}/")),
                ("sysctl/", format!("/conf/{name}/")),
            ],
        }
    }

    fn owns(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&self.place) else {
            return false;
        };
        let of = |(start, name): &(&str, String)| rest.starts_with(start) && rest.contains(name);
        self.own.iter().any(|own| rest.starts_with(own)) || self.middle.iter().any(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_one_side_is_one_difference() {
        let mut theirs = Trace::default();
        theirs.put_link("add/a/link/eth0".into(), "eth0".into());
        for path in [
            "link/eth0/mtu",
            "addr/eth0/10.0.0.1/24",
            "route/main/eth0/default",
        ] {
            theirs.put(format!("add/a/{path}"), "x");
        }
        theirs.put("add/a/route/main/eth1/default", "x");
        theirs.put("add/host/sysctl/ipv4/conf/eth0/mtu", "x");
        let ours = Trace::default();
        let left: Vec<&str> = theirs.beside(&ours).map(|(path, ..)| path).collect();
        let want = [
            "add/a/link/eth0",
            "add/a/route/main/eth1/default",
            "add/host/sysctl/ipv4/conf/eth0/mtu",
        ];
        assert_eq!(left, want);
        assert_eq!(ours.beside(&theirs).count(), 3);
    }
}
