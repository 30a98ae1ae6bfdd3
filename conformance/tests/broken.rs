//! The harness is tested itself: plugins that are broken on purpose are each caught by the case that is there for it, and
//! the same cases pass with the plugin that is not broken.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

#[path = "broken/table.rs"]
mod table;

use table::{BROKEN, Broken, COMMON};

/// Most of a run is waiting.
const AT_ONCE: usize = 6;

/// What `conformance run` says of assertions: by ID, `pass` or `fail` and why.
fn judge(bin_dir: &Path, plugin: &str, cases: &[&str], version: &str) -> BTreeMap<String, Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    command.arg("run").arg("--bin-dir").arg(bin_dir);
    command.args(["--plugin", plugin, "--format", "json"]);
    command.args(["--spec", version]);
    for case in cases {
        command.args(["--filter", case]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{plugin} {cases:?}: {e}: {said}"));
    let assertions = report["assertions"].as_array().unwrap();
    let of = |assertion: &Value| {
        (
            assertion["id"].as_str().unwrap().to_owned(),
            assertion.clone(),
        )
    };
    assertions.iter().map(of).collect()
}

fn case_of(assertion: &str) -> &str {
    let plain = assertion.strip_suffix(".residue");
    plain
        .or(assertion.strip_suffix(".shape"))
        .unwrap_or(assertion)
}

/// A directory like `ours` with one executable replaced by a script.
fn plant(ours: &Path, dir: &Path, broken: &Broken) {
    for entry in fs::read_dir(ours).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != broken.plugin {
            symlink(entry.path(), dir.join(entry.file_name())).unwrap();
        }
    }
    let real = ours.join(broken.plugin);
    let script = format!(
        "real() {{ {}; }}\n{COMMON}{}",
        real.display(),
        broken.script
    );
    testkit::script(&dir.join(broken.plugin), &script);
}

/// Why it was not caught, if it was not.
fn escaped(ours: &Path, broken: &Broken) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    plant(ours, dir.path(), broken);
    let case = case_of(broken.caught);
    let said = judge(dir.path(), broken.plugin, &[case], broken.version);
    match said.get(broken.caught) {
        Some(assertion) if assertion["status"] == "fail" => None,
        Some(assertion) => Some(format!("{}: {assertion}", broken.what)),
        None => Some(format!(
            "{}: nothing is said of {}, only of {:?}",
            broken.what,
            broken.caught,
            said.values().collect::<Vec<_>>()
        )),
    }
}

#[test]
fn each_broken_plugin_is_caught_by_its_case() {
    let ours = testkit::bin_dir();
    let next = AtomicUsize::new(0);
    let escaped: Vec<String> = thread::scope(|scope| {
        let work = || {
            let mut all = Vec::new();
            while let Some(broken) = BROKEN.get(next.fetch_add(1, Ordering::Relaxed)) {
                all.extend(escaped(&ours, broken));
            }
            all
        };
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended = running.into_iter().map(|one| one.join().unwrap());
        ended.flatten().collect()
    });
    assert!(escaped.is_empty(), "not caught:\n{}", escaped.join("\n"));
}

#[test]
fn what_is_not_broken_passes_those_cases() {
    let ours = testkit::bin_dir();
    let mut groups: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for broken in &BROKEN {
        let group = groups.entry((broken.plugin, broken.version)).or_default();
        group.insert(broken.caught);
    }
    let mut wrong = Vec::new();
    for ((plugin, version), caught) in groups {
        let cases: BTreeSet<&str> = caught.iter().map(|id| case_of(id)).collect();
        let cases = Vec::from_iter(cases);
        let said = judge(&ours, plugin, &cases, version);
        for id in caught {
            match said.get(id) {
                Some(assertion) if assertion["status"] == "pass" => {}
                other => wrong.push(format!("{plugin} {id}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
