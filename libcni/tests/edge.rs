//! The edge of a plugin process: order of checks, panics, signals. Driven through `examples/faulty.rs`.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use testkit::{Call, Output, Pod};

#[path = "edge/records.rs"]
mod records;

/// Cargo builds examples before it runs tests, beside the test's own directory.
fn faulty() -> Call {
    let mut dir: PathBuf = std::env::current_exe().unwrap();
    dir.pop();
    dir.pop();
    let file = dir.join("examples/faulty");
    assert!(
        file.exists(),
        "run `cargo build -p libcni --examples` first; plain `cargo test` does"
    );
    Call::new(file)
        .container("c1")
        .ifname("eth0")
        .cni_path("/nowhere")
}

fn config(version: &str, fault: &str) -> String {
    format!(r#"{{"cniVersion":"{version}","name":"net","type":"faulty","fault":"{fault}"}}"#)
}

fn add(fault: &str, pod: &Pod) -> Call {
    let call = faulty().verb("ADD").netns(pod.netns());
    call.stdin(config("1.1.0", fault))
}

fn error_code(out: &Output) -> (u64, String) {
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let error = out.json();
    (
        error["code"].as_u64().unwrap(),
        error["msg"].as_str().unwrap().to_owned(),
    )
}

fn own_netns() -> String {
    let link = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    link.display().to_string()
}

/// A panic ends in an undo and an error object, also where nothing unwinds, and the undo happens on the node.
#[test]
fn a_panic_is_undone_and_told() {
    testkit::in_netns(|| {
        let pod = Pod::new("pod");
        for fault in ["panic", "panic in the pod"] {
            let out = add(fault, &pod).run();
            let (code, msg) = error_code(&out);
            assert_eq!(code, 999);
            assert!(msg.contains("as the configuration says"), "{msg}");
            assert!(
                out.stderr.contains(&format!("undone in {}", own_netns())),
                "{fault}: {}",
                out.stderr
            );
        }
        let out = add("none", &pod).run();
        assert!(
            out.status.success() && !out.stderr.contains("undone"),
            "{out:?}"
        );
    });
}

#[test]
fn a_signal_is_undone_and_told() {
    testkit::in_netns(|| {
        let pod = Pod::new("pod");
        let mut child = add("hang", &pod).command().spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(config("1.1.0", "hang").as_bytes())
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert_eq!(line, "hanging\n");
        testkit::sh(&format!("kill -TERM {}", child.id()));
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        let error: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(
            (error["code"].as_u64(), error["msg"].as_str()),
            (Some(11), Some("stopped by SIGTERM"))
        );
        assert!(rest.contains("undone in"), "{rest}");
    });
}

/// Spec section 2, "Parameters" and "Errors": which of several mistakes is told.
#[test]
fn the_first_mistake_in_order_is_told() {
    let good = config("1.1.0", "none");
    let old = config("0.3.1", "none");
    let unknown = config("9.9.9", "none");
    let nameless = r#"{"cniVersion":"1.1.0"}"#;
    let call = |verb: &str, stdin: &str| faulty().verb(verb).netns("/nowhere/netns").stdin(stdin);
    let cases = [
        (
            call("ADD", &good)
                .without("CNI_CONTAINERID")
                .without("CNI_PATH"),
            4,
            "required env variables [CNI_CONTAINERID,CNI_PATH] missing",
        ),
        (call("ADD", &good).ifname("a/b").without("CNI_PATH"), 4, ""),
        (call("ADD", &good).container("../x"), 4, ""),
        (call("DEL", "{"), 6, ""),
        (call("DEL", nameless), 7, "missing network name"),
        (call("FROB", ""), 6, ""),
        (call("FROB", &good), 4, "unknown CNI_COMMAND: FROB"),
        (
            call("CHECK", &old),
            1,
            "config version does not allow CHECK",
        ),
        (call("GC", &old), 1, "config version does not allow GC"),
        (
            call("STATUS", &old),
            1,
            "config version does not allow STATUS",
        ),
        (call("DEL", &unknown), 1, "incompatible CNI versions"),
    ];
    for (call, code, msg) in cases {
        let out = call.run();
        let (found, text) = error_code(&out);
        assert_eq!(found, code, "{call:?}: {text}");
        assert!(msg.is_empty() || text == msg, "{call:?}: {text}");
    }
}

/// Spec section 2, "VERSION": no stdin needed, a line of JSON.
#[test]
fn version_is_a_line() {
    let out = faulty().verb("VERSION").stdin("not even json").run();
    assert!(out.status.success());
    assert_eq!(
        out.stdout,
        "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
    );
}

/// The guard comes before the work: nothing on stdout but the error.
#[test]
fn the_nodes_own_namespace_is_refused_before_anything_is_done() {
    testkit::in_netns(|| {
        let call = faulty()
            .verb("ADD")
            .netns("/proc/self/ns/net")
            .stdin(config("1.1.0", "panic"));
        let (code, msg) = error_code(&call.run());
        assert_eq!(
            (code, msg.as_str()),
            (
                8,
                "plugin's netns and netns from CNI_NETNS should not be the same"
            )
        );
        let out = call.env("CNI_NETNS_OVERRIDE", "1").run();
        assert_eq!(
            error_code(&out).0,
            999,
            "with the override the work is begun"
        );
    });
}

/// Spec section 2, "GC": a missing list is not an empty one.
#[test]
fn gc_without_a_list_frees_nothing() {
    let with = |list: &str| {
        let stdin = format!(r#"{{"cniVersion":"1.1.0","name":"net"{list}}}"#);
        faulty().verb("GC").stdin(stdin).run().stderr
    };
    assert!(with("").contains("frees nothing"));
    assert_eq!(with(r#","cni.dev/valid-attachments":[]"#), "0 valid\n");
    let one = r#","cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]"#;
    assert_eq!(with(one), "1 valid\n");
}

/// For people: by hand without any variable, and the two flags.
#[test]
fn by_hand() {
    let out = faulty().run();
    assert!(out.status.success() && out.stdout.is_empty());
    assert!(
        out.stderr
            .contains("CNI protocol versions supported: 0.1.0, 0.2.0"),
        "{}",
        out.stderr
    );
    for (flag, text) in [
        ("--help", "CNI_COMMAND=ADD"),
        ("--version", "faulty 0.1.0 (podwire)"),
    ] {
        let out = faulty().command().arg(flag).output().unwrap();
        assert!(out.status.success());
        assert!(String::from_utf8_lossy(&out.stdout).contains(text));
    }
}
