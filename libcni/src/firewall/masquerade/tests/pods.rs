//! Pods of another IPAM.

use super::*;

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
        remove_pod(&mut netfilter, &n, &old).unwrap();
        let left = ruleset();
        assert!(!left.contains("10.1.0.0/24"), "the former subnet: {left}");
        remove_pod(&mut netfilter, &n, &old).unwrap();
        assert_eq!(ruleset(), left);
        // The same address in another network is another element.
        ensure_pod(&mut netfilter, &net("m"), &old, &ip).unwrap();
        remove_pod(&mut netfilter, &n, &new).unwrap();
        check_pod(&mut netfilter, &net("m"), &old, &ip).unwrap();
        remove_pod(&mut netfilter, &net("m"), &old).unwrap();
        assert_eq!(ruleset(), "");
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
