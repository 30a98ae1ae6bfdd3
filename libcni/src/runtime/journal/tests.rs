use testkit::eventually;

use super::*;
use crate::runtime::Attach;

struct Ground {
    dir: tempfile::TempDir,
    journal: Journal,
    key: Key,
    at: Attach,
}

const CONFIG: &[u8] =
    br#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"a"},{"type":"b"},{"type":"c"}]}"#;

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Whoever is at work is looked for in the whole machine: no other test adds this one.
        let at = Attach::new("journal", "/run/netns/x", "eth0");
        Self {
            journal: Journal::new(dir.path()),
            key: Key::of("net", &at).unwrap(),
            dir,
            at,
        }
    }

    fn saved(&self) -> Saved<'_> {
        Saved {
            key: &self.key,
            at: &self.at,
            config: CONFIG,
            result: None,
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("podwire/pending/net-journal-eth0")
    }

    fn is_none(&self) -> bool {
        matches!(self.journal.read(&self.key), Record::None)
    }
}

#[test]
fn a_halted_del_is_read_back() {
    let ground = Ground::new();
    assert!(ground.is_none());
    ground
        .journal
        .halted(ground.saved(), 2, "b is busy")
        .unwrap();
    let [pending] = &ground.journal.all().unwrap()[..] else {
        panic!("one is recorded");
    };
    assert_eq!(
        (pending.verb, pending.why.as_str()),
        (Verb::Del, "b is busy")
    );
    assert_eq!(pending.left, ["b", "a"]);
    assert_eq!(pending.attach(), ground.at);
    assert_eq!(pending.file, ground.file());
    assert!(!ground.dir.path().join("results").exists());
    ground.journal.remove(&ground.key).unwrap();
    assert!(ground.is_none());
}

/// An ADD at work is nobody's to finish; one that was broken off is.
#[test]
fn the_lock_tells_the_living_from_the_dead() {
    let ground = Ground::new();
    let intent = ground.journal.begin(ground.saved(), 3).unwrap();
    assert!(matches!(ground.journal.read(&ground.key), Record::Adding));
    assert!(ground.journal.all().unwrap().is_empty());
    assert_eq!(ground.journal.adding().unwrap().len(), 1);
    let second = ground.journal.begin(ground.saved(), 3).unwrap_err();
    assert!(second.to_string().contains("exists"), "{second}");
    drop(intent); // what a crash does
    // A child that another test is just starting has the file open, and so the lock, until it execs.
    eventually(Duration::from_secs(60), || {
        ground.journal.adding().unwrap().is_empty()
    });
    let pending = ground.journal.all().unwrap();
    assert_eq!((pending[0].verb, pending[0].left.len()), (Verb::Add, 3));
    ground.journal.begin(ground.saved(), 3).unwrap().done();
    assert!(ground.is_none());
}

#[test]
fn torn_anywhere_it_is_absent() {
    let ground = Ground::new();
    ground.journal.halted(ground.saved(), 3, "why").unwrap();
    let whole = std::fs::read(ground.file()).unwrap();
    for length in 0..whole.len() {
        std::fs::write(ground.file(), &whole[..length]).unwrap();
        assert!(ground.is_none(), "{length}");
    }
    for (key, value) in [
        ("left", "4"),
        ("left", "-1"),
        ("verb", "\"BOIL\""),
        ("why", "1"),
    ] {
        let text = String::from_utf8_lossy(&whole);
        let (head, tail) = text.split_once(&format!("\"{key}\":")).unwrap();
        let end = tail.find([',', '}']).unwrap();
        let text = format!("{head}\"{key}\":{value}{}", &tail[end..]);
        std::fs::write(ground.file(), text).unwrap();
        assert!(ground.is_none(), "{key} {value}");
    }
    std::fs::write(ground.file(), &whole).unwrap();
    assert!(!ground.is_none());
    // Copied to another's name, it is not that one's.
    std::fs::rename(ground.file(), ground.file().with_file_name("net-c2-eth0")).unwrap();
    assert!(ground.journal.all().unwrap().is_empty());
}

/// Somebody else's ADD came after it: the cache knows better.
#[test]
fn a_newer_cache_entry_outdates_it() {
    let ground = Ground::new();
    ground.journal.halted(ground.saved(), 2, "why").unwrap();
    let cache = Cache::new(ground.dir.path());
    cache.write(ground.saved()).unwrap();
    let cached = ground.dir.path().join("results/net-journal-eth0");
    let at = |seconds: i64| {
        let since = std::fs::metadata(ground.file())
            .unwrap()
            .modified()
            .unwrap();
        let offset = std::time::Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 {
            since - offset
        } else {
            since + offset
        };
        File::options()
            .write(true)
            .open(&cached)
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    at(-1);
    assert!(!ground.is_none());
    at(1);
    assert!(ground.is_none());
    assert!(ground.journal.all().unwrap().is_empty());
    std::fs::write(&cached, "torn").unwrap();
    at(1);
    assert!(!ground.is_none(), "a torn one knows nothing");
}
