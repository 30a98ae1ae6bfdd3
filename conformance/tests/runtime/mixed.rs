//! Chains of our plugins, of the reference's (Debian's), and of both, with port mappings by capability.

use std::fs;
use std::path::{Path, PathBuf};

use libcni::runtime::{Attach, NetworkList, Runtime};
use libcni::spec::json::Node;
use serde_json::{Value, json};
use testkit::{Pod, bin_dir, in_netns, ip_json, sh};

const DEBIAN: &str = "/usr/lib/cni";

/// Where each of the plugins comes from: a directory with just these.
fn choice(dir: &Path, ours: &[&str], theirs: &[&str]) {
    let link = |from: &Path, name: &str| {
        std::os::unix::fs::symlink(from.join(name), dir.join(name)).unwrap();
    };
    for name in ours {
        link(&bin_dir(), name);
    }
    for name in theirs {
        link(Path::new(DEBIAN), name);
    }
}

fn chain(ours: &'static [&'static str], theirs: &'static [&'static str]) {
    in_netns(|| {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { dir.path().join(name) };
        fs::create_dir(at("bin")).unwrap();
        choice(&at("bin"), ours, theirs);
        choice(
            &at("bin"),
            &[],
            &["portmap", "tuning", "firewall", "bandwidth"],
        );
        // The reference's bridge leaves its masquerade rules when the namespace is gone.
        let masq = ours.contains(&"bridge");
        let ipam = json!({"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": at("store")});
        let conf = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [
            {"type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": masq, "ipam": ipam},
            {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}, "dataDir": at("tuning")},
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "firewall", "backend": "iptables"},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
        ]});
        let list = NetworkList::parse(conf.to_string().as_bytes(), None).unwrap();
        let runtime = Runtime::new([at("bin")]).cache_dir(at("cache"));
        runtime.validate(&list).unwrap();

        let pod = Pod::new("pod");
        let mut attach = Attach::new("c1", pod.netns(), "eth0");
        attach.capability_args = Node::parse(
            br#"{"portMappings": [{"containerPort": 80, "hostPort": 8080, "protocol": "tcp"}], "unknown": 1}"#,
        )
        .unwrap();
        let result = runtime.add(&list, &attach).unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.9.0.2/24");
        assert_eq!(
            pod.sh("cat /proc/sys/net/ipv4/conf/eth0/arp_filter").trim(),
            "1"
        );
        assert!(rules().contains("8080"), "{}", rules());
        // Debian's portmap looks for IPv6 rules of a pod without IPv6, its bandwidth crashes if there is nothing to limit.
        let mut checked = list.clone();
        checked
            .plugins
            .retain(|plugin| !["portmap", "bandwidth"].contains(&plugin.kind.as_str()));
        runtime.check(&checked, &attach).unwrap();
        let listed = &runtime.attachments().unwrap()[0];
        assert_eq!(
            (listed.network.as_str(), listed.attach()),
            ("net", attach.clone())
        );
        assert_eq!(listed.config, list.bytes());

        // The network has gone from the node, and nobody remembers the port mappings; the cache does. (Without them the
        // reference's portmap leaves its rules.)
        attach.capability_args = Node::obj().build();
        drop(pod);
        runtime.del(&list, &attach).unwrap();
        assert!(!rules().contains("8080"), "{}", rules());
        assert!(!rules().contains("10.9.0.2"), "{}", rules());
        testkit::eventually(std::time::Duration::from_secs(60), || {
            ip_json(&["link", "show", "type", "veth"]) == Value::Array(Vec::new())
        });
        assert!(!at("store/net/10.9.0.2").exists());
        assert!(runtime.attachments().unwrap().is_empty());
    });
}

fn rules() -> String {
    sh("nft list ruleset")
}

#[test]
fn ours_with_the_references_meta_plugins() {
    chain(&["bridge", "host-local"], &[]);
}

#[test]
fn the_references_alone() {
    chain(&[], &["bridge", "host-local"]);
}

#[test]
fn our_bridge_and_the_references_host_local() {
    chain(&["bridge"], &["host-local"]);
}

#[test]
fn the_references_bridge_and_our_host_local() {
    chain(&["host-local"], &["bridge"]);
}
