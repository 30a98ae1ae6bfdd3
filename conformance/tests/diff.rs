//! `conformance diff`: from anywhere, with the cases it was built with, and with a directory of one's own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "bed/harness.rs"]
mod harness;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use harness::told;

/// Prints the version it was told.
const ECHO: &str = r#"read -r config; echo "{\"cniVersion\": \"1.0.0\"}""#;

fn plugin(dir: &Path, script: &str) {
    fs::create_dir_all(dir).unwrap();
    testkit::script(&dir.join("loopback"), script);
}

/// Of two scripts under the name `loopback`.
fn diff(against: &str, judged: &str, more: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    plugin(&dir.path().join("a"), against);
    plugin(&dir.path().join("b"), judged);
    let cases = dir.path().join("cases");
    fs::create_dir(&cases).unwrap();
    let put = |name: &str, text: &str| fs::write(cases.join(name), text).unwrap();
    put(
        "differences.json",
        r#"{"everywhere": [{"id": "B1", "paths": ["add/stdout"], "ref": "*1.0.0*", "ours": "*known*"}], "named": []}"#,
    );
    put(
        "own.json",
        r#"[{"name": "own/one", "plugin": "loopback", "versions": ["1.0.0"], "config": {}, "calls": [{"verb": "ADD"}]},
            {"name": "own/two", "plugin": "absent", "config": {}}]"#,
    );
    Command::new(env!("CARGO_BIN_EXE_conformance"))
        .current_dir("/")
        .args(["diff", "--format", "json", "--jobs", "2"])
        .arg("--against")
        .arg(dir.path().join("a"))
        .arg("--bin-dir")
        .arg(dir.path().join("b"))
        .arg("--cases")
        .arg(&cases)
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn what_is_equal_passes_and_what_is_absent_is_told() {
    let output = diff(ECHO, ECHO, &[]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told:#}");
    assert_eq!((&told["cases"], &told["runs"]), (&1.into(), &1.into()));
    assert!(told["facts"].as_u64() > Some(20), "{told:#}");
    assert_eq!(told["plugins_missing"][0], "absent");
}

#[test]
fn a_known_difference_has_its_explanation() {
    let output = diff(ECHO, "echo '\"known\"'", &[]);
    let told = told(&output);
    let known = &told["known"][0];
    assert_eq!(
        (&known["id"], &known["runs"]),
        (&"B1".into(), &1.into()),
        "{told:#}"
    );
    assert!(known["why"].as_str().unwrap().contains("v1.9.1"), "{known}");
}

#[test]
fn what_nobody_explains_fails_with_the_fact_and_both_values() {
    let output = diff(ECHO, &format!("ip link set lo mtu 1400\n{ECHO}"), &[]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told:#}");
    let one = &told["unexplained"][0];
    assert_eq!(
        (&one["case"], &one["fact"]),
        (&"own/one".into(), &"add/host/link/lo/mtu".into())
    );
    assert_eq!(
        (&one["against"], &one["judged"]),
        (&"65536".into(), &"1400".into()),
        "{one}"
    );
}

#[test]
fn a_plugin_that_prints_without_end_is_stopped() {
    let output = diff(ECHO, "while echo x; do :; done", &[]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1));
    let exit = told["unexplained"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["fact"] == "add/exit");
    assert_eq!(exit.unwrap()["judged"], "Flood", "{told:#}");
}

#[test]
fn nothing_to_run_is_no_success() {
    let output = diff(ECHO, ECHO, &["--filter", "nothing/like/it"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("no case to run"), "{stderr}");
}
