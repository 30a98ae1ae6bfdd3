use std::env;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{Pod, eventually, in_netns, sh};

use super::*;

fn net(name: &str) -> NetName {
    NetName::parse(name).unwrap()
}

fn attachment(id: &str) -> Attachment {
    Attachment {
        container_id: id.try_into().unwrap(),
        ifname: "eth0".try_into().unwrap(),
    }
}

fn port(name: &str) -> IfName {
    IfName::parse(name).unwrap()
}

const MAC: Mac = Mac([0x42, 0xbe, 0x53, 0xec, 0xaa, 0xc4]);
const OTHER_MAC: Mac = Mac([0x42, 0xbe, 0x53, 0xec, 0xaa, 0xc5]);

fn guard(id: &str, name: &str, mac: Mac) {
    add(
        &mut Netfilter::unopened(),
        &net("cbr0"),
        &attachment(id),
        &port(name),
        mac,
    )
    .unwrap();
}

fn guarded(id: &str, name: &str, mac: Mac) -> bool {
    check(
        &mut Netfilter::unopened(),
        &net("cbr0"),
        &attachment(id),
        &port(name),
        mac,
    )
    .is_ok()
}

fn unguard(id: &str) {
    remove(&mut Netfilter::unopened(), &net("cbr0"), &attachment(id)).unwrap();
}

fn ruleset() -> String {
    sh("nft list ruleset")
}

#[test]
fn a_pod_is_two_elements() {
    in_netns(|| {
        guard("0123", "veth0a1b2c3d", MAC);
        let want = r#"table bridge podwire {
	comment "made by the podwire CNI plugins, changed with every pod: do not edit"
	set guarded {
		type ifname
		comment "ports of pods"
		elements = { "veth0a1b2c3d" comment "cbr0 0123 eth0" }
	}

	set allowed {
		type ifname . ether_addr
		comment "what may come from them"
		elements = { "veth0a1b2c3d" . 42:be:53:ec:aa:c4 comment "cbr0 0123 eth0" }
	}

	chain prerouting {
		type filter hook prerouting priority dstnat; policy accept;
		iifname @guarded iifname . ether saddr != @allowed drop
	}
}
"#;
        assert_eq!(ruleset(), want);
        sh("nft list ruleset > /run/saved; nft flush ruleset; nft -f /run/saved");
        let mut netfilter = Netfilter::unopened();
        let generation = netfilter.generation().unwrap();
        guard("0123", "veth0a1b2c3d", MAC);
        assert!(guarded("0123", "veth0a1b2c3d", MAC));
        unguard("elsewhere");
        gc(&mut netfilter, &net("cbr0"), &[attachment("0123")]).unwrap();
        gc(&mut netfilter, &net("cbr"), &[]).unwrap();
        assert_eq!(
            netfilter.generation().unwrap(),
            generation,
            "something was written"
        );
        assert_eq!(ruleset(), want);
        unguard("0123");
        assert_eq!(ruleset(), "");
        unguard("0123");
    });
}

#[test]
fn a_port_has_one_owner_and_one_address() {
    in_netns(|| {
        guard("old", "veth1", MAC);
        guard("old", "veth1", OTHER_MAC);
        assert!(guarded("old", "veth1", OTHER_MAC) && !guarded("old", "veth1", MAC));
        // The name comes back for another pod before the first one's DEL.
        guard("new", "veth1", MAC);
        assert!(guarded("new", "veth1", MAC));
        assert!(!ruleset().contains("aa:c5"), "{}", ruleset());
        unguard("old");
        assert!(guarded("new", "veth1", MAC));
        // Half of it is gone.
        for half in ["guarded { veth1 }", "allowed { veth1 . 42:be:53:ec:aa:c4 }"] {
            sh(&format!("nft 'delete element bridge podwire {half}'"));
            assert!(!guarded("new", "veth1", MAC));
            guard("new", "veth1", MAC);
            assert!(guarded("new", "veth1", MAC));
        }
        sh("nft flush chain bridge podwire prerouting");
        assert!(!guarded("new", "veth1", MAC), "without the rule");
        guard("two", "veth2", MAC);
        gc(
            &mut Netfilter::unopened(),
            &net("cbr0"),
            &[attachment("two")],
        )
        .unwrap();
        assert!(!ruleset().contains("veth1") && ruleset().contains("veth2"));
        gc(&mut Netfilter::unopened(), &net("cbr0"), &[]).unwrap();
        assert_eq!(ruleset(), "");
    });
}

/// Two pods on a bridge; one changes its address.
#[test]
fn frames_with_another_address_are_dropped() {
    in_netns(|| {
        sh("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.1.0.1/24 dev br0");
        let pods = [Pod::new("one"), Pod::new("two")];
        for (n, pod) in pods.iter().enumerate() {
            let own = Mac([0x42, 0, 0, 0, 0, u8::try_from(n).unwrap()]);
            sh(&format!(
                "ip link add p{n} type veth peer name eth0 address {own} netns {}; ip link set p{n} master br0 up",
                pod.netns()
            ));
            pod.sh(&format!(
                "ip addr add 10.1.0.1{n}/24 dev eth0; ip link set eth0 up"
            ));
            guard(&format!("c{n}"), &format!("p{n}"), own);
        }
        let reaches = |pod: &Pod, ip: &str| {
            let mut ping = pod.command("ping");
            ping.args(["-c1", "-W1", ip])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        };
        let [one, two] = &pods;
        eventually(Duration::from_secs(5), || {
            reaches(one, "10.1.0.11") && reaches(two, "10.1.0.1")
        });
        one.sh("ip link set eth0 address 42:00:00:00:00:99");
        assert!(
            !reaches(one, "10.1.0.11") && !reaches(one, "10.1.0.1"),
            "a stolen address got through"
        );
        // Not even a frame that needs no answer.
        let deaf = two.run(|| UdpSocket::bind("0.0.0.0:7000").unwrap());
        deaf.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        one.sh("ip neigh replace 10.1.0.11 lladdr 42:00:00:00:00:01 dev eth0");
        one.run(|| {
            UdpSocket::bind("0.0.0.0:0")
                .unwrap()
                .send_to(b"x", "10.1.0.11:7000")
                .unwrap()
        });
        deaf.recv_from(&mut [0; 8]).unwrap_err();
        assert!(reaches(two, "10.1.0.1"), "the neighbour suffers");
        unguard("c0");
        two.sh("ip neigh flush all");
        assert!(reaches(one, "10.1.0.11"));
        two.sh("ip neigh flush all");
        one.sh("ip link set eth0 address 42:00:00:00:00:00");
        assert!(reaches(one, "10.1.0.11"));
    });
}

/// What a process of [`many_processes_at_once`] is to do.
const JOB: &str = "SPOOF_TEST_JOB";

#[test]
#[ignore = "a process of the concurrent test"]
fn worker() {
    let Ok(job) = env::var(JOB) else { return };
    match job.split_once(' ') {
        Some(("add", n)) => guard(&format!("c{n}"), &format!("veth{n}"), MAC),
        Some(("remove", n)) => unguard(&format!("c{n}")),
        _ => unreachable!(),
    }
}

#[test]
fn many_processes_at_once() {
    in_netns(|| {
        for verb in ["add", "remove"] {
            let spawn = |n: u32| {
                Command::new(env::current_exe().unwrap())
                    .args(["--exact", "--ignored", "firewall::spoof::tests::worker"])
                    .env(JOB, format!("{verb} {n}"))
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            };
            let children: Vec<_> = (0..64).map(spawn).collect();
            for child in children {
                let output = child.wait_with_output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout)
                    + String::from_utf8_lossy(&output.stderr);
                assert!(
                    output.status.success() && text.contains("1 passed"),
                    "{text}"
                );
            }
            for n in 0..64 {
                assert_eq!(
                    guarded(&format!("c{n}"), &format!("veth{n}"), MAC),
                    verb == "add"
                );
            }
        }
        assert_eq!(ruleset(), "");
    });
}

/// Not a test: `cargo test -p libcni --release spoof::tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost() {
    in_netns(|| {
        for others in [0, 110, 1000] {
            for n in 0..others {
                guard(&format!("o{n}"), &format!("other{n}"), MAC);
            }
            let mut all = Vec::new();
            for _ in 0..100 {
                let start = Instant::now();
                guard("c", "veth1", MAC);
                let added = start.elapsed();
                let mut netfilter = Netfilter::unopened();
                remove(&mut netfilter, &net("cbr0"), &attachment("c")).unwrap();
                let removed = start.elapsed() - added;
                drop(netfilter);
                all.push((added, removed, start.elapsed() - added - removed));
            }
            all.sort();
            eprintln!(
                "{others} other pods: (add with close, remove, close) {:?}",
                all[50]
            );
        }
    });
}
