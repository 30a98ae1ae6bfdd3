//! Against real interfaces. `nat0` has the default route, as a hypervisor's NAT has; the nodes meet on `lan0`.

use libcni::nl::ROUTE;
use testkit::{in_netns, sh};

use super::*;

fn machine() -> Socket {
    sh("for dev in nat0 lan0 bare0; do
            ip link add $dev type veth peer name far-$dev; ip link set far-$dev up; ip link set $dev up
        done
        ip link set lan0 mtu 9000
        ip address add 10.0.2.15/24 dev nat0; ip route add default via 10.0.2.2
        ip address add 169.254.7.7/16 dev lan0 scope link
        ip address add 192.0.2.9/24 dev lan0 valid_lft 1000 preferred_lft 1000
        ip address add 192.0.2.1/24 dev lan0; ip address add 192.0.2.2/24 dev lan0
        ip address add 2001:db8::dead/64 dev lan0 nodad preferred_lft 0
        ip address add 2001:db8::1/64 dev lan0 nodad
        ip link add flannel.1 type vxlan id 1 dev lan0 dstport 8472; ip link set flannel.1 up
        ip address add 192.0.2.200/32 dev flannel.1");
    Socket::open(ROUTE).unwrap()
}

const V4: Wishes<'static> = Wishes {
    ifaces: &[],
    matches: None,
    can_reach: None,
    public_ip: None,
    public_ipv6: None,
    internal_ips: &[],
    v4: true,
    v6: false,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[track_caller]
fn chosen(sock: &mut Socket, wishes: &Wishes<'_>) -> (String, Option<String>, Option<String>) {
    let parent = choose(sock, wishes).unwrap();
    let text = |ip: Option<&dyn ToString>| ip.map(ToString::to_string);
    let v4 = text(parent.v4.as_ref().map(|ip| ip as &dyn ToString));
    let v6 = text(parent.v6.as_ref().map(|ip| ip as &dyn ToString));
    (parent.name, v4, v6)
}

fn at(name: &str, v4: &str) -> (String, Option<String>, Option<String>) {
    (name.into(), Some(v4.into()), None)
}

#[test]
fn by_wish_by_knowledge_by_default_route() {
    in_netns(|| {
        let mut sock = machine();
        assert_eq!(chosen(&mut sock, &V4), at("nat0", "10.0.2.15"));
        for (iface, wanted) in [
            ("lan0", "192.0.2.1"),
            ("192.0.2.2", "192.0.2.2"),
            ("192.0.2.9", "192.0.2.9"),
        ] {
            let ifaces = ["absent0".to_owned(), iface.to_owned()];
            let wishes = Wishes {
                ifaces: &ifaces,
                ..V4
            };
            assert_eq!(chosen(&mut sock, &wishes), at("lan0", wanted), "{iface}");
        }
        // With the source address of the route, as flannel does.
        let wishes = Wishes {
            can_reach: Some(ip("192.0.2.77")),
            ..V4
        };
        assert_eq!(chosen(&mut sock, &wishes), at("lan0", "192.0.2.9"));
        let address = |text: &str| text.starts_with("192.0.2.2");
        assert_eq!(
            chosen(
                &mut sock,
                &Wishes {
                    matches: Some(&address),
                    ..V4
                }
            ),
            at("lan0", "192.0.2.2")
        );
        let name = |text: &str| text.starts_with("lan");
        assert_eq!(
            chosen(
                &mut sock,
                &Wishes {
                    matches: Some(&name),
                    ..V4
                }
            ),
            at("lan0", "192.0.2.1")
        );
        let wishes = Wishes {
            public_ip: Some(ip("192.0.2.2")),
            ..V4
        };
        assert_eq!(chosen(&mut sock, &wishes), at("lan0", "192.0.2.2"));
        // Behind NAT: nobody here has it, so it says nothing about the interface.
        let wishes = Wishes {
            public_ip: Some(ip("203.0.113.1")),
            ..V4
        };
        assert_eq!(chosen(&mut sock, &wishes), at("nat0", "10.0.2.15"));
        assert_eq!(
            choose(
                &mut sock,
                &Wishes {
                    ifaces: &["lan0".into()],
                    ..V4
                }
            )
            .unwrap()
            .mtu,
            9000
        );
    });
}

/// flannel#98, #712, #1192, #1978: the first default route is the wrong one.
#[test]
fn pain_15_the_address_that_the_directory_knows() {
    in_netns(|| {
        let mut sock = machine();
        let known = [ip("198.51.100.1"), ip("192.0.2.2")];
        let wishes = Wishes {
            internal_ips: &known,
            ..V4
        };
        assert_eq!(chosen(&mut sock, &wishes), at("lan0", "192.0.2.2"));
        // What the operator says counts for more.
        let wishes = Wishes {
            ifaces: &["nat0".into()],
            ..wishes
        };
        assert_eq!(chosen(&mut sock, &wishes), at("nat0", "10.0.2.15"));
    });
}

#[test]
fn both_families_are_on_one_interface() {
    in_netns(|| {
        let mut sock = machine();
        let ifaces = ["lan0".to_owned()];
        let dual = Wishes {
            ifaces: &ifaces,
            v6: true,
            ..V4
        };
        let wanted = (
            "lan0".into(),
            Some("192.0.2.1".into()),
            Some("2001:db8::1".into()),
        );
        assert_eq!(chosen(&mut sock, &dual), wanted);
        let v6_only = Wishes {
            ifaces: &["2001:db8::1".into()],
            v4: false,
            ..dual
        };
        assert_eq!(
            chosen(&mut sock, &v6_only),
            ("lan0".into(), None, Some("2001:db8::1".into()))
        );

        let error =
            |sock: &mut Socket, wishes: &Wishes<'_>| choose(sock, wishes).unwrap_err().to_string();
        sh("ip -6 address flush dev nat0");
        assert!(
            error(
                &mut sock,
                &Wishes {
                    ifaces: &[],
                    ..dual
                }
            )
            .contains("nat0"),
            "no global IPv6 there"
        );
        assert_eq!(
            error(
                &mut sock,
                &Wishes {
                    ifaces: &["bare0".into()],
                    ..V4
                }
            ),
            "interface bare0 cannot lead to the other nodes: it has no IPv4 address; give it one, or choose another interface (--iface)"
        );
        assert_eq!(
            error(
                &mut sock,
                &Wishes {
                    ifaces: &["absent0".into()],
                    ..V4
                }
            ),
            "no interface to the other nodes: none fits --iface absent0"
        );
        sh("ip route del default");
        assert!(error(&mut sock, &V4).contains("no default route"));
        assert!(
            error(
                &mut sock,
                &Wishes {
                    ifaces: &["192.0.2.200".into()],
                    ..V4
                }
            )
            .contains("none fits")
        );
    });
}
