//! Network configurations: a plugin's stdin, the files of runtimes, and the overlay's network.

use std::path::Path;

use bridge::fuzzing as bridge;
use fabric::SubnetEnv;
use libcni::plugin::{Call, delegate};
use libcni::runtime::NetworkList;
use libcni::spec::{Attachment, CallEnv, CniError, ContainerId, IfName, Node, Verb, Version};
use libcni::store::{IpamConf, NetDir};
use overlay::conf::{Embedded, Places, delegate_conf};

use crate::args::{names, stays_here};
use crate::result::converted;

const SUPPORTED: &[Version] = &Version::ALL;

/// A configuration; every reader gets it.
pub fn config(bytes: &[u8]) {
    network(bytes);
    list(NetworkList::parse(bytes, None).ok());
    list(NetworkList::parse_single(bytes).ok());
    let Ok(node) = Node::parse(bytes) else {
        if let Err(error) = call(Verb::Add, bytes) {
            refused(&error);
        }
        return;
    };
    let printed = node.write_compact().into_bytes();
    if !document(&node) {
        return;
    }
    for verb in Verb::ALL {
        let first = call(verb, bytes).map(|call| read(&call));
        let again = call(verb, &printed).map(|call| read(&call));
        assert_eq!(first, again, "{verb}, printed and read again");
    }
    if call(Verb::Add, bytes).is_ok() {
        let del = call(Verb::Del, bytes);
        assert!(del.is_ok(), "ADD takes it, DEL does not: {:?}", del.err());
    }
}

/// Printed and read it is the same; `false` if but for the last digit of a number, which is read with an error of one
/// unit in its last place.
fn document(node: &Node) -> bool {
    let mut same = true;
    for text in [node.write_compact(), node.write_indented()] {
        let again = Node::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
        same &= again == *node;
        assert!(same || alike(&again, node), "{text}");
    }
    let mut sorted = node.clone();
    sorted.sort_keys();
    let mut twice = sorted.clone();
    twice.sort_keys();
    assert_eq!(sorted, twice);
    same
}

/// Equal, but for the last digit of numbers, and however they are written.
pub(crate) fn alike(one: &Node, other: &Node) -> bool {
    match (one, other) {
        (Node::Number(a), Node::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(1.0));
            (a - b).abs() <= a.abs() * 2.0 * f64::EPSILON || (a - b).abs() < f64::MIN_POSITIVE
        }
        (Node::Array(a), Node::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Node::Object(a), Node::Object(b)) => {
            let same = |((k, a), (l, b)): (&(String, Node), &(String, Node))| k == l && alike(a, b);
            a.len() == b.len() && a.iter().zip(b).all(same)
        }
        _ => one == other,
    }
}

/// An error is one that a runtime can read.
pub(crate) fn refused(error: &CniError) {
    let text = error.to_json();
    let node = Node::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
    let Node::Object(keys) = node else {
        panic!("{text}");
    };
    let find = |key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, v)| v);
    let code = find("code").and_then(|code| match code {
        Node::Number(number) => number.as_u64(),
        _ => None,
    });
    assert!(code.is_some_and(|code| code > 0), "{text}");
    let said = find("msg").and_then(Node::as_str);
    assert!(said.is_some_and(|msg| !msg.is_empty()), "{text}");
}

#[expect(clippy::expect_used, reason = "constants")]
fn attachment() -> Attachment {
    Attachment {
        container_id: ContainerId::parse("c1").expect("a container ID"),
        ifname: IfName::parse("eth0").expect("an interface name"),
    }
}

fn call(verb: Verb, stdin: &[u8]) -> Result<Call, CniError> {
    let env = CallEnv {
        verb,
        attachment: Some(attachment()),
        netns: None,
        args: "IgnoreUnknown=1;K8S_POD_NAME=p".to_owned(),
        path: Vec::new(),
        netns_override: false,
    };
    Call::of(env, stdin, SUPPORTED)
}

/// What everybody makes of it, in words.
fn read(call: &Call) -> Vec<String> {
    stays_here(call.network().as_str());
    for attachment in call.conf.valid_attachments.iter().flatten() {
        names(attachment);
    }
    let mut words = vec![format!("{:?}", call.conf)];
    let mut tell = |what: Result<String, CniError>| match what {
        Ok(what) => words.push(what),
        Err(error) => {
            refused(&error);
            words.push(error.to_json());
        }
    };
    tell(call.conf.prev().map(|prev| {
        if let Some(prev) = &prev {
            converted(prev);
        }
        format!("{prev:?}")
    }));
    tell(bridge::conf(call));
    tell(bridge::bridge_name(call).inspect(|name| stays_here(name)));
    tell(ipam(call));
    tell(Places::of(&call.node).map(|places| format!("{places:?}")));
    tell(Embedded::of(&call.node).map(|keys| format!("{keys:?}")));
    tell(delegated(call));
    words
}

fn ipam(call: &Call) -> Result<String, CniError> {
    let dir = NetDir::of(&call.node);
    if let Ok(dir) = &dir {
        let name = dir.path().file_name().and_then(|name| name.to_str());
        assert_eq!(name, Some(call.network().as_str()), "{dir:?}");
    }
    let conf = IpamConf::parse(&call.node, &call.env.args, call.version())?;
    assert_eq!(Some(conf.dir.path()), dir.as_ref().ok().map(NetDir::path));
    assert!(!conf.sets.is_empty());
    for range in conf.ranges() {
        let inside = |ip| range.subnet.contains(ip) && range.contains(ip);
        assert!(inside(range.first) && inside(range.last), "{range:?}");
        assert!(range.first <= range.last, "{range:?}");
        let only_gateway = range.first == range.last && range.first == range.gateway;
        assert_eq!(range.capacity() == 0, only_gateway, "{range:?}");
    }
    for (at, set) in conf.sets.iter().enumerate() {
        let later = conf.sets.iter().skip(at + 1);
        assert!(
            later.into_iter().all(|other| !set.overlaps(other)),
            "{conf:?}"
        );
    }
    Ok(format!("{conf:?}"))
}

/// What `overlay` gives its delegate: of this node's subnets, and nothing of the user's in their place.
fn delegated(call: &Call) -> Result<String, CniError> {
    let net = |text: &str| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    let env = SubnetEnv {
        networks: vec![net("10.244.0.0/16"), net("fd00:1::/56")],
        subnets: vec![net("10.244.3.0/24"), net("fd00:1:0:3::/64")],
        mtu: 1450,
        ip_masq: true,
    };
    let conf = delegate_conf(call, &env)?;
    let text = conf.write_compact();
    let ranges = IpamConf::parse(&conf, "", call.version());
    if let Ok(ranges) = ranges {
        let ours = |net: &&_| env.subnets.contains(net);
        assert!(
            env.subnets.iter().all(|n| ranges.subnets().contains(n)),
            "{text}"
        );
        // The user's own keys of `ipam` may add a range, in `subnet` or `runtimeConfig`; ours are there all the same.
        assert_eq!(ranges.subnets().iter().filter(ours).count(), 2, "{text}");
        assert_eq!(
            ranges.dir.path().file_name().and_then(|n| n.to_str()),
            Some(call.network().as_str())
        );
    }
    Ok(text)
}

fn list(list: Option<NetworkList>) {
    let Some(list) = list else { return };
    let again = NetworkList::parse(list.bytes(), None);
    let words = |list: &NetworkList| format!("{list:?}");
    assert_eq!(again.ok().as_ref().map(words), Some(words(&list)));
    assert!(!list.plugins.is_empty() && !list.name.is_empty());
    for plugin in list.plugins.iter().take(3) {
        let dir = "/proc/self/fdinfo";
        if let Ok(found) = delegate::find(&plugin.kind, &[dir.to_owned()]) {
            assert_eq!(found.parent(), Some(Path::new(dir)), "{}", plugin.kind);
        }
    }
}

fn network(bytes: &[u8]) {
    let Ok(conf) = fabric::NetConf::parse(bytes) else {
        return;
    };
    let again = fabric::NetConf::parse(conf.text.as_bytes());
    assert_eq!(
        again.map(|c| format!("{c:?}")).ok(),
        Some(format!("{conf:?}"))
    );
    for network in [&conf.v4, &conf.v6].into_iter().flatten() {
        assert!(network.subnet_min <= network.subnet_max, "{network:?}");
        for subnet in network.subnets().take(64) {
            assert!(network.leases(&subnet), "{subnet} of {network:?}");
            assert!(
                network.net.contains(subnet.network()),
                "{subnet} of {network:?}"
            );
            assert!(
                network.net.contains(subnet.broadcast()),
                "{subnet} of {network:?}"
            );
        }
    }
}
