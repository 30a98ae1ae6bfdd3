//! A record of every end an operation can come to, and none that harms it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use libcni::record::{self, Record};
use testkit::{Call, Pod};

use super::{add, config, error_code, faulty};

const FILE: &str = "/run/operations";
const ENV: &str = "PODWIRE_RECORD";

fn recorded(call: Call) -> Call {
    call.env(ENV, FILE)
}

/// The one record there is; the next one will be alone, too.
#[track_caller]
fn taken() -> Record {
    let mut all = record::read(FILE);
    let one = all.next().unwrap();
    assert_eq!(all.next(), None);
    fs::remove_file(FILE).unwrap();
    one
}

fn code(record: &Record) -> u32 {
    record.error.as_ref().map_or(0, |e| e.code.as_u32())
}

fn phases(record: &Record) -> Vec<&str> {
    record.phases.iter().map(|phase| &*phase.name).collect()
}

#[test]
fn every_end_is_recorded() {
    testkit::in_netns(|| {
        let pod = Pod::new("pod");
        let before = SystemTime::now();
        let out = recorded(add("none", &pod)).run();
        let after = SystemTime::now();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        let op = taken();
        assert_eq!((op.verb.as_str(), op.plugin.as_str()), ("ADD", "faulty"));
        assert_eq!((op.network.as_str(), op.container.as_str()), ("net", "c1"));
        assert_eq!((op.ifname.as_str(), &op.error), ("eth0", &None));
        assert!(before <= op.time && op.time <= after, "{op:?}");
        assert!(op.phases.iter().map(|p| p.us).sum::<u64>() <= op.total_us);
        assert!(op.pid > 1 && op.trace.is_none());

        for fault in ["panic", "panic in the pod"] {
            error_code(&recorded(add(fault, &pod)).run());
            let op = taken();
            assert_eq!((code(&op), op.network.as_str()), (999, "net"));
            assert!(op.to_string().contains("as the configuration says"), "{op}");
            assert_eq!(phases(&op), ["config", "undo"]);
        }

        let mut child = recorded(add("hang", &pod)).command().spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(config("1.1.0", "hang").as_bytes()).unwrap();
        drop(stdin);
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut line).unwrap();
        testkit::sh(&format!("kill -TERM {}", child.id()));
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let op = taken();
        assert_eq!((code(&op), op.pid), (11, child.id()));
        assert!(op.to_string().contains("stopped by SIGTERM"), "{op}");

        // Nobody takes the answer: what was made is undone, and that is no success.
        let mut child = recorded(add("none", &pod)).command();
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut child = child.stdout(full).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(config("1.1.0", "none").as_bytes()).unwrap();
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let op = taken();
        assert_eq!((code(&op), phases(&op)), (5, vec!["config", "undo"]));
    });
}

/// Before the configuration is read there is only the environment to say that a record is wanted.
#[test]
fn what_is_refused_is_recorded() {
    testkit::in_netns(|| {
        let call = |verb: &str| recorded(faulty().verb(verb).netns("/run/netns/none"));
        let good = config("1.1.0", "none");
        for (what, call, wanted, network) in [
            ("variables", call("ADD").without("CNI_PATH"), 4, ""),
            ("a verb", call("FROB").stdin(good.clone()), 4, ""),
            ("no JSON", call("ADD").stdin("{"), 6, ""),
            ("no name", call("DEL").stdin("{}"), 7, ""),
            (
                "a version",
                call("DEL").stdin(config("9.9.9", "none")),
                1,
                "net",
            ),
            (
                "no namespace",
                call("ADD").stdin(config("1.1.0", "panic in the pod")),
                8,
                "net",
            ),
            ("nothing", call("VERSION"), 0, ""),
        ] {
            call.run();
            let op = taken();
            assert_eq!(
                (code(&op), op.network.as_str()),
                (wanted, network),
                "{what}: {op}"
            );
        }
        // An ID that would be a line of its own if anybody let it.
        let id = "c1\"}\n{\"time\":\"2026-11-20T08:15:00Z\",\"verb\":\"DEL\",\"us\":1,\"container\":\"\u{1b}[2J";
        recorded(faulty().verb("ADD")).container(id).run();
        let text = fs::read_to_string(FILE).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains('\u{1b}'));
        assert_eq!(taken().container, id);
        // By hand: no operation.
        recorded(faulty()).run();
        recorded(faulty())
            .command()
            .arg("--version")
            .output()
            .unwrap();
        assert!(!Path::new(FILE).exists());
    });
}

#[test]
fn the_configurations_key_is_checked_as_others_are() {
    testkit::in_netns(|| {
        let pod = Pod::new("pod");
        let with = |verb: &str, record: &str| {
            let config = format!(
                r#"{{"cniVersion":"1.1.0","name":"net","type":"faulty","record":{record}}}"#
            );
            faulty().verb(verb).netns(pod.netns()).stdin(config)
        };
        for wrong in ["5", "[]", "true", r#""operations""#, r#""syslog""#] {
            for verb in ["ADD", "CHECK", "GC", "STATUS"] {
                let out = with(verb, wrong).run();
                let (code, msg) = error_code(&out);
                assert_eq!(code, 7, "{verb} {wrong}: {msg}");
                assert!(msg.contains("\"record\" is "), "{verb} {wrong}: {msg}");
                let details = out.json()["details"].to_string();
                assert!(details.contains("journald"), "{details}");
            }
            // What went wrong since ADD must not keep anything.
            with("DEL", wrong).ok();
        }
        for nothing in ["null", r#""""#] {
            assert!(with("DEL", nothing).run().status.success());
        }
        assert!(!Path::new(FILE).exists());
        for verb in ["ADD", "DEL", "CHECK", "STATUS"] {
            let key = format!("{FILE:?}");
            with(verb, &key).ok();
            assert_eq!(taken().verb, verb);
            // The more particular of the two.
            with(verb, &key).env(ENV, "/run/other").ok();
            assert_eq!(taken().verb, verb);
            // A wrong key is an error, but no reason to be silent.
            with(verb, "5").env(ENV, FILE).run();
            assert_eq!(taken().network, "net");
        }
        assert!(!Path::new("/run/other").exists());
        // A configuration that is refused further on.
        with("ADD", &format!(r#"{FILE:?},"dns":5"#)).run();
        assert_eq!(code(&taken()), 7);
    });
}

/// Wherever the record cannot go, the answer is the same to the byte; stderr says what is missing.
#[test]
fn a_record_that_fails_harms_nothing() {
    testkit::in_netns(|| {
        let pod = Pod::new("pod");
        testkit::sh(
            "echo precious > /run/precious; ln -s precious /run/symlink; mkfifo /run/fifo; mkdir /run/directory;
             mkdir /run/full; mount -t tmpfs -o size=4k full /run/full; head -c 4096 /dev/zero > /run/full/rest",
        );
        symlink("/run/nowhere", "/run/dangling").unwrap();
        let plain = add("none", &pod).run();
        for sink in [
            "/run/missing/file",
            "/run/symlink",
            "/run/dangling",
            "/run/fifo",
            "/run/directory",
            "/run/full/file",
            "/dev/full",
            "/proc/1/comm/file",
            "journald",
            "syslog",
            "operations",
        ] {
            let out = add("none", &pod).env(ENV, sink).run();
            assert!(out.status.success(), "{sink}: {out:?}");
            assert_eq!(out.stdout, plain.stdout, "{sink}");
            assert_eq!(out.stderr.lines().count(), 1, "{sink}: {}", out.stderr);
            assert!(
                out.stderr.contains("is not recorded: "),
                "{sink}: {}",
                out.stderr
            );
            let failed = add("panic", &pod).env(ENV, sink).run();
            assert_eq!(error_code(&failed).0, 999, "{sink}");
        }
        assert_eq!(fs::read_to_string("/run/precious").unwrap(), "precious\n");
        assert!(!Path::new("/run/nowhere").exists());
        // A limit of the process, which ends those that do not expect it.
        let limited = add("none", &pod).env(ENV, FILE).command();
        let mut shell = std::process::Command::new("sh");
        let script = "ulimit -f 0; exec \"$0\" < /run/config";
        fs::write("/run/config", config("1.1.0", "none")).unwrap();
        shell.args(["-c", script]).arg(limited.get_program());
        shell.env_clear().envs(
            limited
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        let out = shell.output().unwrap();
        assert!(out.status.success(), "{out:?}");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains("File too large"), "{said}");
        // Nor does it need a stderr to complain to.
        let mut child = add("none", &pod).env(ENV, "/dev/full").command();
        let closed = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut child = child.stderr(closed).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(config("1.1.0", "none").as_bytes()).unwrap();
        drop(stdin);
        let out = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), plain.stdout);
        assert!(out.status.success());
    });
}

// === journald ===

/// The fields of a datagram, which all have the form with a length.
fn fields(mut entry: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while !entry.is_empty() {
        let name_len = entry.iter().position(|&b| b == b'\n').unwrap();
        let (name, rest) = entry.split_at(name_len);
        let (len, rest) = rest[1..].split_first_chunk::<8>().unwrap();
        let (value, rest) = rest.split_at(usize::try_from(u64::from_le_bytes(*len)).unwrap());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.push((text(name), text(value)));
        entry = rest.strip_prefix(b"\n").unwrap();
    }
    fields
}

#[test]
fn the_journal_gets_one_entry() {
    testkit::in_netns(|| {
        let pod = Pod::new("pod");
        fs::create_dir_all("/run/systemd/journal").unwrap();
        let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
        journal
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut entry = |call: Call| {
            call.env(ENV, "journald").run();
            let len = journal.recv(&mut buffer).unwrap();
            fields(&buffer[..len])
        };
        let of = |entry: &[(String, String)], name: &str| {
            let mut all = entry.iter().filter(|(key, _)| key == name);
            let value = all
                .next()
                .map(|(_, value)| value.clone())
                .unwrap_or_default();
            assert_eq!(all.next(), None, "{name}");
            value
        };
        let ok = entry(add("none", &pod));
        for (name, value) in [
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "podwire"),
            ("CNI_COMMAND", "ADD"),
            ("CNI_PLUGIN", "faulty"),
            ("CNI_NETWORK", "net"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ERROR_CODE", ""),
        ] {
            assert_eq!(of(&ok, name), value, "{name}");
        }
        assert!(of(&ok, "MESSAGE").starts_with("faulty ADD net c1/eth0: ok in "));
        let line = Record::parse(of(&ok, "CNI_RECORD").as_bytes()).unwrap();
        assert_eq!(line.total_us.to_string(), of(&ok, "CNI_DURATION_US"));

        let failed = entry(add("panic", &pod));
        assert_eq!(of(&failed, "PRIORITY"), "3");
        assert_eq!(of(&failed, "CNI_ERROR_CODE"), "999");
        // A value cannot begin another field, and an entry has no other names than these.
        let hostile = entry(
            faulty()
                .verb("ADD")
                .container("c1\nPRIORITY=0\nMESSAGE=all is well"),
        );
        assert_eq!(
            of(&hostile, "CNI_CONTAINERID"),
            "c1\nPRIORITY=0\nMESSAGE=all is well"
        );
        assert_eq!(of(&hostile, "PRIORITY"), "3");
        assert!(!of(&hostile, "MESSAGE").contains('\n'));

        // A journald that hangs costs a tenth of a second, not the operation.
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender
            .send_to(&[0; 1024], "/run/systemd/journal/socket")
            .is_ok()
        {}
        let out = add("none", &pod).env(ENV, "journald").run();
        assert!(out.status.success(), "{out:?}");
        assert!(out.stderr.contains("is not recorded: "), "{}", out.stderr);
    });
}
