//! podman 4.3 with its CNI backend, on our `bridge` and `host-local`; the rest of its chain is Debian's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use conformance::place::{Still, text};
use conformance::podman::{Host, address};
use serde_json::Value;

const DEBIAN: &str = "/usr/lib/cni";
const STORE: &str = "/var/lib/cni/networks/net1";
const SERVER: [&str; 3] = [
    "sh",
    "-c",
    "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 80 -h /www",
];

fn host(plugins: &Path) -> Host {
    Host::start(plugins).unwrap_or_else(|e| panic!("{e:#}"))
}

fn ours() -> PathBuf {
    testkit::bin_dir()
}

/// Two containers on a network of podman's making: `web` with a published port, and `client`.
fn two_containers(host: &Host) {
    host.podman(&["network", "create", "--subnet", "10.41.0.0/24", "net1"])
        .unwrap();
    host.begin("web", "net1", &["--publish", "8080:80"], &SERVER)
        .unwrap();
    host.begin("client", "net1", &[], &["sleep", "1000000"])
        .unwrap();
}

/// They reach each other, the node, and from inside and outside the published port.
fn talk(host: &Host) {
    for (from, to) in [
        ("client", "10.41.0.2"),
        ("web", "10.41.0.3"),
        ("client", "10.41.0.1"),
    ] {
        host.podman(&["exec", from, "ping", "-c", "1", "-W", "2", to])
            .unwrap();
    }
    for (from, url) in [
        ("client", "http://10.41.0.2/"),
        ("client", "http://10.41.0.1:8080/"),
    ] {
        let get = ["exec", from, "timeout", "20", "wget", "-q", "-O", "-", url];
        assert_eq!(host.podman(&get).unwrap(), "hello\n", "{from} {url}");
    }
    // Not busybox's timeout: it leaves a process that waits for the time to pass.
    let get = [
        "timeout",
        "20",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://10.41.0.1:8080/",
    ];
    assert_eq!(host.run(&get).unwrap(), "hello\n");
}

fn remove_all(host: &Host) {
    host.remove("web").unwrap();
    host.remove("client").unwrap();
    host.podman(&["network", "rm", "net1"]).unwrap();
}

/// The calls of `bridge` that change something.
fn verbs(host: &Host) -> Vec<(String, i32)> {
    let calls = host.calls().unwrap().into_iter();
    calls
        .filter(|call| call.verb != "VERSION")
        .map(|call| (call.verb, call.status))
        .collect()
}

fn succeeded(wanted: &[&str]) -> Vec<(String, i32)> {
    wanted.iter().map(|verb| ((*verb).to_owned(), 0)).collect()
}

/// What podman and Debian's own plugins leave of such a life: the frames of their iptables chains and the mount that holds
/// namespaces' names.
static DEBIANS_REST: LazyLock<Still> = LazyLock::new(|| {
    let host = host(Path::new(DEBIAN));
    two_containers(&host);
    talk(&host);
    remove_all(&host);
    let rest = host.left_over().unwrap();
    let frames = Still {
        rules: rest.rules.clone(),
        mounts: rest.mounts.clone(),
        ..Still::default()
    };
    assert_eq!(rest, frames);
    assert!(
        rest.rules.iter().all(|rule| !rule.contains("10.41.0.")),
        "{rest:#?}"
    );
    assert_eq!(
        host.stop().unwrap(),
        Vec::<String>::new(),
        "left on the machine"
    );
    rest
});

/// Nothing that Debian's plugins would not leave, too; and without the host nothing on the machine.
fn nothing_is_left(host: Host) {
    let left = host.left_over_at_last(&DEBIANS_REST).unwrap();
    assert!(left.is_empty(), "left on the host: {left:#?}");
    assert_eq!(
        host.stop().unwrap(),
        Vec::<String>::new(),
        "left on the machine"
    );
}

/// The node reaches the container where `podman inspect` says it is.
fn ping(host: &Host, name: &str) {
    let inspected = host.inspect(name, "net1").unwrap();
    host.run(&[
        "busybox",
        "ping",
        "-c",
        "1",
        "-W",
        "2",
        text(&inspected, "/IPAddress"),
    ])
    .unwrap();
}

#[test]
fn two_containers_on_our_bridge() {
    let host = host(&ours());
    two_containers(&host);
    talk(&host);

    for (name, ip) in [("web", "10.41.0.2"), ("client", "10.41.0.3")] {
        let id = host
            .podman(&["inspect", name, "--format", "{{.Id}}"])
            .unwrap()
            .trim()
            .to_owned();
        let inspected = host.inspect(name, "net1").unwrap();
        // What podman tells is what the plugins answered: the cached result, the store, the kernel.
        let cached: Value = serde_json::from_str(
            &host
                .read(&format!("/var/lib/cni/results/net1-{id}-eth0"))
                .unwrap(),
        )
        .unwrap();
        assert_eq!(address(&inspected), format!("{ip}/24"));
        assert_eq!(text(&cached, "/result/ips/0/address"), format!("{ip}/24"));
        assert_eq!(text(&inspected, "/Gateway"), "10.41.0.1");
        assert_eq!(
            host.read(&format!("{STORE}/{ip}")).unwrap(),
            format!("{id}\r\neth0")
        );
        let link = host
            .podman(&["exec", name, "cat", "/sys/class/net/eth0/address"])
            .unwrap();
        assert_eq!(text(&inspected, "/MacAddress"), link.trim());
    }

    // A restart is a DEL and an ADD.
    host.podman(&["restart", "--time", "0", "client"]).unwrap();
    ping(&host, "client");
    remove_all(&host);
    assert_eq!(
        verbs(&host),
        succeeded(&["ADD", "ADD", "DEL", "ADD", "DEL", "DEL"])
    );
    nothing_is_left(host);
}

/// The node is upgraded while containers run: made by Debian's plugins, gone on by ours, and taken away by ours.
#[test]
fn containers_of_debians_plugins_end_with_ours() {
    let host = host(Path::new(DEBIAN));
    two_containers(&host);
    host.swap(&ours()).unwrap();
    host.begin("third", "net1", &[], &["sleep", "1000000"])
        .unwrap();
    assert_eq!(
        address(&host.inspect("third", "net1").unwrap()),
        "10.41.0.4/24"
    );
    talk(&host);
    ping(&host, "third");
    host.remove("third").unwrap();
    talk(&host);
    remove_all(&host);
    assert_eq!(
        verbs(&host),
        succeeded(&["ADD", "ADD", "ADD", "DEL", "DEL", "DEL"])
    );
    nothing_is_left(host);
}
