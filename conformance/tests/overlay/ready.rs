//! Readiness and the files for pods come after the network, never before; and without a directory from what was known.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use conformance::deployment::{Agent, Deployment};
use testkit::in_netns;

use crate::parent::{healed, ready, two_pods};
use crate::probe::get;

const PATIENCE: Duration = Duration::from_secs(60);
const FOR_PODS: [&str; 2] = ["subnet.env", "net.d/10-flannel.conflist"];

#[track_caller]
fn not_ready(node: &Agent, why: &str) {
    node.wait(PATIENCE, &format!("not ready: {why}"), |node| {
        let told = get(node, "/readyz");
        told.is_some_and(|(status, text)| status == 503 && text.contains(why))
    })
    .unwrap();
    assert_eq!(get(node, "/healthz").unwrap().0, 200);
    for file in FOR_PODS {
        assert!(!node.path(file).exists(), "{file}: {}", node.log());
    }
    assert!(!node.ready());
}

#[track_caller]
fn wait_ready(node: &Agent) {
    node.wait(PATIENCE, "ready", |node| ready(node) == Some(200))
        .unwrap();
    for file in FOR_PODS {
        assert!(node.path(file).exists(), "{file}");
    }
}

/// Each step in turn cannot be done.
#[test]
fn rule_10_rule_19_nothing_for_pods_before_device_and_rules_stand() {
    in_netns(|| {
        let mut all = Deployment::new(crate::plan(), 2).unwrap();
        let config = all.peers().join("config");
        let conf = fs::read(&config).unwrap();
        fs::remove_file(&config).unwrap();
        let [node, far] = all.nodes.as_mut_slice() else {
            unreachable!()
        };
        // Somebody else holds our table, and will not let it go.
        let mut holder = node.node.space.command("nft");
        holder.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null());
        let mut holder = holder.spawn().unwrap();
        let mut words = holder.stdin.take().unwrap();
        writeln!(words, "add table inet podwire-overlay {{ flags owner; }}").unwrap();
        node.wait(PATIENCE, "held", |node| {
            node.sh("nft list tables")
                .unwrap()
                .contains("podwire-overlay")
        })
        .unwrap();

        node.start().unwrap();
        not_ready(node, "no lease yet");
        // Half of it is written: that may get better.
        fs::write(&config, &conf[..conf.len() / 2]).unwrap();
        node.wait(PATIENCE, "it says so", |node| {
            node.log().contains("is not JSON")
        })
        .unwrap();
        not_ready(node, "no lease yet");
        fs::write(&config, &conf).unwrap();
        node.wait(PATIENCE, "a device", |node| {
            node.sh("ip -br link").unwrap().contains("flannel.1")
        })
        .unwrap();
        not_ready(node, "table");

        drop(words);
        holder.wait().unwrap();
        wait_ready(node);
        let env = node.path("subnet.env");
        assert_eq!(
            fs::metadata(&env).unwrap().permissions().mode() & 0o777,
            0o644
        );
        let chains = node.sh("nft list table inet podwire-overlay").unwrap();
        assert!(chains.contains("hook"), "{chains}");

        // Whoever reads it while it is written anew reads the one or the other.
        let whole = |text: &str| {
            text.starts_with("FLANNEL_NETWORK=") && text.ends_with("FLANNEL_IPMASQ=false\n")
        };
        for mtu in 1400..1420 {
            node.sh(&format!("ip link set eth0 mtu {mtu}")).unwrap();
            let want = format!("FLANNEL_MTU={}\n", mtu - 50);
            node.wait(PATIENCE, &want, |_| {
                let text = fs::read_to_string(&env).unwrap();
                assert!(whole(&text), "{text}");
                text.contains(&want)
            })
            .unwrap();
        }
        far.start().unwrap();
        wait_ready(far);
        for node in [&*node, &*far] {
            node.wait(PATIENCE, "a peer", |node| node.shown_ok() == Some(1))
                .unwrap();
        }
        let (from, to) = (node.pod("p0").unwrap(), far.pod("p1").unwrap());
        assert!(from.pings(&to.ip, 3), "{}", node.log());
    });
}

/// A node boots, and of the directory there is nothing.
#[test]
fn without_a_directory_from_what_was_known() {
    in_netns(|| {
        let mut all = crate::deployment(|_| ());
        let pods = two_pods(&all);
        let mac = all.nodes[1].sh("ip -br link show flannel.1").unwrap();
        let mac = mac.split_whitespace().nth(2).unwrap().to_owned();
        all.nodes[0]
            .wait(PATIENCE, "what is known is kept", |node| {
                fs::read_to_string(node.path("state/state.json"))
                    .is_ok_and(|text| text.contains(&mac))
            })
            .unwrap();
        all.nodes[0].kill();
        let peers = all.peers();
        fs::rename(&peers, peers.with_extension("away")).unwrap();
        let node = &mut all.nodes[0];
        node.sh("ip link del flannel.1; nft flush ruleset").unwrap();
        fs::remove_file(node.path("subnet.env")).unwrap();
        assert!(!pods[0].pings(&pods[1].ip, 1));
        node.start().unwrap();
        node.wait(PATIENCE, "ready", |node| ready(node) == Some(200))
            .unwrap();
        healed(&pods, node);
        assert!(node.path("subnet.env").exists());
        let known = node.pod("p2").unwrap();
        assert!(known.pings(&pods[1].ip, 3), "{}", node.log());
    });
}
