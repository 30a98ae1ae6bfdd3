//! Whatever else stands in the directory, honest pods talk on, and each lie is named.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use conformance::deployment::{Agent, Deployment, Pod};
use conformance::fleet::Space;
use testkit::in_netns;

use crate::etcd::{self, Etcd};
use crate::probe::metrics;
use crate::witness::Echo;

/// How long until a lie is named everywhere; what is known is written after two seconds.
const NAMED_WITHIN: Duration = Duration::from_secs(8);

/// An entry of the directory, and why it is none.
struct Lie {
    key: String,
    value: String,
    /// As the metrics call it; `None` for what cannot even be read.
    reason: Option<&'static str>,
    /// Only the first node can know.
    first_only: bool,
}

/// A node as the others know it.
struct Honest {
    subnet: Ipv4Addr,
    mac: String,
}

// === impl Honest ===

impl Honest {
    fn of(node: &Agent) -> Self {
        let env = fs::read_to_string(node.path("subnet.env")).unwrap();
        let line = env.lines().find(|line| line.contains("_SUBNET="));
        let first = line.unwrap().trim_start_matches("FLANNEL_SUBNET=");
        let [a, b, c, _] = first
            .replace("/24", "")
            .parse::<Ipv4Addr>()
            .unwrap()
            .octets();
        let mac = node
            .sh("cat /sys/class/net/flannel.1/address 2>/dev/null || ip -br link show flannel.1")
            .unwrap();
        let mac = mac.split_whitespace().find(|word| word.len() == 17);
        Self {
            subnet: Ipv4Addr::new(a, b, c, 0),
            mac: mac.unwrap().to_owned(),
        }
    }
}

fn lies(honest: &[Honest]) -> Vec<Lie> {
    let taken: Vec<Ipv4Addr> = honest.iter().map(|node| node.subnet).collect();
    let mut free = (129..192)
        .map(|third| Ipv4Addr::new(192, 168, third, 0))
        .filter(|subnet| !taken.contains(subnet));
    let vtep = |ip: &str, mac: &str| {
        format!(
            r#"{{"PublicIP":"{ip}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
        )
    };
    let mut numbers = 0x10..;
    let mut mac = || format!("02:00:5e:66:66:{:02x}", numbers.next().unwrap());
    let nobody = "192.168.64.66";

    let mut lies = Vec::new();
    // Of what it says.
    let [a, b] = [&honest[0], &honest[1]];
    let said = [
        ("x".repeat(100_000), None, false),
        ("[".repeat(10_000), None, false),
        ("{".to_owned(), None, false),
        ("null".to_owned(), None, false),
        (r#"{"PublicIP":null}"#.to_owned(), None, false),
        (vtep(nobody, &a.mac), Some("-mac"), false),
        (vtep(nobody, &b.mac), Some("-mac"), false),
        (vtep(nobody, "00:00:00:00:00:00"), Some("bad-mac"), false),
        (vtep(nobody, "01:00:5e:00:00:01"), Some("bad-mac"), false),
        (vtep("0.0.0.0", &mac()), Some("bad-address"), false),
        (vtep("224.0.0.1", &mac()), Some("bad-address"), false),
        (vtep("127.0.0.1", &mac()), Some("bad-address"), false),
        (vtep("255.255.255.255", &mac()), Some("bad-address"), false),
        (vtep("192.168.64.3", &mac()), Some("own-address"), true),
        (
            vtep(&b.subnet.to_string(), &mac()),
            Some("address-in-subnet"),
            false,
        ),
        (
            format!(r#"{{"PublicIP":"{nobody}","BackendType":"host-gw"}}"#),
            Some("backend"),
            false,
        ),
        (
            format!(r#"{{"PublicIP":"{nobody}","BackendType":"vxlan","BackendData":{{}}}}"#),
            Some("no-vtep"),
            false,
        ),
    ];
    for (value, reason, first_only) in said {
        let key = format!("{}-24", free.next().unwrap());
        lies.push(Lie {
            key,
            value,
            reason,
            first_only,
        });
    }
    // Of what it says it has.
    for (key, reason) in [
        (format!("{}-25", a.subnet), ""),
        (format!("{}-25", b.subnet), ""),
        ("192.168.128.0-18".to_owned(), ""),
        ("192.168.64.0-24".to_owned(), "outside-network"),
        ("224.0.0.0-24".to_owned(), "outside-network"),
        ("0.0.0.0-0".to_owned(), ""),
    ] {
        let value = vtep(nobody, &mac());
        lies.push(Lie {
            key,
            value,
            reason: Some(reason),
            first_only: false,
        });
    }
    let value = vtep(nobody, &mac()).replacen('}', r#"},"PublicIPv6":"fd00:64::66""#, 1);
    lies.push(Lie {
        key: format!("{}-24&fd00:128:0:99::-64", a.subnet),
        value,
        reason: Some(""),
        first_only: false,
    });
    lies
}

/// The line of the metrics that names it.
fn named<'a>(metrics: &'a str, key: &str) -> Option<&'a str> {
    let label = format!("=\"{key}\"");
    metrics
        .lines()
        .find(|line| line.contains(&label) && line.ends_with(" 1"))
}

/// The lies are told, all honest pods talk on, each lie is named; and once they are taken back nothing is left of them.
fn nothing_changes(all: &mut Deployment, put: impl Fn(&str, &str), del: impl Fn(&str)) {
    let pods: Vec<Pod> = ["p0", "p1", "p2"]
        .iter()
        .zip(&all.nodes)
        .map(|(name, node)| node.pod(name).unwrap())
        .collect();
    let honest: Vec<Honest> = all.nodes.iter().map(Honest::of).collect();
    let tables = |node: &Agent| {
        node.sh("ip route; ip neigh show dev flannel.1 nud permanent | sort; bridge fdb show dev flannel.1 | sort")
            .unwrap()
    };
    let before: Vec<String> = all.nodes.iter().map(tables).collect();
    let mut echoes = Vec::new();
    for from in &pods {
        let others = pods.iter().filter(|to| to.ip != from.ip);
        echoes.extend(others.map(|to| Echo::between(&from.space, &to.ip)));
    }
    let lies = lies(&honest);
    for lie in &lies {
        put(&lie.key, &lie.value);
    }
    for (at, node) in all.nodes.iter().enumerate() {
        let mut all_named = String::new();
        for Lie { key, reason, .. } in lies.iter().filter(|lie| at == 0 || !lie.first_only) {
            node.wait(NAMED_WITHIN, &format!("{key} in the metrics"), |node| {
                let text = metrics(node);
                let line = named(&text, key).unwrap_or_default().to_owned();
                line.contains(reason.unwrap_or("skipped")) && !line.is_empty()
            })
            .unwrap();
            assert!(node.log().contains(key), "{key} in the log: {}", node.log());
            node.wait(NAMED_WITHIN, &format!("{key} is shown"), |node| {
                let shown = node.overlayd().args(["show", "--json"]).output().unwrap();
                let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
                let peers = shown["peers"].as_array().unwrap();
                let subnets = key.replacen('-', "/", 1);
                peers.iter().any(|peer| {
                    let is = |name: &str| {
                        peer[name]
                            .as_str()
                            .is_some_and(|text| text.contains(key) || text.contains(&subnets))
                    };
                    (is("peer") || is("subnets")) && peer["ok"] == false
                })
            })
            .unwrap();
            all_named += key;
        }
        assert!(!all_named.is_empty() && node.ready(), "{}", node.log());
    }

    // An agent that starts among them leases what it had, and believes whom it believed.
    let node = &mut all.nodes[0];
    node.kill();
    node.start().unwrap();
    let leased = |node: &Agent| -> Vec<String> {
        let log = node.log();
        let lines = log
            .lines()
            .filter_map(|line| line.split_once(" leased interface="));
        lines.map(|(_, lease)| lease.to_owned()).collect()
    };
    node.wait(NAMED_WITHIN, "ready", |node| {
        node.ready() && leased(node).len() == 2
    })
    .unwrap();
    let leases = leased(node);
    assert_eq!(leases[0], leases[1], "{}", node.log());
    for echo in echoes {
        echo.lost_nothing();
    }

    for lie in &lies {
        del(&lie.key);
    }
    for (node, before) in all.nodes.iter().zip(&before) {
        node.wait(NAMED_WITHIN, "nothing is left of them", |node| {
            let text = metrics(node);
            lies.iter().all(|lie| named(&text, &lie.key).is_none())
        })
        .unwrap();
        assert_eq!(&tables(node), before);
    }
}

#[test]
fn lies_in_files_change_nothing_and_are_named() {
    in_netns(|| {
        let mut all = crate::deployment(|_| ());
        let subnets = all.peers().join("subnets");
        let write = |key: &str, value: &str| fs::write(subnets.join(key), value).unwrap();
        // One that had an address of a node as its own may be gone: a node has one lease.
        let remove = |key: &str| drop(fs::remove_file(subnets.join(key)));
        nothing_changes(&mut all, write, remove);
    });
}

#[test]
fn lies_in_etcd_change_nothing_and_are_named() {
    in_netns(|| {
        let plan = etcd::plan();
        let conf = plan.conf.clone();
        let mut all = Deployment::new(plan, 3).unwrap();
        let outside = std::mem::replace(&mut all.outside, Space::new("none").unwrap());
        let etcd = Etcd::start(&outside);
        etcd.ctl(&["put", "/podwire/config", &conf]).unwrap();
        all.start().unwrap();
        let at = |key: &str| format!("/podwire/subnets/{key}");
        let put = |key: &str, value: &str| drop(etcd.ctl(&["put", &at(key), value]).unwrap());
        let del = |key: &str| drop(etcd.ctl(&["del", &at(key)]));
        nothing_changes(&mut all, put, del);
    });
}
