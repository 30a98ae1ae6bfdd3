//! The usual tools as oracles, and waiting.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const TOOLS_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// Runs a shell script (`sh -eu`), panics when it fails, returns what it printed.
#[track_caller]
pub fn sh(script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-euc", script]);
    stdout_of(&mut command, script)
}

/// Makes or replaces an executable shell script. By another process: a child that a thread of this one is just starting
/// would hold the file open for writing, and nobody could run it then (ETXTBSY).
#[track_caller]
pub fn script(file: &Path, text: &str) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = install.stdin.take().unwrap();
    write!(stdin, "#!/bin/sh\n{text}\n").unwrap();
    drop(stdin);
    let status = install.wait().unwrap();
    assert!(status.success(), "install {}: {status}", file.display());
}

/// `ip -j ARGS` read as JSON; nothing printed is an empty list.
#[track_caller]
pub fn ip_json(args: &[&str]) -> Value {
    let mut command = Command::new("ip");
    command.arg("-j").args(args);
    json_of(&stdout_of(&mut command, &args.join(" ")))
}

/// Asks again and again, each 2 ms, until `ready` or the deadline; panics then.
#[track_caller]
pub fn eventually(deadline: Duration, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !ready() {
        assert!(
            Instant::now() < end,
            "did not come true within {deadline:?}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process waits for a lock of a file that another holds (`flock`).
pub fn waits_for_a_lock(pid: u32) -> bool {
    let (locks, pid) = (fs::read_to_string("/proc/locks").unwrap(), pid.to_string());
    locks
        .lines()
        .filter(|line| line.contains("-> FLOCK"))
        .any(|line| line.split(' ').any(|word| word == pid))
}

/// The running kernel's version, `(6, 18)`; for tests of what newer ones have.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[track_caller]
pub(crate) fn stdout_of(command: &mut Command, what: &str) -> String {
    let output = command
        .env("PATH", crate::netns::tools_path())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}\n{stdout}{stderr}",
        output.status
    );
    stdout
}

/// `ip -j` prints nothing at all where a list is empty, and an empty object for what a filter hides.
#[track_caller]
pub(crate) fn json_of(text: &str) -> Value {
    if text.trim().is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_str(text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}"))
}
