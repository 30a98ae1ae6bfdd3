//! Our own plugins, judged by our own harness. `make conformance` judges them in all versions and by every crash.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Every MUST and SHOULD of the version that has all verbs.
#[test]
fn ours_conform() {
    let output = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(["run", "--strict", "--spec", "1.1.0", "--bin-dir"])
        .arg(testkit::bin_dir())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{report}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let cases = report
        .split_once(" cases")
        .and_then(|(before, _)| before.rsplit(' ').next()?.parse::<u32>().ok());
    // None is left out unnoticed.
    assert!(cases.is_some_and(|n| n >= 400), "{report}");
}
