//! A node that is not as it should be.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::{Pod, in_netns, sh};

use crate::refusal::{Ground, want};

#[test]
fn namespace_gone() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(json!({}));
        fs::write("/run/netns/file", "").unwrap();
        let own = ground.node.host.netns().to_owned();
        let cases = [
            ("/run/netns/never", "never"),
            ("/run/netns/file", "file"),
            ("/run/netns", "/run/netns"),
            ("/proc/self/ns/mnt", "another kind"),
            ("relative", "relative"),
        ];
        for (path, words) in cases {
            let call = ground.node.call("ADD", "c", path, &conf);
            ground.refused(path, &call, &want(&[8], words, "sandbox"));
        }
        let call = ground.node.call("ADD", "c", &own, &conf);
        ground.refused(
            "the node's own",
            &call,
            &want(&[8], "same", "CNI_NETNS_OVERRIDE"),
        );
        ground.next_works("after all", &conf);

        // Gone between ADD and DEL; with the path as a left-over file; with no path at all.
        for left in ["nothing", "a file", "no path"] {
            let pod = Pod::new("doomed");
            let path = pod.netns().to_owned();
            ground.node.ok(&ground.node.call("ADD", "c", &path, &conf));
            if left != "no path" {
                drop(pod);
            }
            if left == "a file" {
                fs::write(&path, "").unwrap();
            }
            let call = ground.node.call("DEL", "c", &path, &conf);
            let call = if left == "no path" {
                call.without("CNI_NETNS")
            } else {
                call
            };
            ground.granted(left, &call);
            ground.granted("and again", &call);
            ground.clean(left);
            let _ = fs::remove_file(&path);
        }
        ground.finish();
    });
}

#[test]
fn interface_there_already() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(json!({}));
        ground.pod.sh("ip link add eth0 type veth peer name other");
        let call = ground.call("ADD", &conf);
        ground.refused("a veth", &call, &want(&[101], "eth0", "EEXIST"));
        ground.pod.sh("ip -d link show eth0 | grep -q veth");
        ground.pod.sh("ip link del eth0");
        ground.next_works("a veth", &conf);
        ground.finish();
    });
}

#[test]
fn twice_and_in_the_wrong_order() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(json!({}));
        let before = ground.state();
        let del = ground.call("DEL", &conf);
        ground.granted("DEL first", &del);
        ground.unchanged("DEL first", &before);
        let result = ground.add(&conf);
        let add = ground.call("ADD", &conf);
        ground.refused("ADD twice", &add, &want(&[101, 104], "", "DEL"));
        let mut checked = conf.clone();
        checked["prevResult"] = result;
        let check = ground.call("CHECK", &checked);
        ground.granted("the first survives", &check);
        let check = ground.call("CHECK", &conf);
        ground.refused("no prevResult", &check, &want(&[7], "prevResult", "ADD"));
        ground.granted("DEL", &del);
        ground.unchanged("DEL", &before);
        ground.granted("DEL twice", &del);
        ground.unchanged("DEL twice", &before);
        ground.finish();
    });
}

#[test]
fn pool_exhausted() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(
            json!({"ipam": {"ranges": [[{"subnet": "10.7.0.0/30"}], [{"subnet": "fd07::/64"}]]}}),
        );
        let mut checked = conf.clone();
        checked["prevResult"] = ground.add(&conf);
        let other = Pod::new("other");
        let call = ground.node.call("ADD", "other", other.netns(), &conf);
        ground.refused("full", &call, &want(&[11], "10.7.0.2", "cbr0 GC DEL"));
        let check = ground.call("CHECK", &checked);
        ground.granted("the first survives", &check);
        ground.del(&conf);
        ground.next_works("a freed address", &conf);
        ground.finish();
    });
}

/// By bytes, by inodes, or read-only: code 5, nothing left, and it works as soon as there is room.
#[test]
fn store_cannot_be_written() {
    in_netns(|| {
        for (kind, remedy) in [
            ("bytes", "ENOSPC room"),
            ("inodes", "ENOSPC inodes"),
            ("read-only", "EROFS writable"),
        ] {
            let mut ground = Ground::new();
            let conf = ground.node.conf(json!({}));
            let store = ground.node.store().display().to_string();
            sh(&format!(
                "mkdir {store} && mount -t tmpfs -o size=256k,nr_inodes=40 none {store}"
            ));
            for standing in [false, true] {
                let case = format!("{kind}, a pod there {standing}");
                let other = Pod::new("other");
                let standing =
                    standing.then(|| ground.node.call("DEL", "other", other.netns(), &conf));
                if standing.is_some() {
                    ground
                        .node
                        .ok(&ground.node.call("ADD", "other", other.netns(), &conf));
                }
                match kind {
                    "bytes" => drop(sh(&format!(
                        "dd if=/dev/zero of={store}/full bs=4k 2>/dev/null || :"
                    ))),
                    "inodes" => drop(sh(&format!(
                        "n=0; while mkdir {store}/d$n 2>/dev/null; do n=$((n+1)); done"
                    ))),
                    _ => drop(sh(&format!("mount -o remount,ro {store}"))),
                }
                let call = ground.call("ADD", &conf);
                ground.refused(&case, &call, &want(&[5], "store", remedy));
                if let Some(del) = &standing {
                    // A full disk keeps nobody from leaving; a read-only one does, but only the address stays.
                    if kind == "read-only" {
                        let out = ground.node.run(del);
                        assert!(!out.status.success(), "{out:?}");
                        let state = ground.node.state();
                        assert!(
                            state.rules.is_empty()
                                && !state.links.iter().any(|l| l.contains("podwire")),
                            "{state:?}"
                        );
                    } else {
                        ground.granted(&case, del);
                    }
                }
                match kind {
                    "read-only" => drop(sh(&format!("mount -o remount,rw {store}"))),
                    _ => drop(sh(&format!("rm -rf {store}/full {store}/d[0-9]*"))),
                }
                if let Some(del) = &standing {
                    ground.granted(&case, del);
                }
                ground.clean(&case);
                ground.next_works(&case, &conf);
            }
            sh(&format!("umount {store}"));
            ground.finish();
        }
    });
}

#[test]
fn bridge_name_taken() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(json!({}));
        for kind in ["veth", "vxlan id 7 dstport 4789", "ifb"] {
            ground
                .node
                .host
                .sh(&format!("ip link add cbr0 type {kind}"));
            let call = ground.call("ADD", &conf);
            ground.refused(kind, &call, &want(&[102], "cbr0 bridge", "rename"));
            let mut status = conf.clone();
            status["cniVersion"] = json!("1.1.0");
            let call = ground.call("STATUS", &status);
            ground.refused(&format!("STATUS, {kind}"), &call, &want(&[50], "cbr0", ""));
            ground.node.host.sh("ip link del cbr0");
        }
        ground.next_works("after all", &conf);
        ground.finish();
    });
}

#[test]
fn address_of_the_bridge_in_the_way() {
    in_netns(|| {
        let mut ground = Ground::new();
        ground
            .node
            .host
            .sh("ip link add cbr0 type bridge; ip link set cbr0 up");
        let cases = [
            ("10.9.9.1/24", "10.7.0.1/24"),
            ("10.7.0.9/24", "10.7.0.1/24"),
            ("fd07::9/64", "fd07::1/64"),
        ];
        for (held, wanted) in cases {
            ground
                .node
                .host
                .sh(&format!("ip address add {held} dev cbr0 nodad"));
            let conf = ground.node.conf(json!({}));
            let call = ground.call("ADD", &conf);
            ground.refused(held, &call, &want(&[102], wanted, "forceAddress del"));
            let forced = ground.node.conf(json!({"forceAddress": true}));
            let mut checked = forced.clone();
            checked["prevResult"] = ground.add(&forced);
            let check = ground.call("CHECK", &checked);
            ground.granted(held, &check);
            let listed = ground
                .node
                .host
                .exec(&["ip", "-br", "address", "show", "cbr0"]);
            if listed.contains(held) || !listed.contains(wanted) {
                ground.wrong(held, listed);
            }
            ground.del(&forced);
            ground.clean(held);
            ground
                .node
                .host
                .sh("ip address flush dev cbr0 scope global");
        }
        ground.finish();
    });
}

/// What only the kernel knows to be wrong: its step, its errno, its words.
#[test]
fn the_kernel_refuses() {
    in_netns(|| {
        let mut ground = Ground::new();
        let good = ground.node.conf(json!({}));
        for over in [json!({"mtu": 10}), json!({"mtu": 70000})] {
            let case = over.to_string();
            let conf = ground.node.conf(over);
            for bridge_stands in [false, true] {
                if bridge_stands {
                    ground.add(&good);
                    ground.del(&good);
                }
                let call = ground.call("ADD", &conf);
                ground.refused(&case, &call, &want(&[7, 999], "mtu", ""));
            }
            ground.node.host.sh("ip link del cbr0");
        }
        // A route through a gateway nobody has, found out when half of the pod is made.
        let conf = ground
            .node
            .conf(json!({"ipam": {"routes": [{"dst": "10.0.0.0/8", "gw": "192.0.2.1"}]}}));
        let call = ground.call("ADD", &conf);
        ground.refused(
            "route",
            &call,
            &want(&[7, 999], "10.0.0.0/8", "ENETUNREACH"),
        );
        ground.next_works("route", &good);
        ground.finish();
    });
}

/// The runtime that would read the result is gone: nothing may stay that nobody knows of.
#[test]
fn nobody_reads_the_result() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(json!({ "ipMasq": true }));
        let mut command = ground.call("ADD", &conf).command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Its log neither.
        drop((child.stdout.take(), child.stderr.take()));
        let text = conf.to_string();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert_eq!(
            child.wait().unwrap().code(),
            Some(1),
            "an error, not a signal"
        );
        ground.clean("after the undo");
        ground.finish();
    });
}

/// With standard descriptors closed, none of the plugin's own sockets and files may come to stand there: its
/// result would be written into them.
#[test]
fn standard_descriptors_closed() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(json!({}));
        let file = ground.node.dir.join("network.json");
        fs::write(&file, conf.to_string()).unwrap();
        for closed in ["1>&-", "1>&- 2>&-"] {
            for verb in ["ADD", "DEL"] {
                let plugin = ground.call(verb, &conf).command();
                let mut shell = Command::new("sh");
                shell.env_clear();
                shell.envs(plugin.get_envs().filter_map(|(k, v)| Some((k, v?))));
                let program = plugin.get_program().to_str().unwrap();
                let line = format!("exec {program} < {} {closed}", file.display());
                let out = shell.args(["-c", &line]).output().unwrap();
                assert!(out.status.success(), "{verb} {closed}: {out:?}");
            }
            ground.clean(closed);
        }
        ground.finish();
    });
}
