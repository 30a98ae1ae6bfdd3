use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use testkit::{Call, Pod, in_netns, in_netns_as_root, sh};

use super::*;

const REFERENCE: &str = "/usr/lib/cni";
const ID: &str = "0123456789abcdef";
const CONF: &str = r#"{"cniVersion":"1.0.0","name":"mynet","type":"bridge","bridge":"br0","isGateway":true,
    "ipMasq":true,"macspoofchk":true,"ipam":{"type":"host-local",
    "ranges":[[{"subnet":"10.88.0.0/16"}],[{"subnet":"fd00:10::/64"}]]}}"#;

/// What a first attachment on [`CONF`] gets, and a second one.
const FIRST: [&str; 2] = ["10.88.0.2", "fd00:10::2"];
const SECOND: [&str; 2] = ["10.88.0.3", "fd00:10::3"];

fn net() -> NetName {
    NetName::parse("mynet").unwrap()
}

fn attachment(id: &str, ifname: &str) -> Attachment {
    Attachment {
        container_id: id.try_into().unwrap(),
        ifname: ifname.try_into().unwrap(),
    }
}

/// ADD by Debian's plugins, `iptables` in the PATH being the flavour.
fn reference_adds(pod: &Pod, id: &str, ifname: &str, flavour: &str) {
    let bin = Path::new("/run/flavour");
    if !bin.exists() {
        fs::create_dir(bin).unwrap();
        for program in ["iptables", "ip6tables"] {
            symlink(format!("/usr/sbin/{program}-{flavour}"), bin.join(program)).unwrap();
        }
    }
    let output = Call::new(format!("{REFERENCE}/bridge"))
        .verb("ADD")
        .container(id)
        .netns(pod.netns())
        .ifname(ifname)
        .env("CNI_PATH", REFERENCE)
        .env("PATH", "/run/flavour:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(CONF)
        .run();
    assert!(
        output.status.success(),
        "{}{}",
        output.stdout,
        output.stderr
    );
}

fn removes(id: &str, ifname: &str, addresses: &[&str]) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let warnings = remove(
        &mut Netfilter::unopened(),
        &net(),
        &attachment(id, ifname),
        &addresses,
    )
    .unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// The lines of all rules that only a pod of the reference brings.
fn leftovers() -> Vec<String> {
    let both = "nft list ruleset; for t in iptables ip6tables; do $t-legacy-save 2>/dev/null || true; done";
    let of_pod = |line: &&str| {
        line.contains("CNI-") || line.contains("cni-br-iface") || line.contains("10.88.0.")
    };
    sh(both)
        .lines()
        .filter(of_pod)
        .map(|line| line.trim().to_owned())
        .collect()
}

fn came_and_went(flavour: &str) {
    let pod = Pod::new("one");
    reference_adds(&pod, ID, "eth0", flavour);
    reference_adds(&pod, ID, "eth1", flavour);
    reference_adds(&pod, "other", "eth2", flavour);
    let all = leftovers();
    let old_tables = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    assert_eq!(
        old_tables.contains("nat"),
        flavour == "legacy",
        "the reference used the other iptables"
    );
    let count = |text: &str| {
        leftovers()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    };
    assert!(
        count("CNI-7166596e80d917931ad582d5") >= 4,
        "the reference made nothing: {all:?}"
    );
    assert!(count("cni-br-iface-0123456789abcdef-eth0") > 0);

    // Unknown addresses: nothing is guessed about a chain that interfaces may share.
    removes(ID, "eth0", &[]);
    assert!(count("CNI-7166596e80d917931ad582d5") >= 4);
    assert_eq!(count("cni-br-iface-0123456789abcdef-eth0"), 0);
    assert!(count("cni-br-iface-0123456789abcdef-eth1") > 0);

    removes(ID, "eth0", &FIRST);
    let rest = leftovers();
    assert!(
        count("CNI-7166596e80d917931ad582d5") >= 4,
        "the sibling's chain was hit: {rest:?}"
    );
    assert_eq!(count("10.88.0.2"), 0, "{rest:?}");
    assert!(count("10.88.0.3") > 0, "{rest:?}");
    removes(ID, "eth0", &FIRST);
    assert_eq!(leftovers(), rest, "a second DEL changed something");

    removes(ID, "eth1", &SECOND);
    let rest = leftovers();
    assert_eq!(count("CNI-7166596e80d917931ad582d5"), 0, "{rest:?}");
    assert_eq!(count("0123456789abcdef"), 0, "{rest:?}");
    assert!(count("10.88.0.4") > 0, "{rest:?}");
    removes("other", "eth2", &["10.88.0.4", "fd00:10::4"]);
    assert_eq!(leftovers(), [""; 0]);
}

#[test]
fn left_by_iptables_nft() {
    in_netns(|| came_and_went("nft"));
}

/// The old tables' names are readable only for root of the machine's own user namespace.
#[test]
fn left_by_iptables_legacy() {
    in_netns_as_root(|| came_and_went("legacy"));
}

/// Another program's leftovers never make DEL fail: it says what is left and goes on.
#[test]
fn without_a_working_iptables_it_only_warns() {
    in_netns_as_root(|| {
        reference_adds(&Pod::new("one"), ID, "eth0", "legacy");
        let addresses = FIRST.map(|ip| ip.parse().unwrap());
        let warnings = || {
            let warnings = remove(
                &mut Netfilter::unopened(),
                &net(),
                &attachment(ID, "eth0"),
                &addresses,
            )
            .unwrap();
            assert!(
                fs::read_to_string("/proc/net/ip_tables_names")
                    .unwrap()
                    .contains("nat")
            );
            warnings
        };
        let stays = "CNI-7166596e80d917931ad582d5 stays in the nat table of iptables-legacy: ";
        sh("cp /bin/mount /bin/umount /run");
        sh("printf '#!/bin/sh\\necho no luck >&2; exit 3\\n' > /run/fails; chmod +x /run/fails");
        let program = fs::canonicalize("/usr/sbin/iptables-legacy").unwrap();
        sh(&format!(
            "/run/mount --bind /run/fails {}",
            program.display()
        ));
        let want = ["iptables", "ip6tables"].map(|name| {
            format!(
                "{stays}/usr/sbin/{name}-legacy -w 5 -t nat -S POSTROUTING: exit status 3 no luck"
            )
        });
        assert_eq!(warnings(), want);
        sh(&format!("/run/umount {}", program.display()));
        sh("/run/mount -t tmpfs none /usr/sbin");
        assert_eq!(
            warnings(),
            [stays, stays].map(|stays| format!("{stays}no iptables-legacy is installed"))
        );
    });
}

/// The nftables backend came after Debian's version: its ruleset as v1.9.1 writes it.
const GO_NFTABLES: &str = r#"
table inet cni_plugins_masquerade {
    comment "Masquerading for plugins from github.com/containernetworking/plugins"
    chain masq_checks {
        ip saddr 10.88.0.2 ip daddr != 10.88.0.0/16 masquerade comment "d23676b4f2d9fe04-dfbd22ab690d72bc, net: mynet, if: eth0, id: 0123456789abcdef"
        ip saddr 10.88.0.9 ip daddr != 10.88.0.0/16 masquerade comment "d23676b4f2d9fe04-0000000000000000, net: mynet, if: eth0, id: another"
        ip saddr 10.99.0.9 ip daddr != 10.99.0.0/16 masquerade comment "1111111111111111-dfbd22ab690d72bc, net: other, if: eth0, id: 0123456789abcdef"
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip daddr 224.0.0.0/4 return
        ip6 daddr ff00::/8 return
        goto masq_checks
    }
}
"#;

fn load_go_nftables() {
    fs::write("/run/go.nft", GO_NFTABLES).unwrap();
    sh("nft -f /run/go.nft");
}

#[test]
fn left_by_the_nftables_backend() {
    in_netns(|| {
        load_go_nftables();
        let before = sh("nft list ruleset");
        removes(ID, "eth0", &[]);
        let mine = |line: &&str| !line.contains("dfbd22ab690d72bc, net: mynet");
        assert_eq!(
            sh("nft list ruleset"),
            before
                .lines()
                .filter(mine)
                .map(|l| format!("{l}\n"))
                .collect::<String>()
        );
    });
}

#[test]
fn gc_removes_what_is_of_this_network_and_not_valid() {
    in_netns(|| {
        load_go_nftables();
        let pod = Pod::new("one");
        reference_adds(&pod, ID, "eth0", "nft");
        reference_adds(&pod, "gone", "eth1", "nft");
        let go = |netfilter: &mut Netfilter, net: &str, valid: &[Attachment]| {
            gc(netfilter, &NetName::parse(net).unwrap(), valid).unwrap();
            sh("nft list ruleset")
        };
        let before = sh("nft list ruleset");
        let mut netfilter = Netfilter::unopened();
        assert_eq!(go(&mut netfilter, "elsewhere", &[]), before);
        let rest = go(&mut netfilter, "mynet", &[attachment(ID, "eth0")]);
        assert!(
            rest.contains("10.88.0.2 ") && rest.contains("fd00:10::2 "),
            "{rest}"
        );
        assert!(
            !rest.contains("10.88.0.3") && !rest.contains("fd00:10::3"),
            "{rest}"
        );
        assert!(
            rest.contains("CNI-7166596e80d917931ad582d5") && rest.contains("net: other"),
            "{rest}"
        );
        assert!(!rest.contains("10.88.0.9"), "{rest}");
        let rest = go(&mut netfilter, "mynet", &[]);
        assert!(!rest.contains("CNI-"), "{rest}");
    });
}

/// On a node without leftovers: reads only, of nothing that exists.
#[test]
fn nothing_left_nothing_written() {
    in_netns(|| {
        let mut netfilter = Netfilter::unopened();
        let generation = netfilter.generation().unwrap();
        let addresses = FIRST.map(|ip| ip.parse().unwrap());
        assert!(
            remove(&mut netfilter, &net(), &attachment(ID, "eth0"), &addresses)
                .unwrap()
                .is_empty()
        );
        gc(&mut netfilter, &net(), &[]).unwrap();
        assert_eq!(netfilter.generation().unwrap(), generation);
        assert_eq!(
            fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default(),
            "",
            "a table came into being"
        );
    });
}

#[test]
fn the_reference_s_names() {
    assert_eq!(
        iptables::chain_name(&net(), ID),
        "CNI-7166596e80d917931ad582d5"
    );
    assert_eq!(
        iptables::comment(&net(), ID),
        r#"name: "mynet" id: "0123456789abcdef""#
    );
    assert_eq!(
        masquerade_comment(&net(), &attachment(ID, "eth0")),
        "d23676b4f2d9fe04-dfbd22ab690d72bc"
    );
}

/// Not a test: `cargo test -p libcni --release legacy::tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost() {
    in_netns(|| {
        let addresses = FIRST.map(|ip| ip.parse().unwrap());
        for tables in ["nothing", "an old nat table of 10,000 rules"] {
            let mut all = Vec::new();
            for _ in 0..200 {
                let mut netfilter = Netfilter::unopened();
                netfilter.generation().unwrap();
                let start = Instant::now();
                remove(&mut netfilter, &net(), &attachment(ID, "eth0"), &addresses).unwrap();
                all.push(start.elapsed());
            }
            all.sort();
            eprintln!("{tables}: {:?}", all[100]);
            let rules: String = (0..10_000)
                .map(|n| format!("-A PREROUTING -s 10.{}.{}.1 -j RETURN\n", n / 250, n % 250))
                .collect();
            fs::write("/run/rules", format!("*nat\n{rules}COMMIT\n")).unwrap();
            sh("iptables-legacy-restore < /run/rules");
        }
    });
}
