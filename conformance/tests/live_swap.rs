//! Ours and Debian's reference plugins take over from each other while pods live: the same links, the same store, the
//! same results, in either direction and both at once.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use conformance::differential::VERSIONS;
use serde_json::{Value, json};
use testkit::{Call, Output, Pod, bin_dir, in_netns, ip_json, sh};

#[path = "live_swap/store.rs"]
mod one_store;
#[path = "live_swap/talk.rs"]
mod talk;

use talk::Talk;

const STORE: &str = "/var/lib/cni/networks/swap";

/// A directory of plugins; as a `CNI_PATH` it may be another's than the one the called plugin is from.
#[derive(Clone)]
struct Side(PathBuf);

/// An attachment: where, by whom, with what result.
struct Attached {
    pod: Pod,
    id: String,
    conf: Value,
    result: Value,
}

// === impl Side ===

fn theirs() -> Side {
    Side("/usr/lib/cni".into())
}

fn ours() -> Side {
    Side(bin_dir())
}

/// Who adds, who takes over.
fn both_ways() -> [(Side, Side); 2] {
    [(theirs(), ours()), (ours(), theirs())]
}

impl Side {
    fn call(&self, verb: &str, id: &str, netns: &str, conf: &Value) -> Call {
        Call::new(self.0.join(conf["type"].as_str().unwrap()))
            .verb(verb)
            .container(id)
            .netns(netns)
            .ifname("eth0")
            .cni_path(&self.0)
            .stdin(conf.to_string())
    }

    #[track_caller]
    fn add(&self, id: &str, conf: &Value) -> Attached {
        let pod = Pod::new(id);
        let result = self.call("ADD", id, pod.netns(), conf).ok();
        Attached {
            pod,
            id: id.to_owned(),
            conf: conf.clone(),
            result,
        }
    }

    /// CHECK or DEL, as a runtime asks: with the result of the ADD, from the version on that has it.
    fn ask(&self, verb: &str, of: &Attached) -> Output {
        let mut conf = of.conf.clone();
        if conf["cniVersion"].as_str().unwrap() >= "0.4.0" {
            conf["prevResult"] = of.result.clone();
        }
        self.call(verb, &of.id, of.pod.netns(), &conf).run()
    }

    #[track_caller]
    fn succeeds(&self, verb: &str, of: &Attached) {
        if verb == "CHECK" && of.conf["cniVersion"].as_str().unwrap() < "0.4.0" {
            return;
        }
        let output = self.ask(verb, of);
        assert!(output.status.success(), "{verb} of {}: {output:?}", of.id);
    }
}

// === impl Attached ===

impl Attached {
    /// Its n-th address.
    fn ip(&self, n: usize) -> IpAddr {
        // In the 0.1.0 shape there are two at most, by family.
        let old = || match n {
            0 => &self.result["ip4"]["ip"],
            _ => &self.result["ip6"]["ip"],
        };
        let address = self.result["ips"][n]["address"].as_str();
        let address = address.or_else(|| old().as_str()).unwrap();
        address.split('/').next().unwrap().parse().unwrap()
    }
}

fn bridge(version: &str, more: &Value) -> Value {
    let mut conf = json!({
        "cniVersion": version, "name": "swap", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd00:44::/64"}]]},
    });
    for (key, value) in more.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

/// Reservations by address.
fn store() -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(STORE) else {
        return BTreeMap::new();
    };
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.parse::<IpAddr>().is_ok())
        .map(|name| {
            let owner = fs::read_to_string(Path::new(STORE).join(&name)).unwrap();
            (name, owner)
        })
        .collect()
}

/// Rules of either of the network or its pods.
fn rules() -> Vec<String> {
    let all = sh("nft list ruleset; iptables-save; ip6tables-save");
    let of_pods = |line: &&str| {
        ["10.44.", "fd00:44", "CNI-", "swap"]
            .iter()
            .any(|t| line.contains(t))
    };
    all.lines().filter(of_pods).map(str::to_owned).collect()
}

#[track_caller]
fn nothing_is_left() {
    let links = ip_json(&["link", "show", "type", "veth"]);
    assert_eq!(links, json!([]), "links");
    assert_eq!(store(), BTreeMap::new(), "reservations");
    assert_eq!(rules(), Vec::<String>::new(), "rules");
}

#[test]
fn pods_of_one_are_kept_and_removed_by_the_other() {
    in_netns(|| {
        for (first, second) in both_ways() {
            for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0"] {
                let conf = bridge(version, &json!({}));
                println!(
                    "{version}: {} adds, {} takes over",
                    first.0.display(),
                    second.0.display()
                );
                let a = first.add("a", &conf);
                let b = first.add("b", &conf);
                let talks = [0, 1].map(|n| Talk::start(&a, &b, n));
                second.succeeds("CHECK", &a);
                let c = second.add("c", &conf);
                Talk::start(&c, &a, 0).ends_without_loss();
                Talk::start(&b, &c, 1).ends_without_loss();
                // Each by the one that did not add it, while the other two go on talking.
                first.succeeds("CHECK", &c);
                first.succeeds("DEL", &c);
                second.succeeds("CHECK", &b);
                talks.into_iter().for_each(Talk::ends_without_loss);
                second.succeeds("DEL", &a);
                second.succeeds("DEL", &b);
                nothing_is_left();
                second.succeeds("DEL", &b);
                sh("ip link del cni0");
            }
        }
    });
}

/// The other one's IPAM under one's own bridge.
#[test]
fn bridge_of_one_with_host_local_of_the_other() {
    in_netns(|| {
        for (mine, other) in both_ways() {
            let conf = bridge("1.0.0", &json!({}));
            let pods = ["a", "b"].map(Pod::new);
            let mut attached = Vec::new();
            for (pod, id) in pods.into_iter().zip(["a", "b"]) {
                let call = mine.call("ADD", id, pod.netns(), &conf).cni_path(&other.0);
                let result = call.ok();
                let (id, conf) = (id.to_owned(), conf.clone());
                attached.push(Attached {
                    pod,
                    id,
                    conf,
                    result,
                });
            }
            Talk::start(&attached[0], &attached[1], 0).ends_without_loss();
            for of in &attached {
                let mut conf = of.conf.clone();
                conf["prevResult"] = of.result.clone();
                for verb in ["CHECK", "DEL"] {
                    let call = mine.call(verb, &of.id, of.pod.netns(), &conf);
                    call.cni_path(&other.0).ok();
                }
            }
            nothing_is_left();
            sh("ip link del cni0");
        }
    });
}

/// The reference keeps iptables rules per pod, we a table of our own per network.
#[test]
fn masquerading_is_taken_over() {
    in_netns(|| {
        let conf = bridge("1.0.0", &json!({"ipMasq": true}));
        let a = theirs().add("a", &conf);
        let b = theirs().add("b", &conf);
        let theirs_before = rules();
        assert!(
            theirs_before.iter().any(|r| r.contains("CNI-")),
            "{theirs_before:#?}"
        );
        let c = ours().add("c", &conf);
        let talk = Talk::start(&a, &c, 0);
        ours().succeeds("DEL", &b);
        let left = rules();
        let of = |ip: IpAddr| {
            left.iter()
                .filter(|r| r.contains(&format!("{ip}/")))
                .count()
        };
        assert_eq!([of(b.ip(0)), of(b.ip(1))], [0, 0], "{left:#?}");
        assert!(of(a.ip(0)) > 0 && of(a.ip(1)) > 0, "{left:#?}");
        talk.ends_without_loss();
        ours().succeeds("DEL", &a);
        ours().succeeds("DEL", &c);
        nothing_is_left();

        // The reference cannot know our table: what is left of it names the network only, and goes with our next DEL
        // of a pod of the network, be it of one that is long gone. Nor does it find its own rules, over which Debian's
        // 1.1.1 stumbles once, when link and reservation are gone already.
        sh("ip link del cni0");
        let d = ours().add("d", &conf);
        let output = theirs().ask("DEL", &d);
        let stumbled = output.stdout.contains("does not exist");
        assert!(output.status.success() || stumbled, "{output:?}");
        theirs().succeeds("DEL", &d);
        assert_eq!(ip_json(&["link", "show", "type", "veth"]), json!([]));
        assert_eq!(store(), BTreeMap::new());
        let left = rules();
        let of_pod = |rule: &String| rule.contains(&d.ip(0).to_string()) || rule.contains("CNI-");
        assert!(!left.iter().any(of_pod), "{left:#?}");
        ours().succeeds("DEL", &d);
        nothing_is_left();
    });
}

#[test]
fn loopback_and_host_local_are_taken_over() {
    in_netns(|| {
        for (first, second) in both_ways() {
            for version in ["0.4.0", "1.0.0"] {
                let lo = json!({"cniVersion": version, "name": "swap", "type": "loopback"});
                let a = first.add("a", &lo);
                second.succeeds("CHECK", &a);
                second.succeeds("DEL", &a);
                assert_eq!(a.pod.ip_json(&["link"])[0]["flags"], json!(["LOOPBACK"]));

                let ipam = bridge(version, &json!({}))["ipam"].clone();
                let conf = json!({"cniVersion": version, "name": "swap", "type": "host-local", "ipam": ipam});
                let b = first.add("b", &conf);
                second.succeeds("CHECK", &b);
                // The other one's reservation counts: not twice for one attachment, and not for another.
                let again = second.call("ADD", "b", b.pod.netns(), &conf).err();
                assert!(
                    again["msg"]
                        .as_str()
                        .unwrap()
                        .contains("duplicate allocation"),
                    "{again}"
                );
                let c = second.add("c", &conf);
                assert!(b.ip(0) != c.ip(0) && b.ip(1) != c.ip(1));
                first.succeeds("DEL", &c);
                second.succeeds("DEL", &b);
                nothing_is_left();
            }
        }
    });
}

/// A result of the reference, in every version, is what our CHECK and DEL understand; so is one of another version,
/// left from before the network's `cniVersion` was changed, as far as DEL goes.
#[test]
fn results_of_the_reference_of_every_version() {
    in_netns(|| {
        for added in VERSIONS {
            for asked in VERSIONS {
                let mut a = theirs().add("a", &bridge(added, &json!({})));
                a.conf["cniVersion"] = asked.into();
                let same_shape = (added >= "1.0.0") == (asked >= "1.0.0");
                if asked >= "0.4.0" {
                    let checked = ours().ask("CHECK", &a);
                    let fits = same_shape && added >= "0.3.0";
                    assert_eq!(
                        checked.status.success(),
                        fits,
                        "{added} in {asked}: {checked:?}"
                    );
                }
                ours().succeeds("DEL", &a);
                nothing_is_left();
            }
        }
    });
}

/// Our result goes through the reference's chained plugins, as it is.
#[test]
fn the_references_chained_plugins_take_our_result() {
    in_netns(|| {
        for version in VERSIONS.into_iter().filter(|v| *v >= "0.3.0") {
            let conf = bridge(version, &json!({}));
            let a = ours().add("a", &conf);
            let tuning = json!({
                "cniVersion": version, "name": "swap", "type": "tuning", "prevResult": a.result,
                "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
            });
            let result = theirs().call("ADD", "a", a.pod.netns(), &tuning).ok();
            for key in ["interfaces", "ips", "routes"] {
                assert_eq!(result[key], a.result[key], "{version}: {key}");
            }
            assert_eq!(
                a.pod.sh("cat /proc/sys/net/ipv4/conf/eth0/arp_filter"),
                "1\n"
            );
            let a = Attached { result, ..a };
            ours().succeeds("CHECK", &a);
            ours().succeeds("DEL", &a);
            nothing_is_left();
        }
    });
}

/// The programs that a call executed, itself included, and what it printed.
fn executed(call: &Call, conf: &Value) -> (Vec<String>, Value) {
    let log = "/run/execs";
    let command = call.command();
    let mut traced = Command::new("strace");
    traced
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=execve",
            "-e",
            "status=successful",
            "-o",
            log,
        ])
        .arg(command.get_program())
        .env_clear()
        .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = traced.spawn().expect("strace");
    let text = conf.to_string();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}");
    let log = fs::read_to_string(log).unwrap();
    let paths = log
        .lines()
        .filter_map(|line| line.split_once("execve(\"")?.1.split('"').next());
    (
        paths.map(str::to_owned).collect(),
        serde_json::from_str(&stdout).unwrap_or_default(),
    )
}

#[test]
fn host_local_is_executed_only_if_it_is_another_suites() {
    in_netns(|| {
        let itself = ours().0.join("bridge").display().to_string();
        // Debian's host-local is of before 1.1.0, which STATUS and GC came with.
        for (ipam, version, others, verbs) in [
            (
                ours(),
                "1.1.0",
                None,
                &["STATUS", "ADD", "CHECK", "GC", "DEL"][..],
            ),
            (
                theirs(),
                "1.0.0",
                Some("/usr/lib/cni/host-local"),
                &["ADD", "CHECK", "DEL"],
            ),
        ] {
            let wanted: Vec<&str> = [itself.as_str()].into_iter().chain(others).collect();
            for ip_masq in [false, true] {
                let pod = Pod::new("a");
                let mut conf = bridge(version, &json!({"ipMasq": ip_masq}));
                conf["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
                for verb in verbs {
                    let call = ours().call(verb, "a", pod.netns(), &conf).cni_path(&ipam.0);
                    let (programs, result) = executed(&call, &conf);
                    assert_eq!(programs, wanted, "{verb}, ipMasq {ip_masq}");
                    if *verb == "ADD" {
                        conf["prevResult"] = result;
                    }
                }
                nothing_is_left();
            }
        }
    });
}
