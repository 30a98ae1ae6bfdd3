//! Keys and values of etcd, which anybody in the cluster may have written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use fabric::Peer;
use fabric::lease::{self, Subnets};
use overlayd::directory::etcd::fuzzing::Known;

use crate::input::Input;

const PREFIX: &str = "/coreos.com/network";

/// Keys and their values: a line the key, the next its value; a key that begins with `-` is deleted.
pub fn etcd(bytes: &[u8]) {
    let subnets = |text: &str| Subnets::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let (own, other) = (subnets("10.5.0.0-24"), subnets("10.5.255.0-24&fd00:5::-64"));
    let mut known = Known::new(PREFIX, &own);
    let other_key = known.key_of(&other);
    let sound = lease::parse(&other.key(), &other, SOUND_V6.as_bytes());
    known.put(other_key.as_bytes(), SOUND_V6.as_bytes());
    let mut lines = bytes.split(|byte| *byte == b'\n');
    while let Some(key) = lines.next() {
        let before = known.peers().clone();
        if let Some(key) = key.strip_prefix(b"-") {
            known.delete(&watched(key));
            nothing_else_changed(&before, known.peers());
            continue;
        }
        let key = &*watched(key);
        let value = lines.next().unwrap_or_default();
        known.put(key, value);
        nothing_else_changed(&before, known.peers());
        let first = known.peers().clone();
        known.put(key, value);
        assert_eq!(first, *known.peers(), "the same, twice");
        assert!(known.skipped().len() <= 257, "{}", known.skipped().len());
        for (name, why) in known.skipped() {
            assert!(name.len() < 600 && why.len() < 4096, "{name}: {why}");
        }
        value_of(key, value);
    }
    let there = known.peers().get(&other.key()).map(|peer| (**peer).clone());
    let last = other.key();
    // It is named nowhere, so nobody deleted it or gave it another value.
    if !bytes.windows(last.len()).any(|w| w == last.as_bytes()) {
        assert_eq!(there, sound.ok(), "a sound entry beside the others");
        assert!(known.holder(&other).is_some());
    }
}

const SOUND_V6: &str = r#"{"PublicIP":"192.0.2.9","PublicIPv6":"2001:db8::9","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"2a:00:00:00:00:09"},"BackendV6Data":{"VNI":1,"VtepMAC":"2a:00:00:00:00:0a"}}"#;

/// The keys that are asked for begin so.
fn watched(key: &[u8]) -> Cow<'_, [u8]> {
    const ALL: &[u8] = b"/coreos.com/network/subnets";
    if key.starts_with(ALL) {
        return key.into();
    }
    [ALL, key].concat().into()
}

/// One entry is one peer at most.
fn nothing_else_changed(before: &BTreeMap<String, Arc<Peer>>, after: &BTreeMap<String, Arc<Peer>>) {
    let gone = before
        .iter()
        .filter(|(name, peer)| after.get(*name) != Some(*peer));
    let new = after.iter().filter(|(name, _)| !before.contains_key(*name));
    let changed = gone.count() + new.count();
    assert!(
        changed <= 1,
        "{changed} peers changed: {before:?}, {after:?}"
    );
}

/// A key and a value for themselves: what was read and is written is read as the same.
fn value_of(key: &[u8], value: &[u8]) {
    let key = String::from_utf8_lossy(key);
    let last = key.rsplit('/').next().unwrap_or_default();
    let subnets = Subnets::parse(last);
    let subnets = subnets.unwrap_or_else(|_| Subnets {
        v4: "10.5.7.0/24".parse().unwrap_or_else(|e| panic!("{e}")),
        v6: Input::new(value)
            .byte()
            .is_multiple_of(2)
            .then(|| "fd00:5:7::/64".parse().unwrap_or_else(|e| panic!("{e}"))),
    });
    assert_eq!(Subnets::parse(&subnets.key()), Ok(subnets));
    if let Some(vtep) = lease::parse_backend_data(value) {
        let again = lease::parse_backend_data(lease::backend_data(&vtep).as_bytes());
        assert_eq!(again, Some(vtep));
    }
    if let Ok(peer) = lease::parse("a", &subnets, value) {
        written(&subnets, &peer);
    }
}

pub(crate) fn written(subnets: &Subnets, peer: &Peer) {
    let text = lease::value(peer);
    let again = lease::parse(&peer.name, subnets, text.as_bytes());
    assert_eq!(again.as_ref(), Ok(peer), "{text}");
}
