//! What plugins are given, in which order, and what the caller is told.

use std::env;
use std::time::Duration;

use libcni::kernel::process::Ended;
use libcni::runtime::{Attach, RuntimeError};
use libcni::spec::error::Code;
use libcni::spec::{Attachment, Verb};
use nix::sys::signal::Signal;
use testkit::in_netns;

use crate::scripts::Scripts;

const RESULT: &str =
    r#"[ $CNI_COMMAND != ADD ] || echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.2/24"}]}'"#;
const FAILS_ADD: &str =
    r#"[ $CNI_COMMAND != ADD ] || { echo '{"code":11,"msg":"busy","details":"later"}'; exit 1; }"#;

fn at(id: &str) -> Attach {
    Attach::new(id, "/run/netns/x", "eth0")
}

fn attachment(id: &str) -> Attachment {
    Attachment {
        container_id: id.parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
    }
}

#[test]
#[allow(unsafe_code)]
fn the_environment_is_ours_with_the_calls_variables() {
    in_netns(|| {
        // SAFETY: this process runs this one test, and nobody else reads its environment meanwhile.
        unsafe {
            env::set_var(
                "TRACEPARENT",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            );
            env::set_var("BAGGAGE", "a=b");
            env::set_var("CNI_COMMAND", "BOIL");
            env::set_var("CNI_NETNS", "/wrong");
        }
        let note = format!("env | grep -E '^(CNI_|TRACE|BAGG)' | sort >$dir/env; {RESULT}");
        let scripts = Scripts::new(&[("one", &note)]);
        let list = scripts.list("1.1.0", &["one"], "");
        let mut attach = at("c1");
        attach.args = vec![
            ("IgnoreUnknown".into(), "1".into()),
            ("K".into(), "v".into()),
        ];
        scripts.runtime().add(&list, &attach).unwrap();
        let path = scripts.path("");
        let want = format!(
            "BAGGAGE=a=b\nCNI_ARGS=IgnoreUnknown=1;K=v\nCNI_COMMAND=ADD\nCNI_CONTAINERID=c1\nCNI_IFNAME=eth0\n\
             CNI_NETNS=/run/netns/x\nCNI_PATH={}\nTRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
            path.display()
        );
        assert_eq!(scripts.noted("env"), want);
        let list = scripts.list("1.1.0", &["one"], "");
        scripts.runtime().status(&list).unwrap();
        let env = scripts.noted("env");
        assert!(
            env.contains("CNI_COMMAND=STATUS\nCNI_CONTAINERID=\nCNI_IFNAME=\nCNI_NETNS=\n"),
            "{env}"
        );
    });
}

#[test]
fn each_plugin_gets_the_result_before_it_and_del_the_last() {
    let note = |result: &str| {
        format!(
            "echo \"$conf\" >$dir/$type.$CNI_COMMAND; [ $CNI_COMMAND != ADD ] || echo '{result}'"
        )
    };
    let first = note(r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.0.2/24"}]}"#);
    let second = note(r#"{"dns":{"domain":"x"},"cniVersion":"1.1.0","unknown":1}"#);
    let scripts = Scripts::new(&[("first", &first), ("second", &second)]);
    let (runtime, list) = (
        scripts.runtime(),
        scripts.list("1.0.0", &["first", "second"], ""),
    );
    let result = runtime.add(&list, &at("c1")).unwrap();
    assert_eq!(result.dns.domain, "x");
    let head = r#"{"cniVersion":"1.0.0","name":"net""#;
    let [first, last] = [
        r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}]}"#,
        r#"{"cniVersion":"1.0.0","dns":{"domain":"x"}}"#,
    ];
    assert_eq!(
        scripts.noted("first.ADD"),
        format!("{head},\"type\":\"first\"}}\n")
    );
    assert_eq!(
        scripts.noted("second.ADD"),
        format!("{head},\"prevResult\":{first},\"type\":\"second\"}}\n")
    );
    runtime.check(&list, &at("c1")).unwrap();
    runtime.del(&list, &at("c1")).unwrap();
    for file in ["first.CHECK", "second.CHECK", "first.DEL", "second.DEL"] {
        let kind = file.split('.').next().unwrap();
        assert_eq!(
            scripts.noted(file),
            format!("{head},\"prevResult\":{last},\"type\":\"{kind}\"}}\n")
        );
    }
    assert_eq!(
        scripts.calls(),
        [
            "ADD first",
            "ADD second",
            "CHECK first",
            "CHECK second",
            "DEL second",
            "DEL first"
        ]
    );
}

#[test]
fn errors_say_who_and_what_and_how() {
    let scripts = Scripts::new(&[
        ("good", RESULT),
        ("busy", FAILS_ADD),
        ("mute", "[ $CNI_COMMAND != ADD ] || exit 3"),
        (
            "log",
            "[ $CNI_COMMAND != ADD ] || { echo 'no route' >&2; exit 2; }",
        ),
        ("shot", "[ $CNI_COMMAND != ADD ] || kill -SEGV $$"),
        ("odd", "[ $CNI_COMMAND != ADD ] || { echo oops; exit 1; }"),
        ("empty", ""),
    ]);
    let runtime = scripts.runtime();
    for (plugin, code, ended, words) in [
        (
            "busy",
            Code::TryAgain,
            Ended::Exit(1),
            r#"plugin type="busy" failed (add): busy; later"#,
        ),
        (
            "mute",
            Code::Internal,
            Ended::Exit(3),
            "netplugin failed with no error message: exit status 3",
        ),
        (
            "log",
            Code::Internal,
            Ended::Exit(2),
            r#"netplugin failed: "no route"; "#,
        ),
        (
            "shot",
            Code::Internal,
            Ended::Signal(Signal::SIGSEGV),
            "signal SIGSEGV",
        ),
        (
            "odd",
            Code::Internal,
            Ended::Exit(1),
            r#"error parsing its diagnostic message "oops\n""#,
        ),
        (
            "empty",
            Code::Decode,
            Ended::Exit(0),
            "no result: EOF while parsing",
        ),
    ] {
        let list = scripts.list("1.1.0", &["good", plugin], "");
        let error = runtime.add(&list, &at("c1")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(words) && text.lines().count() == 1, "{text}");
        assert_eq!(
            (error.code(), error.plugin(), error.verb()),
            (Some(code), Some(plugin), Some(Verb::Add))
        );
        let failure = error.failure().unwrap();
        assert_eq!(
            (failure.ended, failure.step, failure.steps),
            (Some(ended), 2, 2),
            "{text}"
        );
        assert_eq!(
            failure.stderr,
            if plugin == "log" { "no route\n" } else { "" }
        );
        let [adds, undone] = [
            ["ADD good".into(), format!("ADD {plugin}")],
            [format!("DEL {plugin}"), "DEL good".into()],
        ];
        assert_eq!(scripts.calls(), [adds, undone].concat());
        assert!(runtime.attachments().unwrap().is_empty() && runtime.pending().unwrap().is_empty());
    }
    // Nothing is begun that cannot be ended.
    for (list, id, code) in [
        (
            scripts.list("1.1.0", &["good", "missing"], ""),
            "c1",
            Code::InvalidConfig,
        ),
        (
            scripts.list("1.1.0", &["good", "../good"], ""),
            "c1",
            Code::InvalidConfig,
        ),
        (
            scripts.list("1.1.0", &["good"], ""),
            "../c1",
            Code::InvalidEnvironment,
        ),
        (
            scripts.list("1.1.0", &["good"], ""),
            &*"c".repeat(250),
            Code::InvalidEnvironment,
        ),
    ] {
        assert_eq!(runtime.add(&list, &at(id)).unwrap_err().code(), Some(code));
        assert_eq!(scripts.calls(), Vec::<String>::new());
    }
}

#[test]
fn the_deadline_is_for_the_whole_chain() {
    let scripts = Scripts::new(&[
        ("good", RESULT),
        ("hangs", "[ $CNI_COMMAND != ADD ] || exec sleep 1000"),
    ]);
    let runtime = scripts.runtime().timeout(Duration::from_secs(3));
    let list = scripts.list("1.1.0", &["good", "hangs", "good"], "");
    let error = runtime.add(&list, &at("c1")).unwrap_err();
    let words =
        r#"plugin type="hangs" failed (add): not done after 3s and stopped (signal SIGTERM)"#;
    assert!(error.to_string().starts_with(words), "{error}");
    assert_eq!(
        scripts.calls(),
        ["ADD good", "ADD hangs", "DEL hangs", "DEL good"]
    );

    // No time at all: nothing is run, and so nothing undone.
    let error = scripts
        .runtime()
        .timeout(Duration::ZERO)
        .add(&list, &at("c1"))
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::TryAgain), "{error}");
    assert_eq!(scripts.calls(), Vec::<String>::new());
    assert!(runtime.pending().unwrap().is_empty());
}

#[test]
fn check_and_status_and_their_versions() {
    let scripts = Scripts::new(&[
        ("good", RESULT),
        (
            "down",
            r#"[ $CNI_COMMAND != STATUS ] || { echo '{"code":50,"msg":"not ready"}'; exit 1; }"#,
        ),
    ]);
    let runtime = scripts.runtime();
    let chain = ["good", "down", "good"];
    let list = |version| scripts.list(version, &chain, "");
    let error = runtime.status(&list("1.1.0")).unwrap_err();
    assert_eq!(
        (error.code(), error.plugin()),
        (Some(Code::NotAvailable), Some("down"))
    );
    assert_eq!(scripts.calls(), ["STATUS good", "STATUS down"]);
    runtime.status(&list("1.0.0")).unwrap();
    runtime
        .check(
            &scripts.list("1.1.0", &chain, r#","disableCheck":"true""#),
            &at("c1"),
        )
        .unwrap();
    let error = runtime.check(&list("0.3.1"), &at("c1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"configuration version "0.3.1" does not support the CHECK command"#
    );
    assert_eq!(scripts.calls(), Vec::<String>::new());
    runtime.check(&list("0.4.0"), &at("c1")).unwrap();
    assert_eq!(scripts.calls(), ["CHECK good", "CHECK down", "CHECK good"]);
}

#[test]
fn versions_are_asked_for() {
    let scripts = Scripts::new(&[
        (
            "new",
            r#"echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'"#,
        ),
        (
            "old",
            r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"#,
        ),
        ("ill", "exit 1"),
    ]);
    let runtime = scripts.runtime();
    assert_eq!(runtime.versions("new").unwrap(), ["1.0.0", "1.1.0"]);
    assert_eq!(runtime.versions("old").unwrap(), ["0.1.0"]);
    assert_eq!(
        runtime.versions("ill").unwrap_err().verb(),
        Some(Verb::Version)
    );
    assert_eq!(
        runtime.versions("none").unwrap_err().code(),
        Some(Code::InvalidConfig)
    );
    scripts.calls();
    runtime
        .validate(&scripts.list("1.0.0", &["new", "new"], ""))
        .unwrap();
    assert_eq!(scripts.calls(), ["VERSION new"]);
    let error = runtime
        .validate(&scripts.list("1.0.0", &["new", "old"], ""))
        .unwrap_err();
    let words = r#"plugin old does not support config version "1.0.0"; it supports 0.1.0"#;
    assert_eq!(error.to_string(), words);
}

#[test]
fn gc_deletes_what_is_not_valid_and_goes_on_past_errors() {
    let note = format!("[ $CNI_COMMAND != GC ] || echo \"$conf\" >$dir/gc; {RESULT}");
    let once = r#"[ $CNI_COMMAND != DEL ] || [ $CNI_CONTAINERID != c2 ] || [ -e $dir/ok ] || { echo '{"code":100,"msg":"stuck"}'; exit 1; }"#;
    let scripts = Scripts::new(&[("good", &note), ("once", &format!("{once}\n{RESULT}"))]);
    let runtime = scripts.runtime();
    let list = scripts.list("1.1.0", &["good", "once"], "");
    for id in ["c1", "c2", "c3"] {
        runtime.add(&list, &at(id)).unwrap();
    }
    scripts.calls();
    let error = runtime.gc(&list, &[attachment("c1")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"plugin type="once" failed (delete): stuck; still to be deleted, by the next DEL or GC: once, good"#
    );
    assert_eq!(
        scripts.calls(),
        ["DEL once", "DEL once", "DEL good", "GC good", "GC once"]
    );
    let valid = r#"[{"containerID":"c1","ifname":"eth0"}]"#;
    let gc = scripts.noted("gc");
    assert!(
        gc.contains(&format!(r#""cni.dev/valid-attachments":{valid}"#)),
        "{gc}"
    );
    let cached = |runtime: &libcni::runtime::Runtime| -> Vec<String> {
        let entries = runtime.attachments().unwrap();
        entries
            .into_iter()
            .map(|entry| entry.container_id)
            .collect()
    };
    assert_eq!(cached(&runtime), ["c1", "c2"]);
    assert_eq!(runtime.pending().unwrap()[0].container_id, "c2");

    // What is half gone and still valid is the runtime's to delete.
    runtime
        .gc(&list, &[attachment("c1"), attachment("c2")])
        .unwrap();
    assert_eq!(runtime.pending().unwrap().len(), 1);
    std::fs::write(scripts.path("ok"), "").unwrap();
    runtime
        .gc(
            &scripts.list("1.1.0", &["good", "once"], r#","disableGC":true"#),
            &[],
        )
        .unwrap();
    scripts.calls();
    runtime
        .gc(&scripts.list("1.0.0", &["good", "once"], ""), &[])
        .unwrap();
    assert_eq!(
        scripts.calls(),
        ["DEL once", "DEL good", "DEL once", "DEL good"],
        "no GC before 1.1.0"
    );
    assert!(cached(&runtime).is_empty() && runtime.pending().unwrap().is_empty());
    // Other networks' attachments are none of its business, and a runtime that cannot look does nothing.
    std::fs::remove_dir_all(scripts.path("cache/results")).unwrap();
    std::fs::write(scripts.path("cache/results"), "").unwrap();
    assert!(matches!(
        runtime.gc(&list, &[]),
        Err(RuntimeError::State { .. })
    ));
    assert_eq!(scripts.calls(), Vec::<String>::new());
}
