//! What the file system, a hanging neighbour or an odd directory can do to us.
use std::process::Command;

use testkit::{in_netns, sh};

use super::*;

const SMALL: &str = r#""subnet": "10.1.2.0/29""#; // .2 to .6
const TWO_SETS: &str = r#""ranges": [[{"subnet": "10.1.2.0/29"}], [{"subnet": "fd00::/64"}]]"#;

fn code(error: StoreError) -> (Code, String) {
    let error = CniError::from(error);
    (error.code, error.to_string())
}

#[test]
fn read_only() {
    in_netns(|| {
        let net = Net::new(SMALL);
        net.add("a").unwrap();
        let root = net.root.path().display();
        sh(&format!(
            "mount --bind {root} {root} && mount -o remount,bind,ro {root}"
        ));
        let error = net.add("b").unwrap_err();
        assert_eq!(error.code, Code::Io);
        assert!(
            error.details.starts_with("EROFS: mount it writable"),
            "{error}"
        );
        let (code_, text) = code(net.conf().dir.release(&attachment("a"), || ()).unwrap_err());
        assert_eq!(code_, Code::Io);
        assert!(text.contains("EROFS") && text.contains("/n/"), "{text}");
        assert_eq!(net.held("a"), ["10.1.2.2"]);
        let (code_, text) = code(net.conf().status().unwrap_err());
        assert_eq!(code_, Code::NotAvailable);
        assert!(
            text.contains("not writable") && text.contains("EROFS"),
            "{text}"
        );
        sh(&format!("mount -o remount,bind,rw {root}"));
        assert_eq!(net.add("b").unwrap(), ["10.1.2.3"]);
        assert_eq!(net.del("a"), ["10.1.2.2"]);
        sh(&format!("umount {root}"));
    });
}

#[test]
fn full_disk() {
    in_netns(|| {
        for (options, fill) in [
            (
                "size=512k",
                "dd if=/dev/zero of=$root/filler bs=4k status=none || true",
            ),
            (
                "nr_inodes=16",
                "for i in $(seq 20); do touch $root/filler.$i || true; done",
            ),
        ] {
            for warm in [true, false] {
                let net = Net::new(TWO_SETS);
                let root = net.root.path().display();
                sh(&format!("mount -t tmpfs -o {options} none {root}"));
                let before = if warm { vec!["a"] } else { vec![] };
                for id in &before {
                    net.add(id).unwrap();
                }
                sh(&format!("root={root}; ({fill}) 2>/dev/null"));
                let error = net.add("b").unwrap_err();
                assert_eq!(error.code, Code::Io, "{options}: {error}");
                assert!(
                    error.details.contains("ENOSPC: make room"),
                    "{options}: {error}"
                );
                let (code_, text) = code(net.conf().status().unwrap_err());
                assert_eq!(code_, Code::NotAvailable, "{text}");
                if warm {
                    assert_eq!(net.del("a").len(), 2, "{options}: DEL needs no room");
                }
                sh(&format!("rm {root}/filler*"));
                assert!(net.held("b").is_empty());
                assert_eq!(
                    net.add("b").unwrap().len(),
                    2,
                    "{options}: the next try works"
                );
                net.conf().status().unwrap();
                sh(&format!("umount {root}"));
            }
        }
    });
}

/// At every possible fill of the disk: an ADD either gets everything or leaves nothing.
#[test]
fn disk_filling_up_under_our_hands() {
    in_netns(|| {
        let mut refused = 0;
        for free in 0..40 {
            let net = Net::new(TWO_SETS);
            let root = net.root.path().display();
            sh(&format!("mount -t tmpfs -o size=4m none {root}"));
            net.add("a").unwrap();
            sh(&format!(
                "dd if=/dev/zero of={root}/filler bs=4k status=none 2>/dev/null || true; \
                 truncate -s -{} {root}/filler",
                free * 4096
            ));
            let got = net.add("b");
            let files = net.held("b").len();
            match got {
                Ok(ips) => assert_eq!(ips.len(), files),
                Err(error) => {
                    refused += 1;
                    assert_eq!(
                        (error.code, files),
                        (Code::Io, 0),
                        "{free} pages free: {error}"
                    );
                }
            }
            assert_eq!(net.held("a").len(), 2);
            sh(&format!("umount {root}"));
        }
        assert!((1..40).contains(&refused), "{refused} refused");
    });
}

#[test]
fn a_lock_held_for_ever_is_named() {
    let net = Net::new(SMALL);
    net.add("a").unwrap();
    let lock = net.dir().join("lock");
    let mut holder = Command::new("flock")
        .args(["-x", lock.to_str().unwrap(), "sleep", "60"])
        .spawn()
        .unwrap();
    let file = fs::File::open(&lock).unwrap();
    while file.try_lock().is_ok() {
        file.unlock().unwrap();
        std::thread::yield_now();
    }
    let mut conf = net.conf();
    conf.dir.lock_wait = Duration::from_millis(200);
    for outcome in [
        conf.add(&attachment("b")).map(drop),
        conf.dir.release(&attachment("a"), || ()).map(drop),
        conf.dir.check(&attachment("a")),
        conf.dir.gc(&[], |_| (), || ()).map(drop),
    ] {
        let (code, text) = code(outcome.unwrap_err());
        assert_eq!(code, Code::TryAgain);
        // flock(1) passes the descriptor on to sleep(1), and either may be shown.
        assert!(
            text.contains(&format!("locked by process {} (flock)", holder.id())),
            "{text}"
        );
    }
    conf.status().unwrap(); // takes no lock
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// STATUS is asked often, and must not hang where ADD would wait.
#[test]
fn status_beside_a_held_lock() {
    let net = Net::new(SMALL);
    net.add("a").unwrap();
    fs::remove_dir_all(net.dir().join(".podwire")).unwrap();
    let lock = fs::File::open(net.dir().join("lock")).unwrap();
    lock.lock().unwrap();
    let start = std::time::Instant::now();
    net.conf().status().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// SIGTERM, or the plugin's deadline, ends the wait.
#[test]
fn asked_to_stop_while_waiting() {
    in_netns(|| {
        let net = Net::new(SMALL);
        net.add("a").unwrap();
        let lock = fs::File::open(net.dir().join("lock")).unwrap();
        lock.lock().unwrap();
        let mut conf = net.conf();
        conf.dir.lock_wait = Duration::from_millis(300);
        crate::nl::STOP.store(true, std::sync::atomic::Ordering::Relaxed);
        let (code, text) = code(conf.add(&attachment("b")).unwrap_err());
        assert_eq!(code, Code::TryAgain);
        assert!(text.contains("asked to stop while waiting"), "{text}");
    });
}

/// Where the index is kept, it works; the others are in `is_local`'s list, or go without.
#[test]
fn on_other_file_systems() {
    in_netns(|| {
        sh(
            "mkdir /run/t /run/o && mount -t tmpfs none /run/o && mkdir /run/o/lower /run/o/upper /run/o/work",
        );
        sh("mount -t tmpfs none /run/t");
        let overlay = "mount -t overlay -o userxattr,lowerdir=/run/o/lower,upperdir=/run/o/upper,workdir=/run/o/work none /run/o";
        let mut roots = vec!["/run/t"];
        match Command::new("sh").args(["-c", overlay]).status() {
            Ok(status) if status.success() => roots.push("/run/o"),
            _ => eprintln!("no overlayfs in this kernel: not tested"),
        }
        for root in roots {
            let net = Net::at(tempfile::tempdir_in(root).unwrap(), TWO_SETS);
            for id in ["a", "b", "c"] {
                assert_eq!(net.add(id).unwrap().len(), 2, "{root}");
                assert!(net.index_is_fresh(), "{root}");
            }
            assert_eq!(net.del("b").len(), 2);
            assert!(net.index_is_fresh(), "{root}");
            net.reserve_as_reference("10.1.2.5", "d\r\neth0");
            assert_eq!(net.held("d"), ["10.1.2.5"], "{root}");
            assert_eq!(net.add("e").unwrap()[0], "10.1.2.6", "{root}");
        }
    });
}

#[test]
fn things_in_the_way() {
    let net = Net::new(SMALL);
    // A file where the data directory should be.
    fs::write(net.root.path().join("n"), "").unwrap();
    let error = net.add("a").unwrap_err();
    assert_eq!(error.code, Code::Io);
    assert!(net.del("a").is_empty());
    fs::remove_file(net.root.path().join("n")).unwrap();
    // A file where our own directory should be: without index, but right.
    fs::create_dir(net.dir()).unwrap();
    fs::write(net.dir().join(".podwire"), "mine").unwrap();
    for (id, ip) in [("a", "10.1.2.2"), ("b", "10.1.2.3")] {
        assert_eq!(net.add(id).unwrap(), [ip]);
    }
    assert_eq!(net.del("a"), ["10.1.2.2"]);
    assert_eq!(net.held("b"), ["10.1.2.3"]);
    net.conf().status().unwrap();
    fs::remove_file(net.dir().join(".podwire")).unwrap();
    // A directory where the index should be.
    fs::create_dir_all(net.dir().join(".podwire/index")).unwrap();
    assert_eq!(net.add("c").unwrap(), ["10.1.2.4"]);
    assert_eq!(net.add("d").unwrap(), ["10.1.2.5"]);
    assert_eq!(net.del("b"), ["10.1.2.3"]);
}

/// As an ordinary user in a directory of another.
#[test]
fn no_permission() {
    in_netns(|| {
        let net = Net::new(SMALL);
        net.add("a").unwrap();
        fs::set_permissions(net.dir(), fs::Permissions::from_mode(0o555)).unwrap();
        // Inside the test's user namespace root may do all to its own files; drop what lets it.
        let dropped = std::thread::spawn(move || {
            drop_dac_override();
            let error = net.add("b").unwrap_err();
            let (code_, text) = code(net.conf().status().unwrap_err());
            (error, code_, text, net)
        });
        let (error, code_, text, _net) = dropped.join().unwrap();
        assert_eq!((error.code, code_), (Code::Io, Code::NotAvailable));
        assert!(
            error.details.starts_with("EACCES: run as the owner"),
            "{error}"
        );
        assert!(text.contains("not writable"), "{text}");
    });
}

/// Takes CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from this thread.
#[allow(unsafe_code)]
fn drop_dac_override() {
    let mut header = [0x2008_0522u32, 0]; // _LINUX_CAPABILITY_VERSION_3, this thread
    let mut data = [0u32; 6];
    // SAFETY: capget(2) and capset(2) with buffers of the version's size.
    unsafe {
        assert_eq!(
            nix::libc::syscall(
                nix::libc::SYS_capget,
                header.as_mut_ptr(),
                data.as_mut_ptr()
            ),
            0
        );
        data[0] &= !0b110; // effective, low word: bits 1 and 2
        assert_eq!(
            nix::libc::syscall(nix::libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()),
            0
        );
    }
}
