//! Namespaces of the test's own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use testkit::{Pod, in_netns};

use super::*;
use crate::kernel::link;

fn current() -> PathBuf {
    fs::read_link("/proc/thread-self/ns/net").unwrap()
}

#[test]
fn a_visit_ends_at_home() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let netns = Netns::open(pod.path()).unwrap();
        let home = current();
        let there = netns.enter(current).unwrap();
        assert_ne!(there, home);
        assert_eq!(current(), home);
        assert_eq!(there, pod.run(current));
        assert!(!netns.is_current());
        assert!(
            Netns::open(Path::new("/proc/self/ns/net"))
                .unwrap()
                .is_current()
        );
        let inode = there
            .to_str()
            .unwrap()
            .trim_start_matches("net:[")
            .trim_end_matches(']')
            .to_owned();
        assert_eq!(netns.id().unwrap().1.to_string(), inode);
        assert_eq!(netns.path(), pod.path());
    });
}

#[test]
fn home_is_found_by_a_socket_and_by_path_alike() {
    in_netns(|| {
        let by_socket = netns_of(&Socket::open(ROUTE).unwrap()).unwrap();
        let by_path = File::open("/proc/thread-self/ns/net").unwrap();
        assert_eq!(inode(&by_socket).unwrap(), inode(&by_path).unwrap());
    });
}

#[test]
fn the_home_socket_is_at_home_and_given_once() {
    in_netns(|| {
        let pod = Pod::new("pod");
        testkit::sh("ip link add br-home type bridge");
        let netns = Netns::open(pod.path()).unwrap();
        let mut sock = netns.enter(|| netns.take_home_socket()).unwrap().unwrap();
        assert!(link::get(&mut sock, "br-home").unwrap().is_some());
        assert!(netns.take_home_socket().is_none());
    });
}

#[test]
fn a_panic_ends_at_home_too() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let netns = Netns::open(pod.path()).unwrap();
        let home = current();
        let outcome = catch_unwind(AssertUnwindSafe(|| netns.enter(|| panic!("in the pod"))));
        assert_eq!(
            *outcome.unwrap_err().downcast::<&str>().unwrap(),
            "in the pod"
        );
        assert_eq!(current(), home);
    });
}

/// Hooks run where the panic happened, also in programs that do not unwind.
#[test]
fn a_panic_hook_can_come_home() {
    in_netns(|| {
        static SEEN: std::sync::Mutex<Vec<PathBuf>> = std::sync::Mutex::new(Vec::new());
        let (one, two) = (Pod::new("one"), Pod::new("two"));
        let home = current();
        let outer = Netns::open(one.path()).unwrap();
        come_home().unwrap();
        let old = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {
            let mut seen = SEEN.lock().unwrap();
            seen.push(current());
            come_home().unwrap();
            seen.push(current());
        }));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            outer.enter(|| {
                Netns::open(two.path())
                    .unwrap()
                    .enter(|| panic!("in the second pod"))
            })
        }));
        std::panic::set_hook(old);
        assert!(outcome.is_err());
        assert_eq!(*SEEN.lock().unwrap(), [two.run(current), home.clone()]);
        assert_eq!(current(), home);
    });
}

#[test]
fn visits_may_nest() {
    in_netns(|| {
        let (one, two) = (Pod::new("one"), Pod::new("two"));
        let netns = Netns::open(one.path()).unwrap();
        let home = current();
        let inner = netns.enter(|| {
            let here = current();
            let there = Netns::open(two.path()).unwrap().enter(current).unwrap();
            assert_eq!(current(), here);
            there
        });
        assert_eq!(inner.unwrap(), two.run(current));
        assert_eq!(current(), home);
    });
}

#[test]
fn what_is_not_there_is_missing() {
    in_netns(|| {
        for path in [
            "",
            "/run/netns/nosuch",
            "/run/netns/no/such",
            "/proc/1234567/ns/net",
        ] {
            let error = Netns::open(Path::new(path)).unwrap_err();
            assert!(matches!(error, NetnsError::Missing { .. }), "{error:?}");
            assert_eq!(CniError::from(error).code, Code::InvalidNetns);
        }
        fs::write("/run/netns/file", "").unwrap();
        let below = Netns::open(Path::new("/run/netns/file/below")).unwrap_err();
        assert!(
            matches!(below, NetnsError::Missing { .. }),
            "ENOTDIR: {below:?}"
        );
    });
}

#[test]
fn what_is_something_else_is_named() {
    in_netns(|| {
        fs::write("/run/netns/file", "").unwrap();
        let error = Netns::open(Path::new("/run/netns/file")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown FS magic on \"/run/netns/file\": 1021994"
        );
        assert!(matches!(
            error,
            NetnsError::NotNetns {
                magic: 0x0102_1994,
                ..
            }
        ));
        // On procfs like the real thing, and no namespace: found when entering.
        let error = Netns::open(Path::new("/proc/self/status"))
            .unwrap()
            .enter(|| ())
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("enter \"/proc/self/status\": "),
            "{error}"
        );
        // The namespace of a process that is gone, through a path that is not.
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .arg0("sleep")
            .spawn()
            .unwrap();
        let path = format!("/proc/{}/ns/net", child.id());
        assert!(Netns::open(Path::new(&path)).unwrap().is_current());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(
            Netns::open(Path::new(&path)),
            Err(NetnsError::Missing { .. })
        ));
    });
}
