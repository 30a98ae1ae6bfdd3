//! A test in namespaces of its own.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::env;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio, exit};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{alarm, getegid, geteuid, write};

use crate::shell::{TOOLS_PATH, sh};

/// Set in the process that runs the body: which of the test's bodies that is (a test may have several).
const INSIDE: &str = "TESTKIT_INSIDE";
/// No test takes this long, on the slowest machine; a hung one must not hang the run.
const DEADLINE_S: u32 = 900;

/// Runs the body of the calling `#[test]` in a new user, network and mount namespace, as root of that
/// user namespace, and fails the test when it fails there.
///
/// Inside: `lo` is up, `/run` and `/var/lib/cni` are empty and private, mounts do not leak out, and
/// nothing of the machine's own network is visible. Works for root and for an ordinary user alike. Call
/// it as the first thing of a test: what stands before it runs inside, too. What follows it does not.
pub fn in_netns(body: impl FnOnce()) {
    run(Mapping::OwnUser, body);
}

/// Like [`in_netns`] but keeps the machine's user namespace, for real daemons that need it. An ordinary
/// user's run says `testkit: SKIPPED` with the test's name and passes.
pub fn in_netns_as_root(body: impl FnOnce()) {
    if !geteuid().is_root() {
        return skip("it needs root");
    }
    run(Mapping::None, body);
}

thread_local! {
    /// How many bodies this test (each has its thread) has met.
    static BODIES: Cell<u32> = const { Cell::new(0) };
}

/// Says that the calling test cannot run here, in a line that CI collects; the test then returns:
/// `if !kernel_can { return testkit::skip("no VLAN filtering in this kernel"); }`
pub fn skip(why: &str) {
    eprintln!("testkit: SKIPPED {}: {why}", test_name());
}

/// The user namespace a test gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mapping {
    /// A new one, in which the caller is root.
    OwnUser,
    /// The caller's.
    None,
}

/// The one line that proves that the body ran to its end: a filter that matches no test exits 0 too.
fn finished(name: &str) -> String {
    format!("testkit: {name} ran to its end")
}

fn run(mapping: Mapping, body: impl FnOnce()) {
    let name = test_name();
    let index = BODIES.replace(BODIES.get() + 1).to_string();
    if let Ok(wanted) = env::var(INSIDE) {
        if wanted == index {
            furnish();
            body();
            eprintln!("{}", finished(&name));
            exit(0);
        }
        return;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child
        .args([
            "--exact",
            &name,
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(INSIDE, &index)
        .env(crate::bins::RUN, crate::bins::run_id())
        .stdin(Stdio::null());
    let uid_map = format!("0 {} 1", geteuid()).into_bytes();
    let gid_map = format!("0 {} 1", getegid()).into_bytes();
    // SAFETY: between fork and exec of a threaded process only async-signal-safe work is allowed. The
    // closure makes plain system calls on memory allocated before the fork.
    unsafe {
        child.pre_exec(move || leave(mapping, &uid_map, &gid_map).map_err(io::Error::from));
    }
    let output = child
        .output()
        .unwrap_or_else(|e| panic!("{name}: cannot enter new namespaces: {e}"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.contains(&finished(&name)),
        "{name} failed in its namespaces ({})\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
        output.status
    );
    // Captured by libtest, shown on request.
    print!("{stdout}");
    eprint!("{stderr}");
}

/// libtest names the thread after the test.
fn test_name() -> String {
    thread::current()
        .name()
        .expect("called from a #[test]")
        .to_owned()
}

/// Between fork and exec: into the new namespaces.
fn leave(mapping: Mapping, uid_map: &[u8], gid_map: &[u8]) -> nix::Result<()> {
    // An interrupted run takes its tests with it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if mapping == Mapping::None {
        return unshare(namespaces);
    }
    match unshare(namespaces | CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {}
        // Some machines forbid user namespaces. Root does not need one.
        Err(Errno::EPERM | Errno::ENOSPC | Errno::EINVAL) if geteuid().is_root() => {
            return unshare(namespaces);
        }
        Err(e) => return Err(e),
    }
    // Without "deny" an ordinary user may not write the group map (user_namespaces(7)).
    put(c"/proc/self/setgroups", b"deny")?;
    put(c"/proc/self/uid_map", uid_map)?;
    put(c"/proc/self/gid_map", gid_map)
}

fn put(path: &CStr, bytes: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, bytes).map(drop)
}

/// In the new namespaces: private mounts, fresh directories, `lo` up.
fn furnish() {
    alarm::set(DEADLINE_S);
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    tmpfs("/run");
    fs::create_dir("/run/netns").unwrap();
    let cni = Path::new("/var/lib/cni");
    if !cni.is_dir() {
        // Making it for real would leave it behind, and an ordinary user could not.
        tmpfs("/var/lib");
        fs::create_dir(cni).unwrap();
    }
    tmpfs("/var/lib/cni");
    // /sys/class/net shows the namespace that mounted it. Where this is not allowed (a container with
    // parts of /sys masked) tests still work: nothing of ours reads it.
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none);
    sh("ip link set lo up");
}

fn tmpfs(path: &str) {
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=0755"),
    )
    .unwrap_or_else(|e| panic!("tmpfs on {path}: {e}"));
}

/// Where administrators' tools live; an ordinary user's PATH often lacks it.
pub(crate) fn tools_path() -> String {
    match env::var("PATH") {
        Ok(path) => format!("{path}:{TOOLS_PATH}"),
        Err(_) => TOOLS_PATH.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip_json;

    #[test]
    fn the_machine_is_not_visible() {
        in_netns(|| {
            let links = ip_json(&["link"]);
            assert_eq!(links.as_array().unwrap().len(), 1);
            assert_eq!(links[0]["ifname"], "lo");
            assert!(
                links[0]["flags"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|f| f == "UP")
            );
            assert!(geteuid().is_root());
            assert_eq!(fs::read_dir("/var/lib/cni").unwrap().count(), 0);
            fs::write("/run/mine", "x").unwrap();
        });
        assert!(!Path::new("/run/mine").exists());
    }

    #[test]
    fn a_test_may_have_two() {
        in_netns(|| drop(sh("ip link add br0 type bridge")));
        in_netns(|| drop(sh("ip link add br0 type bridge")));
    }

    #[test]
    #[should_panic(expected = "this text reaches the reader")]
    fn a_failing_body_fails_the_test() {
        in_netns(|| panic!("this text reaches the reader"));
    }

    #[test]
    fn a_real_root_keeps_its_user_namespace() {
        in_netns_as_root(|| {
            let map = fs::read_to_string("/proc/self/uid_map").unwrap();
            assert!(map.contains("4294967295"), "{map}");
        });
    }
}
