//! The machine goes down and comes up again.
use std::fs::FileTimes;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use proptest::prelude::*;
use testkit::{Pod, in_netns};

use super::*;

const SMALL: &str = r#""subnet": "10.1.2.0/29""#; // .2 to .6

/// kubernetes/kubernetes#57280 and a dozen more: the node's pool fills up with pods of boots long gone.
#[test]
fn a_full_range_is_free_after_a_reboot() {
    in_netns(|| {
        let net = Net::new(SMALL);
        for boot in 0..5 {
            net.reboot(boot);
            for id in ["a", "b", "c", "d", "e"] {
                net.add(id).unwrap();
            }
            net.add("f").unwrap_err();
        }
        net.reboot(9);
        assert_eq!(net.held("a").len(), 1); // CHECK changes nothing
        assert_eq!(net.add("f").unwrap().len(), 1);
        assert_eq!(net.files().len(), 4, "one reservation, cursor, lock, index");
    });
}

/// If STATUS called the pool exhausted, no ADD would ever come to clear it.
#[test]
fn status_after_a_reboot() {
    in_netns(|| {
        let net = Net::new(SMALL);
        net.reboot(1);
        for id in ["a", "b", "c", "d", "e"] {
            net.add(id).unwrap();
        }
        net.conf().status().unwrap_err();
        net.reboot(2);
        net.conf().status().unwrap();
        assert_eq!(net.files(), [".podwire", "last_reserved_ip.0", "lock"]);
        assert!(!net.conf().add(&attachment("f")).unwrap().reused);
    });
}

#[test]
fn what_is_of_this_boot_stays() {
    in_netns(|| {
        let net = Net::new(SMALL);
        net.reboot(1);
        net.add("a").unwrap();
        net.add("b").unwrap();
        net.reboot(2);
        // Before we come to work in this boot, the reference did: gave b's address to another pod, and a new
        // one to c, at a time that a clock without battery says is long past.
        fs::remove_file(net.dir().join("10.1.2.3")).unwrap();
        net.reserve_as_reference("10.1.2.3", "b\r\neth0");
        net.reserve_as_reference("10.1.2.5", "c\r\neth0");
        let long_ago = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        for ip in ["10.1.2.3", "10.1.2.5"] {
            fs::File::open(net.dir().join(ip))
                .unwrap()
                .set_times(long_ago)
                .unwrap();
        }
        net.add("d").unwrap();
        assert!(net.held("a").is_empty());
        assert_eq!(net.held("b"), ["10.1.2.3"]);
        assert_eq!(net.held("c"), ["10.1.2.5"]);
        // In the next boot they are of an earlier one.
        net.reboot(3);
        net.add("e").unwrap();
        for id in ["b", "c", "d"] {
            assert!(net.held(id).is_empty(), "{id}");
        }
    });
}

#[test]
fn an_address_in_use_stays() {
    in_netns(|| {
        let net = Net::new(SMALL);
        net.reboot(1);
        for id in ["a", "b", "c", "d"] {
            net.add(id).unwrap();
        }
        let pod = Pod::new("of b");
        pod.sh("ip link set lo up; ip addr add 10.1.2.3/29 dev lo");
        let before = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        // And one that only a process holds.
        let mut unpinned = std::process::Command::new("unshare")
            .args([
                "-n",
                "sh",
                "-c",
                "ip link set lo up; ip addr add 10.1.2.4/29 dev lo; echo up; exec sleep 60",
            ])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(unpinned.stdout.take().unwrap()),
            &mut up,
        )
        .unwrap();
        assert_eq!(up, "up\n");
        net.reboot(2);
        net.del("nobody");
        assert_eq!(
            fs::metadata("/proc/thread-self/ns/net").unwrap().ino(),
            before,
            "back home"
        );
        assert_eq!(net.held("b"), ["10.1.2.3"]);
        assert_eq!(net.held("c"), ["10.1.2.4"]);
        assert!(net.held("a").is_empty() && net.held("d").is_empty());
        unpinned.kill().unwrap();
        unpinned.wait().unwrap();
    });
}

#[test]
fn without_a_boot_id_nothing_is_concluded() {
    in_netns(|| {
        let net = Net::new(SMALL);
        net.reboot(1);
        net.add("a").unwrap();
        fs::write(net.root.path().join("boot_id"), "\n").unwrap();
        assert_eq!(net.add("b").unwrap(), ["10.1.2.3"]);
        assert_eq!(net.held("a"), ["10.1.2.2"]);
        // The index of boot 1 is still there, and still a proof.
        net.reboot(2);
        net.add("c").unwrap();
        assert!(net.held("a").is_empty());
        assert_eq!(net.held("b"), ["10.1.2.3"]);
    });
}

#[test]
fn reused_starts_anew_with_the_boot() {
    in_netns(|| {
        let net = Net::new(SMALL);
        let reused = |id: &str| net.conf().add(&attachment(id)).unwrap().reused;
        net.reboot(1);
        for id in ["a", "b", "c", "d", "e"] {
            assert!(!reused(id));
            net.del(id);
        }
        assert!(reused("f"));
        net.reboot(2);
        assert!(!reused("g"));
        net.reboot(3);
        net.reserve_as_reference("10.9.9.9", "x\r\neth0");
        assert!(reused("h"), "somebody was here before us");
    });
}

/// A power loss leaves any bytes in the index. It may prove less then, never more.
#[test]
fn a_torn_index_of_an_earlier_boot() {
    in_netns(|| {
        let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2000);
        proptest!(ProptestConfig::with_cases(48), |(damage in damage, cut in any::<prop::sample::Index>(), short in any::<bool>())| {
            let net = Net::new(SMALL);
            net.reboot(1);
            for id in ["a", "b", "c"] {
                net.add(id).unwrap();
            }
            let path = net.dir().join(".podwire/index");
            let mut bytes = fs::read(&path).unwrap();
            // Most of the file is empty; damage where something is.
            let used: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] != 0 || i % 512 == 7).collect();
            for (at, by) in damage {
                bytes[used[at.index(used.len())]] = by;
            }
            if short {
                bytes.truncate(cut.index(bytes.len()));
            }
            fs::write(&path, &bytes).unwrap();
            net.reboot(2);
            net.reserve_as_reference("10.1.2.6", "new\r\neth0");
            net.add("d").unwrap();
            prop_assert_eq!(net.held("new"), ["10.1.2.6"]);
            prop_assert_eq!(net.held("d").len(), 1);
            net.del("d");
            prop_assert!(net.held("d").is_empty());
            prop_assert!(net.index_is_fresh());
        });
    });
}
