//! `cnitool` as its users call it: real plugins, real namespaces.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "cnitool/node.rs"]
mod node;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Pod, bin_dir, eventually, in_netns};

use node::{Node, links};

#[test]
fn attach_check_list_detach() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("blue");
        node.ok(&["status", "cbr0"]);
        // Set to nothing is not set: the tool then looks in the usual place.
        let out = node
            .tool(&["status", "nope"])
            .env("NETCONFPATH", "")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(told.contains("/etc/cni/net.d"), "{told}");
        let text = node.ok(&["add", "cbr0", pod.netns()]);
        assert!(text.ends_with('}'), "as a plugin prints: {text:?}");
        let result: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(result["ips"][0]["address"], "10.40.1.2/29");
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(
            pod.ip_json(&["address", "show", "eth0"])[0]["ifname"],
            "eth0"
        );
        node.ok(&["check", "cbr0", pod.netns()]);

        let listed = node.json(&["list"]);
        assert_eq!(listed[0]["network"], "cbr0");
        assert_eq!(listed[0]["addresses"], json!(["10.40.1.2/29"]));
        assert_eq!(listed[0]["netns"], pod.netns());
        let id = listed[0]["containerID"].as_str().unwrap().to_owned();
        assert!(id.starts_with("cnitool-") && id.len() == 28, "{id}");
        let table = node.ok(&["list", "cbr0"]);
        assert!(
            table.starts_with("NETWORK") && table.contains("10.40.1.2/29"),
            "{table}"
        );
        assert_eq!(node.json(&["list", "another"]), json!([]));

        // A second ADD is refused, and takes nothing away.
        let told = node.err(&["add", "cbr0", pod.netns()]);
        assert!(told.contains("DEL the attachment"), "{told}");

        // A path written in another way is the same namespace.
        let crooked = pod.netns().replace("/netns/", "//netns/./");
        node.ok(&["check", "cbr0", &crooked]);
        pod.sh("ip address flush dev eth0");
        let told = node.err(&["check", "cbr0", pod.netns()]);
        assert!(
            told.contains("bridge") && told.contains("10.40.1.2"),
            "{told}"
        );
        node.ok(&["del", "cbr0", pod.netns()]);
        node.ok(&["del", "cbr0", pod.netns()]);
        node.is_empty();
    });
}

#[test]
fn interface_arguments_and_capabilities() {
    in_netns(|| {
        let node = Node::new();
        let mut conf = node.cbr0();
        conf["plugins"][0]["capabilities"] = json!({"ips": true, "mac": true});
        node.write("10-cbr0.conflist", &conf.to_string());
        let pod = Pod::new("blue");
        let add = |set: &dyn Fn(&mut Command)| {
            let mut command = node.tool(&["add", "cbr0", pod.netns()]);
            set(&mut command);
            command.output().unwrap()
        };
        let told = |out: &Output| String::from_utf8_lossy(&out.stderr).into_owned();

        let empty = add(&|c| {
            c.env("CNI_IFNAME", "");
        });
        assert!(
            told(&empty).contains("interface name is empty"),
            "{empty:?}"
        );
        let wrong = add(&|c| {
            c.env("CNI_ARGS", "A");
        });
        assert!(
            told(&wrong).contains("invalid CNI_ARGS pair \"A\""),
            "{wrong:?}"
        );
        let wrong = add(&|c| {
            c.env("CAP_ARGS", "[]");
        });
        assert!(told(&wrong).contains("CAP_ARGS is an array"), "{wrong:?}");

        let out = add(&|c| {
            c.env("CNI_IFNAME", "net1");
            c.env(
                "CAP_ARGS",
                r#"{"ips": ["10.40.1.5"], "mac": "02:00:00:00:00:05"}"#,
            );
            c.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web");
        });
        assert!(out.status.success(), "{}", told(&out));
        let result: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(result["ips"][0]["address"], "10.40.1.5/29");
        assert_eq!(result["interfaces"][2]["mac"], "02:00:00:00:00:05");
        assert_eq!(pod.ip_json(&["link", "show", "net1"])[0]["ifname"], "net1");
        // The option wins over the variable.
        let out = node
            .tool(&["del", "cbr0", pod.netns(), "--ifname", "net1"])
            .env("CNI_IFNAME", "x")
            .output();
        assert!(out.unwrap().status.success());
        node.is_empty();
    });
}

#[test]
fn gc_of_a_network_detaches_all_of_it() {
    in_netns(|| {
        let node = Node::new();
        let pods = [Pod::new("a"), Pod::new("b")];
        for pod in &pods {
            node.ok(&["add", "cbr0", pod.netns()]);
        }
        assert!(
            node.ok(&["gc", "cbr0", "--dry-run"])
                .contains("would free cbr0/cnitool-")
        );
        assert_eq!(node.reservations().len(), 2);
        node.ok(&["gc", "cbr0", "ignored"]);
        node.is_empty();
    });
}

/// What lost its namespace goes, the rest stays, and nothing goes before its time.
#[test]
fn collecting_by_namespaces() {
    in_netns(|| {
        let node = Node::new();
        let (stays, goes) = (Pod::new("stays"), Pod::new("goes"));
        node.ok(&["add", "cbr0", stays.netns()]);
        node.ok(&["add", "cbr0", goes.netns()]);
        // A reservation nobody remembers, too.
        fs::write(node.at("store/cbr0/10.40.1.4"), "forgotten\r\neth0").unwrap();
        drop(goes);
        // The kernel takes a namespace apart by and by; until then its host ends stand.
        eventually(Duration::from_secs(120), || links() == 1);
        assert_eq!(node.reservations(), ["10.40.1.2", "10.40.1.3", "10.40.1.4"]);
        let gc = |more: &[&str]| {
            let args = ["gc", "--from-netns", "/run/netns"].iter().chain(more);
            node.ok(&args.copied().collect::<Vec<_>>())
        };

        let young = gc(&[]);
        assert!(young.contains("0 freed, 3 kept"), "{young}");
        let dry = gc(&["--dry-run", "--grace", "0s"]);
        assert!(
            dry.contains("would free cbr0/forgotten/eth0 (10.40.1.4): no namespace"),
            "{dry}"
        );
        assert!(
            dry.contains("is gone") && dry.contains("2 would be freed, 1 kept"),
            "{dry}"
        );
        assert_eq!(node.reservations().len(), 3, "a dry run frees nothing");

        // Of another directory: not to be judged by this one. By another name it is the same.
        fs::create_dir("/run/others").unwrap();
        let others = node.ok(&[
            "gc",
            "--from-netns",
            "/run/others",
            "--dry-run",
            "--grace",
            "0s",
        ]);
        assert!(others.contains("is not in /run/others"), "{others}");
        assert!(others.contains("1 would be freed, 2 kept"), "{others}");
        std::os::unix::fs::symlink("/run", "/run/alias").unwrap();
        let alias = node.ok(&[
            "gc",
            "--from-netns",
            "/run/alias/netns",
            "--dry-run",
            "--grace",
            "0s",
        ]);
        assert!(alias.contains("2 would be freed, 1 kept"), "{alias}");

        let freed = gc(&["--grace", "0s"]);
        assert!(freed.contains("2 freed, 1 kept, 0 failed"), "{freed}");
        assert_eq!(node.reservations(), ["10.40.1.2"]);
        assert_eq!(node.json(&["list"]).as_array().unwrap().len(), 1);
        node.ok(&["check", "cbr0", stays.netns()]);
        let again = node.json(&["gc", "--from-netns", "/run/netns", "--grace", "0s"]);
        assert_eq!(again.as_array().unwrap().len(), 1);
        assert_eq!(again[0]["outcome"], "kept");
        assert_eq!(again[0]["why"], format!("{} is in use", stays.netns()));

        let told = node.err(&["gc", "--from-netns", "/nowhere"]);
        assert!(told.contains("/nowhere is no directory"), "{told}");
        node.ok(&["del", "cbr0", stays.netns()]);
        node.is_empty();
    });
}

/// A runtime that cannot be asked is no evidence that all pods are dead.
#[test]
fn without_an_answer_nothing_is_freed() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("blue");
        node.ok(&["add", "cbr0", pod.netns()]);
        let told = node.err(&["gc", "--from-cri", "/nowhere.sock", "--grace", "0s"]);
        assert!(told.contains("/nowhere.sock"), "{told}");
        assert_eq!(node.reservations().len(), 1);
        node.ok(&["del", "cbr0", pod.netns()]);
    });
}

#[test]
fn mistakes_are_told() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("blue");
        let told = node.err(&["add", "nope", pod.netns()]);
        assert!(
            told.contains("no net configuration with name \"nope\" in"),
            "{told}"
        );
        let told = node.err(&["add", "cbr0", "/run/netns/never"]);
        assert!(told.contains("bridge") && told.contains("never"), "{told}");
        assert!(told.trim_end().lines().count() == 1, "{told}");
        for wrong in [
            &[][..],
            &["frobnicate", "cbr0", "x"],
            &["add", "cbr0"],
            &["gc"],
        ] {
            assert!(node.err(wrong).contains("Usage"), "{wrong:?}");
        }
        let out = node.run(&["--json", "add", "cbr0", "/run/netns/never"]);
        assert_eq!(out.status.code(), Some(1));
        let error: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(error["code"], 8);
        node.is_empty();
    });
}

#[test]
fn networks_and_versions() {
    in_netns(|| {
        let node = Node::new();
        node.write("05-broken.conflist", "{");
        node.write(
            "99-lo.conf",
            r#"{"cniVersion": "0.4.0", "name": "lo", "type": "loopback"}"#,
        );
        let table = node.ok(&["networks"]);
        let line = |file: &str| {
            table
                .lines()
                .find(|l| l.starts_with(file))
                .unwrap()
                .to_owned()
        };
        assert!(line("05-broken").contains("JSON"), "{table}");
        assert!(
            line("10-cbr0").contains("containerd and CRI-O take this one"),
            "{table}"
        );
        assert!(!line("99-lo").contains("take this one"), "{table}");
        let files = node.json(&["networks"]);
        assert_eq!(files[1]["plugins"], json!(["bridge"]));
        assert_eq!(files[2]["network"], "lo");
        // A broken neighbour does not hide a network.
        node.ok(&["status", "cbr0"]);

        let versions = node.json(&["version"]);
        assert_eq!(versions["bridge"].as_array().unwrap().len(), 7);
        assert!(
            node.ok(&["version", "host-local"])
                .starts_with("host-local: 0.1.0, ")
        );
        let told = node.err(&["version", "absent"]);
        assert!(told.contains("absent"), "{told}");
    });
}

/// The reference's plugins, and a chain of both kinds.
#[test]
fn chains_of_theirs_and_mixed() {
    in_netns(|| {
        let node = Node::new();
        let theirs = Path::new("/usr/lib/cni");
        let mixed = node.at("mixed");
        fs::create_dir(&mixed).unwrap();
        for (dir, name) in [
            (bin_dir().as_path(), "bridge"),
            (theirs, "host-local"),
            (theirs, "tuning"),
        ] {
            std::os::unix::fs::symlink(dir.join(name), mixed.join(name)).unwrap();
        }
        let mut conf = node.cbr0();
        conf["plugins"][0]["ipMasq"] = json!(false); // iptables wants a real root
        let tuning = json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}});
        conf["plugins"].as_array_mut().unwrap().push(tuning);
        node.write("10-cbr0.conflist", &conf.to_string());
        for path in [theirs, &mixed] {
            let pod = Pod::new("blue");
            let run = |verb: &str| {
                let out = node
                    .tool(&[verb, "cbr0", pod.netns()])
                    .env("CNI_PATH", path)
                    .output()
                    .unwrap();
                assert!(out.status.success(), "{verb} {}: {out:?}", path.display());
            };
            run("add");
            assert_eq!(
                pod.sh("cat /proc/sys/net/ipv4/conf/eth0/log_martians")
                    .trim(),
                "1"
            );
            run("check");
            run("del");
            node.is_empty();
        }
    });
}

/// Plugins inherit the switch from whoever calls them.
#[test]
fn the_last_operations_are_shown() {
    in_netns(|| {
        let node = Node::new();
        let pod = Pod::new("blue");
        let file = node.at("operations");
        let file = file.to_str().unwrap();
        let told = node.err(&["last-ops", file]);
        assert!(told.contains("records are off"), "{told}");
        for (verb, netns) in [
            ("add", pod.netns()),
            ("add", pod.netns()),
            ("del", pod.netns()),
        ] {
            let mut tool = node.tool(&[verb, "cbr0", netns]);
            tool.env("PODWIRE_RECORD", file).output().unwrap();
        }
        let shown = node.ok(&["last-ops", file]);
        let lines: Vec<&str> = shown.lines().collect();
        // ADD, its failing twin, DEL.
        assert!(
            lines.len() >= 3 && lines[0].contains("bridge ADD cbr0 cnitool-"),
            "{shown}"
        );
        assert!(
            lines[0].contains("/eth0: ok in ") && lines[0].contains(" veth "),
            "{shown}"
        );
        assert!(
            lines[1].contains("bridge ADD") && lines[1].contains("duplicate"),
            "{shown}"
        );
        let one = node.ok(&["--json", "last-ops", file, "-n", "1"]);
        let one: Value = serde_json::from_str(&one).unwrap();
        assert_eq!(
            (&one["verb"], &one["plugin"]),
            (&json!("DEL"), &json!("bridge"))
        );
        assert!(
            one["phases"]
                .as_object()
                .is_some_and(|phases| !phases.is_empty())
        );
    });
}

/// What the manual and the timer's unit say can be typed.
#[test]
fn the_manual_and_the_unit_are_right() {
    in_netns(|| {
        let node = Node::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manual = fs::read_to_string(root.join("../../docs/cnitool.md")).unwrap();
        let commands = manual
            .lines()
            .filter_map(|line| line.strip_prefix("cnitool "));
        let mut seen = 0;
        for command in commands {
            let verb = command.split_whitespace().next().unwrap();
            let help = node.ok(&[verb, "--help"]);
            let options = command
                .split([' ', ','])
                .filter(|word| word.starts_with("--"));
            for option in options {
                assert!(help.contains(option), "{verb} {option}: {help}");
            }
            seen += 1;
        }
        assert!(seen >= 12, "{seen}");

        let unit = fs::read_to_string(root.join("systemd/podwire-gc.service")).unwrap();
        let start = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/cnitool "));
        let words = start
            .unwrap()
            .split(' ')
            .filter(|word| *word != "$GC_OPTIONS");
        let words: Vec<String> = words
            .map(|word| word.replace("${CRI_SOCKET}", "/nowhere.sock"))
            .collect();
        let told = node.err(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(
            told.contains("/nowhere.sock") && !told.contains("Usage"),
            "{told}"
        );
    });
}
