//! Runtimes that die, records that tear, chains that change: whatever happened before, DEL or GC ends it.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libcni::runtime::{Attach, NetworkList, Runtime};
use libcni::spec::error::Code;
use libcni::spec::{Attachment, Verb};
use testkit::{Pod, eventually, in_netns};

use crate::bench::Bench;
use crate::scripts::Scripts;

const SOON: Duration = Duration::from_secs(60);
/// Makes this test binary a runtime that runs one ADD, and dies when the test says so.
const ADDER: &str = "CRASH_ADDER";

fn attachment(id: &str) -> Attachment {
    Attachment {
        container_id: id.parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
    }
}

/// Waits, in ADD, until the file `go` is there.
const SLOW: &str = r#"[ $CNI_COMMAND != ADD ] || { : >"$dir/begun"; until [ -e "$dir/go" ]; do sleep 0.01; done; : >"$dir/made"; echo '{"cniVersion":"1.1.0"}'; }
[ $CNI_COMMAND != DEL ] || rm -f "$dir/made""#;

fn slow() -> Scripts {
    Scripts::new(&[("slow", SLOW), ("fast", r#"echo '{"cniVersion":"1.1.0"}'"#)])
}

fn slow_list(scripts: &Scripts) -> NetworkList {
    scripts.list("1.1.0", &["fast", "slow", "fast"], "")
}

/// Another process of this binary that adds what [`is_adder`] says in this test.
fn adder(scripts: &Scripts, test: &str) -> Child {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ADDER, scripts.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(SOON, || scripts.path("begun").exists());
    child
}

/// The other process' part. A container of the test's own: whose ADD is at work is seen in all of the machine, and other
/// tests run theirs meanwhile.
fn is_adder(id: &str) -> bool {
    let Some(dir) = env::var_os(ADDER).map(PathBuf::from) else {
        return false;
    };
    let runtime = Runtime::new([dir.clone()]).cache_dir(dir.join("cache"));
    let conf = br#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"fast"},{"type":"slow"},{"type":"fast"}]}"#;
    let list = NetworkList::parse(conf, None).unwrap();
    runtime
        .add(&list, &Attach::new(id, "/run/netns/x", "eth0"))
        .unwrap();
    true
}

#[test]
fn a_runtime_killed_during_add() {
    if is_adder("killed") {
        return;
    }
    let scripts = slow();
    let (runtime, list) = (scripts.runtime(), slow_list(&scripts));
    let mut adder = adder(&scripts, "crash::a_runtime_killed_during_add");
    adder.kill().unwrap();
    adder.wait().unwrap();

    // Its plugin lives on, and would make again what is undone now.
    assert!(runtime.pending().unwrap().is_empty());
    runtime.gc(&list, &[]).unwrap();
    let again = runtime
        .add(&list, &Attach::new("killed", "/run/netns/x", "eth0"))
        .unwrap_err();
    assert_eq!(again.code(), Some(Code::TryAgain), "{again}");
    assert_eq!(
        scripts.calls(),
        ["ADD fast", "ADD slow", "GC fast", "GC slow", "GC fast"]
    );

    fs::write(scripts.path("go"), "").unwrap();
    let mut pending = Vec::new();
    eventually(SOON, || {
        pending = runtime.pending().unwrap();
        !pending.is_empty()
    });
    let pending = pending.remove(0);
    assert_eq!(
        (pending.verb, pending.left.as_slice()),
        (Verb::Add, &["fast", "slow", "fast"].map(String::from)[..])
    );
    assert!(scripts.path("made").exists());
    runtime.gc(&list, &[attachment("killed")]).unwrap();
    assert!(scripts.path("made").exists(), "who is valid is left alone");
    scripts.calls();
    runtime.gc(&list, &[]).unwrap();
    assert_eq!(scripts.calls()[..3], ["DEL fast", "DEL slow", "DEL fast"]);
    assert!(!scripts.path("made").exists());
    assert!(runtime.pending().unwrap().is_empty());
}

/// GC while another process adds: the attachment is in no list of anybody's yet.
#[test]
fn an_add_at_work_is_valid() {
    if is_adder("valid") {
        return;
    }
    let scripts = Scripts::new(&[
        (
            "slow",
            &format!("{SLOW}\n[ $CNI_COMMAND != GC ] || echo \"$conf\" >$dir/gc"),
        ),
        ("fast", r#"echo '{"cniVersion":"1.1.0"}'"#),
    ]);
    let (runtime, list) = (scripts.runtime(), slow_list(&scripts));
    let mut adder = adder(&scripts, "crash::an_add_at_work_is_valid");
    runtime.gc(&list, &[]).unwrap();
    let gc = scripts.noted("gc");
    assert!(
        gc.contains(r#""cni.dev/valid-attachments":[{"containerID":"valid","ifname":"eth0"}]"#),
        "{gc}"
    );
    fs::write(scripts.path("go"), "").unwrap();
    assert!(adder.wait().unwrap().success());
    assert_eq!(runtime.attachments().unwrap().len(), 1);
    assert!(runtime.pending().unwrap().is_empty());
    runtime
        .del(&list, &Attach::new("valid", "", "eth0"))
        .unwrap();
    assert!(!scripts.path("made").exists());
}

/// A kubelet that has lost patience asks for DEL while ADD is still at work.
#[test]
fn del_waits_for_an_add_at_work() {
    if is_adder("waited-for") {
        return;
    }
    let scripts = slow();
    let (runtime, list) = (scripts.runtime(), slow_list(&scripts));
    let at = Attach::new("waited-for", "", "eth0");
    let mut adder = adder(&scripts, "crash::del_waits_for_an_add_at_work");
    let impatient = runtime.clone().timeout(Duration::from_millis(50));
    let error = impatient.del(&list, &at).unwrap_err();
    assert_eq!(error.code(), Some(Code::TryAgain), "{error}");
    assert_eq!(scripts.calls(), ["ADD fast", "ADD slow"]);
    std::thread::scope(|scope| {
        let del = scope.spawn(|| runtime.del(&list, &at));
        fs::write(scripts.path("go"), "").unwrap();
        del.join().unwrap().unwrap();
    });
    assert!(adder.wait().unwrap().success());
    assert_eq!(
        scripts.calls(),
        ["ADD fast", "DEL fast", "DEL slow", "DEL fast"]
    );
    assert!(!scripts.path("made").exists());
    assert!(runtime.attachments().unwrap().is_empty());
}

/// A second ADD without DEL is refused by the plugins, and takes nothing away; what is of an earlier life of the
/// container is in the way once, and then gone.
#[test]
fn add_of_what_stands() {
    in_netns(|| {
        let bench = Bench::new();
        let list = bench.list("1.1.0");
        let pod = Pod::new("pod");
        let at = Attach::new("c1", pod.netns(), "eth0");
        bench.runtime.add(&list, &at).unwrap();
        let error = bench.runtime.add(&list, &at).unwrap_err();
        assert_eq!(error.plugin(), Some("bridge"), "{error}");
        bench.runtime.check(&list, &at).unwrap();
        assert!(bench.runtime.pending().unwrap().is_empty());

        drop(pod);
        let pod = Pod::new("again");
        let at = Attach::new("c1", pod.netns(), "eth0");
        let error = bench.runtime.add(&list, &at).unwrap_err();
        assert!(
            error.to_string().contains("duplicate allocation"),
            "{error}"
        );
        bench.runtime.add(&list, &at).unwrap();
        bench.runtime.del(&list, &at).unwrap();
        eventually(SOON, || bench.left_over().is_empty());
    });
}

/// With the record torn the whole chain is run again; with it gone, too.
#[test]
fn a_record_that_cannot_be_read() {
    in_netns(|| {
        let bench = Bench::new();
        for torn in [None, Some(0), Some(100)] {
            let list = bench.list("1.1.0");
            let pod = Pod::new("pod");
            let at = Attach::new("c1", pod.netns(), "eth0");
            bench.runtime.add(&list, &at).unwrap();
            bench.fault("DEL-refuse-bridge");
            bench.runtime.del(&list, &at).unwrap_err();
            let record = bench.pending("c1");
            match torn {
                None => fs::remove_file(&record).unwrap(),
                Some(length) => {
                    let bytes = fs::read(&record).unwrap();
                    fs::write(&record, &bytes[..length]).unwrap();
                }
            }
            bench.calls();
            bench.runtime.del(&list, &at).unwrap();
            assert_eq!(bench.calls(), ["DEL last", "DEL bridge", "DEL first"]);
            assert_eq!(bench.left_over(), Vec::<String>::new());
        }
    });
}

/// The admin takes a plugin out of the chain, or the whole network is another one, while pods are attached.
#[test]
fn a_chain_that_has_changed_since() {
    in_netns(|| {
        let bench = Bench::new();
        let list = bench.list("1.1.0");
        let mut shorter = NetworkList::parse(
            br#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"first"}]}"#,
            None,
        )
        .unwrap();
        let pod = Pod::new("pod");
        let at = Attach::new("c1", pod.netns(), "eth0");
        bench.runtime.add(&list, &at).unwrap();
        bench.fault("DEL-refuse-bridge");
        bench.calls();
        bench.runtime.del(&shorter, &at).unwrap_err();
        assert_eq!(bench.calls(), ["DEL last", "DEL bridge"]);
        shorter.plugins.clear();
        bench.runtime.del(&shorter, &at).unwrap();
        assert_eq!(bench.calls(), ["DEL bridge", "DEL first"]);
        assert_eq!(bench.left_over(), Vec::<String>::new());
    });
}

/// ADD of what is half deleted: that is finished first, or nothing is begun.
#[test]
fn add_after_a_halted_del() {
    in_netns(|| {
        let bench = Bench::new();
        let list = bench.list("1.1.0");
        let pod = Pod::new("pod");
        let at = Attach::new("c1", pod.netns(), "eth0");
        bench.runtime.add(&list, &at).unwrap();
        bench.fault("DEL-refuse-bridge");
        bench.runtime.del(&list, &at).unwrap_err();
        bench.fault("DEL-refuse-bridge");
        bench.calls();
        let error = bench.runtime.add(&list, &at).unwrap_err();
        assert_eq!(error.verb(), Some(Verb::Del), "{error}");
        assert_eq!(bench.calls(), ["DEL bridge"]);
        bench.runtime.add(&list, &at).unwrap();
        assert_eq!(
            bench.calls(),
            [
                "DEL bridge",
                "DEL first",
                "ADD first",
                "ADD bridge",
                "ADD last"
            ]
        );
        bench.runtime.check(&list, &at).unwrap();
        bench.runtime.del(&list, &at).unwrap();
        assert_eq!(bench.left_over(), Vec::<String>::new());
    });
}

/// The cache cannot be written after all plugins have run: that is a failed ADD, and nothing is left of it.
#[test]
fn a_result_that_cannot_be_kept() {
    in_netns(|| {
        let bench = Bench::new();
        let list = bench.list("1.1.0");
        let pod = Pod::new("pod");
        let at = Attach::new("c1", pod.netns(), "eth0");
        fs::create_dir_all(bench.cached("c1").join("in the way")).unwrap();
        let error = bench.runtime.add(&list, &at).unwrap_err();
        assert!(error.to_string().starts_with("write /"), "{error}");
        assert!(error.to_string().contains("results/net-c1-eth0"), "{error}");
        let undone = ["DEL last", "DEL bridge", "DEL first"];
        assert_eq!(bench.calls()[3..], undone);
        fs::remove_dir_all(bench.cached("c1")).unwrap();
        assert_eq!(bench.left_over(), Vec::<String>::new());
    });
}

/// One runtime for all threads of a process.
#[test]
fn many_threads_add_and_delete() {
    in_netns(|| {
        let bench = Bench::new();
        let list = bench.list("1.1.0");
        let pods: Vec<Pod> = (0..24).map(|i| Pod::new(&format!("pod{i}"))).collect();
        std::thread::scope(|scope| {
            for (i, pod) in pods.iter().enumerate() {
                let (bench, list) = (&bench, &list);
                scope.spawn(move || {
                    let at = Attach::new(format!("c{i}"), pod.netns(), "eth0");
                    let result = bench.runtime.add(list, &at).unwrap();
                    assert_eq!(result.ips.len(), 1);
                    bench.runtime.check(list, &at).unwrap();
                });
            }
        });
        assert_eq!(bench.runtime.attachments().unwrap().len(), pods.len());
        let addresses: std::collections::BTreeSet<String> = bench
            .runtime
            .attachments()
            .unwrap()
            .iter()
            .map(|entry| entry.result.as_ref().unwrap().write_compact())
            .collect();
        assert_eq!(addresses.len(), pods.len(), "each its own");
        std::thread::scope(|scope| {
            for i in 0..pods.len() {
                let (bench, list) = (&bench, &list);
                scope.spawn(move || {
                    bench
                        .runtime
                        .del(list, &Attach::new(format!("c{i}"), "", "eth0"))
                        .unwrap();
                });
            }
        });
        drop(pods);
        eventually(SOON, || bench.left_over().is_empty());
    });
}
