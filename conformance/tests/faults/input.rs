//! Mistakes of the runtime and of the administrator: refused before anything is done.

use serde_json::{Value, json};
use testkit::{Call, bin_dir, in_netns};

use crate::refusal::{Ground, want};

/// Spec section 2, "Parameters".
#[test]
fn environment() {
    in_netns(|| {
        let mut ground = Ground::new();
        let conf = ground.node.conf(json!({}));
        for variable in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
            let call = ground.call("ADD", &conf).without(variable);
            ground.refused(variable, &call, &want(&[4], variable, ""));
        }
        for id in ["../x", "a/b", "/", "..", " ", "-x"] {
            let call = ground.call("ADD", &conf).container(id);
            ground.refused(id, &call, &want(&[4], "container", ""));
        }
        for ifname in ["a/b", "..", ".", "sixteencharacter", "a:b", "a b"] {
            let call = ground.call("ADD", &conf).ifname(ifname);
            ground.refused(ifname, &call, &want(&[4], "interface name", ""));
        }
        for args in [
            "IP",
            "IP=10.7.0.9;x",
            "=;=",
            "IP=10.7.0.300",
            "UNKNOWN=1",
            "MAC=zz",
        ] {
            let call = ground.call("ADD", &conf).args(args);
            ground.refused(args, &call, &want(&[4, 7], "", ""));
        }
        let call = ground.call("ADD", &conf).verb("BOIL");
        ground.refused("BOIL", &call, &want(&[4], "BOIL", ""));
        ground.next_works("after all", &conf);
        ground.finish();
    });
}

/// The same of every executable.
#[test]
fn every_plugin_answers_in_json() {
    in_netns(|| {
        let mut ground = Ground::new();
        let pod = ground.pod.netns().to_owned();
        for plugin in ["bridge", "host-local", "loopback"] {
            let call = |stdin: &str| {
                let call = Call::new(bin_dir().join(plugin)).verb("ADD").container("c");
                call.netns(&pod)
                    .ifname("eth0")
                    .cni_path(bin_dir())
                    .stdin(stdin)
            };
            for text in [
                "",
                "{",
                "[]",
                "\"x\"",
                "7",
                "{}x",
                "{\"name\": \"a\",}",
                "\u{0}",
            ] {
                ground.refused(
                    &format!("{plugin} {text:?}"),
                    &call(text),
                    &want(&[6], "", ""),
                );
            }
            ground.refused(plugin, &call("null"), &want(&[6, 7], "", ""));
            ground.refused(plugin, &call("{}"), &want(&[7], "name", ""));
            for name in ["../x", "a/b", "..", ""] {
                let text = json!({"cniVersion": "1.1.0", "name": name}).to_string();
                ground.refused(
                    &format!("{plugin} {name:?}"),
                    &call(&text),
                    &want(&[7], "name", name),
                );
            }
            for version in ["9.9.9", "1.0.1", "0.5.0"] {
                let text = json!({"cniVersion": version, "name": "n"}).to_string();
                ground.refused(
                    &format!("{plugin} {version:?}"),
                    &call(&text),
                    &want(&[1], "version", version),
                );
            }
            for version in [json!("x"), json!("1.0.0.0"), json!(1)] {
                let text = json!({"cniVersion": version, "name": "n"}).to_string();
                ground.refused(
                    &format!("{plugin} {version}"),
                    &call(&text),
                    &want(&[1, 6], "", ""),
                );
            }
        }
        ground.finish();
    });
}

/// Keys of `bridge`: the message names the key.
#[test]
fn configuration_of_bridge() {
    in_netns(|| {
        let mut ground = Ground::new();
        let cases: [(Value, &str); 21] = [
            (json!({"bridge": "a/b"}), "bridge"),
            (json!({"bridge": ".."}), "bridge"),
            (json!({"bridge": "sixteencharacter"}), "bridge"),
            (json!({"bridge": 7}), "bridge"),
            (json!({"mtu": "1500"}), "mtu"),
            (json!({"mtu": -1}), "mtu"),
            (json!({"mtu": 1.5}), "mtu"),
            (json!({"isGateway": "yes"}), "isGateway"),
            (json!({"ipMasq": 1}), "ipMasq"),
            (json!({"ipMasqBackend": "ebtables"}), "ipMasqBackend"),
            (json!({"vlan": 4095}), "vlan"),
            (json!({"vlan": -1}), "vlan"),
            (json!({"vlanTrunk": [{"id": 5000}]}), "vlan"),
            (json!({"vlanTrunk": [{"minID": 9, "maxID": 3}]}), "minID"),
            (json!({"vlanTrunk": {"id": 5}}), "vlanTrunk"),
            (json!({"promiscMode": true}), "hairpin"),
            (
                json!({"disableContainerInterface": true}),
                "disableContainerInterface",
            ),
            (json!({"runtimeConfig": {"mac": "zz:zz"}}), "mac"),
            (json!({"ipam": "host-local"}), "ipam"),
            (json!({"dns": {"nameservers": "1.1.1.1"}}), "nameservers"),
            (
                json!({"prevResult": {"ips": "none"}, "hairpinMode": "x"}),
                "hairpinMode",
            ),
        ];
        for (over, key) in cases {
            let case = over.to_string();
            let conf = ground.node.conf(over);
            let call = ground.call("ADD", &conf);
            ground.refused(&case, &call, &want(&[7], key, ""));
            let bridges = ground
                .node
                .host
                .ip_json(&["link", "show", "type", "bridge"]);
            if !bridges.as_array().unwrap().is_empty() {
                ground.wrong(&case, "a bridge was made");
                ground.node.host.sh("ip link del cbr0");
            }
        }
        ground.finish();
    });
}

/// Keys of `host-local`, called in-process and as an executable: the same answer.
#[test]
fn configuration_of_host_local() {
    in_netns(|| {
        let mut ground = Ground::new();
        let set = |range: Value| json!({"ranges": [[range]]});
        let v4 = "10.7.0.0/24";
        let cases: [(Value, &str); 22] = [
            (set(json!({"subnet": "10.7.0.0"})), "10.7.0.0"),
            (set(json!({"subnet": "10.7.0.0/33"})), "10.7.0.0/33"),
            (set(json!({"subnet": "10.7.0.5/24"})), "host bits 10.7.0.0"),
            (set(json!({"subnet": "10.7.0.0/31"})), "10.7.0.0/31"),
            (set(json!({"subnet": "fd07::/127"})), "fd07::/127"),
            (set(json!({"subnet": "rubbish"})), "rubbish"),
            (set(json!({"subnet": 7})), "subnet"),
            (set(json!({})), "subnet"),
            (
                set(json!({"subnet": v4, "rangeStart": "10.8.0.1"})),
                "10.8.0.1",
            ),
            (
                set(json!({"subnet": v4, "rangeEnd": "10.8.0.1"})),
                "10.8.0.1",
            ),
            (
                set(json!({"subnet": v4, "rangeStart": "10.7.0.9", "rangeEnd": "10.7.0.3"})),
                "10.7.0.9",
            ),
            (
                set(json!({"subnet": v4, "rangeEnd": "10.7.0.300"})),
                "10.7.0.300",
            ),
            (set(json!({"subnet": v4, "gateway": "gate"})), "gate"),
            (
                json!({"ranges": [[{"subnet": v4}], [{"subnet": v4}]]}),
                "overlap",
            ),
            (
                json!({"ranges": [[{"subnet": v4}, {"subnet": "fd07::/64"}]]}),
                "",
            ),
            (json!({"ranges": [[]]}), ""),
            (json!({"ranges": []}), "range"),
            (json!({"ranges": v4}), "ranges"),
            (json!({"routes": [{"dst": "default"}]}), "default"),
            (json!({"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}), "gw"),
            (json!({"dataDir": 7}), "dataDir"),
            (
                json!({"resolvConf": "/nowhere/resolv.conf"}),
                "/nowhere/resolv.conf",
            ),
        ];
        for (ipam, words) in cases {
            let case = ipam.to_string();
            let codes: &[u64] = if case.contains("resolvConf") {
                &[5, 7]
            } else {
                &[7]
            };
            let conf = ground.node.conf(json!({"ipam": ipam}));
            let call = ground.call("ADD", &conf);
            let bridge = ground.refused(&case, &call, &want(codes, words, ""));
            let executed = Call::new(bin_dir().join("host-local"))
                .verb("ADD")
                .container("c");
            let executed = executed
                .netns(ground.pod.netns())
                .ifname("eth0")
                .cni_path(bin_dir());
            let host_local = ground.refused(
                &case,
                &executed.stdin(conf.to_string()),
                &want(codes, words, ""),
            );
            if bridge != host_local {
                ground.wrong(&case, format!("{bridge} is not {host_local}"));
            }
        }
        let requests = [
            (json!({"ips": ["10.8.0.1"]}), "10.8.0.1"),
            (json!({"ips": ["10.7.0.1"]}), "gateway"),
            (json!({"ips": ["10.7.0.9", "10.7.0.10"]}), "10.7.0.10"),
            (json!({"ips": ["10.7.0.x"]}), "10.7.0.x"),
            (json!({"ips": "10.7.0.9"}), "ips"),
        ];
        for (requested, words) in requests {
            let case = requested.to_string();
            let conf = ground.node.conf(json!({"runtimeConfig": requested}));
            let call = ground.call("ADD", &conf);
            ground.refused(&case, &call, &want(&[7], words, ""));
        }
        // One address, asked for twice, is one address, as with the reference.
        let twice = ground
            .node
            .conf(json!({"runtimeConfig": {"ips": ["10.7.0.9", "10.7.0.9"]}}));
        let result = ground.add(&twice);
        assert_eq!(result["ips"][0]["address"], "10.7.0.9/24");
        ground.del(&twice);
        let conf = ground.node.conf(json!({}));
        ground.next_works("after all", &conf);
        ground.finish();
    });
}

/// DEL frees whatever became of the configuration since ADD.
#[test]
fn del_under_a_broken_configuration() {
    in_netns(|| {
        let mut ground = Ground::new();
        let good = ground.node.conf(json!({}));
        let cases = [
            json!({"ipam": {"ranges": "none"}}),
            json!({"ipam": {"ranges": [[{"subnet": "10.99.0.0/24"}]]}}),
            json!({"ipam": {"ranges": null}}),
            json!({"ipam": {"routes": 7}}),
            json!({"mtu": "x"}),
            json!({"vlan": 99999}),
            json!({"bridge": "another"}),
            json!({"bridge": 7}),
            json!({"ipMasq": "x", "macspoofchk": 7}),
            json!({"ipMasq": false, "macspoofchk": false}),
            json!({"promiscMode": true}),
            json!({"prevResult": {"ips": "none"}}),
            json!({"prevResult": 7}),
            json!({"runtimeConfig": 7}),
            json!({"dns": 7}),
        ];
        for over in cases {
            let case = over.to_string();
            ground.add(&good);
            let call = ground.call("DEL", &ground.node.conf(over));
            ground.granted(&case, &call);
            ground.clean(&case);
            ground.del(&good);
        }
        ground.finish();
    });
}
