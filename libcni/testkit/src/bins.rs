//! The workspace's executables, freshly built.

use std::env::{self, consts::ARCH};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use serde_json::Value;

const PROGRAMS: [&str; 4] = ["bridge", "loopback", "host-local", "cnitool"];
/// Where the executables are when someone built them already (`make test` does).
const READY: &str = "TESTKIT_BIN_DIR";
/// Tells the processes of one run of a test binary from those of the next.
pub(crate) const RUN: &str = "TESTKIT_RUN";

/// The directory of this workspace's plugins and `cnitool`, built from the sources as they
/// are (dev profile, same target directory); good as a `CNI_PATH`.
///
/// `TESTKIT_BIN_DIR` in the environment is believed instead. Otherwise cargo is asked once per run of the
/// test binary, under a file lock, since every test of it is a process of its own. `cargo test` holds no
/// lock of cargo's while tests run, so a cargo inside it does not wait for itself.
pub fn bin_dir() -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| match env::var_os(READY) {
        Some(dir) => dir.into(),
        None => build_once(),
    })
    .clone()
}

/// The name of this run, the same in all processes of it.
pub(crate) fn run_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        env::var(RUN).unwrap_or_else(|_| {
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap();
            format!("{}-{}", process::id(), now.as_nanos())
        })
    })
}

fn build_once() -> PathBuf {
    // .../target/debug/deps/libcni-0123456789abcdef
    let exe = env::current_exe().unwrap();
    let profile_dir = exe
        .parent()
        .and_then(Path::parent)
        .expect("a test binary in target/PROFILE/deps");
    let note = profile_dir.join(".testkit-plugins");
    let mut note = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(note)
        .unwrap();
    note.lock().unwrap();
    let dir = match read_note(&mut note) {
        Some(dir) => dir,
        None => {
            let dir = build(profile_dir);
            note.set_len(0).unwrap();
            note.rewind().unwrap();
            write!(note, "{}\n{}", run_id(), dir.display()).unwrap();
            dir
        }
    };
    note.unlock().unwrap();
    dir
}

/// Where another process of this run built them.
fn read_note(note: &mut File) -> Option<PathBuf> {
    let mut text = String::new();
    note.read_to_string(&mut text).unwrap();
    let (run, dir) = text.split_once('\n')?;
    (run == run_id()).then(|| dir.into())
}

fn build(profile_dir: &Path) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // In a test's namespace there is no network; what the plugins need is what the tests needed.
    cargo.args(["build", "--offline", "--message-format=json"]);
    for plugin in PROGRAMS {
        cargo.args(["-p", plugin]);
    }
    cargo.arg("--target-dir").arg(target_dir(profile_dir));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    let output = cargo.output().expect("cargo");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo build of the plugins:\n{stderr}"
    );
    let made: Vec<PathBuf> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect();
    let dir = made
        .first()
        .and_then(|exe| exe.parent())
        .expect("cargo names what it built")
        .to_owned();
    for plugin in PROGRAMS {
        assert!(
            fs::metadata(dir.join(plugin)).is_ok(),
            "{plugin} is not in {}",
            dir.display()
        );
    }
    dir
}

/// Where this very binary was built: target/debug, or target/TRIPLE/debug of a `--target TRIPLE` run.
fn target_dir(profile_dir: &Path) -> &Path {
    let parent = profile_dir
        .parent()
        .expect("a profile's directory is in the target directory");
    let is_triple = |name: &OsStr| name.to_string_lossy().starts_with(&format!("{ARCH}-"));
    match parent.parent() {
        Some(above) if parent.file_name().is_some_and(is_triple) => above,
        _ => parent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_directory_is_found() {
        assert_eq!(
            target_dir(Path::new("/x/target/debug")),
            Path::new("/x/target")
        );
        let triple = format!("/x/target/{ARCH}-unknown-linux-gnu/debug");
        assert_eq!(target_dir(Path::new(&triple)), Path::new("/x/target"));
    }
}
