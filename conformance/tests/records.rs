//! Records of real operations: complete, in the words of docs/records.md, and without any effect on the operations.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libcni::record::{self, Record};
use libcni::runtime::{Attach, NetworkList, Runtime};
use serde_json::{Value, json};
use testkit::{Call, Pod, eventually, in_netns, sh, waits_for_a_lock};

const FILE: &str = "/run/operations";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn page() -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::read_to_string(docs.join("records.md")).unwrap()
}

/// The names in backticks of a table's first column, with the rest of their rows.
fn table(page: &str, heading: &str) -> Vec<(String, String)> {
    let (_, section) = page
        .split_once(&format!("\n## {heading}\n"))
        .expect(heading);
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| {
        let (first, rest) = row[1..].split_once('|').unwrap();
        let names: Vec<_> = first.split('`').skip(1).step_by(2).collect();
        names
            .into_iter()
            .map(|name| (name.to_owned(), rest.to_owned()))
    });
    names.collect()
}

fn bridge() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "cbr0", "type": "bridge", "bridge": "cbr0",
        "isDefaultGateway": true, "ipMasq": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.40.1.0/24"}]]}
    })
}

fn call(conf: &Value, verb: &str, pod: &Pod, id: &str) -> Call {
    let plugins = testkit::bin_dir();
    Call::new(plugins.join(conf["type"].as_str().unwrap()))
        .verb(verb)
        .container(id)
        .netns(pod.netns())
        .ifname("eth0")
        .cni_path(&plugins)
        .stdin(conf.to_string())
}

fn recorded(call: Call) -> Call {
    call.env("PODWIRE_RECORD", FILE)
}

fn with(conf: &Value, key: &str, value: Value) -> Value {
    let mut conf = conf.clone();
    conf[key] = value;
    conf
}

/// The lines so far as JSON, and the file gone.
fn taken() -> Vec<Value> {
    let text = fs::read_to_string(FILE).unwrap();
    fs::remove_file(FILE).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line));
    lines.collect()
}

/// Every verb of every plugin, with what each leaves to the next, twice where that goes other ways.
fn every_verb() {
    let pod = Pod::new("pod");
    let bridge = bridge();
    let run = |conf: &Value, verb: &str, id: &str| recorded(call(conf, verb, &pod, id)).ok();
    for id in ["c1", "c2"] {
        run(&bridge, "STATUS", id);
        let result = run(&bridge, "ADD", id);
        let full = with(&bridge, "prevResult", result);
        run(&full, "CHECK", id);
        run(&full, "DEL", id);
    }
    // An address that comes again.
    let one = with(
        &bridge,
        "ipam",
        json!({"type": "host-local", "ranges": [[{"subnet": "10.40.2.0/30"}]]}),
    );
    let one = with(&with(&one, "name", "one".into()), "bridge", "one".into());
    for id in ["c1", "c2"] {
        run(&one, "ADD", id);
        run(&one, "DEL", id);
    }
    run(
        &with(&bridge, "cni.dev/valid-attachments", json!([])),
        "GC",
        "c1",
    );
    waits_for_the_lock(&recorded(call(&bridge, "ADD", &pod, "c1")), &bridge);
    run(&bridge, "DEL", "c1");
    let local = with(&bridge, "type", "host-local".into());
    for verb in ["STATUS", "ADD", "CHECK", "DEL"] {
        run(&local, verb, "c1");
    }
    run(
        &with(&local, "cni.dev/valid-attachments", json!([])),
        "GC",
        "c1",
    );
    let lo = json!({"cniVersion": "1.1.0", "name": "lo", "type": "loopback"});
    for verb in ["STATUS", "ADD", "CHECK", "DEL", "GC", "VERSION"] {
        let prev = json!({"cniVersion": "1.1.0", "interfaces": [], "ips": []});
        run(&with(&lo, "prevResult", prev), verb, "c1");
    }
    by_the_runtime(&pod);
    by_a_delegate(&pod);
    // One that fails late.
    let unreachable = json!([{"dst": "10.99.0.0/16", "gw": "192.0.2.1"}]);
    let mut failing = bridge.clone();
    failing["ipam"]["routes"] = unreachable;
    assert!(
        !recorded(call(&failing, "ADD", &pod, "c1"))
            .run()
            .status
            .success()
    );
}

/// A plugin that writes no record; its runtime does.
fn by_the_runtime(pod: &Pod) {
    let conf = json!({"cniVersion": "1.0.0", "name": "lo", "plugins": [{"type": "loopback", "record": FILE}]});
    let list = NetworkList::parse(conf.to_string().as_bytes(), None).unwrap();
    let runtime = Runtime::new(["/usr/lib/cni".into()]).cache_dir("/run/cache");
    let at = Attach::new("c1", pod.netns(), "lo");
    runtime.add(&list, &at).unwrap();
    runtime.del(&list, &at).unwrap();
}

/// The reference's `bridge` under `overlay`.
fn by_a_delegate(pod: &Pod) {
    let lease = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    fs::write("/run/subnet.env", lease).unwrap();
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "overlay", "subnetFile": "/run/subnet.env"});
    for verb in ["ADD", "DEL"] {
        recorded(call(&conf, verb, pod, "c1"))
            .cni_path("/usr/lib/cni")
            .ok();
    }
}

fn waits_for_the_lock(call: &Call, conf: &Value) {
    let lock = File::open("/var/lib/cni/networks/cbr0/lock").unwrap();
    lock.lock().unwrap();
    fs::write("/run/conf", conf.to_string()).unwrap();
    let mut command = call.command();
    let child = command
        .stdin(File::open("/run/conf").unwrap())
        .spawn()
        .unwrap();
    eventually(Duration::from_secs(60), || waits_for_a_lock(child.id()));
    let seen = Instant::now();
    eventually(Duration::from_secs(10), || {
        seen.elapsed() > Duration::from_millis(1)
    });
    lock.unlock().unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn records_are_as_documented() {
    in_netns(|| {
        every_verb();
        let (mut fields, mut phases, mut failed_at) =
            (BTreeSet::new(), BTreeSet::new(), Vec::new());
        let other = Pod::new("other");
        let spanned = call(&bridge(), "ADD", &other, "c3");
        recorded(spanned)
            .env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-00"))
            .ok();
        let records: Vec<Record> = record::read(FILE).collect();
        let lines = taken();
        assert_eq!(records.len(), lines.len());
        for (record, op) in records.iter().zip(&lines) {
            let names: Vec<&str> = record.phases.iter().map(|p| &*p.name).collect();
            fields.extend(op.as_object().unwrap().keys().cloned());
            phases.extend(names.iter().map(|&name| name.to_owned()));
            if names == ["run"] {
                assert_eq!(record.phases[0].us, record.total_us);
                continue;
            }
            assert_eq!(names[0], "config", "{op}");
            // loopback has nothing to do for these two.
            let idle =
                record.plugin == "loopback" && ["STATUS", "GC", "VERSION"].contains(&&*record.verb);
            assert_eq!(names.len() == 1, idle, "{op}");
            let sum: u64 = record.phases.iter().map(|phase| phase.us).sum();
            assert!(sum <= record.total_us, "{op}");
            assert!(sum + names.len() as u64 >= record.total_us, "{op}");
            if record.error.is_some() {
                failed_at.push(names[names.len() - 2].to_owned());
            }
        }
        assert_eq!(failed_at, ["pod"]);
        let page = page();
        let documented = |heading| {
            table(&page, heading)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(fields, documented("Fields"));
        assert_eq!(phases, documented("Phases"));
        // The example.
        let example = page.rsplit("```json\n").next().unwrap();
        let example = example.split("```").next().unwrap().replace('\n', " ");
        let example =
            Record::parse(example.replace("{   \"time\": ", "{\"time\":").as_bytes()).unwrap();
        let line: Value = serde_json::from_str(&example.to_line()).unwrap();
        assert!(
            line.as_object()
                .unwrap()
                .keys()
                .all(|key| fields.contains(key))
        );
        assert!(
            example
                .phases
                .iter()
                .all(|phase| phases.contains(&*phase.name))
        );
        assert_eq!(
            example.phases.iter().map(|phase| phase.us).sum::<u64>(),
            example.total_us
        );
        // Each phase is of the plugins it is said to be of.
        for (phase, of) in table(&page, "Phases") {
            for op in lines.iter().filter(|op| !op["phases"][&phase].is_null()) {
                let plugin = op["plugin"].as_str().unwrap();
                let of = of.split('|').next().unwrap();
                assert!(of.contains("all") || of.contains(plugin), "{phase}: {op}");
            }
        }
    });
}

/// A span of the file's OTLP lines.
#[derive(Debug, Clone)]
struct Span {
    id: String,
    parent: String,
    name: String,
    from: u64,
    to: u64,
    whole: Value,
}

/// All spans, each valid in itself: what an importer would refuse or misplace.
fn spans(lines: &[Value]) -> Vec<Span> {
    let mut spans = Vec::new();
    for line in lines
        .iter()
        .filter(|line| line.get("resourceSpans").is_some())
    {
        let resource = &line["resourceSpans"][0];
        let service = json!({"key": "service.name", "value": {"stringValue": "podwire"}});
        assert_eq!(resource["resource"]["attributes"][0], service);
        for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
            let text = |key: &str| span[key].as_str().expect(key).to_owned();
            assert_eq!(text("traceId"), TRACE);
            let span = Span {
                id: text("spanId"),
                parent: text("parentSpanId"),
                name: text("name"),
                from: text("startTimeUnixNano").parse().unwrap(),
                to: text("endTimeUnixNano").parse().unwrap(),
                whole: span.clone(),
            };
            assert!(span.id.len() == 16 && span.from <= span.to, "{span:?}");
            spans.push(span);
        }
    }
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), spans.len(), "an ID comes twice");
    spans
}

/// One after the other without a gap, from the operation's beginning to its end.
fn fill(operation: &Span, phases: &[Span]) {
    let mut at = operation.from;
    for phase in phases {
        assert_eq!(
            (&phase.parent, phase.from),
            (&operation.id, at),
            "{phase:?}"
        );
        at = phase.to;
    }
    assert_eq!(at, operation.to);
}

#[test]
fn the_span_tree_is_complete() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let traced = |verb: &str, conf: &Value| {
            recorded(call(conf, verb, &pod, "c1"))
                .env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"))
                .env("TRACESTATE", "vendor=1")
        };
        let result = traced("ADD", &bridge()).ok();
        let lines = taken();
        assert_eq!(lines.len(), 2);
        let spans_of_add = spans(&lines);
        let (operation, phases) = spans_of_add.split_first().unwrap();
        assert_eq!(
            (operation.parent.as_str(), operation.name.as_str()),
            (CALLER, "bridge ADD")
        );
        assert_eq!(operation.whole["traceState"], "vendor=1");
        assert_eq!(operation.whole["status"], Value::Null);
        fill(operation, phases);
        let names: BTreeSet<_> = phases.iter().map(|span| span.name.as_str()).collect();
        let in_record: BTreeSet<_> = lines[0]["phases"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(names, in_record);
        assert_eq!(lines[0]["span"], operation.id.as_str());
        assert_eq!(
            (operation.to - operation.from) / 1000,
            lines[0]["us"].as_u64().unwrap()
        );

        traced("DEL", &with(&bridge(), "prevResult", result)).ok();
        let spans_of_del = spans(&taken());
        assert_eq!(spans_of_del[0].name, "bridge DEL");
        fill(&spans_of_del[0], &spans_of_del[1..]);

        let failed = traced("CHECK", &bridge()).err();
        let status = spans(&taken())[0].whole["status"].clone();
        assert_eq!(status["code"], 2);
        assert!(
            status["message"]
                .as_str()
                .unwrap()
                .starts_with(failed["msg"].as_str().unwrap())
        );

        // Not sampled, or not valid: a record and no spans.
        for (parent, trace) in [
            (format!("00-{TRACE}-{CALLER}-00"), json!(TRACE)),
            (format!("00-{TRACE}-01"), Value::Null),
        ] {
            recorded(call(&bridge(), "STATUS", &pod, "c1"))
                .env("TRACEPARENT", parent)
                .ok();
            let lines = taken();
            assert_eq!((lines.len(), &lines[0]["trace"]), (1, &trace));
        }
    });
}

/// A directory of plugins whose `host-local` is a script around ours, and so is executed.
fn with_foreign_ipam() -> PathBuf {
    let (ours, dir) = (testkit::bin_dir(), PathBuf::from("/run/plugins"));
    fs::create_dir(&dir).unwrap();
    let script = format!("exec {}/host-local", ours.display());
    testkit::script(&dir.join("host-local"), &script);
    dir
}

#[test]
fn an_executed_ipam_is_a_child_of_our_span() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let conf = with(&bridge(), "record", FILE.into());
        call(&conf, "ADD", &pod, "c1")
            .cni_path(with_foreign_ipam())
            .env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"))
            .ok();
        let lines = taken();
        let plugins: Vec<_> = lines
            .iter()
            .filter_map(|line| line["plugin"].as_str())
            .collect();
        assert_eq!(plugins, ["host-local", "bridge"]);
        let all = spans(&lines);
        let find = |name: &str| all.iter().find(|span| span.name == name).unwrap();
        let (ours, its, lease) = (find("bridge ADD"), find("host-local ADD"), find("lease"));
        assert_eq!(its.parent, ours.id);
        assert_eq!(lines[0]["parent"], lines[2]["span"]);
        assert!(
            ours.from <= its.from && its.to <= ours.to,
            "{ours:?}\n{its:?}\n{lease:?}"
        );
    });
}

/// What the runtime and the node see is the same, recorded or not.
#[test]
fn nothing_else_changes() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let mut conf = bridge();
        conf["args"] = json!({"cni": {"mac": "02:00:5e:10:00:01"}});
        // The first ADD makes the bridge.
        call(&conf, "ADD", &pod, "c0").ok();
        call(&conf, "DEL", &pod, "c0").ok();
        let mut seen = Vec::new();
        for on in [false, true, false, true] {
            let switch = |call: Call| if on { recorded(call) } else { call };
            sh("rm -r /var/lib/cni/networks");
            let mut outputs = Vec::new();
            for verb in ["STATUS", "ADD", "ADD", "DEL", "DEL", "CHECK"] {
                let output = switch(call(&conf, verb, &pod, "c1")).run();
                // The kernel chooses the host end's MAC.
                let mut stdout = output.stdout.clone();
                if output.status.success() && !stdout.is_empty() {
                    let mac = output.json()["interfaces"][1]["mac"]
                        .as_str()
                        .unwrap()
                        .to_owned();
                    stdout = stdout.replace(&mac, "MAC");
                }
                outputs.push((verb, output.status.code(), stdout, output.stderr));
            }
            outputs.push((
                "left",
                None,
                sh("nft list ruleset; ip -o link show type veth"),
                String::new(),
            ));
            seen.push(outputs);
        }
        assert_eq!(record::read(FILE).count(), 12);
        assert!(seen.iter().all(|outputs| *outputs == seen[0]), "{seen:#?}");
    });
}

/// Pods that start all at once, while the file is just becoming full.
#[test]
fn fifty_at_once_leave_fifty_records() {
    in_netns(|| {
        let pod = Pod::new("pod");
        let filler = "x".repeat(1023) + "\n";
        fs::write(FILE, filler.repeat(1020)).unwrap();
        let conf = with(&bridge(), "type", "host-local".into());
        let parent = format!("00-{TRACE}-{CALLER}-01");
        let started: Vec<_> = (0..50)
            .map(|n| {
                let call = recorded(call(&conf, "ADD", &pod, &format!("c{n}")));
                let mut command = call.env("TRACEPARENT", &parent).command();
                fs::write(format!("/run/conf{n}"), conf.to_string()).unwrap();
                command.stdin(File::open(format!("/run/conf{n}")).unwrap());
                command.spawn().unwrap()
            })
            .collect();
        for child in started {
            let output = child.wait_with_output().unwrap();
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{output:?}"
            );
        }
        let ids: BTreeSet<_> = record::read(FILE).map(|op| op.container).collect();
        assert_eq!(ids.len(), 50);
        for file in [FILE.to_owned(), format!("{FILE}.1")] {
            let len = fs::metadata(&file).unwrap().len();
            assert!(len > 0 && len <= 1 << 20, "{file}: {len}");
        }
    });
}
