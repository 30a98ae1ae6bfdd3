use std::fs;

use libcni::kernel::nft::Netfilter;
use testkit::{in_netns, in_netns_as_root, sh};

use super::Seen::{Accepts, Drops, From, Other, Stale, To};
use super::*;

#[test]
fn what_is_done_with_a_chain() {
    let plan = |remove: &[usize], add, before| {
        Some(Plan {
            remove: remove.to_vec(),
            add,
            before,
        })
    };
    for (wanted, policy_drops, seen, want) in [
        // Nothing drops, nothing to do.
        (true, false, &[][..], None),
        (true, false, &[Other, Other], None),
        (true, true, &[Other, Accepts], None),
        (true, true, &[Accepts, Drops], None),
        // The policy drops: at the end.
        (true, true, &[], plan(&[], true, None)),
        (true, true, &[Other], plan(&[], true, None)),
        (true, true, &[Other, From, To], None),
        (true, true, &[From, Other, To, Other], None),
        // A rule does: before it, and not before what looks at something.
        (
            true,
            false,
            &[Other, Drops, Other],
            plan(&[], true, Some(1)),
        ),
        (true, false, &[Other, To, From, Drops], None),
        (
            true,
            false,
            &[From, Drops, To],
            plan(&[0, 2], true, Some(1)),
        ),
        // Other networks', too many.
        (true, true, &[From, Stale, To], plan(&[0, 1, 2], true, None)),
        (true, true, &[From, To, To], plan(&[0, 1, 2], true, None)),
        (true, true, &[From], plan(&[0], true, None)),
        // It does not drop any more, or nothing is to be accepted.
        (true, false, &[From, Other, To], plan(&[0, 2], false, None)),
        (false, true, &[From, To], plan(&[0, 1], false, None)),
        (false, true, &[Stale, Drops], plan(&[0], false, Some(1))),
        (false, true, &[Drops], None),
    ] {
        assert_eq!(Plan::of(wanted, policy_drops, seen), want, "{seen:?}");
    }
}

fn rules() -> Rules {
    Rules {
        masquerade: false,
        ..crate::firewall::tests::rules()
    }
}

/// Both families of one kind of iptables; what its own program says is compared.
struct Iptables(&'static str);

impl Iptables {
    fn run(&self, args: &str) -> String {
        let kind = self.0;
        sh(&format!("iptables-{kind} {args}; ip6tables-{kind} {args}"))
    }

    /// The rules of FORWARD, ours in short.
    fn chain(&self) -> Vec<String> {
        let listed = self.run("-S FORWARD");
        let ours = "-m comment --comment \"podwire overlay: pods are forwarded\" -j ACCEPT";
        listed
            .lines()
            .map(|line| line.replace("-A FORWARD ", "").replace(ours, "OURS"))
            .collect()
    }

    fn ensure(&self, wanted: &Rules) -> bool {
        let mut netfilter = Netfilter::unopened();
        let changed = ensure(&mut netfilter, wanted).unwrap();
        let before = sh("nft list ruleset");
        assert!(
            !ensure(&mut netfilter, wanted).unwrap(),
            "a second call changed something"
        );
        assert_eq!(sh("nft list ruleset"), before);
        assert_eq!(check(&mut netfilter, wanted).unwrap(), [""; 0]);
        changed
    }

    fn scene(&self) {
        // Nothing of iptables comes into being by our looking.
        assert!(!self.ensure(&rules()));
        assert_eq!(sh("nft list ruleset"), "");

        self.run("-A FORWARD -p icmp -j DROP");
        assert!(!self.ensure(&rules()), "nothing drops everything");
        self.run("-P FORWARD DROP");
        let faults = check(&mut Netfilter::unopened(), &rules()).unwrap();
        let fault = |program: &str| {
            format!(
                "chain FORWARD of {program}-{} drops and does not accept for pods",
                self.0
            )
        };
        assert_eq!(faults, [fault("iptables"), fault("ip6tables")]);
        assert!(self.ensure(&rules()));
        let with_policy: Vec<String> = self.chain();
        assert_eq!(
            with_policy,
            [
                "-P FORWARD DROP",
                "-p icmp -j DROP",
                "-s 192.168.128.0/18 OURS",
                "-d 192.168.128.0/18 OURS",
                "-P FORWARD DROP",
                "-p icmp -j DROP",
                "-s fd00:128::/48 OURS",
                "-d fd00:128::/48 OURS",
            ]
        );

        // Flushed, half gone, of another network, saved and restored by the program.
        self.run("-F FORWARD");
        assert!(self.ensure(&rules()));
        self.run("-D FORWARD 1");
        assert!(self.ensure(&rules()));
        assert_eq!(self.chain().len(), 6);
        let mut moved = rules();
        moved.v4.as_mut().unwrap().network = "10.0.0.0/8".parse().unwrap();
        assert!(self.ensure(&moved));
        assert_eq!(
            self.chain()[1..3],
            ["-s 10.0.0.0/8 OURS", "-d 10.0.0.0/8 OURS"]
        );
        let kind = self.0;
        sh(&format!(
            "for p in iptables ip6tables; do $p-{kind}-save > /run/saved; $p-{kind} -F; $p-{kind}-restore < /run/saved; done"
        ));
        assert!(!self.ensure(&moved), "ours were not known again");

        // The policy accepts, but a last rule does not; what comes behind it is never reached.
        self.run("-P FORWARD ACCEPT");
        assert!(self.ensure(&moved));
        assert_eq!(self.chain(), ["-P FORWARD ACCEPT"; 2]);
        self.run("-A FORWARD -i docker0 -j ACCEPT");
        self.run("-A FORWARD -m comment --comment last -j REJECT");
        self.run("-A FORWARD -o docker0 -j ACCEPT");
        assert!(self.ensure(&rules()));
        let chain = self.chain();
        assert_eq!(chain[1], "-i docker0 -j ACCEPT");
        assert!(
            chain[2].ends_with("OURS") && chain[3].ends_with("OURS"),
            "{chain:?}"
        );
        assert!(
            chain[4].starts_with("-m comment --comment last -j REJECT"),
            "{chain:?}"
        );

        // Not wanted any more.
        assert!(self.ensure(&Rules::NONE));
        assert!(!self.chain().iter().any(|line| line.contains("OURS")));
    }
}

#[test]
fn chains_of_iptables_nft() {
    in_netns(|| Iptables("nft").scene());
}

/// The old tables' names are readable only for root of the machine's own user namespace.
#[test]
fn chains_of_iptables_legacy() {
    in_netns_as_root(|| {
        Iptables("legacy").scene();
        let names = fs::read_to_string("/proc/net/ip_tables_names").unwrap();
        assert!(!names.contains("nat"), "a table came into being: {names}");
    });
}

/// What cannot be helped is an error that says so, and all else is done.
#[test]
fn without_a_working_iptables_legacy_it_says_so() {
    in_netns_as_root(|| {
        sh("iptables-legacy -P FORWARD DROP; ip6tables-nft -P FORWARD DROP; cp /bin/mount /bin/umount /run
            printf '#!/bin/sh\necho no luck >&2; exit 3\n' > /run/fails; chmod +x /run/fails");
        let program = fs::canonicalize("/usr/sbin/iptables-legacy-restore").unwrap();
        sh(&format!(
            "/run/mount --bind /run/fails {}",
            program.display()
        ));
        let said = |netfilter: &mut Netfilter| ensure(netfilter, &rules()).unwrap_err().to_string();
        let mut netfilter = Netfilter::unopened();
        assert_eq!(
            said(&mut netfilter),
            "table filter of iptables-legacy: /usr/sbin/iptables-legacy-restore -w 5 --noflush: exit status 3 no luck"
        );
        sh(&format!("/run/umount {}", program.display()));
        assert!(sh("ip6tables-nft -S FORWARD").contains("-d fd00:128::/48"));
        sh("/run/mount -t tmpfs none /usr/sbin");
        assert!(said(&mut netfilter).contains("no iptables-legacy is installed"));
    });
}
