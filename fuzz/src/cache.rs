//! Entries of the result cache, ours and other libraries', and of what is not finished.

use std::fs;

use libcni::runtime::cache::Cache;
use libcni::runtime::{CacheEntry, NetworkList, Runtime};
use libcni::spec::Node;

use crate::config::alike;
use crate::scratch;

/// A file of `results`.
pub fn cache(bytes: &[u8]) {
    let dir = scratch::dir().join("cache");
    let results = dir.join("results");
    fs::create_dir_all(&results).unwrap_or_else(|e| panic!("{e}"));
    fs::write(results.join("n-c1-eth0"), bytes).unwrap_or_else(|e| panic!("{e}"));
    let read = || {
        let entries = Cache::new(&dir).entries();
        entries.unwrap_or_else(|e| panic!("{e}"))
    };
    let entries = read();
    assert!(entries.len() <= 1, "{entries:?}");
    if let Some(entry) = entries.first() {
        let written = entry.to_bytes();
        fs::write(results.join("n-c1-eth0"), &written).unwrap_or_else(|e| panic!("{e}"));
        let again = read();
        let Some(again) = again.first() else {
            panic!(
                "written and not read: {}",
                String::from_utf8_lossy(&written)
            );
        };
        assert_eq!(known(entry), known(again));
        let same = nodes(entry).zip(nodes(again)).all(|(a, b)| alike(&a, &b));
        assert!(same, "{entry:?} and {again:?}");
        assert_eq!(written, again.to_bytes(), "written twice");
        assert!(entry.file.starts_with(&results), "{entry:?}");
        let _ = NetworkList::parse(&entry.config, None);
    }
    pending(&dir, bytes);
}

/// What an entry says of whom.
fn known(entry: &CacheEntry) -> impl PartialEq + std::fmt::Debug + use<> {
    let attach = entry.attach();
    (
        [
            entry.network.clone(),
            attach.container_id,
            attach.ifname,
            attach.netns,
        ],
        attach.args,
        entry.config.clone(),
        entry.result.is_some(),
    )
}

/// Its objects, as Go's library sorts them. Of `1.0` and `-0` it makes the integers that they are.
fn nodes(entry: &CacheEntry) -> impl Iterator<Item = Node> + use<> {
    let nodes = [Some(entry.attach().capability_args), entry.result.clone()];
    nodes.into_iter().flatten().map(|mut node| {
        node.sort_keys();
        node
    })
}

/// The same as a note of an ADD or DEL that is not finished. Whether an ADD is still at work, all processes are asked:
/// that is not for here.
fn pending(dir: &std::path::Path, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains("podwirePendingV1") || text.contains("ADD") {
        return;
    }
    let notes = dir.join("podwire/pending");
    fs::create_dir_all(&notes).unwrap_or_else(|e| panic!("{e}"));
    let note = notes.join("n-c1-eth0");
    fs::write(&note, bytes).unwrap_or_else(|e| panic!("{e}"));
    let runtime = Runtime::new([]).cache_dir(dir);
    let pending = runtime.pending().unwrap_or_else(|e| panic!("{e}"));
    for one in pending {
        let name = format!("{}-{}-{}", one.network, one.container_id, one.ifname);
        assert_eq!(name, "n-c1-eth0", "another attachment's file");
        assert!(one.file == note, "{one:?}");
    }
    fs::remove_file(&note).unwrap_or_else(|e| panic!("{e}"));
}
