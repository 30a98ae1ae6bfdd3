//! Many processes at once, and what a call costs.

use std::env;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// What a process of [`in_processes`] is to do.
const JOB: &str = "MASQUERADE_TEST_JOB";

/// Runs [`worker`] in many processes at once.
fn in_processes(jobs: &[String]) {
    let spawn = |job: &String| {
        Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "firewall::masquerade::tests::processes::worker",
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

/// Not a test: `cargo test -p libcni --release masquerade::tests::processes::cost -- --ignored --nocapture`.
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
