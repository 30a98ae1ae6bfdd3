//! CHECK notices when something that ADD made is not as ADD left it, and says what; DEL does not mind.

use std::process::Stdio;

use serde_json::{Value, json};
use testkit::in_netns;

use crate::refusal::{Ground, refusal, want};

/// Where the damage is done.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Node,
    Pod,
}
use At::{Node, Pod};

/// What is done (`$veth` is the host end, `$store` the network's directory), and words of CHECK's message.
const DAMAGE: [(At, &str, &str); 31] = [
    (Pod, "ip address del 10.7.0.2/24 dev eth0", "10.7.0.2/24"),
    (Pod, "ip address del fd07::2/64 dev eth0", "fd07::2/64"),
    (
        Pod,
        "ip address del 10.7.0.2/24 dev eth0; ip address add 10.7.0.2/16 dev eth0; ip route add default via 10.7.0.1",
        "10.7.0.2/24",
    ),
    (Pod, "ip -4 route del default", "route 0.0.0.0/0"),
    (Pod, "ip -6 route del default", "route ::/0"),
    (
        Pod,
        "ip -4 route replace default via 10.7.0.77",
        "route 0.0.0.0/0",
    ),
    (Pod, "ip link set eth0 down", "eth0 down"),
    (
        Pod,
        "ip link set eth0 address 02:00:00:00:00:01",
        "eth0 mac",
    ),
    (Pod, "ip link set eth0 name eth9", "eth0"),
    (Pod, "ip link del eth0", "eth0"),
    (
        Pod,
        "ip link del eth0; ip link add eth0 type veth peer name e1",
        "eth0",
    ),
    (Node, "ip link set $veth nomaster", "$veth cbr0"),
    (
        Node,
        "ip link add other type bridge; ip link set $veth master other",
        "$veth cbr0",
    ),
    (Node, "ip link set $veth down", "$veth down"),
    (
        Node,
        "ip link set $veth address 02:00:00:00:00:02",
        "$veth mac",
    ),
    (Node, "ip link set $veth name renamed", "renamed"),
    (
        Node,
        "bridge link set dev $veth hairpin off",
        "$veth hairpin",
    ),
    (
        Node,
        "bridge link set dev $veth isolated on",
        "$veth isolated",
    ),
    (
        Node,
        "ip link set cbr0 address 02:00:00:00:00:03",
        "cbr0 mac",
    ),
    (Node, "ip link del cbr0", "cbr0"),
    (
        Node,
        "ip link del cbr0; ip link add cbr0 type ifb",
        "cbr0 bridge",
    ),
    (Node, "nft flush ruleset", ""),
    (Node, "nft delete table inet podwire", "podwire"),
    (Node, "nft flush table inet podwire", "podwire"),
    (Node, "nft delete table bridge podwire", "podwire"),
    (Node, "nft flush chain bridge podwire prerouting", "podwire"),
    (Node, "nft flush set bridge podwire guarded", "podwire"),
    (Node, "nft flush set bridge podwire allowed", "podwire"),
    (Node, "rm $store/10.7.0.2 $store/fd07::2", ""),
    (
        Node,
        "printf 'other\\r\\neth0' >$store/10.7.0.2; printf 'other\\r\\neth0' >$store/fd07::2",
        "",
    ),
    (Node, "ip link set cbr0 down", "cbr0 down"),
];

fn each(over: &Value, damage: &[(At, &str, &str)]) {
    in_netns(|| {
        let filters = ["-c", "ip link add probe type bridge vlan_filtering 1"];
        if over.get("vlan").is_some()
            && testkit::Pod::new("probe")
                .command("sh")
                .args(filters)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| !s.success())
        {
            return testkit::skip("no VLAN filtering in this kernel");
        }
        let mut wrong = Vec::new();
        for (at, script, words) in damage {
            let mut ground = Ground::new();
            let conf = ground.node.conf(over.clone());
            let mut checked = conf.clone();
            checked["prevResult"] = ground.add(&conf);
            let check = ground.call("CHECK", &checked);
            ground.granted("before", &check);
            let veth = checked["prevResult"]["interfaces"][1]["name"]
                .as_str()
                .unwrap();
            let store = ground.node.store().join("cbr0");
            let fill = |text: &str| {
                text.replace("$veth", veth)
                    .replace("$store", store.to_str().unwrap())
            };
            match at {
                Node => ground.node.host.sh(&fill(script)),
                Pod => ground.pod.sh(&fill(script)),
            };
            let words: &'static str = fill(words).leak();
            let want = want(&[102, 103], words, "");
            if let Err(what) = refusal(&ground.node.run(&check), &want) {
                ground.wrong(script, what);
            }
            if script.contains("printf") {
                // Another's now, so not DEL's to free.
                ground
                    .node
                    .host
                    .sh(&fill("rm $store/10.7.0.2 $store/fd07::2"));
            }
            let del = ground.call("DEL", &checked);
            ground.granted(script, &del);
            // What the administrator made is his.
            ground.node.host.sh(
                "for l in other renamed; do ip link del $l 2>/dev/null || :; done\n\
                 ip -d link show cbr0 2>/dev/null | grep -q bridge || ip link del cbr0 2>/dev/null || :",
            );
            ground.clean(script);
            ground.next_works(script, &conf);
            if let Err(panic) =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ground.finish()))
            {
                wrong.push(*panic.downcast::<String>().unwrap());
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.concat());
    });
}

#[test]
fn damage_is_noticed() {
    each(&json!({}), &DAMAGE);
}

#[test]
fn damage_of_ports_is_noticed() {
    let over = json!({"hairpinMode": false, "promiscMode": true, "portIsolation": true});
    each(
        &over,
        &[
            (Node, "ip link set cbr0 promisc off", "cbr0 promiscuous"),
            (
                Node,
                "bridge link set dev $veth isolated off",
                "$veth isolated",
            ),
            (
                Node,
                "bridge link set dev $veth hairpin on",
                "$veth hairpin",
            ),
        ],
    );
}

#[test]
fn damage_of_vlans_is_noticed() {
    let over = json!({"vlan": 100, "vlanTrunk": [{"minID": 200, "maxID": 202}]});
    each(
        &over,
        &[
            (Node, "bridge vlan del vid 100 dev $veth", "100"),
            (Node, "bridge vlan del vid 201 dev $veth", "201"),
            (Node, "bridge vlan add vid 100 dev $veth", "100"),
        ],
    );
}
