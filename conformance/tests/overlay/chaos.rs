//! Two hundred things go wrong, in whatever order; a second after the last (of an idle machine) all is well, and who was not concerned has
//! not noticed.

use std::time::{Duration, Instant};

use conformance::deployment::{Agent, Deployment, Pod};
use conformance::fleet::Space;
use testkit::in_netns;

use crate::etcd::{self, Etcd};
use crate::pace::stretched;
use crate::witness::Echo;

const MUTATIONS: usize = 200;
/// One goes wrong this often: faster than an agent heals, at times.
const EVERY: Duration = Duration::from_millis(25);
const HEALED_WITHIN: Duration = Duration::from_secs(1);

/// Numbers that look random and are the same for the same seed (xorshift64).
struct Dice(u64);

/// What can go wrong with the third node, whose pods are the ones concerned.
const ON_THE_NODE: [&str; 8] = [
    "ip route flush dev flannel.1",
    "ip neigh flush dev flannel.1 nud permanent",
    "bridge fdb show dev flannel.1 | while read mac _ dst _; do bridge fdb del $mac dev flannel.1 dst $dst self; done",
    "ip link set flannel.1 down",
    "ip link del flannel.1",
    "ip link set flannel.1 address 02:00:00:00:66:66",
    "ip link set flannel.1 mtu 1300",
    "ip address flush dev flannel.1",
];

/// What can go wrong with what others have of it, `$SUBNET` and `$IP`.
const ON_THE_OTHERS: [&str; 4] = [
    "ip route del $SUBNET",
    "ip neigh del ${SUBNET%/*} dev flannel.1",
    "bridge fdb show dev flannel.1 | grep \"dst $IP \" | while read mac _; do bridge fdb del $mac dev flannel.1 dst $IP self; done",
    "ip neigh replace ${SUBNET%/*} lladdr 02:00:00:00:77:77 nud permanent dev flannel.1",
];

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// One thing goes wrong; what, for the log.
fn mutate(dice: &mut Dice, nodes: &mut [Agent], etcd: &mut Etcd<'_>, subnet: &str) -> String {
    match dice.below(20) {
        0..=7 => {
            let harm = ON_THE_NODE[dice.below(ON_THE_NODE.len())];
            // What is broken already cannot be broken again.
            let _ = nodes[2].sh(harm);
            format!("node2: {harm}")
        }
        8..=14 => {
            let (harm, node) = (
                ON_THE_OTHERS[dice.below(ON_THE_OTHERS.len())],
                dice.below(2),
            );
            let ip = nodes[2].node.address();
            let _ = nodes[node].sh(&format!("SUBNET={subnet} IP={ip}; {harm}"));
            format!("node{node}: {harm}")
        }
        15 | 16 => {
            let node = dice.below(3);
            nodes[node].kill();
            nodes[node].start().unwrap();
            format!("node{node}: agent killed")
        }
        17 => {
            etcd.compact();
            "etcd: compacted".into()
        }
        18 => {
            etcd.kill();
            etcd.resume();
            "etcd: killed".into()
        }
        _ => {
            // Another machine in its place: nothing it knew, nothing the kernel had.
            nodes[2].kill();
            let _ = nodes[2].sh("ip link del flannel.1");
            let _ = std::fs::remove_dir_all(nodes[2].path("state"));
            nodes[2].start().unwrap();
            "node2: replaced".into()
        }
    }
}

fn mesh(pods: &[Pod]) -> Result<(), String> {
    for from in pods {
        for to in pods {
            // One that is not answered at once is no reason to wait for what is left of the second.
            let mut ping = from.space.command("ping");
            ping.args(["-n", "-q", "-c1", "-W0.2", &to.ip]);
            if from.ip != to.ip && !ping.output().unwrap().status.success() {
                return Err(format!("{} does not reach {}", from.ip, to.ip));
            }
        }
    }
    Ok(())
}

#[test]
fn two_hundred_mutations() {
    in_netns(|| {
        let seed = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .subsec_nanos();
        let mut dice = Dice(u64::from(seed) << 8 | 1);
        let plan = etcd::plan();
        let conf = plan.conf.clone();
        let mut all = Deployment::new(plan, 3).unwrap();
        let outside = Space::new("none").unwrap();
        let outside = std::mem::replace(&mut all.outside, outside);
        let mut etcd = Etcd::start(&outside);
        etcd.ctl(&["put", "/podwire/config", &conf]).unwrap();
        all.start().unwrap();

        let pods = ["p0", "p1", "p2"]
            .iter()
            .zip(&all.nodes)
            .map(|(name, node)| node.pod(name).unwrap());
        let pods: Vec<_> = pods.collect();
        mesh(&pods).unwrap();
        let env = std::fs::read_to_string(all.nodes[2].path("subnet.env")).unwrap();
        let subnet = env
            .lines()
            .find_map(|line| line.strip_prefix("FLANNEL_SUBNET="))
            .unwrap();
        let subnet = subnet.replace(".1/24", ".0/24");

        let witness = Echo::between(&pods[0].space, &pods[1].ip);
        let mut log = Vec::new();
        for _ in 0..MUTATIONS {
            let next = Instant::now() + EVERY;
            log.push(mutate(&mut dice, &mut all.nodes, &mut etcd, &subnet));
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let end = Instant::now();
        let mut state = mesh(&pods);
        while state.is_err()
            && (end.elapsed() < HEALED_WITHIN || end.elapsed() < stretched(HEALED_WITHIN))
        {
            state = mesh(&pods);
        }
        let told = || {
            let tail = |node: &Agent| {
                let log = node.log();
                let from = log.lines().count().saturating_sub(25);
                format!(
                    "--- {}\n{}",
                    node.name(),
                    log.lines().skip(from).collect::<Vec<_>>().join("\n")
                )
            };
            let logs: Vec<_> = all.nodes.iter().map(tail).collect();
            format!(
                "seed {seed}, last: {:#?}\n{}",
                &log[MUTATIONS - 12..],
                logs.join("\n")
            )
        };
        assert_eq!(state, Ok(()), "{}", told());

        let answered = witness.answered().unwrap_or_else(|said| {
            panic!("the pair that was not concerned: {said}\n{}", told());
        });
        println!("seed {seed}: {answered} echo requests of others were answered");
    });
}
