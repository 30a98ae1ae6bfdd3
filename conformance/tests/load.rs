//! `conformance load`: what a plugin does wrong only now and then, or only a little of, is found and told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "bed/harness.rs"]
mod harness;

use std::fs;
use std::process::{Command, Output};

use harness::told;
use serde_json::Value;

/// Gives each pod an address of its own, and forgets nothing.
const WELL: &str = r#"
case $CNI_COMMAND in ADD)
    echo "{\"cniVersion\": \"1.0.0\", \"ips\": [{\"address\": \"10.0.0.$(( ${CNI_NETNS##*/p} + 1 ))/24\"}]}";;
esac"#;

fn load(script: &str, more: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    testkit::script(&dir.path().join("odd"), script);
    let config = dir.path().join("net.json");
    fs::write(&config, r#"{"type": "odd"}"#).unwrap();
    Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(["load", "--pods", "8", "--parallel", "4", "--rounds", "2"])
        .args(["--format", "json"])
        .arg("--bin-dir")
        .arg(dir.path())
        .arg("--config")
        .arg(config)
        .args(more)
        .output()
        .unwrap()
}

fn count(list: &Value) -> usize {
    list.as_array().unwrap().len()
}

#[test]
fn what_does_everything_right_passes() {
    let output = load(WELL, &[]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told:#}");
    let side = &told["sides"][0];
    for verb in ["add", "del"] {
        assert_eq!(
            (&side[verb]["calls"], &side[verb]["failed"]),
            (&16.into(), &0.into())
        );
        let time = |key: &str| side[verb][key].as_f64().unwrap();
        assert!(time("p50_ms") > 0.0 && time("p50_ms") <= time("p99_ms"));
        assert!(time("p99_ms") <= time("max_ms"));
    }
    assert_eq!(count(&side["residue"]), 0);
}

#[test]
fn calls_that_fail_are_counted_and_told() {
    let broken = format!(
        r#"case $CNI_COMMAND,$CNI_NETNS in ADD,*/p3) echo '{{"code": 11, "msg": "not now"}}'; exit 1;; esac{WELL}"#
    );
    let output = load(&broken, &[]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1));
    let add = &told["sides"][0]["add"];
    assert_eq!(
        (&add["failed"], &add["calls"]),
        (&2.into(), &16.into()),
        "{told:#}"
    );
    let why = add["failures"][0].as_str().unwrap();
    assert!(
        why.contains("ADD of p3") && why.contains("not now"),
        "{why}"
    );
}

#[test]
fn an_address_given_twice_and_what_is_left_over_are_found() {
    let broken = format!(
        "echo x >>/run/left-$CNI_CONTAINERID{}",
        WELL.replace("/p} + 1", "/p} / 2")
    );
    let output = load(&broken, &[]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1));
    let side = &told["sides"][0];
    // Four pairs in each round.
    assert_eq!(count(&side["duplicate_addresses"]), 8, "{told:#}");
    let residue = side["residue"].to_string();
    for pod in 0..8 {
        assert!(
            residue.contains(&format!("/run/left-load-p{pod}")),
            "{residue}"
        );
    }
}

/// The second directory is there for comparison, and interleaved: its own faults fail nobody.
#[test]
fn a_second_directory_is_laid_beside_it() {
    let slow = tempfile::tempdir().unwrap();
    let script = format!("sleep 0.3{WELL}\ntouch /run/left");
    testkit::script(&slow.path().join("odd"), &script);
    let output = load(WELL, &["--against", slow.path().to_str().unwrap()]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told:#}");
    let ratio = told["times_as_long_against"]["add"]["p50"]
        .as_f64()
        .unwrap();
    assert!(ratio > 1.0, "{told:#}");
    assert_eq!(count(&told["sides"]), 2);
}

#[test]
fn what_cannot_be_run_is_told_apart() {
    for (arguments, why) in [
        (&["--plugin", "bridge"][..], "there is no bridge in it"),
        (&["--plugin", "unheard"], "--config"),
        (&["--pods", "0"], "--pods"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_conformance"))
            .args(["load", "--bin-dir"])
            .arg(dir.path())
            .args(arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
}
