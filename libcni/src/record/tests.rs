//! Records as a whole: the line, the file, hostile values.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::spec::error::Code;

fn record(verb: &str) -> Record {
    Record {
        time: UNIX_EPOCH + Duration::from_micros(1_795_162_500_000_042),
        verb: verb.to_owned(),
        plugin: "bridge".to_owned(),
        network: "cbr0".to_owned(),
        container: "c1".to_owned(),
        ifname: "eth0".to_owned(),
        error: None,
        total_us: 3412,
        phases: vec![Phase {
            name: "config".into(),
            us: 112,
        }],
        pid: 42,
        trace: None,
    }
}

fn write(path: &Path, record: &Record) -> std::io::Result<()> {
    Sink::File(path.to_owned()).write(record, |line| line)
}

#[test]
fn a_line_is_as_documented() {
    let mut op = record("ADD");
    assert_eq!(
        op.to_line(),
        r#"{"time":"2026-11-20T08:15:00.000042Z","verb":"ADD","plugin":"bridge","network":"cbr0","container":"c1","ifname":"eth0","us":3412,"phases":{"config":112},"pid":42}"#
    );
    assert_eq!(op.to_string(), "bridge ADD cbr0 c1/eth0: ok in 3.412 ms");
    op.error = Some(CniError::new(Code::TryAgain, "no address\u{1b}[2J").with_details("free one"));
    op.trace = TraceParent::parse(PARENT).map(|parent| parent.with_span(7));
    assert!(op.to_line().ends_with(
        r#","pid":42,"trace":"0af7651916cd43dd8448eb211c80319c","span":"0000000000000007","parent":"b7ad6b7169203331"}"#
    ));
    assert_eq!(
        op.to_string(),
        "bridge ADD cbr0 c1/eth0: code 11 after 3.412 ms: no address\u{fffd}[2J; free one"
    );
    assert_eq!(Record::parse(op.to_line().as_bytes()), Some(op));
}

proptest! {
    /// Whatever a caller puts into its variables and a plugin into its message, it is one line that reads back.
    #[test]
    fn hostile_values_stay_values(
        words in prop::array::uniform5(".{0,40}"),
        msg in "\\PC*|[\"\\\\\n{}:a]{0,60}",
        us in any::<u64>(),
        code in any::<u32>(),
    ) {
        let [verb, plugin, network, container, ifname] = words;
        let op = Record {
            verb: format!("v{verb}"), plugin, network, container, ifname, total_us: us,
            error: Some(CniError::new(Code::from_u32(code), format!("{msg}{{\"time\":\""))),
            ..record("ADD")
        };
        let line = op.to_line();
        prop_assert!(!line.contains('\n'));
        // Alone, and behind what a crash left of the line before.
        let behind = format!("{}{line}", &line[..line.len() - 1]);
        for line in [&line, &behind] {
            prop_assert_eq!(Record::parse(line.as_bytes()), Some(op.clone()));
        }
        prop_assert!(!op.to_string().chars().any(char::is_control));
    }

    #[test]
    fn nothing_but_a_record_is_one(line in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(Record::parse(&line), None);
    }
}

#[test]
fn long_texts_are_cut_between_characters() {
    assert_eq!(clipped("short"), "short");
    let long = "ä".repeat(1000);
    assert_eq!(clipped(&long), format!("{}…", "ä".repeat(512)));
}

#[test]
fn sinks() {
    assert_eq!(Sink::parse(""), Ok(None));
    assert_eq!(Sink::parse("journald"), Ok(Some(Sink::Journald)));
    assert_eq!(Sink::parse("/a/b"), Ok(Some(Sink::File("/a/b".into()))));
    for wrong in ["a/b", "Journald", "/a/", "/", "/a\0b", "./a", "syslog"] {
        assert!(Sink::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_key_goes_before_the_environment_and_a_wrong_one_is_told() {
    let wanted = |json: &str| wanted(&Node::parse(json.as_bytes()).unwrap());
    assert_eq!(wanted("{}"), Ok(None));
    assert_eq!(wanted(r#"{"record":null}"#), Ok(None));
    assert_eq!(wanted(r#"{"Record":"journald"}"#), Ok(Some(Sink::Journald)));
    for (json, what) in [
        (r#"{"record":5}"#, "\"record\" is a number (5)"),
        (r#"{"record":{}}"#, "\"record\" is an object"),
        (r#"{"record":"here"}"#, "\"record\" is \"here\""),
    ] {
        let e = wanted(json).unwrap_err();
        assert_eq!(e.what(), what);
        assert!(e.allowed().contains("absolute path"), "{e}");
    }
}

// === the file ===

#[test]
fn a_file_is_read_back_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ops");
    assert_eq!(read(&path).count(), 0);
    fs::write(dir.path().join("ops.1"), record("FIRST").to_line() + "\n").unwrap();
    write(&path, &record("SECOND")).unwrap();
    // A power failure in the middle of a line; what comes next is not lost with it.
    let mut torn = record("TORN").to_line();
    torn.truncate(60);
    fs::write(&path, fs::read_to_string(&path).unwrap() + &torn).unwrap();
    write(&path, &record("THIRD")).unwrap();
    fs::write(
        &path,
        fs::read_to_string(&path).unwrap() + "\0\0\n{\"resourceSpans\":[]}\n[]\n{\n",
    )
    .unwrap();
    write(&path, &record("FOURTH")).unwrap();
    let verbs: Vec<_> = read(&path).map(|op| op.verb).collect();
    assert_eq!(verbs, ["FIRST", "SECOND", "THIRD", "FOURTH"]);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::hard_link(&path, dir.path().join("both")).unwrap();
    fs::rename(dir.path().join("both"), dir.path().join("ops.1")).unwrap();
    assert_eq!(read(&path).count(), 3);
}

/// Every line is in one of the two files, and neither is larger than it may be.
#[test]
fn fifty_writers_lose_nothing() {
    const WRITERS: u32 = 50;
    const EACH: u32 = 40;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ops");
    let line = record("0-000").to_line().len() as u64 + 1;
    // Room for all of them in two files and not in one.
    let limit = line * u64::from(WRITERS * EACH) * 3 / 5;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = &path;
            scope.spawn(move || {
                for n in 0..EACH {
                    let line = record(&format!("{writer}-{n:03}")).to_line() + "\n";
                    let append = || file::append(path, line.as_bytes(), limit);
                    // On a busy machine the lock may be given up; then nothing was written, and we are told.
                    testkit::eventually(Duration::from_secs(60), || match append() {
                        Ok(()) => true,
                        Err(e) => {
                            assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "{e}");
                            false
                        }
                    });
                    // Not there for a moment when it was renamed.
                    let len = fs::metadata(path).map_or(0, |meta| meta.len());
                    assert!(len <= limit);
                }
            });
        }
    });
    let seen: BTreeSet<_> = read(&path).map(|op| op.verb).collect();
    assert_eq!(seen.len(), (WRITERS * EACH) as usize);
    for file in [path.clone(), file::previous(&path)] {
        let len = fs::metadata(&file).unwrap().len();
        assert!(len > 0 && len <= limit, "{}: {len}", file.display());
    }
}

/// Its last writer was killed just before it would have renamed it.
#[test]
fn a_full_file_is_put_aside_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ops");
    write(&path, &record("OLD")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    write(&path, &record("NEW")).unwrap();
    let first = |path: &Path| Record::parse(&fs::read(path).unwrap()).unwrap().verb;
    assert_eq!(
        (first(&file::previous(&path)), first(&path)),
        ("OLD".into(), "NEW".into())
    );
}

/// What is no file of ours is neither written nor waited for, and says why.
#[test]
fn only_a_regular_file_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("precious"), "precious").unwrap();
    symlink(at("precious"), at("symlink")).unwrap();
    fs::hard_link(at("precious"), at("hard link")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(at("directory")).unwrap();
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .open(at("fifo"))
        .unwrap();
    for name in ["symlink", "hard link", "fifo", "directory", "missing/file"] {
        let e = write(&at(name), &record("ADD")).unwrap_err();
        assert!(e.to_string().contains(name), "{e}");
    }
    drop(fifo);
    assert!(write(&at("fifo"), &record("ADD")).is_err());
    assert!(write("/dev/full".as_ref(), &record("ADD")).is_err());
    assert_eq!(fs::read_to_string(at("precious")).unwrap(), "precious");
    // Where the full file cannot be put aside, nothing is written either.
    fs::write(at("full"), vec![b'\n'; 1 << 20]).unwrap();
    fs::create_dir(at("full.1")).unwrap();
    assert!(write(&at("full"), &record("ADD")).is_err());
    assert_eq!(fs::metadata(at("full")).unwrap().len(), 1 << 20);
}

#[test]
fn half_a_line_does_not_stay_on_a_full_disk() {
    testkit::in_netns(|| {
        testkit::sh("mkdir /run/small && mount -t tmpfs -o size=8k small /run/small");
        let path = Path::new("/run/small/ops");
        let mut written = 0;
        let full = loop {
            match write(path, &record("ADD")) {
                Ok(()) => written += 1,
                Err(e) => break e,
            }
        };
        assert!(
            written > 10 && full.kind() == std::io::ErrorKind::StorageFull,
            "{full}"
        );
        assert!(fs::read(path).unwrap().ends_with(b"}\n"));
        assert_eq!(read(path).count(), written);
    });
}

/// Somebody who was stopped with the lock held costs a bounded time, and a line.
#[test]
fn a_lock_that_stays_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ops");
    let holder = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .unwrap();
    holder.lock().unwrap();
    assert!(write(&path, &record("ADD")).is_err());
    holder.unlock().unwrap();
    write(&path, &record("ADD")).unwrap();
}

// === spans ===

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn only_valid_parents_are_taken() {
    let parent = TraceParent::parse(PARENT).unwrap();
    assert_eq!(parent.to_string(), PARENT);
    assert!(parent.is_sampled());
    assert_eq!(
        parent.with_parent(0x1f).to_string(),
        "00-0af7651916cd43dd8448eb211c80319c-000000000000001f-01"
    );
    let unsampled = TraceParent::parse(&PARENT.replace("-01", "-00")).unwrap();
    assert!(!unsampled.is_sampled());
    // A later version: what is known of it counts, the rest is not passed on.
    for later in [
        PARENT.replacen("00", "cc", 1),
        PARENT.replacen("00", "01", 1) + "-what-will-be",
    ] {
        assert_eq!(TraceParent::parse(&later).unwrap(), parent, "{later}");
    }
    assert_eq!(
        TraceParent::parse(&PARENT.replace("-01", "-ff"))
            .unwrap()
            .to_string(),
        PARENT.replace("-01", "-03")
    );
    for wrong in [
        String::new(),
        "00".into(),
        PARENT.replacen("00", "ff", 1),
        PARENT.replacen("00", "0g", 1),
        PARENT.replacen("00", "0", 1),
        PARENT.to_owned() + "-",
        PARENT.to_owned() + "0",
        PARENT.replacen("00", "01", 1) + "0",
        format!(" {PARENT}"),
        PARENT.to_uppercase(),
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
        PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        PARENT.replace("b7ad6b7169203331", "b7ad6b716920333"),
        PARENT.replace("0af7", "0aF7"),
        PARENT.replace("-01", "-0x"),
        PARENT.replace("-01", "-1"),
        PARENT.replace('-', "_"),
        PARENT.replace("-01", "ä"),
        PARENT[..54].to_owned(),
        format!("{}ä1", &PARENT[..52]),
    ] {
        assert_eq!(TraceParent::parse(&wrong), None, "{wrong:?}");
    }
}

#[test]
fn new_spans_differ() {
    let parent = TraceParent::parse(PARENT).unwrap();
    let ids: BTreeSet<u64> = (0..1000).map(|_| trace::new_span_id(&parent)).collect();
    assert_eq!(ids.len(), 1000);
    assert!(!ids.contains(&0));
}
