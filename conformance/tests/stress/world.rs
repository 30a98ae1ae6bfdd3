//! What the runtime does and knows, and what has to be so after each round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Call, Pod};

use crate::node::{IFNAME, Node, addresses};
use crate::{ATTACHMENTS, EXECUTED, KEEPER, PROCESSES, brief, code, in_kernel, networks, text};
/// xorshift64
pub struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }
}

/// A network's configuration, and where its plugins are.
pub struct Network {
    pub conf: Value,
    pub cni_path: PathBuf,
}

/// What the runtime knows of an attachment.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// Never added, or deleted.
    Absent,
    /// ADD returned this.
    Live(Value),
    /// A process of it was shot: DEL comes next, with the result if there was one.
    Unknown(Option<Value>),
    /// Shot, and forgotten by the runtime: only GC finds it.
    Forgotten,
}

/// One attachment.
pub struct Slot {
    pub id: String,
    pub network: usize,
    /// Without one, its namespace was deleted.
    pub pod: Option<Pod>,
    pub known: Known,
}

/// One process of a round.
pub struct Job {
    pub slot: Option<usize>,
    pub verb: &'static str,
    pub call: Call,
    pub stdin: String,
    pub shot_after: Option<Duration>,
}

/// What a round came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub verbs: BTreeMap<&'static str, usize>,
    pub shot: usize,
    pub most_at_once: usize,
    pub wrong: Vec<String>,
}

pub struct World {
    pub node: Node,
    pub networks: Vec<Network>,
    pub slots: Vec<Slot>,
    pub random: Random,
    pub made_pods: usize,
    pub tally: Tally,
}

// === impl World ===

impl World {
    pub fn new(seed: u64) -> Self {
        let node = Node::new("n");
        let networks = networks(&node);
        let mut world = Self {
            node,
            networks,
            slots: Vec::new(),
            random: Random(seed | 1),
            made_pods: 0,
            tally: Tally::default(),
        };
        for n in 0..ATTACHMENTS {
            // The executed IPAM costs several times the others: a few.
            let network = match world.random.below(8) {
                7 => EXECUTED,
                n => usize::try_from(n % 3).unwrap(),
            };
            let pod = Some(world.pod());
            let (id, known) = (format!("c{n}"), Known::Absent);
            world.slots.push(Slot {
                id,
                network,
                pod,
                known,
            });
        }
        world
    }

    fn pod(&mut self) -> Pod {
        self.made_pods += 1;
        Pod::new(&format!("p{}", self.made_pods))
    }

    /// A pod of each network that stays, with the call that takes it away.
    pub fn keepers(&mut self) -> Vec<(Call, Pod)> {
        let all = 0..self.networks.len();
        all.map(|n| {
            let pod = self.pod();
            let network = &self.networks[n];
            let call = |verb| {
                let call = self.node.call(verb, KEEPER, pod.netns(), &network.conf);
                call.cni_path(&network.cni_path)
            };
            self.node.ok(&call("ADD"));
            (call("DEL"), pod)
        })
        .collect()
    }

    /// What the runtime does next with that attachment.
    fn job(&mut self, n: usize) -> Option<Job> {
        let dice = self.random.below(100);
        let verb = match &self.slots[n].known {
            Known::Forgotten => return None,
            Known::Unknown(_) => "DEL",
            Known::Absent if dice < 93 => "ADD",
            Known::Absent => "DEL",
            Known::Live(_) if dice < 50 => "DEL",
            Known::Live(_) if dice < 90 => "CHECK",
            Known::Live(_) => "ADD",
        };
        if verb == "DEL" && self.random.percent(25) {
            self.slots[n].pod = None; // the sandbox went first
        } else if verb != "DEL" && self.slots[n].pod.is_none() {
            self.slots[n].pod = Some(self.pod());
        }
        let shot = self.random.percent(35);
        let shot_after = shot.then(|| self.moment());
        let names_netns = verb != "DEL" || self.random.percent(70);
        Some(self.job_of(n, verb, names_netns, shot_after))
    }

    fn moment(&mut self) -> Duration {
        let range_us = if self.random.percent(50) {
            5_000
        } else {
            1_500_000
        };
        Duration::from_micros(self.random.below(range_us))
    }

    fn job_of(
        &self,
        n: usize,
        verb: &'static str,
        names_netns: bool,
        shot_after: Option<Duration>,
    ) -> Job {
        let slot = &self.slots[n];
        let network = &self.networks[slot.network];
        let mut conf = network.conf.clone();
        if let (Known::Live(result) | Known::Unknown(Some(result)), "CHECK" | "DEL") =
            (&slot.known, verb)
        {
            conf["prevResult"] = result.clone();
        }
        let netns = match &slot.pod {
            Some(pod) if names_netns => pod.netns(),
            None if names_netns => "/run/netns/gone",
            _ => "",
        };
        let call = self.node.call(verb, &slot.id, netns, &conf);
        let call = call.cni_path(&network.cni_path);
        let stdin = conf.to_string();
        Job {
            slot: Some(n),
            verb,
            call,
            stdin,
            shot_after,
        }
    }

    /// Of all but the forgotten; those that are at work now are valid, too.
    fn gc(&mut self, network: usize) -> Job {
        let valid = self
            .slots
            .iter()
            .filter(|s| s.network == network && s.known != Known::Forgotten);
        let valid = valid.map(|s| s.id.as_str()).chain([KEEPER]);
        let valid: Vec<Value> = valid
            .map(|id| json!({"containerID": id, "ifname": IFNAME}))
            .collect();
        let mut conf = self.networks[network].conf.clone();
        conf["cni.dev/valid-attachments"] = json!(valid);
        let call = self.node.call("GC", "", "", &conf);
        let call = call.cni_path(&self.networks[network].cni_path);
        let shot_after = self.random.percent(35).then(|| self.moment());
        let stdin = conf.to_string();
        Job {
            slot: None,
            verb: "GC",
            call,
            stdin,
            shot_after,
        }
    }

    /// All at once.
    fn run(&self, jobs: &[Job]) -> Vec<Output> {
        let together = Barrier::new(jobs.len());
        thread::scope(|scope| {
            let running: Vec<_> = jobs
                .iter()
                .map(|job| {
                    let together = &together;
                    scope.spawn(move || {
                        together.wait();
                        self.run_one(job)
                    })
                })
                .collect();
            running.into_iter().map(|job| job.join().unwrap()).collect()
        })
    }

    fn run_one(&self, job: &Job) -> Output {
        let mut child = self.node.spawn(job.call.command(), &job.stdin);
        if let Some(after) = job.shot_after {
            thread::sleep(after);
            let _ = child.kill();
        }
        child.wait_with_output().unwrap()
    }

    pub fn round(&mut self) {
        let mut jobs: Vec<Job> = (0..self.networks.len()).map(|n| self.gc(n)).collect();
        jobs.extend(
            (0..self.slots.len())
                .filter_map(|n| self.job(n))
                .collect::<Vec<_>>(),
        );
        let outcomes = self.run(&jobs);
        self.tally.most_at_once = self.tally.most_at_once.max(jobs.len());
        let forgotten: Vec<usize> = (0..self.slots.len())
            .filter(|&n| self.slots[n].known == Known::Forgotten)
            .collect();
        for (number, (job, out)) in jobs.iter().zip(&outcomes).enumerate() {
            *self.tally.verbs.entry(job.verb).or_default() += 1;
            let shot = out.status.signal() == Some(9);
            self.tally.shot += usize::from(shot);
            match job.slot {
                Some(n) => self.learn(n, job, out, shot),
                None if shot => {}
                None if out.status.success() => {
                    for &n in &forgotten {
                        if self.slots[n].network == number {
                            self.slots[n].known = Known::Absent;
                        }
                    }
                }
                None => self.wrong(format!("GC: {}", text(out))),
            }
        }
        assert!(jobs.len() >= PROCESSES * 9 / 10, "{}", jobs.len());
        self.verify();
    }

    fn learn(&mut self, n: usize, job: &Job, out: &Output, shot: bool) {
        let was = self.slots[n].known.clone();
        let forgets = self.random.percent(40);
        let ok = out.status.success();
        let at = || {
            format!(
                "{} {} ({}): {}",
                job.verb,
                self.slots[n].id,
                brief(&was),
                text(out)
            )
        };
        self.slots[n].known = match (job.verb, &was) {
            // Refused, or shot: either way the first one stays.
            ("ADD", Known::Live(_)) => {
                if !shot && (ok || ![Some(101), Some(104)].contains(&code(out))) {
                    let what = at();
                    self.wrong(what);
                }
                was
            }
            ("CHECK", _) => {
                if !ok && !shot {
                    let what = at();
                    self.wrong(what);
                }
                was
            }
            _ if shot && forgets => Known::Forgotten,
            (_, Known::Live(result) | Known::Unknown(Some(result))) if shot => {
                Known::Unknown(Some(result.clone()))
            }
            _ if shot => Known::Unknown(None),
            ("ADD", _) if ok => Known::Live(serde_json::from_slice(&out.stdout).unwrap()),
            ("DEL", _) if ok => Known::Absent,
            _ => {
                let what = at();
                self.wrong(what);
                Known::Unknown(None)
            }
        };
    }

    fn wrong(&mut self, what: String) {
        self.tally.wrong.push(what);
    }

    /// Every address in a pod is reserved for it, in its network no pod has another's, and the live have what they were
    /// told.
    fn verify(&mut self) {
        let mut holders: BTreeMap<(usize, IpAddr), String> = BTreeMap::new();
        let mut wrong = Vec::new();
        for slot in &self.slots {
            let held = slot.pod.as_ref().map(in_kernel).unwrap_or_default();
            for ip in &held {
                let before = holders.insert((slot.network, *ip), slot.id.clone());
                wrong.extend(before.map(|other| format!("{ip} held by {other} and {}", slot.id)));
                let file = self.node.store().join(format!("net{}/{ip}", slot.network));
                let owner = fs::read_to_string(&file).unwrap_or_default();
                if owner != format!("{}\r\n{IFNAME}", slot.id) {
                    let known = brief(&slot.known);
                    wrong.push(format!(
                        "{ip} in {} ({known}), but reserved for {owner:?}",
                        slot.id
                    ));
                }
            }
            if let Known::Live(result) = &slot.known {
                let told: BTreeSet<IpAddr> = addresses(result).into_iter().collect();
                if held != told {
                    wrong.push(format!("{} was told {told:?} and has {held:?}", slot.id));
                }
            }
        }
        // A few in full, by the plugin itself.
        for n in 0..self.slots.len() {
            if matches!(self.slots[n].known, Known::Live(_)) && self.random.percent(20) {
                let job = self.job_of(n, "CHECK", true, None);
                let out = self.run_one(&job);
                if !out.status.success() {
                    wrong.push(format!(
                        "CHECK {} in peace: {}",
                        self.slots[n].id,
                        text(&out)
                    ));
                }
            }
        }
        self.tally.wrong.extend(wrong);
    }

    /// The end of all pods: with their namespaces, without them, and some twice.
    pub fn delete_all(&mut self) {
        for twice in [false, true] {
            let mut jobs = Vec::new();
            for n in 0..self.slots.len() {
                if twice && !self.random.percent(10) {
                    continue;
                }
                if self.random.percent(30) {
                    self.slots[n].pod = None;
                }
                let names_netns = self.random.percent(60);
                jobs.push(self.job_of(n, "DEL", names_netns, None));
            }
            for (job, out) in jobs.iter().zip(self.run(&jobs)) {
                if !out.status.success() {
                    self.wrong(format!("last DEL of {:?}: {}", job.slot, text(&out)));
                }
            }
        }
    }
}
