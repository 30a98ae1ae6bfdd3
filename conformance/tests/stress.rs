//! Many processes at once, shot at random: no address is held twice, and nothing is left when all pods are gone.
//!
//! `STRESS_SEED=n` repeats the choices of a run (not the moments at which the kernel ran whom).
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::IpAddr;
use std::process::Output;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::ifaddrs::getifaddrs;
use serde_json::{Value, json};
use testkit::{Pod, bin_dir, in_netns};

#[path = "bed/node.rs"]
mod node;
#[path = "stress/race.rs"]
mod race;
#[path = "stress/world.rs"]
mod world;

use node::{IFNAME, Node};
use world::{Known, Network, World};

/// Neighbour entries that a whole run may leave, both families of two pods.
const MOST_STRAYS: usize = 4;
const ROUNDS: usize = 10;
const PROCESSES: usize = 200;
/// More attachments than processes: some wait for GC.
const ATTACHMENTS: usize = 220;

/// The pod of each network that stays until the end.
const KEEPER: &str = "keeper";

/// The network whose IPAM is executed.
const EXECUTED: usize = 3;

/// Four ways to use the plugin. The last one's IPAM is no file of this suite, so it is executed.
fn networks(node: &Node) -> Vec<Network> {
    let script = node.dir.join("foreign/host-local");
    fs::create_dir(script.parent().unwrap()).unwrap();
    let real = bin_dir().join("host-local");
    testkit::script(&script, &format!("exec {}", real.display()));
    let keys = [
        json!({"ipMasq": false, "macspoofchk": false}),
        json!({"ipMasq": true, "macspoofchk": true}),
        json!({"ipMasq": false, "macspoofchk": true, "portIsolation": true}),
        json!({"ipMasq": true, "macspoofchk": true}),
    ];
    let network = |(n, over): (usize, Value)| {
        let v4 = json!([{"subnet": format!("10.{n}.0.0/24")}]);
        let v6 = json!([{"subnet": format!("fd0{n}::/64")}]);
        let ranges = if n == 0 { json!([v4]) } else { json!([v4, v6]) };
        let mut conf = node.conf(over);
        let names = json!({"name": format!("net{n}"), "bridge": format!("br{n}"), "ipam": {"ranges": ranges}});
        node::merge(&mut conf, names);
        let cni_path = if n == EXECUTED {
            script.parent().unwrap().to_owned()
        } else {
            bin_dir()
        };
        Network { conf, cni_path }
    };
    keys.into_iter().enumerate().map(network).collect()
}

/// The addresses of the pod's interface.
fn in_kernel(pod: &Pod) -> BTreeSet<IpAddr> {
    pod.run(|| {
        let all = getifaddrs().unwrap().filter(|a| a.interface_name == IFNAME);
        let ips = all.filter_map(|a| {
            let address = a.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        ips.filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
            .collect()
    })
}

fn brief(known: &Known) -> &'static str {
    match known {
        Known::Absent => "absent",
        Known::Live(_) => "live",
        Known::Unknown(_) => "shot",
        Known::Forgotten => "forgotten",
    }
}

/// Of an error object.
fn code(out: &Output) -> Option<u64> {
    let error: Value = serde_json::from_slice(&out.stdout).ok()?;
    error["code"].as_u64()
}

fn text(out: &Output) -> String {
    format!(
        "{} {} {}",
        out.status,
        String::from_utf8_lossy(&out.stdout).replace('\n', " "),
        String::from_utf8_lossy(&out.stderr).trim_end()
    )
}

fn seed() -> u64 {
    let seed = env::var("STRESS_SEED").ok().map(|s| s.parse().unwrap());
    seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    })
}

#[test]
fn two_hundred_at_once_shot_at_random() {
    in_netns(|| {
        let seed = seed();
        println!("STRESS_SEED={seed}");
        let began = Instant::now();
        let mut world = World::new(seed);
        // One pod of each network stays: a bridge without any forgets all neighbours by itself.
        let keepers = world.keepers();
        let start = world.node.state();
        for _ in 0..ROUNDS {
            world.round();
        }
        let in_rounds = began.elapsed();
        let live = world
            .slots
            .iter()
            .filter(|s| matches!(s.known, Known::Live(_)))
            .count();
        world.delete_all();
        println!(
            "{ROUNDS} rounds of up to {} processes: {:?}, {} shot, {} pods made, {live} live at the end; {:.1} s, with the last DELs {:.1} s",
            world.tally.most_at_once,
            world.tally.verbs,
            world.tally.shot,
            world.made_pods,
            in_rounds.as_secs_f64(),
            began.elapsed().as_secs_f64(),
        );
        let state = || {
            let mut state = world.node.state();
            // Without its link nobody knows what an executed IPAM gave; the ADD that gets it next corrects the entry.
            let executed = format!("\"br{EXECUTED}\"");
            state.neighbours.retain(|entry| !entry.contains(&executed));
            state
        };
        let mut end = state();
        // An ADD that sets its neighbour while a GC frees the pod, and is shot before it takes that back, leaves an entry
        // whose address nobody remembers; the ADD that gives it again corrects it. It takes three in one moment.
        let strays = end
            .neighbours
            .iter()
            .filter(|entry| !start.neighbours.contains(*entry))
            .count();
        if strays <= MOST_STRAYS {
            end.neighbours
                .retain(|entry| start.neighbours.contains(entry));
        }
        let left = start.same(&end).err();
        let wrong = world.tally.wrong.join("\n");
        assert!(
            wrong.is_empty() && left.is_none(),
            "STRESS_SEED={seed}\n{wrong}\nleft: {left:?}"
        );
        for (call, _pod) in keepers {
            world.node.ok(&call);
        }
        state().is_clean().unwrap();
        let bridges = world.node.host.ip_json(&["link", "show", "type", "bridge"]);
        assert_eq!(bridges.as_array().unwrap().len(), world.networks.len());
    });
}
