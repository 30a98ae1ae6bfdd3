//! What keys are called: `<prefix>/config`, `<prefix>/subnets/<lease>`.

use fabric::lease::{LeaseError, Subnets};

/// Longest part of a foreign key that is shown.
const SHOWN_BYTES: usize = 96;

/// The keys of one network.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// The network's configuration.
    pub(super) config: String,
    /// Everything that begins with this is a lease, or meant to be one: flannel looks at all of it, without the slash.
    pub(super) subnets: String,
}

// === impl Keys ===

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            config: join(prefix, "config"),
            subnets: join(prefix, "subnets"),
        }
    }

    /// The key of a lease.
    pub(super) fn lease(&self, subnets: &Subnets) -> String {
        format!("{}/{}", self.subnets, subnets.key())
    }

    /// A key as the directory's name of an entry: what follows the common part; foreign bytes made readable.
    pub(super) fn name(&self, key: &[u8]) -> String {
        let text = match key.strip_prefix(self.subnets.as_bytes()) {
            Some(rest) => rest.strip_prefix(b"/").unwrap_or(key),
            None => key,
        };
        if text.len() <= SHOWN_BYTES
            && let Ok(text) = std::str::from_utf8(text)
        {
            return text.escape_debug().to_string();
        }
        let shown = text.get(..SHOWN_BYTES).unwrap_or(text);
        format!("{}... ({} bytes)", shown.escape_ascii(), text.len())
    }

    /// The subnets a key stands for.
    pub(super) fn subnets_of(&self, key: &[u8]) -> Result<Subnets, LeaseError> {
        key.strip_prefix(self.subnets.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"/"))
            .and_then(|rest| std::str::from_utf8(rest).ok())
            .ok_or(LeaseError::Key)
            .and_then(Subnets::parse)
    }

    /// The subnets a key takes: flannel reads the end of a key only, so that one in a deeper place is one to it.
    pub(super) fn taken_by(&self, key: &[u8]) -> Option<Subnets> {
        let last = key.rsplit(|byte| *byte == b'/').next()?;
        Subnets::parse(std::str::from_utf8(last).ok()?).ok()
    }
}

/// Joins as paths are: slashes in a row are one, none is at the end.
fn join(prefix: &str, last: &str) -> String {
    let mut path = String::with_capacity(prefix.len() + last.len() + 1);
    let parts = prefix.split('/').chain([last]);
    for part in parts.filter(|part| !matches!(*part, "" | ".")) {
        if !path.is_empty() || prefix.starts_with('/') {
            path.push('/');
        }
        path.push_str(part);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_joined_as_paths() {
        for prefix in [
            "/coreos.com/network",
            "/coreos.com/network/",
            "//coreos.com//network///",
            "/coreos.com/./network",
        ] {
            let keys = Keys::new(prefix);
            assert_eq!(keys.config, "/coreos.com/network/config");
            assert_eq!(keys.subnets, "/coreos.com/network/subnets");
        }
        assert_eq!(Keys::new("net").config, "net/config");
        assert_eq!(Keys::new("").config, "config");
        assert_eq!(Keys::new("/").config, "/config");
    }

    #[test]
    fn a_key_is_a_lease_only_in_its_place() {
        let keys = Keys::new("/n");
        let read = |key: &str| keys.subnets_of(key.as_bytes());
        let subnets = read("/n/subnets/10.5.1.0-24&fc00:0:0:5::-64").unwrap();
        assert_eq!(
            keys.lease(&subnets),
            "/n/subnets/10.5.1.0-24&fc00:0:0:5::-64"
        );
        for stray in [
            "/n/subnets",
            "/n/subnets/",
            "/n/subnets10.5.1.0-24",
            "/n/subnets/a/10.5.1.0-24",
            "/n/subnets//10.5.1.0-24",
            "/other/10.5.1.0-24",
        ] {
            assert_eq!(read(stray), Err(LeaseError::Key), "{stray}");
        }
        assert!(keys.taken_by(b"/n/subnets/a/10.5.1.0-24").is_some());
        assert!(keys.taken_by(b"/n/subnets/a/\xff").is_none());
    }

    #[test]
    fn foreign_names_are_readable_and_short() {
        let keys = Keys::new("/n");
        assert_eq!(keys.name(b"/n/subnets/10.5.1.0-24"), "10.5.1.0-24");
        assert_eq!(keys.name(b"/n/subnets-old"), "/n/subnets-old");
        assert_eq!(keys.name(b"/n/subnets/a\nb"), "a\\nb");
        let huge = [b"/n/subnets/".as_slice(), &[0xfe; 100_000]].concat();
        let name = keys.name(&huge);
        assert!(
            name.len() < 500 && name.ends_with("(100000 bytes)"),
            "{name}"
        );
    }
}
