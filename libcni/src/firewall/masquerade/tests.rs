use std::env;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use testkit::{in_netns, sh};

use super::*;
use crate::spec::Attachment;
use crate::store::RawRange;

mod packets;

fn net(name: &str) -> NetName {
    NetName::parse(name).unwrap()
}

fn attachment(id: &str, ifname: &str) -> Attachment {
    Attachment {
        container_id: id.try_into().unwrap(),
        ifname: ifname.try_into().unwrap(),
    }
}

/// `subnet` alone or `subnet first last`, defaults as host-local fills them in.
fn range(text: &str) -> Range {
    let mut words = text.split(' ');
    let subnet = words.next().map(|w| w.parse().unwrap());
    let mut ip = || words.next().map(|w| w.parse().unwrap());
    Range::new(&RawRange {
        subnet,
        start: ip(),
        end: ip(),
        gateway: ip(),
    })
    .unwrap()
}

fn ranges(texts: &[&str]) -> Vec<Range> {
    texts.iter().map(|t| range(t)).collect()
}

fn ruleset() -> String {
    sh("nft list ruleset")
}

fn ensure(name: &str, texts: &[&str]) {
    ensure_network(
        &mut Netfilter::unopened(),
        &net(name),
        &ranges(texts),
        &Vec::new,
    )
    .unwrap();
}

fn remove(name: &str) {
    remove_network(&mut Netfilter::unopened(), &net(name)).unwrap();
}

#[test]
fn a_network_is_one_chain() {
    in_netns(|| {
        ensure("cbr0", &["10.88.0.0/16", "fd00:10::/64"]);
        let want = r#"table inet podwire {
	comment "made by the podwire CNI plugins, changed with every pod: do not edit"
	chain net/cbr0 {
		comment "network cbr0, rules 2, ranges 3dfacd12d78b"
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.88.0.2-10.88.255.254 ip daddr != 10.88.0.0/16 ip daddr != 224.0.0.0/4 masquerade comment "network cbr0"
		ip6 saddr fd00:10::2-fd00:10::ffff:ffff:ffff:ffff ip6 daddr != fd00:10::/64 ip6 daddr != ff00::/8 masquerade comment "network cbr0"
	}
}
"#;
        assert_eq!(ruleset(), want);
        // Saved by nft, loaded by nft, it is still what ADD looks for.
        sh("nft list ruleset > /run/saved; nft flush ruleset; nft -f /run/saved");
        let generation = Netfilter::unopened().generation().unwrap();
        ensure("cbr0", &["10.88.0.0/16", "fd00:10::/64"]);
        check_network(
            &mut Netfilter::unopened(),
            &net("cbr0"),
            &ranges(&["10.88.0.0/16", "fd00:10::/64"]),
        )
        .unwrap();
        assert_eq!(
            Netfilter::unopened().generation().unwrap(),
            generation,
            "something was written"
        );
        assert_eq!(ruleset(), want);
        remove("cbr0");
        assert_eq!(ruleset(), "");
        remove("cbr0");
    });
}

/// Masquerading lines only, without indent.
fn rules() -> Vec<String> {
    let wanted = |line: &&str| {
        line.contains("masquerade") || line.contains("saddr") || line.contains("return")
    };
    ruleset()
        .lines()
        .filter(wanted)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[test]
fn ranges_become_rules() {
    let cases: [(&[&str], &[&str]); 6] = [
        // The gateway in the middle, at the end, outside, all there is.
        (
            &["10.1.0.0/24 10.1.0.10 10.1.0.20 10.1.0.15"],
            &[
                "10.1.0.10-10.1.0.14 ip daddr != 10.1.0.0/24",
                "10.1.0.16-10.1.0.20 ip daddr != 10.1.0.0/24",
            ],
        ),
        (
            &["10.1.0.0/20 10.1.0.10 10.1.0.12 10.1.0.12"],
            &["10.1.0.10-10.1.0.11 ip daddr != 10.1.0.0/20"],
        ),
        (
            &["10.0.0.0/8 10.1.0.10 10.1.0.10"],
            &["10.1.0.10 ip daddr != 10.0.0.0/8"],
        ),
        (&["10.1.0.0/30 10.1.0.1 10.1.0.1"], &[]),
        (
            &["10.1.0.0/30", "10.2.0.0/29"],
            &[
                "10.1.0.2 ip daddr != 10.1.0.0/30",
                "10.2.0.2-10.2.0.6 ip daddr != 10.2.0.0/29",
            ],
        ),
        (
            &["fd00::/61 fd00::5 fd00::6"],
            &["fd00::5-fd00::6 ip6 daddr != fd00::/61"],
        ),
    ];
    in_netns(|| {
        for (texts, want) in cases {
            ensure("n", texts);
            check_network(&mut Netfilter::unopened(), &net("n"), &ranges(texts)).unwrap();
            let line = |rule: &&str| match rule.contains("ip6") {
                true => format!(
                    "ip6 saddr {rule} ip6 daddr != ff00::/8 masquerade comment \"network n\""
                ),
                false => format!(
                    "ip saddr {rule} ip daddr != 224.0.0.0/4 masquerade comment \"network n\""
                ),
            };
            assert_eq!(
                rules(),
                want.iter().map(line).collect::<Vec<_>>(),
                "{texts:?}"
            );
        }
    });
}

/// Same range, split range, overlapping ranges, another subnet: each network has its chain and keeps it.
#[test]
fn networks_do_not_mind_each_other() {
    let networks: [(&str, &[&str]); 4] = [
        ("a", &["10.88.0.0/16", "fd00:10::/64"]),
        ("b", &["10.88.0.0/16", "fd00:10::/64"]),
        ("c", &["10.88.0.0/16 10.88.1.0 10.88.1.255"]),
        ("d", &["10.88.1.128/25"]),
    ];
    in_netns(|| {
        for (name, texts) in networks {
            ensure(name, texts);
        }
        for (n, (name, _)) in networks.into_iter().enumerate() {
            for (other, texts) in &networks[n..] {
                check_network(&mut Netfilter::unopened(), &net(other), &ranges(texts)).unwrap();
            }
            remove(name);
        }
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn changed_ranges_take_effect() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let mut ensure = |texts: &[&str], in_use: &[&str]| {
            let in_use = || in_use.iter().map(|ip| ip.parse().unwrap()).collect();
            ensure_network(&mut netfilter, &net("n"), &ranges(texts), &in_use).unwrap();
            check_network(&mut netfilter, &net("n"), &ranges(texts)).unwrap();
            rules()
                .iter()
                .map(|rule| rule.split(' ').nth(2).unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        // Wider, with overlap; the pods of before are in the new range.
        assert_eq!(
            ensure(&["10.1.0.0/24 10.1.0.10 10.1.0.20"], &[]),
            ["10.1.0.10-10.1.0.20"]
        );
        assert_eq!(
            ensure(&["10.1.0.0/24 10.1.0.15 10.1.0.30"], &["10.1.0.15"]),
            ["10.1.0.15-10.1.0.30"]
        );
        // Elsewhere, with a pod left, whose range's rule stays.
        let both = ["10.2.0.2-10.2.0.254", "10.1.0.15-10.1.0.30"];
        assert_eq!(ensure(&["10.2.0.0/24"], &["10.1.0.16", "10.2.0.9"]), both);
        assert_eq!(
            ensure(&["10.2.0.0/24"], &[]),
            both,
            "nothing changed, nobody asked"
        );
        // And again, first with it, then without.
        assert_eq!(
            ensure(&["10.3.0.0/24"], &["10.1.0.16"]),
            ["10.3.0.2-10.3.0.254", "10.1.0.15-10.1.0.30"]
        );
        assert_eq!(
            ensure(&["10.3.0.0/25"], &["10.3.0.200"]),
            ["10.3.0.2-10.3.0.126", "10.3.0.2-10.3.0.254"]
        );
        assert_eq!(
            ensure(&["fd00::/64"], &[]),
            ["fd00::2-fd00::ffff:ffff:ffff:ffff"]
        );
    });
}

/// `nft` commands an administrator (or an attacker) may have run; CHECK sees it, the next ADD repairs it.
#[test]
fn tampering_with_a_network_is_seen_and_repaired() {
    let texts: &[&str] = &["10.88.0.0/16", "fd00:10::/64"];
    in_netns(|| {
        ensure("n", texts);
        let whole = ruleset();
        for command in [
            "delete table inet podwire",
            "flush chain inet podwire net/n",
            "add rule inet podwire net/n ip saddr 10.88.0.0/16 masquerade",
            "insert rule inet podwire net/n return",
            "delete rule inet podwire net/n handle $(nft -a list ruleset | sed -n 's/.*fd00.*handle //p')",
            "delete chain inet podwire net/n; nft add chain inet podwire net/n",
        ] {
            sh(&format!("nft {command}"));
            let error = check_network(&mut Netfilter::unopened(), &net("n"), &ranges(texts))
                .expect_err(command);
            assert_eq!(
                error.to_string(),
                "masquerade network n: chain net/n in table inet podwire is missing or was changed",
                "{command}"
            );
            ensure("n", texts);
            check_network(&mut Netfilter::unopened(), &net("n"), &ranges(texts)).unwrap();
            assert_eq!(ruleset(), whole, "{command}");
        }
    });
}

fn addresses(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

#[test]
fn a_pod_is_an_element() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let n = net("dhcp0");
        let (one, two) = (attachment("one", "eth0"), attachment("two", "net1"));
        let of_one = addresses(&["192.168.7.20/24", "fd00:7::20/64"]);
        let of_two = addresses(&["192.168.7.21/24", "192.168.8.1/20"]);
        ensure_pod(&mut netfilter, &n, &one, &of_one).unwrap();
        let want = r#"table inet podwire {
	comment "made by the podwire CNI plugins, changed with every pod: do not edit"
	map pods/dhcp0/4 {
		type ipv4_addr : verdict
		elements = { 192.168.7.20 comment "dhcp0 one eth0" : goto pods/dhcp0/192.168.7.0/24 }
	}

	map pods/dhcp0/6 {
		type ipv6_addr : verdict
		elements = { fd00:7::20 comment "dhcp0 one eth0" : goto pods/dhcp0/fd00_7__/64 }
	}

	chain pods/dhcp0 {
		comment "network dhcp0"
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr vmap @pods/dhcp0/4
		ip6 saddr vmap @pods/dhcp0/6
	}

	chain pods/dhcp0/192.168.7.0/24 {
		comment "network dhcp0"
		ip daddr 192.168.7.0/24 return
		ip daddr 224.0.0.0/4 return
		masquerade
	}

	chain pods/dhcp0/fd00_7__/64 {
		comment "network dhcp0"
		ip6 daddr fd00:7::/64 return
		ip6 daddr ff00::/8 return
		masquerade
	}
}
"#;
        assert_eq!(ruleset(), want);
        sh("nft list ruleset > /run/saved; nft flush ruleset; nft -f /run/saved");
        ensure_pod(&mut netfilter, &n, &two, &of_two).unwrap();
        assert!(
            ruleset().contains(
                "192.168.8.1 comment \"dhcp0 two net1\" : goto pods/dhcp0/192.168.0.0/20"
            )
        );
        let generation = netfilter.generation().unwrap();
        for (attachment, addresses) in [(&one, &of_one), (&two, &of_two)] {
            ensure_pod(&mut netfilter, &n, attachment, addresses).unwrap();
            check_pod(&mut netfilter, &n, attachment, addresses).unwrap();
        }
        remove_pod(&mut netfilter, &n, &attachment("one", "net1")).unwrap();
        remove_pod(&mut netfilter, &net("dhcp"), &one).unwrap();
        gc(&mut netfilter, &n, &[one.clone(), two.clone()]).unwrap();
        assert_eq!(
            netfilter.generation().unwrap(),
            generation,
            "something was written"
        );

        remove_pod(&mut netfilter, &n, &one).unwrap();
        let left = ruleset();
        assert!(
            !left.contains("fd00_7__") && left.contains("pods/dhcp0/192.168.7.0/24"),
            "{left}"
        );
        check_pod(&mut netfilter, &n, &two, &of_two).unwrap();
        gc(&mut netfilter, &n, &[one]).unwrap();
        assert_eq!(ruleset(), "");
    });
}

/// An address moves to a new pod before the old one's DEL came.
#[test]
fn an_address_has_one_owner() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let n = net("n");
        let (old, new) = (attachment("old", "eth0"), attachment("new", "eth0"));
        let ip = addresses(&["10.1.0.5/24"]);
        ensure_pod(&mut netfilter, &n, &old, &ip).unwrap();
        ensure_pod(&mut netfilter, &n, &new, &addresses(&["10.1.0.5/16"])).unwrap();
        assert!(check_pod(&mut netfilter, &n, &old, &ip).is_err());
        let before = ruleset();
        remove_pod(&mut netfilter, &n, &old).unwrap();
        assert_eq!(ruleset(), before);
        // The same address in another network is another element.
        ensure_pod(&mut netfilter, &net("m"), &old, &ip).unwrap();
        remove_pod(&mut netfilter, &n, &new).unwrap();
        check_pod(&mut netfilter, &net("m"), &old, &ip).unwrap();
        remove_pod(&mut netfilter, &net("m"), &old).unwrap();
        assert_eq!(ruleset(), "", "the former subnet's chain, too");
    });
}

#[test]
fn tampering_with_a_pod_is_seen() {
    in_netns(|| {
        let (n, pod, ip) = (
            net("n"),
            attachment("c", "eth0"),
            addresses(&["10.1.0.5/24"]),
        );
        let mut netfilter = Netfilter::unopened();
        for (command, object) in [
            (
                "delete table inet podwire",
                "the element of 10.1.0.5 in map pods/n/4",
            ),
            (
                "delete element inet podwire pods/n/4 { 10.1.0.5 }",
                "the element of 10.1.0.5 in map pods/n/4",
            ),
            (
                "flush chain inet podwire pods/n/10.1.0.0/24",
                "chain pods/n/10.1.0.0/24",
            ),
            ("flush chain inet podwire pods/n", "chain pods/n"),
        ] {
            sh("nft flush ruleset");
            ensure_pod(&mut netfilter, &n, &pod, &ip).unwrap();
            check_pod(&mut netfilter, &n, &pod, &ip).unwrap();
            sh(&format!("nft '{command}'"));
            let error = check_pod(&mut netfilter, &n, &pod, &ip)
                .unwrap_err()
                .to_string();
            let want = format!(
                "masquerade a pod of network n: {object} in table inet podwire is missing or was changed"
            );
            assert_eq!(error, want, "{command}");
        }
    });
}

#[test]
fn long_names_are_shortened_and_still_told_apart() {
    in_netns(|| {
        let long = |last: &str| format!("{}{last}", "n".repeat(250));
        let (a, b) = (long("a"), long("b"));
        ensure(&a, &["10.1.0.0/24"]);
        ensure(&b, &["10.1.0.0/24"]);
        let pod = attachment(&"c".repeat(300), "eth0");
        for name in [&a, &b] {
            ensure_pod(
                &mut Netfilter::unopened(),
                &net(name),
                &pod,
                &addresses(&["10.2.0.5/24"]),
            )
            .unwrap();
        }
        sh("nft list ruleset > /run/saved; nft flush ruleset; nft -f /run/saved");
        for name in [&a, &b] {
            check_network(
                &mut Netfilter::unopened(),
                &net(name),
                &ranges(&["10.1.0.0/24"]),
            )
            .unwrap();
            check_pod(
                &mut Netfilter::unopened(),
                &net(name),
                &pod,
                &addresses(&["10.2.0.5/24"]),
            )
            .unwrap();
            remove(name);
            remove_pod(&mut Netfilter::unopened(), &net(name), &pod).unwrap();
        }
        assert_eq!(ruleset(), "");
    });
}

/// What a process of [`in_processes`] is to do.
const JOB: &str = "MASQUERADE_TEST_JOB";

/// Runs [`worker`] in many processes at once.
fn in_processes(jobs: &[String]) {
    let spawn = |job: &String| {
        Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "firewall::masquerade::tests::worker",
            ])
            .env(JOB, job)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = jobs.iter().map(spawn).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }
}

#[test]
#[ignore = "a process of the concurrent tests"]
fn worker() {
    let Ok(job) = env::var(JOB) else { return };
    let mut netfilter = Netfilter::unopened();
    let mut words = job.split(' ');
    let (verb, name) = (words.next().unwrap(), words.next().unwrap());
    let texts: Vec<&str> = words.collect();
    match verb {
        "network" => ensure_network(&mut netfilter, &net(name), &ranges(&texts), &Vec::new),
        "forget" => remove_network(&mut netfilter, &net(name)),
        "pod" => ensure_pod(
            &mut netfilter,
            &net("p"),
            &attachment(name, "eth0"),
            &addresses(&texts),
        ),
        "unpod" => remove_pod(&mut netfilter, &net("p"), &attachment(name, "eth0")),
        _ => unreachable!(),
    }
    .unwrap();
}

#[test]
fn many_processes_at_once() {
    in_netns(|| {
        let networks = |_| "network n 10.88.0.0/16 fd00:10::/64".to_owned();
        in_processes(&(0..64).map(networks).collect::<Vec<_>>());
        check_network(
            &mut Netfilter::unopened(),
            &net("n"),
            &ranges(&["10.88.0.0/16", "fd00:10::/64"]),
        )
        .unwrap();
        assert_eq!(rules().len(), 2);

        let ip = |n: u32| format!("10.{}.0.{n}/16", n % 4);
        in_processes(
            &(0..64)
                .map(|n| format!("pod c{n} {}", ip(n)))
                .collect::<Vec<_>>(),
        );
        for n in 0..64 {
            let (pod, ip) = (attachment(&format!("c{n}"), "eth0"), ip(n));
            check_pod(
                &mut Netfilter::unopened(),
                &net("p"),
                &pod,
                &addresses(&[&ip]),
            )
            .unwrap();
        }
        // Pods come and go, networks change their ranges: at the end, what is there is whole.
        let mixed = |n: u32| match n % 4 {
            0 => format!("unpod c{n}"),
            1 => format!("pod d{n} 10.7.{n}.1/24"),
            2 => format!("network m 10.{n}.0.0/16"),
            _ => "forget n".to_owned(),
        };
        in_processes(&(0..64).map(mixed).collect::<Vec<_>>());
        for n in 0..64 {
            let (pod, ip) = match n % 4 {
                1 => (format!("d{n}"), format!("10.7.{n}.1/24")),
                _ => (format!("c{n}"), ip(n)),
            };
            let pod = attachment(&pod, "eth0");
            let stands = check_pod(
                &mut Netfilter::unopened(),
                &net("p"),
                &pod,
                &addresses(&[&ip]),
            )
            .is_ok();
            assert_eq!(stands, n % 4 != 0, "{pod:?}");
        }
        assert_eq!(
            rules()
                .iter()
                .filter(|rule| rule.contains("network m"))
                .count(),
            1
        );
        in_processes(
            &(0..64)
                .map(|n| format!("unpod {}{n}", if n % 4 == 1 { 'd' } else { 'c' }))
                .collect::<Vec<_>>(),
        );
        in_processes(
            &(1..64)
                .step_by(4)
                .map(|n| format!("unpod c{n}"))
                .collect::<Vec<_>>(),
        );
        in_processes(&["forget m".to_owned()]);
        assert_eq!(ruleset(), "");
    });
}

/// Not a test: `cargo test -p libcni --release masquerade::tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost() {
    in_netns(|| {
        let texts = ["10.88.0.0/16", "fd00:10::/64"];
        let (n, all) = (net("n"), ranges(&texts));
        let pods = net("p");
        let pod = |n: u32| attachment(&format!("c{n}"), "eth0");
        let ip = addresses(&["10.1.0.5/16"]);
        for others in [0, 1000] {
            for n in 0..others {
                let ip = addresses(&[&format!("10.1.{}.{}/16", 1 + n / 250, n % 250)]);
                ensure_pod(&mut Netfilter::unopened(), &pods, &pod(n + 10), &ip).unwrap();
            }
            eprintln!("--- {others} pods of another IPAM");
            measure(
                "ensure_network, first",
                100,
                |nf| ensure_network(nf, &n, &all, &Vec::new),
                |nf| remove_network(nf, &n),
            );
            ensure("n", &texts);
            measure(
                "ensure_network, stands",
                1000,
                |nf| ensure_network(nf, &n, &all, &Vec::new),
                |_| Ok(()),
            );
            measure(
                "check_network",
                1000,
                |nf| check_network(nf, &n, &all),
                |_| Ok(()),
            );
            measure(
                "remove_network",
                100,
                |nf| remove_network(nf, &n),
                |nf| ensure_network(nf, &n, &all, &Vec::new),
            );
            measure(
                "ensure_pod",
                100,
                |nf| ensure_pod(nf, &pods, &pod(1), &ip),
                |nf| remove_pod(nf, &pods, &pod(1)),
            );
            measure(
                "remove_pod",
                100,
                |nf| remove_pod(nf, &pods, &pod(1)),
                |nf| ensure_pod(nf, &pods, &pod(1), &ip),
            );
            measure(
                "remove_pod, nothing there",
                1000,
                |nf| remove_pod(nf, &pods, &pod(1)),
                |_| Ok(()),
            );
        }
    });
}

fn measure(
    what: &str,
    times: usize,
    mut work: impl FnMut(&mut Netfilter) -> Result<(), FirewallError>,
    mut back: impl FnMut(&mut Netfilter) -> Result<(), FirewallError>,
) {
    let mut all: Vec<(Duration, Duration)> = Vec::new();
    back(&mut Netfilter::unopened()).unwrap();
    for _ in 0..times {
        let start = Instant::now();
        let mut netfilter = Netfilter::unopened();
        work(&mut netfilter).unwrap();
        let worked = start.elapsed();
        drop(netfilter);
        all.push((worked, start.elapsed() - worked));
        back(&mut Netfilter::unopened()).unwrap();
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (worked, closed) = all.into_iter().unzip();
    eprintln!(
        "{what}: {:?} incl. open, close {:?}",
        median(worked),
        median(closed)
    );
}
