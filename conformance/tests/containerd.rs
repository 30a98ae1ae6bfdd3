//! The plugins under a real containerd, each test on a node of its own. Needs root and `make deps`.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conformance::containerd::{Container, Footprint, Machine, Node, each, text};
use serde_json::{Value, json};

const STORE: &str = "/var/lib/cni/networks/cbr0";
const SLEEP: [&str; 2] = ["sleep", "1000000"];

/// The documents' network: `cbr0` holds the first address of the node's subnet.
fn cbr0(subnet: &str) -> String {
    let bridge = json!({
        "type": "bridge",
        "bridge": "cbr0",
        "isDefaultGateway": true,
        "hairpinMode": true,
        "ipMasq": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]},
    });
    json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge, {"type": "loopback"}]})
        .to_string()
}

fn node(subnet: &str) -> Node {
    Node::start(&testkit::bin_dir(), &cbr0(subnet), &["bridge", "loopback"])
        .unwrap_or_else(|e| panic!("{e:#}"))
}

/// After the last pod: nothing on the node, and without the node nothing on the machine.
fn nothing_is_left(node: Node) {
    let left = node.left_over_at_last().unwrap();
    assert!(left.is_empty(), "left on the node: {left:#?}");
    assert_eq!(store(&node), ["last_reserved_ip.0", "lock"]);
    assert_eq!(
        node.stop().unwrap(),
        Vec::<String>::new(),
        "left on the machine"
    );
}

/// The reservations of `cbr0` and what goes with them, as an admin's `ls` shows them: without hidden names.
fn store(node: &Node) -> Vec<String> {
    let mut names = node.list(STORE);
    names.retain(|name| !name.starts_with('.'));
    names
}

fn address(pod: &Container<'_>) -> String {
    let addresses = pod
        .json(&["ip", "-j", "-4", "addr", "show", "dev", "eth0"])
        .unwrap();
    text(&addresses, "/0/addr_info/0/local").to_owned()
}

/// Which plugin was called how for a container, and with what outcome.
fn calls<'a>(node: &Node, pod: &str, verb: &'a str) -> Vec<(String, &'a str, i32)> {
    let calls = node.calls().unwrap().into_iter();
    calls
        .filter(|call| call.container == pod && call.verb == verb)
        .map(|call| (call.plugin, verb, call.status))
        .collect()
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a web server there answers, once it does.
fn ask(from: &dyn Fn(&[&str]) -> anyhow::Result<String>, host: &str, port: u16) -> String {
    let url = format!("http://{host}:{port}/");
    eventually(&url, || {
        // Not wget's own -T: Debian's static busybox crashes on it.
        from(&["timeout", "2", "wget", "-q", "-O", "-", &url]).map_err(|e| e.to_string())
    })
}

/// A web server that says its name.
fn server(name: &str, port: u16) -> [String; 3] {
    let script =
        format!("mkdir -p /www; echo {name} >/www/index.html; exec httpd -f -p {port} -h /www");
    ["sh".to_owned(), "-c".to_owned(), script]
}

fn strs(argv: &[String]) -> Vec<&str> {
    argv.iter().map(String::as_str).collect()
}

#[test]
fn two_pods_get_addresses_and_talk_and_leave_nothing() {
    let node = node("10.40.1.0/24");
    let web = node.pod("web", &SLEEP).unwrap();
    let client = node.pod("client", &SLEEP).unwrap();

    // Addresses, where an admin looks for them (scene 7).
    assert_eq!(
        (address(&web), address(&client)),
        ("10.40.1.2".into(), "10.40.1.3".into())
    );
    assert_eq!(
        store(&node),
        ["10.40.1.2", "10.40.1.3", "last_reserved_ip.0", "lock"]
    );
    assert_eq!(
        node.read(&format!("{STORE}/10.40.1.2")).unwrap(),
        "k8s.io-web\r\neth0"
    );
    assert_eq!(
        node.read(&format!("{STORE}/10.40.1.3")).unwrap(),
        "k8s.io-client\r\neth0"
    );
    assert_eq!(
        node.read(&format!("{STORE}/last_reserved_ip.0")).unwrap(),
        "10.40.1.3"
    );

    // The results cache names bridge, host veth and address (scene 7), as they really are.
    let cached: Value = serde_json::from_str(
        &node
            .read("/var/lib/cni/results/cbr0-k8s.io-web-eth0")
            .unwrap(),
    )
    .unwrap();
    assert_eq!(text(&cached, "/result/ips/0/address"), "10.40.1.2/24");
    assert_eq!(text(&cached, "/result/ips/0/gateway"), "10.40.1.1");
    assert_eq!(text(&cached, "/result/interfaces/0/name"), "cbr0");
    let veth = text(&cached, "/result/interfaces/1/name");
    let ports = node
        .json(&["ip", "-j", "-d", "link", "show", "master", "cbr0"])
        .unwrap();
    let port = each(&ports)
        .find(|link| text(link, "/ifname") == veth)
        .expect("the cached host veth is a port");
    assert_eq!(
        port.pointer("/linkinfo/info_slave_data/hairpin"),
        Some(&json!(true))
    );
    assert_eq!(text(port, "/linkinfo/info_slave_data/state"), "forwarding");
    assert_eq!(
        text(port, "/address"),
        text(&cached, "/result/interfaces/1/mac")
    );

    // Bridge address and pod routes (scene 2).
    let bridge = node
        .json(&["ip", "-j", "-4", "addr", "show", "dev", "cbr0"])
        .unwrap();
    assert_eq!(text(&bridge, "/0/addr_info/0/local"), "10.40.1.1");
    let routes = web.json(&["ip", "-j", "route"]).unwrap();
    let routes: BTreeSet<_> = each(&routes)
        .map(|r| (text(r, "/dst"), text(r, "/gateway"), text(r, "/dev")))
        .collect();
    assert_eq!(
        routes,
        BTreeSet::from([
            ("default", "10.40.1.1", "eth0"),
            ("10.40.1.0/24", "", "eth0")
        ])
    );
    let lo = web
        .json(&["ip", "-j", "addr", "show", "dev", "lo"])
        .unwrap();
    assert!(
        lo.pointer("/0/flags")
            .is_some_and(|flags| each(flags).any(|flag| flag == "UP")),
        "{lo}"
    );

    // The very first packet is answered, every way.
    let once = |address| ["ping", "-c", "1", "-W", "1", address];
    client.exec(&once("10.40.1.2")).unwrap();
    web.exec(&once("10.40.1.3")).unwrap();
    web.exec(&once("10.40.1.1")).unwrap();
    let mut from_node = vec!["busybox"];
    from_node.extend(once("10.40.1.2"));
    node.run(&from_node).unwrap();

    // One pod's end is not the other's.
    let both = |verb| {
        vec![
            ("bridge".to_owned(), verb, 0),
            ("loopback".to_owned(), verb, 0),
        ]
    };
    assert_eq!(calls(&node, "k8s.io-web", "ADD"), both("ADD"));
    web.remove().unwrap();
    assert_eq!(store(&node), ["10.40.1.3", "last_reserved_ip.0", "lock"]);
    client.exec(&once("10.40.1.1")).unwrap();
    client.remove().unwrap();
    for pod in ["k8s.io-web", "k8s.io-client"] {
        let mut last_first = both("DEL");
        last_first.reverse();
        assert_eq!(calls(&node, pod, "DEL"), last_first);
    }
    nothing_is_left(node);
}

/// Scene 1. One ADD for the namespace; the containers that join it share its localhost, address and ports.
#[test]
fn a_pod_is_one_shared_network_stack() {
    let node = node("10.40.1.0/24");
    let pause = node.pod("pause", &SLEEP).unwrap();
    let outside = node.pod("outside", &SLEEP).unwrap();
    let (server_one, server_two) = (server("one", 8001), server("two", 8002));
    let one = node.join(&pause, "one", &strs(&server_one)).unwrap();
    let two = node.join(&pause, "two", &strs(&server_two)).unwrap();
    let pod_address = address(&pause);

    // They reach each other on localhost ...
    assert_eq!(ask(&|argv| one.exec(argv), "127.0.0.1", 8002), "two\n");
    assert_eq!(ask(&|argv| two.exec(argv), "127.0.0.1", 8001), "one\n");
    // ... and answer to the same address from another pod and from the node.
    let from_node = |argv: &[&str]| node.run(&[&["busybox"], argv].concat());
    for from in [
        &|argv: &[&str]| outside.exec(argv),
        &from_node as &dyn Fn(&[&str]) -> anyhow::Result<String>,
    ] {
        assert_eq!(ask(from, &pod_address, 8001), "one\n");
        assert_eq!(ask(from, &pod_address, 8002), "two\n");
    }

    // One port, one owner: within the pod, not across pods.
    // The pause gives ctr the time to read what was said.
    let bind = "httpd -f -p 8001; status=$?; sleep 2; exit $status";
    let third = node
        .join_once(&pause, "third", &["sh", "-c", bind])
        .unwrap();
    let said = String::from_utf8_lossy(&third.stderr);
    assert!(
        !third.status.success() && said.contains("Address already in use"),
        "{}: {said}",
        third.status
    );
    let elsewhere = node
        .join(&outside, "elsewhere", &strs(&server_one))
        .unwrap();
    assert_eq!(
        ask(&|argv| one.exec(argv), &address(&outside), 8001),
        "one\n"
    );

    // A restart of one changes nothing on the network.
    eventually("the kernel is done with its link-local addresses", || {
        let tentative = ["ip", "addr", "show", "tentative"];
        match (node.run(&tentative), pause.run(&tentative)) {
            (Ok(none), Ok(no)) if none.is_empty() && no.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let before = picture(&node, &pause);
    two.remove().unwrap();
    unchanged(&node, &pause, &before);
    assert_eq!(ask(&|argv| outside.exec(argv), &pod_address, 8001), "one\n");
    let two = node.join(&pause, "two", &strs(&server_two)).unwrap();
    unchanged(&node, &pause, &before);
    assert_eq!(ask(&|argv| one.exec(argv), "127.0.0.1", 8002), "two\n");
    assert_eq!(ask(&|argv| outside.exec(argv), &pod_address, 8002), "two\n");

    // All that with one ADD; and the only DEL is the pod's own.
    for container in [one, two, elsewhere] {
        container.remove().unwrap();
    }
    unchanged(&node, &pause, &before);
    assert_eq!(calls(&node, "k8s.io-pause", "DEL"), []);
    pause.remove().unwrap();
    outside.remove().unwrap();
    let bridge_calls: Vec<_> = node
        .calls()
        .unwrap()
        .into_iter()
        .filter(|call| call.plugin == "bridge")
        .collect();
    let of = |verb: &str| -> Vec<String> {
        bridge_calls
            .iter()
            .filter(|call| call.verb == verb)
            .map(|call| call.container.clone())
            .collect()
    };
    assert_eq!(of("ADD"), ["k8s.io-pause", "k8s.io-outside"]);
    assert_eq!(of("DEL"), ["k8s.io-pause", "k8s.io-outside"]);
    nothing_is_left(node);
}

/// Links, addresses and routes of the node and of a pod, and the store: all that a restart has to leave alone.
fn picture(node: &Node, pod: &Container<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for argv in [
        &["ip", "-o", "addr"][..],
        &["ip", "-o", "link"],
        &["ip", "route", "show", "table", "all"],
    ] {
        lines.extend(
            node.run(argv)
                .unwrap()
                .lines()
                .map(|line| format!("node: {line}")),
        );
        lines.extend(
            pod.run(argv)
                .unwrap()
                .lines()
                .map(|line| format!("pod: {line}")),
        );
    }
    for file in store(node) {
        lines.push(format!(
            "{file}: {:?}",
            node.read(&format!("{STORE}/{file}")).unwrap()
        ));
    }
    lines.push(pod.netns().unwrap());
    lines
}

#[track_caller]
fn unchanged(node: &Node, pod: &Container<'_>, before: &[String]) {
    let now = picture(node, pod);
    let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
    let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "gone: {gone:#?}\nnew: {new:#?}"
    );
}

/// A /30 has one address for pods: the second pod is refused, leaves nothing, and gets the address once it is free.
#[test]
fn a_pod_without_an_address_is_refused_and_the_next_try_works() {
    let node = node("10.40.1.0/30");
    let first = node.pod("first", &SLEEP).unwrap();
    // So that the bridge and the node have learnt all they will.
    first
        .exec(&["ping", "-c", "1", "-W", "1", "10.40.1.1"])
        .unwrap();
    let with_one = node.left_over().unwrap();

    let refusal = format!("{:#}", node.pod("second", &SLEEP).unwrap_err());
    assert!(
        refusal.contains("no IP addresses available in range set: 10.40.1.1-10.40.1.2"),
        "{refusal}"
    );
    eventually("nothing of the refused pod stays", || {
        let more = node.left_over().unwrap().without(&with_one);
        if more.is_empty() {
            Ok(())
        } else {
            Err(format!("{more:#?}"))
        }
    });

    first.remove().unwrap();
    let second = node.pod("second", &SLEEP).unwrap();
    assert_eq!(address(&second), "10.40.1.2");
    second
        .exec(&["ping", "-c", "1", "-W", "1", "10.40.1.1"])
        .unwrap();
    second.remove().unwrap();
    nothing_is_left(node);
}

/// `make demo` cut short, by the user and by the worst of signals: the node goes with it.
#[test]
fn a_demo_that_is_killed_leaves_nothing() {
    for signal in ["INT", "KILL"] {
        let before = Machine::now().unwrap();
        let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
            .arg("--plugins")
            .arg(testkit::bin_dir())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(demo.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        assert!(
            said.any(|line| line.contains("pod web runs")),
            "the demo ended early"
        );
        let name = format!("podwire-{}-0", demo.id());
        let footprint = Footprint::of(first_process_of(&name), &name).unwrap();
        assert!(footprint.containers() >= 1, "{footprint:?}");

        let kill = Command::new("kill")
            .args(["-s", signal, &demo.id().to_string()])
            .status()
            .unwrap();
        assert!(kill.success());
        assert!(!demo.wait().unwrap().success());
        eventually(
            &format!("nothing is left after SIG{signal}"),
            || match before.left_over(&footprint).unwrap() {
                left if left.is_empty() => Ok(()),
                left => Err(left.join(", ")),
            },
        );
    }
}

/// The node's first process is the one whose parent is `unshare`: the only `cat` that was told the node's name.
fn first_process_of(node: &str) -> u32 {
    let wanted = format!("PLACE_NAME={node}");
    let told = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm == "cat\n"
            && environ
                .split(|byte| *byte == 0)
                .any(|entry| entry == wanted.as_bytes())
    };
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.into_iter()
        .find(told)
        .expect("the demo's node has a first process")
}
