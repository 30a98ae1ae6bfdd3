//! What the search for residue sees, and what the crash harness catches.

use std::path::Path;
use std::time::Instant;

use conformance::node::Node;
use conformance::residue::Moment;

/// A thing to make, and what must be said of it.
const THINGS: [(&str, &[&str]); 14] = [
    (
        "ip link add cni0 type bridge; ip addr add 10.1.0.1/24 dev cni0; ip link set cni0 up",
        &[
            "link cni0",
            "addr cni0 10.1.0.1/24",
            "route 10.1.0.0/24 dev cni0 prefsrc 10.1.0.1",
        ],
    ),
    (
        "ip link add v0 type veth peer name e0 netns a; ip -n a addr add 10.2.0.2/24 dev e0; ip -n a link set e0 up; \
         ip link set v0 up",
        &[
            "link v0",
            "pod a: link e0",
            "pod a: addr e0 10.2.0.2/24",
            "pod a: route 10.2.0.0/24 dev e0 prefsrc 10.2.0.2",
        ],
    ),
    (
        "ip route add 10.3.0.0/16 dev lo table 7",
        &["route 10.3.0.0/16 dev lo table 7"],
    ),
    (
        "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:01 dev d0 nud permanent",
        &["neigh 10.9.0.2 dev d0"],
    ),
    (
        "bridge fdb add 02:00:00:00:00:02 dev d0 dst 10.9.0.3",
        &["fdb 02:00:00:00:00:02 dev d0 dst 10.9.0.3"],
    ),
    ("ip link set d0 mtu 1300", &["link d0 mtu: 1300 (was 1400)"]),
    (
        "ip link property add dev d0 altname other",
        &["altname d0 other"],
    ),
    (
        "ip rule add from 10.1.0.2 lookup 7",
        &["ip-rule priority 32765 src 10.1.0.2 table 7"],
    ),
    (
        "ip -6 rule add from fd00::2 lookup 7",
        &["ip-rule -6 priority 32765 src fd00::2 table 7"],
    ),
    (
        "nft 'table inet t { set s { type ipv4_addr; elements = { 10.1.0.1, 10.1.0.2 } }; chain c { tcp dport 80 counter accept; }; }'",
        &[
            "table inet t",
            "set inet t s",
            "element inet t s 10.1.0.1",
            "element inet t s 10.1.0.2",
            "chain inet t c",
            "rule inet t c tcp dport 80 counter accept",
        ],
    ),
    (
        "iptables-legacy -t nat -A POSTROUTING -s 10.1.0.2 -m comment --comment 'of a pod' -j MASQUERADE",
        &["rule ip nat POSTROUTING -s 10.1.0.2/32 -m comment --comment \"of a pod\" -j MASQUERADE"],
    ),
    (
        "conntrack -I -s 10.1.0.2 -d 10.9.0.1 -p udp --sport 4 --dport 53 -t 60",
        &[
            "conntrack udp src=10.1.0.2 dst=10.9.0.1 sport=4 dport=53 src=10.9.0.1 dst=10.1.0.2 sport=53 dport=4 mark=0",
        ],
    ),
    (
        "touch /run/netns/b; mkdir -p /run/x; mount -t tmpfs none /run/x; rm -rf /run/mount",
        &["mount /run/x", "file /run/netns/b", "file /run/x/"],
    ),
    (
        "mkdir -p /var/lib/cni/networks/x; echo c1 > /var/lib/cni/networks/x/10.1.0.2; echo 2 > /run/there",
        &[
            "file /var/lib/cni/networks/",
            "file /var/lib/cni/networks/x/",
            "file /var/lib/cni/networks/x/10.1.0.2",
            "file /run/there: \"2\\n\" (was \"1\\n\")",
        ],
    ),
];

/// Each is found, by itself, and nothing else is.
#[test]
fn residue_is_seen() {
    testkit::in_netns(|| {
        for (script, wanted) in THINGS {
            let seen = std::thread::spawn(move || {
                let node = Node::enter(Path::new("/usr"), &["a".to_owned()], false).unwrap();
                node.sh("ip link add d0 mtu 1400 type vxlan id 7 local 10.9.0.1 dstport 8472 nolearning; \
                         ip link set d0 up; echo 1 > /run/there").unwrap();
                let before = Moment::now(&node).unwrap();
                node.sh(script).unwrap();
                let began = Instant::now();
                let after = Moment::now(&node).unwrap();
                println!("{script}: {:?}", began.elapsed());
                assert_eq!(after.missing(&before), before.left_over(&after).into_iter().filter(|l| !l.contains(" (was ")).collect::<Vec<_>>());
                assert_eq!(before.left_over(&Moment::now(&node).unwrap()), before.left_over(&after), "{script}");
                before.left_over(&after)
            })
            .join()
            .unwrap();
            // Addresses a link has by itself are random.
            let told: Vec<&String> = seen.iter().filter(|l| !l.contains("fe80:")).collect();
            let mut wanted = wanted.to_vec();
            wanted.sort_by_key(|l| (l.contains(" (was "), *l));
            assert_eq!(told, wanted, "{script}: {seen:#?}");
        }
    });
}
