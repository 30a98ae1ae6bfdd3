//! The bench itself: its floor does the work it is compared for, its verdict reaches the exit code, and nothing of it
//! stays behind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // Also in the functions that tests share.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::{Pod, in_netns, ip_json, sh};

fn floor(verb: &str, pod: &Pod, index: u64) -> bool {
    Command::new(env!("CARGO_BIN_EXE_floor"))
        .envs([
            ("CNI_COMMAND", verb),
            ("CNI_NETNS", pod.netns()),
            ("CNI_IFNAME", "eth0"),
        ])
        .envs([
            ("FLOOR_HOST_NAME", "host0"),
            ("FLOOR_BRIDGE_INDEX", &index.to_string()),
        ])
        .envs([
            ("FLOOR_ADDRESS", "10.9.0.2/16"),
            ("FLOOR_GATEWAY", "10.9.0.1"),
        ])
        .status()
        .unwrap()
        .success()
}

#[test]
fn the_floor_connects_a_pod() {
    in_netns(|| {
        sh("ip link add br0 type bridge; ip link set br0 up; ip address add 10.9.0.1/16 dev br0");
        let index = ip_json(&["link", "show", "br0"])[0]["ifindex"]
            .as_u64()
            .unwrap();
        let pod = Pod::new("pod");

        assert!(floor("ADD", &pod, index));
        assert_eq!(
            ip_json(&["link", "show", "master", "br0"])[0]["ifname"],
            "host0"
        );
        assert_eq!(
            pod.ip_json(&["route", "show", "default"])[0]["gateway"],
            "10.9.0.1"
        );
        sh("ping -c 1 -W 5 10.9.0.2");
        assert!(
            !floor("ADD", &pod, index),
            "a second ADD must not pass for a fast one"
        );

        assert!(floor("DEL", &pod, index));
        assert_eq!(
            ip_json(&["link", "show", "master", "br0"])
                .as_array()
                .map(Vec::len),
            Some(0)
        );
        assert!(!floor("DEL", &pod, index));
    });
}

/// Plugins that do nothing but say so, in a directory of their own.
fn plugins(script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bridge", "host-local", "loopback"] {
        testkit::script(&dir.path().join(name), script);
    }
    dir
}

fn bench(bin_dir: &Path, work_dir: &Path, more: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--quick", "--reference-dir", "/nonexistent", "--bin-dir"])
        .arg(bin_dir)
        .arg("--work-dir")
        .arg(work_dir)
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn a_failing_plugin_fails_the_run_and_leaves_nothing() {
    let work = tempfile::tempdir().unwrap();
    let plugins = plugins("echo no luck today\nexit 1\n");
    let output = bench(plugins.path(), work.path(), &["--only", "sequential"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no luck today"), "{said}");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
}

#[test]
fn check_fails_when_there_is_nothing_to_judge() {
    let work = tempfile::tempdir().unwrap();
    for (more, code) in [
        (["--only", "footprint"].as_slice(), 0),
        (&["--only", "footprint", "--check"], 1),
    ] {
        let output = bench("/nonexistent".as_ref(), work.path(), more);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("not measured"));
    }
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
}
