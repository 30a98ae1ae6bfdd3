//! Beside the reference's executable: the same answers, the same files, one directory for both.
use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};

use crate::bed::{Bed, OURS, THEIRS, addresses};

/// One ipam section and the further keys of its config.
fn configs() -> Vec<(Value, Value)> {
    let v4 = "10.1.2.0/24";
    let sets = |sets: Value| json!({ "ranges": sets });
    let plain = |ipam: Value| (ipam, json!({}));
    vec![
        plain(json!({"subnet": v4})),
        plain(json!({"SUBNET": v4, "Gateway": "10.1.2.254", "routes": [{"dst": "0.0.0.0/0"}]})),
        plain(json!({"subnet": v4, "rangeStart": "10.1.2.0", "rangeEnd": "10.1.2.3"})),
        plain(json!({"subnet": v4, "rangeStart": "10.1.2.7", "rangeEnd": "10.1.2.7"})),
        plain(json!({"subnet": "10.1.2.0/30"})),
        plain(json!({"subnet": "10.1.2.0/29", "gateway": "10.9.9.9"})),
        plain(
            json!({"subnet": v4, "routes": [{"dst": "192.0.2.9/24", "gw": "10.1.2.8"}, {"dst": "::/0"}]}),
        ),
        plain(sets(json!([[{"subnet": v4}], [{"subnet": "fd00:1::/64"}]]))),
        plain(sets(json!([[{"subnet": "fd00:0:0:1::/126"}]]))),
        plain(sets(
            json!([[{"subnet": "FD00:0::/120", "rangeStart": "fd00::fe"}]]),
        )),
        plain(sets(
            json!([[{"subnet": v4, "rangeEnd": "10.1.2.2"}, {"subnet": "10.1.3.0/24", "rangeEnd": "10.1.3.3"}]]),
        )),
        plain(
            json!({"subnet": v4, "ranges": [[{"subnet": "fd00::/64", "gateway": ""}]], "routes": null}),
        ),
        (
            json!({"subnet": v4}),
            json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/16"}]]}}),
        ),
        (
            json!({"subnet": v4}),
            json!({"runtimeConfig": {"ips": ["10.1.2.77/24"]}}),
        ),
        (
            json!({"subnet": v4}),
            json!({"args": {"cni": {"ips": ["10.1.2.78"]}}}),
        ),
        (
            json!({"subnet": v4}),
            json!({"runtimeConfig": {"ips": ["10.1.2.1"]}}),
        ),
        (
            json!({"subnet": v4}),
            json!({"runtimeConfig": {"ips": ["192.0.2.1"]}}),
        ),
        (
            sets(json!([[{"subnet": v4}], [{"subnet": "fd00::/64"}]])),
            json!({"runtimeConfig": {"ips": ["fd00::7"]}}),
        ),
        // Refused.
        plain(json!({})),
        plain(sets(json!([]))),
        plain(sets(json!([[]]))),
        plain(sets(json!([[{}]]))),
        plain(json!({"rangeStart": "10.1.2.3"})),
        plain(json!({"subnet": "10.1.2.0/31"})),
        plain(json!({"subnet": "10.1.2.3/24"})),
        plain(json!({"subnet": v4, "rangeStart": "10.1.3.3"})),
        plain(json!({"subnet": v4, "rangeEnd": "10.1.3.3"})),
        plain(json!({"subnet": v4, "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"})),
        plain(json!({"subnet": v4, "rangeStart": "fd00::1"})),
        plain(sets(json!([[{"subnet": v4}, {"subnet": "fd00::/64"}]]))),
        plain(sets(json!([[{"subnet": v4}, {"subnet": "10.1.0.0/16"}]]))),
        plain(sets(json!([[{"subnet": v4}], [{"subnet": "10.1.0.0/16"}]]))),
        plain(sets(json!([[{"subnet": v4}], [{"subnet": "10.1.3.0/24"}]]))),
    ]
}

/// What is done to each. A second ADD with a requested address is left out: the reference takes it.
const STEPS: [(&str, &str, &str); 18] = [
    ("ADD", "a", ""),
    ("ADD", "b", ""),
    ("CHECK", "a", ""),
    ("CHECK", "nobody", ""),
    ("DEL", "nobody", ""),
    ("ADD", "c", "IP=10.1.2.99"),
    ("ADD", "d", "IP=10.1.2.99;IgnoreUnknown=1;FOO=bar"),
    ("ADD", "d", "IP="),
    ("ADD", "e", ""),
    ("DEL", "a", ""),
    ("DEL", "a", ""),
    ("CHECK", "a", ""),
    ("ADD", "a", ""),
    ("ADD", "f", ""),
    ("DEL", "b", ""),
    ("ADD", "g", ""),
    ("DEL", "c", "IP=10.1.2.99"),
    ("ADD", "b", ""),
];

/// What a call answered, as far as it must be the same: exit, Result, or the error's text.
fn answer(out: &testkit::Output) -> (bool, String) {
    let success = out.status.success();
    let Ok(mut value) = serde_json::from_str::<Value>(&out.stdout) else {
        return (success, out.stdout.clone());
    };
    if !success {
        return (false, value["msg"].as_str().unwrap_or_default().to_owned());
    }
    if value["cniVersion"] == "1.0.0" {
        // Since 1.2.0 the reference sorts the keys and leaves an empty `dns` out, which Debian's does not.
        if value["dns"] == json!({}) {
            value.as_object_mut().unwrap().remove("dns");
        }
        return (true, value.to_string());
    }
    (true, out.stdout.clone())
}

#[test]
fn same_answers_and_same_files() {
    let configs = configs();
    thread::scope(|scope| {
        for half in configs.chunks(configs.len().div_ceil(2)) {
            scope.spawn(|| half.iter().for_each(|(ipam, rest)| compare(ipam, rest)));
        }
    });
}

fn compare(ipam: &Value, rest: &Value) {
    for version in ["0.2.0", "0.4.0", "1.0.0"] {
        let [ours, theirs] =
            [(); 2].map(|()| Bed::new(ipam.clone()).with(rest.clone()).version(version));
        for (verb, id, args) in STEPS {
            if args.contains("IP=1") && rest.to_string().contains("\"ips\"") {
                continue; // two for one set: theirs takes one at random
            }
            let [mine, other] = [(&ours, OURS), (&theirs, THEIRS)]
                .map(|(bed, program)| bed.call(program, verb, id).args(args).run());
            let at = format!("{verb} {id} {args:?}, {version}: {ipam} {rest}");
            if verb == "DEL" && !other.status.success() {
                // Theirs refuses to free under a config it would not allocate under.
                assert!(mine.status.success(), "{at}");
            } else {
                assert_eq!(answer(&mine), answer(&other), "{at}");
            }
            let (mine, mut other) = (ours.files(), theirs.files());
            if mine.is_empty() {
                other.remove("lock"); // made by whatever verb
            }
            assert_eq!(mine, other, "{at}");
        }
    }
}

/// ADD by one, CHECK and DEL by the other, with the other one's ADDs in between.
#[test]
fn each_continues_the_others_work() {
    let bed =
        Bed::new(json!({"ranges": [[{"subnet": "10.1.2.0/28"}], [{"subnet": "fd00::/124"}]]}));
    let programs = [OURS, THEIRS];
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = 1;
    for n in 0..60 {
        let (one, other) = (programs[n % 2], programs[(n / 3) % 2]);
        let id = format!("c{n}");
        let got = bed.add(one, &id);
        // The lap goes on whoever gives: .2 to .14, and again.
        let wanted = (1..).map(|i| (last + i - 1) % 14 + 1).find(|host| {
            *host != 1 && !held.values().any(|ips| ips[0] == format!("10.1.2.{host}"))
        });
        last = wanted.unwrap();
        assert_eq!(got[0], format!("10.1.2.{last}"), "{n}");
        held.insert(id.clone(), got);
        bed.call(other, "CHECK", &id).ok();
        if held.len() == 13 {
            assert!(!bed.call(one, "ADD", "one-too-many").run().status.success());
            for id in held
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .into_iter()
                .step_by(2)
            {
                bed.del(other, &id);
                bed.call(one, "CHECK", &id).err();
                held.remove(&id);
            }
        }
    }
    let files = bed.reservations();
    let wanted = held.iter().flat_map(|(id, ips)| {
        ips.iter()
            .map(move |ip| (ip.clone(), format!("{id}\r\neth0")))
    });
    assert_eq!(files, wanted.collect());
}

/// Nothing lost, nothing doubled, whoever runs beside whom.
#[test]
fn both_at_once() {
    let bed =
        Bed::new(json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/120"}]]}));
    let holders: Mutex<BTreeMap<String, String>> = Mutex::default();
    thread::scope(|scope| {
        for worker in 0..8usize {
            let (bed, holders) = (&bed, &holders);
            scope.spawn(move || {
                let program = |n: usize| {
                    if (worker + n).is_multiple_of(2) {
                        OURS
                    } else {
                        THEIRS
                    }
                };
                let mut live: Vec<(String, Vec<String>)> = Vec::new();
                for n in 0..25 {
                    let id = format!("w{worker}n{n}");
                    let got = bed.add(program(n), &id);
                    assert_eq!(got.len(), 2);
                    for ip in &got {
                        let before = holders.lock().unwrap().insert(ip.clone(), id.clone());
                        assert_eq!(before, None, "{ip} given to {id} too");
                    }
                    bed.call(program(n + 1), "CHECK", &id).ok();
                    live.push((id, got));
                    if n % 3 == 2 {
                        let (id, ips) = live.remove(n % live.len());
                        ips.iter()
                            .for_each(|ip| drop(holders.lock().unwrap().remove(ip)));
                        bed.del(program(n / 3), &id);
                    }
                }
            });
        }
    });
    let wanted: BTreeMap<String, String> = holders
        .into_inner()
        .unwrap()
        .into_iter()
        .map(|(ip, id)| (ip, format!("{id}\r\neth0")))
        .collect();
    assert_eq!(bed.reservations(), wanted);
    let ids: std::collections::BTreeSet<_> = wanted.into_values().collect();
    thread::scope(|scope| {
        for (n, content) in ids.iter().enumerate() {
            let bed = &bed;
            let id = content.split('\r').next().unwrap();
            scope.spawn(move || bed.del(if n % 2 == 0 { OURS } else { THEIRS }, id));
        }
    });
    assert!(bed.reservations().is_empty());
}

/// The reference reads every file below the directory; none of ours may look like a reservation.
#[test]
fn the_reference_sees_nothing_in_our_own_directory() {
    let bed =
        Bed::new(json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/24"}]]}));
    for id in ["a", "b", "c"] {
        bed.add(OURS, id);
    }
    let before: Vec<_> = fs::read_dir(bed.dir().join(".podwire"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    for id in ["a", "b", "c"] {
        bed.del(THEIRS, id);
        bed.call(THEIRS, "CHECK", id).err();
    }
    assert!(before.iter().all(|path| path.exists()));
    let result = bed.call(OURS, "ADD", "d").ok();
    assert_eq!(addresses(&result), ["10.1.2.5", "10.1.3.5"]);
}
