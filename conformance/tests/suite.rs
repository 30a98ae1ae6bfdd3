//! The engine of `conformance run`, against a small plugin (`suite/toy`) with a quirk for everything that can be wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "suite/formats.rs"]
mod formats;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::eventually;

const CASES: &str = include_str!("suite/cases.json");
/// Who was killed may still be ending.
const KILLED_WITHIN: Duration = Duration::from_secs(60);

/// A directory of the toy, its profile and its cases.
struct Bed {
    dir: TempDir,
    /// How long the toy's children sleep: nobody else's do so long.
    nap: String,
}

impl Bed {
    fn new() -> Bed {
        Bed::with(CASES)
    }

    fn with(cases: &str) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let inode = dir.path().metadata().unwrap().ino();
        let nap = format!("{inode}.{}", std::process::id());
        let at = |path: &str| dir.path().join(path);
        fs::create_dir(at("bin")).unwrap();
        fs::create_dir(at("cases")).unwrap();
        // Not written here: a file that another thread's child has open for writing cannot be executed.
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/toy");
        let copied = Command::new("/bin/cp")
            .args(["-p".as_ref(), script.as_os_str(), at("bin").as_os_str()])
            .status();
        assert!(copied.unwrap().success());
        fs::write(at("cases/toy.json"), cases.replace("@NAP@", &nap)).unwrap();
        let profile =
            json!({"toy": {"kind": "interface", "verbs": ["ADD", "CHECK", "DEL", "VERSION"]}});
        fs::write(at("profile.json"), profile.to_string()).unwrap();
        Bed { dir, nap }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(&[&["--time-limit", "5"], more].concat())
            .output()
            .unwrap()
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
        command.arg("run").arg("--bin-dir").arg(self.path("bin"));
        command.arg("--cases").arg(self.path("cases"));
        command.arg("--config").arg(self.path("profile.json"));
        command.args(more);
        command
    }

    /// Command lines of the toy's children, wherever they are.
    fn sleepers(&self) -> Vec<String> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| text(&line));
        lines.filter(|line| line.contains(&self.nap)).collect()
    }

    /// Assertions by ID, and the exit status.
    fn verdicts(&self, more: &[&str]) -> (BTreeMap<String, Value>, i32) {
        let output = self.run(&[&["--format", "json"], more].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
        let all = report["assertions"].as_array().unwrap().iter();
        let by_id = all.map(|a| (a["id"].as_str().unwrap().to_owned(), a.clone()));
        (by_id.collect(), output.status.code().unwrap())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Why something is as it is, in every version.
fn why(assertion: &Value) -> String {
    let of_all = assertion["why"].as_array().cloned().unwrap_or_default();
    let versions = assertion["versions"].as_object().unwrap().values();
    let each = versions.flat_map(|v| v["why"].as_array().unwrap().clone());
    let texts: Vec<String> = of_all
        .into_iter()
        .chain(each)
        .map(|w| w.as_str().unwrap().to_owned())
        .collect();
    texts.join("\n")
}

#[test]
fn each_verdict() {
    let bed = Bed::new();
    // That this ends at all: what hangs would do so for months.
    let (verdicts, status) = bed.verdicts(&["--filter", "toy."]);
    assert_eq!(status, 1);
    for (id, status, reason) in [
        ("toy.good.plain", "pass", ""),
        ("toy.good.named", "pass", ""),
        ("toy.good.plain.shape", "pass", ""),
        ("toy.good.plain.residue", "pass", ""),
        ("toy.usual", "pass", ""),
        ("toy.many", "pass", ""),
        ("toy.many.residue", "pass", ""),
        ("toy.one-wins", "pass", ""),
        ("toy.stdin", "pass", ""),
        ("toy.same", "fail", "two have \"10.9.0.1/24\""),
        ("toy.quirk.hang", "fail", "not ended after 5 s"),
        ("toy.quirk.escape", "pass", ""),
        ("toy.quirk.held", "fail", "keeps its stdout open"),
        ("toy.quirk.flood", "fail", "more than 1 MiB"),
        ("toy.quirk.crash", "fail", "signal 11"),
        ("toy.quirk.fail", "fail", "no such thing"),
        ("toy.quirk.words", "fail", "no CNI error object"),
        ("toy.quirk.zero", "fail", "code is 0"),
        ("toy.quirk.code", "fail", "error with the code 7"),
        ("toy.quirk.msg", "fail", "does not say"),
        ("toy.quirk.succeeds", "fail", "it succeeded, where"),
        ("toy.quirk.result", "fail", "/ips has 1 elements"),
        ("toy.quirk.there", "fail", "should not be there"),
        (
            "toy.quirk.noise",
            "fail",
            "call 3 (toy DEL of c1/eth0): it succeeded, and there is something on stdout",
        ),
        ("toy.quirk.once", "fail", "call 4 (toy DEL of c1/eth0)"),
        ("toy.quirk.shape", "pass", ""),
        (
            "toy.quirk.shape.shape",
            "fail",
            "/ips/0/version is no key since 1.0.0",
        ),
        ("toy.quirk.leak-link", "pass", ""),
        ("toy.quirk.leak-link.residue", "fail", "link leak0"),
        ("toy.quirk.leak-file.residue", "fail", "file /run/toy-c1"),
        ("toy.quirk.leak-mount.residue", "fail", "mount /run/m"),
        ("toy.quirk.leak-allowed.residue", "pass", ""),
        (
            "toy.quirk.lie",
            "fail",
            "CHECK of c1/eth0): it succeeded, where",
        ),
        ("toy.quirk.half", "pass", ""),
        ("toy.quirk.half.residue", "fail", "file /run/half"),
        ("toy.quirk.probe", "fail", "in a, `ip link show eth1` fails"),
        ("toy.quirk.says", "fail", "does not say \"no\""),
        ("toy.quirk.successes", "fail", "1 of 2 succeeded, not 2"),
        ("toy.quirk.slow", "fail", "ms, not 0 at most"),
        ("toy.skipped.needs", "skipped", "it needs nobody"),
        (
            "toy.skipped.kernel",
            "skipped",
            "no links of the kind nosuchkind",
        ),
        ("toy.skipped.probe", "skipped", "`false` fails here"),
        ("toy.skipped.versions", "skipped", "does not list 0.1.0"),
        ("toy.skipped.verbs", "skipped", "toy has no GC"),
        (
            "toy.skipped.plugin",
            "skipped",
            "the directory has no nobody",
        ),
        (
            "toy.broken.setup",
            "broken",
            "setup: `echo no >&2; false` fails",
        ),
        (
            "toy.broken.before",
            "broken",
            "call 1 (toy ADD of c1/eth0): before",
        ),
        ("toy.broken.pod", "broken", "there is no pod b"),
    ] {
        let verdict = verdicts
            .get(id)
            .unwrap_or_else(|| panic!("{id} is not there"));
        assert_eq!(verdict["status"], status, "{id}: {verdict:#}");
        assert!(why(verdict).contains(reason), "{id}: {verdict:#}");
    }
    // What a successful ADD made, or no ADD at all, weighs more than what a failed one did; else it is the case's subject.
    for (id, level) in [
        ("toy.quirk.leak-link.residue", "MUST"),
        ("toy.quirk.never.residue", "MUST"),
        ("toy.quirk.refused.residue", "SHOULD"),
        ("toy.quirk.half.residue", "SHOULD"),
    ] {
        assert_eq!(verdicts[id]["level"], level, "{id}");
    }
    // What is wrong in itself says nothing about what is left.
    assert!(!verdicts.contains_key("toy.quirk.crash.residue"));
    let of = |id: &str| {
        verdicts[id]["versions"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let is_skipped = |v: &str| verdicts["toy.usual"]["versions"][v]["status"] == "skipped";
    assert_eq!(of("toy.usual").len(), 7);
    assert!(is_skipped("0.3.1") && !is_skipped("0.4.0"));
    // Nor does anybody sleep on.
    eventually(KILLED_WITHIN, || bed.sleepers().is_empty());
}

#[test]
fn exit_status_and_levels() {
    let bed = Bed::new();
    let status = |more: &[&str]| bed.run(more).status.code().unwrap();
    assert_eq!(status(&["--filter", "toy.good*", "--spec", "1.0.0"]), 0);
    assert_eq!(status(&["--filter", "toy.quirk.lie"]), 0);
    assert_eq!(status(&["--filter", "toy.quirk.lie", "--strict"]), 1);
    assert_eq!(status(&["--filter", "toy.broken.setup"]), 1);
    for (more, reason) in [
        (vec!["--filter", "toy.nothing"], "no case has toy.nothing"),
        (vec!["--plugin", "nobody"], "no executable nobody"),
        (vec!["--spec", "3.0.0"], "no version 3.0.0"),
        (vec!["--cases", "/nowhere"], "/nowhere"),
    ] {
        let output = bed.run(&more);
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(
            text(&output.stderr).contains(reason),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn known_failures_are_told_and_still_count() {
    let bed = Bed::new();
    let known = json!({"toy.quirk.code [toy]": "it is like that", "toy.good.*": "not so"});
    fs::write(bed.path("known"), known.to_string()).unwrap();
    let known = bed.path("known");
    let output = bed.run(&[
        "--filter",
        "toy.good.plain",
        "--filter",
        "toy.quirk.code",
        "--known",
        known.to_str().unwrap(),
    ]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("known: it is like that"), "{told}");
    assert!(
        told.contains("known, and did not fail: toy.good.*"),
        "{told}"
    );
}

#[test]
fn the_list() {
    let output = Bed::new().run(&["--list", "--filter", "toy.s"]);
    let told = text(&output.stdout);
    let last = told.lines().last().unwrap();
    assert_eq!(last, "2 cases, 4 runs", "{told}");
    assert!(told.starts_with("MUST   toy.stdin [toy]"), "{told}");
}

#[test]
fn by_hand_it_is_the_same() {
    let bed = Bed::new();
    for (id, wanted) in [
        (
            "toy.quirk.code",
            "{\"code\": 4, \"msg\": \"no such thing\"} (exit status 1)",
        ),
        ("toy.quirk.once", "nothing to delete"),
        ("toy.quirk.leak-file", "/run/toy-c1"),
        (
            "toy.quirk.lie",
            "CHECK of c1/eth0 (expected: a CNI error)\n (exit status 0)",
        ),
    ] {
        let (verdicts, _) = bed.verdicts(&["--filter", id]);
        let failed = verdicts.values().find(|a| a["status"] == "fail").unwrap();
        // The command names the case, and with --explain prints the script.
        let again = failed["again"].as_str().unwrap();
        let program = env!("CARGO_BIN_EXE_conformance");
        let again = again.replacen("conformance", program, 1);
        let explained = Command::new("/bin/sh")
            .args(["-c", &format!("{again} --explain")])
            .output();
        let script = text(&explained.unwrap().stdout);
        assert_eq!(script.trim(), failed["script"].as_str().unwrap().trim());
        let ran = Command::new("/bin/sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let told = text(&ran.stdout);
        assert!(
            told.contains(wanted),
            "{script}\n{told}\n{}",
            text(&ran.stderr)
        );
    }
}

/// What is under way comes to its end, and nobody sleeps on.
#[test]
fn an_interrupted_run_leaves_nothing() {
    let bed = Bed::new();
    let mut run = bed.command(&["--filter", "toy.quirk.hang", "--time-limit", "3"]);
    let mut run = run
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while bed.sleepers().is_empty() {
        assert!(Instant::now() < end && run.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    // As timeout(1) does it.
    for _ in 0..2 {
        kill(Pid::from_raw(run.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    }
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).ends_with("conformance: interrupted\n"));
    eventually(KILLED_WITHIN, || bed.sleepers().is_empty());
}

// === mistakes in cases ===

#[test]
fn mistakes_name_file_and_case() {
    let good = json!({"id": "x.y", "level": "MUST", "spec": "s", "about": "a", "plugin": "toy", "calls": [{"verb": "ADD"}]});
    for (pointer, key, value, reason) in [
        ("", "colour", json!(1), "unknown key \"colour\""),
        ("", "level", json!("must"), "level is MUST, SHOULD or MAY"),
        ("", "id", json!("z.y"), "the id begins with the area"),
        ("", "id", json!("x.Y"), "an id is a-z"),
        ("", "versions", json!("2.0.0"), "no version 2.0.0"),
        ("", "kinds", json!(["ipam"]), "kinds is for the plugin"),
        ("", "config", json!([]), "config is an object"),
        ("", "env", json!({"A": 1}), "env A is a text or null"),
        ("", "about", Value::Null, "about is a text"),
        (
            "/calls/0",
            "colour",
            json!(1),
            "call 1: unknown key \"colour\"",
        ),
        ("/calls/0", "verb", json!(1), "verb is a text"),
        ("/calls/0", "times", json!(0), "times is at least 1"),
        (
            "/calls/0",
            "times",
            json!(100_000),
            "times is a number up to",
        ),
        (
            "/calls/0",
            "beside",
            json!(true),
            "the first could be beside",
        ),
        (
            "/calls/0",
            "plugin",
            json!("../x"),
            "the name of an executable",
        ),
        (
            "/calls/0",
            "expect",
            json!({"colour": 1}),
            "expect: unknown key \"colour\"",
        ),
        (
            "/calls/0",
            "expect",
            json!({"msg": "/(/"}),
            "the pattern /(/",
        ),
        (
            "/calls/0",
            "expect",
            json!({"ok": true, "code": 7}),
            "ok is true",
        ),
        (
            "/calls/0",
            "expect",
            json!({"absent": ["ips"]}),
            "no JSON pointer",
        ),
        ("/calls/0", "holds", json!([{"in": "a"}]), "sh: what to run"),
    ] {
        let mut case = good.clone();
        case.pointer_mut(pointer).unwrap()[key] = value.clone();
        let bed = Bed::with(&json!({"area": "x", "cases": [case]}).to_string());
        let output = bed.run(&["--list"]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{key} {value}: {told}");
        for part in ["toy.json: case ", ".y", reason] {
            assert!(
                told.to_lowercase().contains(&part.to_lowercase()),
                "{key} {value}: {told}"
            );
        }
    }
    let twice = Bed::with(&json!({"area": "x", "cases": [good.clone(), good]}).to_string());
    let told = text(&twice.run(&["--list"]).stderr);
    assert!(told.contains("two cases have the ID x.y"), "{told}");
}

/// Every file of cases is compiled in, and those are what the issue asks for in number.
#[test]
fn what_comes_with_it() {
    use conformance::suite::builtin;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/run");
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let is_built_in = builtin::FILES.iter().any(|(n, _)| *n == name);
        assert_eq!(
            is_built_in,
            value.get("cases").is_some(),
            "{name}: see suite/builtin.rs"
        );
    }
    let cases = builtin::cases().unwrap();
    assert!(cases.len() >= 400, "{}", cases.len());
}
