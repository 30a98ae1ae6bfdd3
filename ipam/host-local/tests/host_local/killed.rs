//! Killed anywhere, by SIGKILL: no undo runs, and what is left must still be right.
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bed::{Bed, OURS, THEIRS, addresses};

const DUAL: &str = r#"{"ranges": [[{"subnet": "10.1.2.0/28"}], [{"subnet": "fd00::/124"}]]}"#;

fn dual() -> Bed {
    Bed::new(serde_json::from_str(DUAL).unwrap())
}

/// A system call to be killed at: the `nth` of this name.
struct Point {
    name: String,
    nth: usize,
}

fn strace(bed: &Bed, verb: &str, id: &str, args: &[&str]) -> std::process::Output {
    let plain = bed.call(OURS, verb, id).command();
    let mut traced = Command::new("strace");
    traced
        .env_clear()
        .envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
    traced.args(["-qq", "-s", "0"]).args(args).arg(OURS);
    traced
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = traced.spawn().expect("strace");
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(bed.config().to_string().as_bytes());
    child.wait_with_output().unwrap()
}

/// The system calls of a verb, in order, without the program's start.
fn points(bed: &Bed, verb: &str, id: &str) -> Vec<Point> {
    let log = bed.dir().with_file_name("strace");
    let out = strace(bed, verb, id, &["-o", log.to_str().unwrap()]);
    assert!(out.status.success(), "{out:?}");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let log = fs::read_to_string(log).unwrap();
    let mut points: Vec<Point> = log
        .lines()
        .filter_map(|line| {
            let (name, _) = line.split_once('(')?;
            let nth = seen.entry(name.to_owned()).or_default();
            *nth += 1;
            Some(Point {
                name: name.to_owned(),
                nth: *nth,
            })
        })
        .collect();
    let start = log
        .lines()
        .position(|line| line.contains("/n\"") || line.contains("boot_id"))
        .unwrap();
    points.drain(..start);
    points
}

/// Runs a verb and kills it at that point, before the system call does anything.
fn run_killed(bed: &Bed, verb: &str, id: &str, at: &Point) {
    let inject = format!("inject={}:signal=KILL:when={}", at.name, at.nth);
    let out = strace(bed, verb, id, &["-o", "/dev/null", "-e", &inject]);
    assert!(!out.status.success(), "{inject}: {out:?}");
}

/// Every reservation is whole and belongs to somebody of `allowed`.
fn assert_sound(bed: &Bed, allowed: &[&str], at: &str) {
    for (ip, content) in bed.reservations() {
        let owner = content
            .strip_suffix("\r\neth0")
            .unwrap_or_else(|| panic!("{at}: {ip} is torn: {content:?}"));
        assert!(allowed.contains(&owner), "{at}: {ip} is {owner}'s");
    }
    // What the reference would take for a reservation.
    for entry in fs::read_dir(bed.dir().join(".podwire"))
        .into_iter()
        .flatten()
    {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap_or_default();
        assert!(!content.ends_with(b"\r\neth0"), "{at}: {}", path.display());
    }
}

/// At each of its system calls: ADD, then what a runtime does, DEL (or GC), and ADD again.
#[test]
fn add_killed_at_every_system_call() {
    for fresh in [true, false] {
        let bed = dual();
        let reset = || {
            if fresh {
                let _ = fs::remove_dir_all(bed.dir());
            } else if bed.reservations().is_empty() {
                bed.add(OURS, "other");
            }
        };
        reset();
        let points = points(&bed, "ADD", "a");
        bed.del(OURS, "a");
        assert!(points.len() > 50, "{}", points.len());
        for (n, point) in points.iter().enumerate() {
            let at = format!("fresh {fresh}, {} {}", point.name, point.nth);
            reset();
            run_killed(&bed, "ADD", "a", point);
            assert_sound(&bed, &["a", "other"], &at);
            if n % 2 == 0 {
                // The runtime has forgotten it.
                let mut gc = bed.config();
                gc["cniVersion"] = json!("1.1.0");
                gc["cni.dev/valid-attachments"] =
                    json!([{"containerID": "other", "ifname": "eth0"}]);
                bed.call(OURS, "GC", "").stdin(gc.to_string()).ok();
            } else {
                bed.del(OURS, "a");
            }
            let left = bed.reservations();
            assert_eq!(left.len(), if fresh { 0 } else { 2 }, "{at}: {left:?}");
            assert_eq!(bed.add(OURS, "b").len(), 2, "{at}");
            bed.call(OURS, "CHECK", "b").ok();
            bed.del(OURS, "b");
        }
    }
}

#[test]
fn del_killed_at_every_system_call() {
    let bed = dual();
    bed.add(OURS, "other");
    bed.add(OURS, "a");
    let points = points(&bed, "DEL", "a");
    assert!(points.len() > 30, "{}", points.len());
    for point in &points {
        let at = format!("{} {}", point.name, point.nth);
        bed.add(OURS, "a");
        run_killed(&bed, "DEL", "a", point);
        assert_sound(&bed, &["a", "other"], &at);
        bed.del(OURS, "a");
        assert_eq!(bed.reservations().len(), 2, "{at}");
        bed.call(OURS, "CHECK", "other").ok();
    }
}

/// Many at once, half of them shot at a random moment, some of them the reference's.
#[test]
fn shot_at_random_among_others() {
    let bed = Bed::new(json!({"subnet": "10.1.2.0/25"}));
    let holders: Mutex<BTreeMap<String, String>> = Mutex::default();
    let until = Instant::now() + Duration::from_secs(4);
    thread::scope(|scope| {
        for worker in 0..10u64 {
            let (bed, holders) = (&bed, &holders);
            scope.spawn(move || {
                let mut random = worker + 1;
                let mut below = |n: u64| {
                    // xorshift64
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % n
                };
                for n in 0.. {
                    if Instant::now() > until {
                        break;
                    }
                    let id = format!("w{worker}n{n}");
                    let shoot = |verb: &str, after_us: Option<u64>| {
                        let mut child = bed.call(OURS, verb, &id).command().spawn().unwrap();
                        let _ = child
                            .stdin
                            .take()
                            .unwrap()
                            .write_all(bed.config().to_string().as_bytes());
                        if let Some(us) = after_us {
                            thread::sleep(Duration::from_micros(us));
                            let _ = child.kill();
                        }
                        child.wait_with_output().unwrap()
                    };
                    let shot = (below(2) == 0).then(|| below(4000));
                    let out = shoot("ADD", shot);
                    if out.status.success() {
                        let ip = addresses(&serde_json::from_slice(&out.stdout).unwrap()).remove(0);
                        let before = holders.lock().unwrap().insert(ip.clone(), id.clone());
                        assert_eq!(before, None, "{ip} given to {id} too");
                        bed.call(if below(3) == 0 { THEIRS } else { OURS }, "CHECK", &id)
                            .ok();
                        holders.lock().unwrap().remove(&ip);
                    }
                    if below(2) == 0 {
                        let after = below(4000);
                        shoot("DEL", Some(after));
                    }
                    bed.del(if below(4) == 0 { THEIRS } else { OURS }, &id);
                }
            });
        }
    });
    assert_eq!(bed.reservations(), BTreeMap::new());
    // All of them can be had again.
    let again = Bed::config(&bed);
    for n in 0..125 {
        bed.call(OURS, "ADD", &format!("z{n}"))
            .stdin(again.to_string())
            .ok();
    }
    assert_eq!(bed.reservations().len(), 125);
}
