//! What the harness's executable says.
#![allow(clippy::unwrap_used)]

use std::process::Output;

use serde_json::Value;

/// What it printed with `--format json`.
pub fn told(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"))
}
