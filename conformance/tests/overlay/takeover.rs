//! A node of a flannel cluster becomes ours, and flannel's again, and no open connection notices.

use std::fs;
use std::path::Path;
use std::time::Duration;

use conformance::deployment::{Agent, Deployment, Plan};
use conformance::fleet::{NETWORK, NETWORK6, OUTSIDE, OUTSIDE6, Space};
use testkit::{in_netns, in_netns_as_root};

use crate::witness::{Echo, Stream, nothing_was_sent_twice};

const CONF: &str = r#"{"Network":"192.168.128.0/18","SubnetMin":"192.168.128.0","EnableIPv6":true,"IPv6Network":"fd00:128::/48",
    "Backend":{"Type":"vxlan"}}"#;

/// What flannel writes for a family, as `iptables-restore` reads it, beside a rule of somebody else; the policy drops
/// what flannel does not accept.
fn chains(cluster: &str, subnet: &str, multicast: &str) -> String {
    let masq = r#"-m comment --comment "flanneld masq""#;
    let forward = r#"-m comment --comment "flanneld forward""#;
    format!(
        "*nat\n:FLANNEL-POSTRTG - [0:0]\n\
         -A POSTROUTING -o x -j ACCEPT\n\
         -A POSTROUTING {masq} -j FLANNEL-POSTRTG\n\
         -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN\n\
         -A FLANNEL-POSTRTG -s {subnet} -d {cluster} {masq} -j RETURN\n\
         -A FLANNEL-POSTRTG -s {cluster} -d {subnet} {masq} -j RETURN\n\
         -A FLANNEL-POSTRTG ! -s {cluster} -d {subnet} {masq} -j RETURN\n\
         -A FLANNEL-POSTRTG -s {cluster} ! -d {multicast} {masq} -j MASQUERADE --random-fully\n\
         -A FLANNEL-POSTRTG ! -s {cluster} -d {cluster} {masq} -j MASQUERADE --random-fully\n\
         COMMIT\n*filter\n:FORWARD DROP [0:0]\n:FLANNEL-FWD - [0:0]\n\
         -A FORWARD -i x -j ACCEPT\n\
         -A FORWARD {forward} -j FLANNEL-FWD\n\
         -A FLANNEL-FWD -s {cluster} {forward} -j ACCEPT\n\
         -A FLANNEL-FWD -d {cluster} {forward} -j ACCEPT\nCOMMIT\n"
    )
}

/// Everything a flanneld leaves on the node and in the directory, with a pod.
fn flannel_was_here(all: &Deployment, at: usize, kind: &str) -> Space {
    let here = &all.nodes[at];
    let node = &here.node;
    node.vxlan_by_hand(all.nodes.iter().map(|agent| &agent.node))
        .unwrap();
    let data = |v6| format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, node.mac(v6));
    let lease = format!(
        r#"{{"PublicIP":"{}","PublicIPv6":"{}","BackendType":"vxlan","BackendData":{},"BackendV6Data":{}}}"#,
        node.address(),
        node.address6(),
        data(false),
        data(true)
    );
    let subnets = all.peers().join("subnets");
    let key = node.subnet().replace('/', "-");
    fs::remove_file(subnets.join(&key)).unwrap();
    let key = format!("{key}&{}", node.subnet6().replace('/', "-"));
    fs::write(subnets.join(key), lease).unwrap();
    let env = format!(
        "FLANNEL_NETWORK={NETWORK}\nFLANNEL_SUBNET={}/24\nFLANNEL_IPV6_NETWORK={NETWORK6}\n\
         FLANNEL_IPV6_SUBNET={}/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n",
        node.pods(1),
        node.pods6(1)
    );
    fs::write(here.path("subnet.env"), env).unwrap();
    for (program, text) in [
        ("iptables", chains(NETWORK, &node.subnet(), "224.0.0.0/4")),
        ("ip6tables", chains(NETWORK6, &node.subnet6(), "ff00::/8")),
    ] {
        let file = here.path("chains");
        fs::write(&file, text).unwrap();
        let file = file.display();
        here.sh(&format!("{program}-{kind}-restore --noflush < {file}"))
            .unwrap();
    }
    node.pod_by_hand(2).unwrap()
}

/// Rules of iptables, sorted: chains are listed by name or by age.
fn listed(node: &Agent, kind: &str) -> String {
    node.sh(&format!(
        "for p in iptables ip6tables; do for t in nat filter; do $p-{kind} -t $t -S | sed s/^/$p.$t/; done; done | sort"
    ))
    .unwrap()
}

/// The devices, and what leads into them.
fn tunnel(node: &Agent) -> String {
    node.sh(
        "for dev in flannel.1 flannel-v6.1; do
            ip -d link show $dev; ip -br address show dev $dev | tr ' ' '\\n' | sort; bridge fdb show dev $dev | sort
            ip -4 neigh show dev $dev nud permanent | sort; ip -6 neigh show dev $dev nud permanent | sort
            ip -4 -d route show dev $dev | sort; ip -6 -d route show dev $dev | grep -v 'proto kernel' | sort
        done",
    )
    .unwrap()
}

fn start(node: &mut Agent) {
    node.start().unwrap();
    node.wait(Duration::from_secs(60), "ready", |node| {
        node.ready() && node.shown_ok() == Some(1)
    })
    .unwrap();
}

fn release(node: &mut Agent, args: &[&str]) {
    let told = |node: &Agent| {
        let output = node.overlayd().arg("release").args(args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (done, text) = told(node);
    assert!(!done && text.contains("stop it first"), "{text}");
    node.kill();
    let (done, text) = told(node);
    assert!(done, "{text}\n{}", node.log());
}

/// A node is ours, of its flannel only the device is left, as it was.
fn is_ours(node: &Agent, kind: &str, before: &str) {
    let now = tunnel(node);
    let links = |text: &str| -> Vec<String> {
        let has_mac = |line: &&str| line.contains("link/ether") || line.contains("vxlan id");
        text.lines().filter(has_mac).map(str::to_owned).collect()
    };
    let index = |text: &str| -> Vec<String> {
        let first = |line: &str| line.split(": ").take(2).map(str::to_owned).collect();
        let of_link = |line: &&str| line.contains(": flannel");
        text.lines()
            .filter(of_link)
            .map(first)
            .collect::<Vec<Vec<_>>>()
            .concat()
    };
    assert_eq!((links(&now), index(&now)), (links(before), index(before)));
    let rules = listed(node, kind);
    assert!(
        !rules.contains("FLANNEL") && rules.contains("-o x -j ACCEPT"),
        "{rules}"
    );
    let tables = node.sh("nft list tables").unwrap();
    assert!(tables.contains("inet podwire-overlay"), "{tables}");
}

/// To ours, back again, and for the other node away for good.
fn no_connection_notices(kind: &str) {
    let mut plan = Plan::new(&testkit::bin_dir(), Path::new("/run/overlay"));
    plan.conf = CONF.to_owned();
    plan.options.push("--ip-masq".to_owned());
    let mut all = Deployment::new(plan, 2).unwrap();
    let pods = [0, 1].map(|at| flannel_was_here(&all, at, kind));
    let nodes = [0, 1].map(|at: usize| {
        let node = &all.nodes[at];
        (tunnel(node), listed(node, kind))
    });

    let far = [
        all.nodes[1].node.pods(2).to_string(),
        all.nodes[1].node.pods6(2).to_string(),
    ];
    let world = [OUTSIDE.to_string(), OUTSIDE6.to_string()];
    let here = &all.nodes[0].node;
    let sources = [
        [here.pods(2).to_string(), here.pods6(2).to_string()],
        [here.address().to_string(), here.address6().to_string()],
    ];
    let mut streams = Vec::new();
    for ((ips, to), sources) in [(&far, &pods[1]), (&world, &all.outside)]
        .into_iter()
        .zip(&sources)
    {
        for (ip, source) in ips.iter().zip(sources) {
            let stream = Stream::open(&pods[0], to, ip, 7000);
            assert_eq!(&stream.source.to_string(), source);
            streams.push(stream);
        }
    }
    let echoes = [&far[0], &far[1], &world[0]].map(|ip| Echo::between(&pods[0], ip));
    let go_on = |streams: &[Stream]| {
        streams.iter().for_each(Stream::goes_on);
        for space in [&pods[0], &pods[1], &all.outside] {
            nothing_was_sent_twice(space);
        }
    };
    go_on(&streams);
    for (node, before) in all.nodes.iter_mut().zip(&nodes) {
        start(node);
        go_on(&streams);
        is_ours(node, kind, &before.0);
    }
    // New ones find rules, too.
    let new = Stream::open(&pods[1], &all.outside, &world[0], 7001);
    assert_eq!(new.source, all.nodes[1].node.address());
    new.goes_on();
    new.close();

    release(&mut all.nodes[0], &[]);
    go_on(&streams);
    assert_eq!(tunnel(&all.nodes[0]), nodes[0].0);
    assert_eq!(listed(&all.nodes[0], kind), nodes[0].1);
    assert!(all.nodes[0].path("subnet.env").exists());
    let ours = |node: &Agent| {
        assert!(!node.path("overlayd.json").exists());
        node.sh("ip nexthop; nft list tables | grep podwire || true; ip route show table all proto 112; ip -6 route show table all proto 112")
            .unwrap()
    };
    assert_eq!(ours(&all.nodes[0]), "");
    for echo in echoes {
        echo.lost_nothing();
    }
    for stream in streams {
        assert!(stream.close() > 100);
    }

    release(&mut all.nodes[1], &["--remove"]);
    let node = &all.nodes[1];
    assert_eq!(ours(node), "");
    assert!(!node.path("subnet.env").exists());
    assert!(!node.sh("ip -br link").unwrap().contains("flannel"));
    let rules = listed(node, kind);
    assert!(
        !rules.contains("FLANNEL") && !rules.contains("podwire"),
        "{rules}"
    );
}

#[test]
fn no_connection_notices_a_take_over_from_iptables_nft_nor_the_release() {
    in_netns(|| no_connection_notices("nft"));
}

#[test]
fn no_connection_notices_a_take_over_from_iptables_legacy_nor_the_release() {
    in_netns_as_root(|| no_connection_notices("legacy"));
}
