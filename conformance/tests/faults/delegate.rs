//! IPAM plugins that go wrong.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Call, bin_dir, eventually, in_netns, sh, waits_for_a_lock};

use crate::refusal::{Ground, Want, refusal, want};

/// Puts an IPAM called `odd` into a directory of its own, which logs its calls; returns the configuration with it.
fn odd(ground: &Ground, script: &str) -> (Value, PathBuf) {
    let dir = ground.node.dir.join("odd");
    fs::create_dir_all(&dir).unwrap();
    let log = dir.join("log");
    fs::write(&log, "").unwrap();
    let file = dir.join("odd");
    let text = format!("echo $CNI_COMMAND >>{}\n{script}", log.display());
    testkit::script(&file, &text);
    (ground.node.conf(json!({"ipam": {"type": "odd"}})), dir)
}

fn path(dir: &std::path::Path) -> String {
    format!("{}:{}", dir.display(), bin_dir().display())
}

#[test]
fn missing_or_named_by_a_path() {
    in_netns(|| {
        let mut ground = Ground::new();
        let cases = [
            ("no-such-plugin", "no-such-plugin", "install"),
            ("../host-local", "../host-local", "CNI_PATH"),
            ("/bin/true", "/bin/true", "CNI_PATH"),
            ("..", "..", "CNI_PATH"),
        ];
        for (name, words, remedy) in cases {
            let conf = ground.node.conf(json!({"ipam": {"type": name}}));
            let call = ground.call("ADD", &conf);
            ground.refused(name, &call, &want(&[7], words, remedy));
        }
        // host-local's reservations are files: they are freed without its executable.
        let good = ground.node.conf(json!({}));
        ground.add(&good);
        let call = ground.call("DEL", &good).cni_path("/nowhere");
        ground.granted("DEL without host-local", &call);
        ground.clean("DEL without host-local");
        ground.finish();
    });
}

/// Each on ADD; its DEL is called then, and its mess is not ours.
#[test]
fn fails_in_its_own_way() {
    in_netns(|| {
        let mut ground = Ground::new();
        let ips = r#"{"cniVersion": "1.1.0", "ips": [{"address": "10.7.0.9/24"}]}"#;
        let cases: [(&str, String, Want); 11] = [
            ("rubbish, exit 0", "echo rubbish".into(), want(&[6, 999], "odd", "")),
            ("rubbish, exit 1", "echo rubbish; exit 1".into(), want(&[999], "rubbish", "odd status 1")),
            ("nothing, exit 3", "exit 3".into(), want(&[999], "status 3", "odd")),
            ("its log only", "echo the-reason >&2; exit 1".into(), want(&[999], "the-reason odd", "")),
            ("killed", "kill -9 $$".into(), want(&[999], "SIGKILL", "odd")),
            (
                "its own error",
                r#"echo '{"cniVersion": "1.1.0", "code": 77, "msg": "its-own", "details": "its-remedy"}'; exit 1"#.into(),
                want(&[77], "its-own", "its-remedy"),
            ),
            ("no address", r#"echo '{"cniVersion": "1.1.0"}'"#.into(), want(&[6, 7, 999], "IP", "")),
            ("an address like no other", format!("echo '{}'", ips.replace("10.7.0.9", "10.7.0.999")), want(&[6, 7, 999], "10.7.0.999", "")),
            ("half a result", format!("printf '%.30s' '{ips}'"), want(&[6, 999], "", "")),
            ("wrong types", r#"echo '{"cniVersion": "1.1.0", "ips": "many"}'"#.into(), want(&[6, 7, 999], "ips", "")),
            ("another version", format!("echo '{}'", ips.replace("1.1.0", "0.2.0")), want(&[1, 6, 7, 999], "", "")),
        ];
        for (case, script, want) in cases {
            let script = format!("[ $CNI_COMMAND = DEL ] && exit 0\n{script}");
            let (conf, dir) = odd(&ground, &script);
            let call = ground.call("ADD", &conf).cni_path(path(&dir));
            ground.refused(case, &call, &want);
            let log = fs::read_to_string(dir.join("log")).unwrap();
            if log != "ADD\nDEL\n" {
                ground.wrong(case, format!("its calls were {log:?}"));
            }
            ground.clean(case);
        }
        for (case, mode, text) in [
            ("no permission", 0o644, "#!/bin/sh\n"),
            ("no program", 0o755, "\u{7f}ELF?"),
        ] {
            let (conf, dir) = odd(&ground, "");
            fs::write(dir.join("odd"), text).unwrap();
            fs::set_permissions(dir.join("odd"), Permissions::from_mode(mode)).unwrap();
            let call = ground.call("ADD", &conf).cni_path(path(&dir));
            ground.refused(case, &call, &want(&[5, 7, 999], "odd", ""));
        }
        let good = ground.node.conf(json!({}));
        // Our own, and the disk does not give it (nothing is mapped at the beginning): what it holds is released all the same.
        let dir = ground.node.dir.join("broken-disk");
        fs::create_dir(&dir).unwrap();
        symlink("/proc/self/mem", dir.join("host-local")).unwrap();
        let masked = ground.node.conf(json!({"ipMasq": true}));
        let unread = |verb| ground.call(verb, &masked).cni_path(path(&dir));
        let (add, del) = (unread("ADD"), unread("DEL"));
        ground.refused("cannot be read", &add, &want(&[5], "host-local", "disk"));
        ground.clean("cannot be read");
        ground.add(&masked);
        ground.granted("released without it", &del);
        ground.clean("released without it");
        ground.next_works("after all", &good);
        ground.finish();
    });
}

/// On DEL: ours is removed all the same, and the failure told, so that the runtime comes again.
#[test]
fn fails_on_del() {
    in_netns(|| {
        let mut ground = Ground::new();
        let result = r#"{"cniVersion": "1.1.0", "ips": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1"}]}"#;
        for (case, script) in [("exit 1", "exit 1"), ("killed", "kill -9 $$"), ("gone", "")] {
            let script =
                format!("[ $CNI_COMMAND = ADD ] && {{ echo '{result}'; exit; }}\n{script}");
            let (conf, dir) = odd(&ground, &script);
            let with = |call: Call| call.cni_path(path(&dir));
            let mut conf = conf;
            conf["prevResult"] = ground.node.ok(&with(ground.call("ADD", &conf)));
            if case == "gone" {
                fs::remove_file(dir.join("odd")).unwrap();
            }
            let out = ground.node.run(&with(ground.call("DEL", &conf)));
            if let Err(what) = refusal(&out, &want(&[7, 999], "odd", "")) {
                ground.wrong(case, what);
            }
            ground.clean(case);
            odd(&ground, "exit 0");
            ground.granted(case, &with(ground.call("DEL", &conf)));
        }
        ground.finish();
    });
}

/// It never answers. SIGTERM to the plugin ends it, undoes everything and says so; a delegate that does not mind SIGTERM
/// is killed.
#[test]
fn hangs_until_the_runtime_gives_up() {
    in_netns(|| {
        for (case, script, at_most_s) in [
            ("asleep", "exec sleep 100", 4),
            ("in a child", "sleep 100; exit 0", 9),
            ("stubborn", "trap '' TERM; exec sleep 100", 12),
        ] {
            let mut ground = Ground::new();
            let (conf, dir) = odd(
                &ground,
                &format!("[ $CNI_COMMAND = DEL ] && exit 0\n{script}"),
            );
            let call = ground.call("ADD", &conf).cni_path(path(&dir));
            let before = ground.state();
            let child = ground.node.spawn(call.command(), &conf.to_string());
            eventually(Duration::from_secs(5), || {
                fs::read_to_string(dir.join("log")).unwrap() == "ADD\n"
            });
            let began = Instant::now();
            sh(&format!("kill -TERM {}", child.id()));
            let out = child.wait_with_output().unwrap();
            let took = began.elapsed();
            let out = testkit::Output {
                status: out.status,
                stdout: String::from_utf8(out.stdout).unwrap(),
                stderr: String::from_utf8(out.stderr).unwrap(),
            };
            if let Err(what) = refusal(&out, &want(&[11], "SIGTERM", "runtime")) {
                ground.wrong(case, what);
            }
            if took > Duration::from_secs(at_most_s) {
                ground.wrong(case, format!("took {took:?}"));
            }
            ground.unchanged(case, &before);
            let log = fs::read_to_string(dir.join("log")).unwrap();
            if log != "ADD\nDEL\n" {
                ground.wrong(case, format!("its calls were {log:?}"));
            }
            let good = ground.node.conf(json!({}));
            ground.next_works(case, &good);
            ground.finish();
        }
    });
}

/// While it waits for the lock of the store, which another process holds.
#[test]
fn stopped_while_waiting_for_the_store() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(json!({}));
        ground.add(&conf);
        ground.del(&conf);
        let lock = ground.node.store().join("cbr0/lock");
        let mut holder = std::process::Command::new("flock")
            .arg("--no-fork")
            .arg(&lock)
            .args(["sleep", "200"])
            .spawn()
            .unwrap();
        eventually(Duration::from_secs(60), || {
            !sh(&format!(
                "flock -n {} true && echo free || echo held",
                lock.display()
            ))
            .contains("free")
        });
        let before = ground.state();
        let child = ground
            .node
            .spawn(ground.call("ADD", &conf).command(), &conf.to_string());
        eventually(Duration::from_secs(60), || waits_for_a_lock(child.id()));
        sh(&format!("kill -TERM {}", child.id()));
        let out = child.wait_with_output().unwrap();
        let error: Value = serde_json::from_slice(&out.stdout).unwrap();
        if error["code"] != 11 || error["details"].as_str().is_none_or(str::is_empty) {
            ground.wrong("locked", error);
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        ground.unchanged("locked", &before);
        ground.finish();
    });
}
