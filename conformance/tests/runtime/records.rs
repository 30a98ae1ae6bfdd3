//! Records and logs of plugins that are not this suite's, as `cnitool` leaves and shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libcni::record::{self, Record};
use serde_json::{Value, json};
use testkit::{Pod, bin_dir, in_netns};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A chain of our `bridge`, Debian's `tuning` and a script.
struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new(script: &str) -> Self {
        let node = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for dir in ["net.d", "bin"] {
            fs::create_dir(node.at(dir)).unwrap();
        }
        for (from, name) in [
            (bin_dir(), "bridge"),
            (bin_dir(), "host-local"),
            ("/usr/lib/cni".into(), "tuning"),
        ] {
            std::os::unix::fs::symlink(from.join(name), node.at("bin").join(name)).unwrap();
        }
        node.script(script);
        node.configure(&json!({}));
        node
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.at("operations")
    }

    /// What the third plugin does before it answers.
    fn script(&self, script: &str) {
        let file = self.at("bin/scripted");
        let answer = r#"sed 's/.*"prevResult":\({.*}\),"type".*/\1/'"#;
        let text = format!("{script}\n[ $CNI_COMMAND != ADD ] || {answer}");
        testkit::script(&file, &text);
    }

    /// `more` goes into the configuration of the script.
    fn configure(&self, more: &Value) {
        let ipam =
            json!({"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": self.at("store")});
        let mut scripted = json!({"type": "scripted"});
        for (key, value) in more.as_object().unwrap() {
            scripted[key] = value.clone();
        }
        let conf = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [
            {"type": "bridge", "bridge": "br0", "ipam": ipam},
            {"type": "tuning", "dataDir": self.at("tuning")},
            scripted,
        ]});
        fs::write(self.at("net.d/10.conflist"), conf.to_string()).unwrap();
    }

    fn tool(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin_dir().join("cnitool"));
        command.env("NETCONFPATH", self.at("net.d"));
        command.env("CNI_PATH", self.at("bin"));
        command.env("PODWIRE_RECORD", self.file());
        command.arg("--cache-dir").arg(self.at("cache")).args(args);
        command
    }

    /// The records that these commands add.
    fn recorded(&self, mut command: Command) -> (Output, Vec<Record>) {
        let before = record::read(self.file()).count();
        let output = command.output().unwrap();
        (output, record::read(self.file()).skip(before).collect())
    }
}

fn names(records: &[Record]) -> Vec<(&str, &str, bool)> {
    let of = |op: &'_ Record| op.error.is_none();
    let names = records.iter();
    names
        .map(|op| (op.plugin.as_str(), op.verb.as_str(), of(op)))
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_plugin_of_a_mixed_chain_leaves_one_record() {
    in_netns(|| {
        let node = Node::new("");
        let pod = Pod::new("pod");
        let (output, add) = node.recorded(node.tool(&["add", "net", pod.netns()]));
        assert!(output.status.success(), "{output:?}");
        let expected = ["bridge", "tuning", "scripted"].map(|name| (name, "ADD", true));
        assert_eq!(names(&add), expected);
        for op in &add {
            let about = (op.network.as_str(), op.ifname.as_str());
            assert_eq!(about, ("net", "eth0"), "{op:?}");
            assert_eq!(op.container, add[0].container);
            assert!(op.total_us > 0 && op.pid > 1, "{op:?}");
        }
        // What its caller can know of one: how long it took, from start to end.
        for op in &add[1..] {
            let phases: Vec<_> = op.phases.iter().map(|p| (&*p.name, p.us)).collect();
            assert_eq!(phases, [("run", op.total_us)]);
        }
        assert_ne!(add[1].pid, add[2].pid);

        let shown = node.tool(&["last-ops", "-n", "1"]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("scripted ADD net cnitool-"), "{shown}");
        assert!(shown.contains("(run "), "{shown}");

        node.script("echo '{\"code\": 77, \"msg\": \"no\"}'; exit 1");
        let (output, del) = node.recorded(node.tool(&["del", "net", pod.netns()]));
        assert!(!output.status.success());
        assert_eq!(names(&del), [("scripted", "DEL", false)]);
        let error = del[0].error.as_ref().unwrap();
        assert_eq!((error.code.as_u32(), error.msg.as_str()), (77, "no"));

        // No file, no process: nobody else would tell.
        fs::remove_file(node.at("bin/scripted")).unwrap();
        let (_, del) = node.recorded(node.tool(&["del", "net", pod.netns()]));
        assert_eq!(names(&del), [("scripted", "DEL", false)]);

        node.script("kill -9 $$");
        let (_, del) = node.recorded(node.tool(&["del", "net", pod.netns()]));
        assert_eq!(names(&del), [("scripted", "DEL", false)]);
        node.script("");
        let (output, del) = node.recorded(node.tool(&["del", "net", pod.netns()]));
        assert!(output.status.success(), "{output:?}");
        let expected = ["scripted", "tuning", "bridge"].map(|name| (name, "DEL", true));
        assert_eq!(names(&del), expected);
    });
}

#[test]
fn off_by_default_and_switched_on_for_one_plugin() {
    in_netns(|| {
        let node = Node::new("");
        let pod = Pod::new("pod");
        let off = |verb| {
            let mut command = node.tool(&[verb, "net", pod.netns()]);
            command.env_remove("PODWIRE_RECORD");
            command
        };
        let (output, none) = node.recorded(off("add"));
        assert!(output.status.success() && none.is_empty(), "{output:?}");
        node.configure(&json!({"record": node.file()}));
        let (output, one) = node.recorded(off("del"));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(names(&one), [("scripted", "DEL", true)]);
        // Not ours to refuse.
        node.configure(&json!({"record": 7}));
        let (output, none) = node.recorded(off("del"));
        assert!(output.status.success() && none.is_empty(), "{output:?}");
    });
}

#[test]
fn a_foreign_plugin_is_a_child_of_our_span() {
    in_netns(|| {
        let node = Node::new("echo \"parent $TRACEPARENT\" >&2");
        let pod = Pod::new("pod");
        let mut command = node.tool(&["add", "net", pod.netns()]);
        command.env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"));
        let (output, add) = node.recorded(command);
        let trace = add[2].trace.clone().unwrap();
        assert_eq!(
            (trace.trace_id.as_str(), trace.parent_id.as_str()),
            (TRACE, CALLER)
        );
        let told = format!("parent 00-{TRACE}-{}-01\n", trace.span_id);
        assert_eq!(said(&output), told);
        let lines = fs::read_to_string(node.file()).unwrap();
        assert_eq!(lines.matches("resourceSpans").count(), 3, "{lines}");
        assert!(lines.contains("\"scripted ADD\""), "{lines}");
    });
}

/// As the reference's: a plugin's log is for the caller's log, an error's is in the error, and stdout is the result's.
#[test]
fn what_plugins_say_on_stderr_is_handed_on() {
    in_netns(|| {
        let node = Node::new("echo \"about $CNI_COMMAND\" >&2");
        let pod = Pod::new("pod");
        let output = node.tool(&["add", "net", pod.netns()]).output().unwrap();
        assert_eq!(said(&output), "about ADD\n");
        serde_json::from_slice::<Value>(&output.stdout).unwrap();
        node.script("echo \"about $CNI_COMMAND\" >&2; exit 1");
        let mut command = node.tool(&["del", "net", pod.netns()]);
        // Errors of anyhow then look at the stack, which an executable without tables for that does not survive.
        command.env("RUST_BACKTRACE", "1");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = said(&output);
        assert_eq!(told.matches("about DEL").count(), 1, "{told}");
        assert!(
            told.starts_with("plugin type=\"scripted\" failed"),
            "{told}"
        );
    });
}

#[test]
fn a_log_may_be_taken_elsewhere() {
    use libcni::runtime::{Attach, NetworkList, Runtime};
    use std::sync::{Arc, Mutex};

    in_netns(|| {
        let node = Node::new("head -c 100000 /dev/zero >&2; echo the end >&2");
        let pod = Pod::new("pod");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&heard);
        let runtime = Runtime::new([node.at("bin")])
            .cache_dir(node.at("cache"))
            .plugin_log(move |log| {
                let said = (log.plugin.to_owned(), log.verb, log.text.to_vec());
                ears.lock().unwrap().push(said);
            });
        let list = NetworkList::load(Path::new(&node.at("net.d")), "net").unwrap();
        let at = Attach::new("c1", pod.netns(), "eth0");
        runtime.add(&list, &at).unwrap();
        let heard = heard.lock().unwrap();
        let [(plugin, verb, text)] = heard.as_slice() else {
            panic!("{heard:?}");
        };
        assert_eq!((plugin.as_str(), verb.as_str()), ("scripted", "ADD"));
        assert!(text.ends_with(b"\0the end\n") && text.len() == 64 * 1024);
    });
}
