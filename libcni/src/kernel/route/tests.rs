//! Against `netlink-packet-route`, captured bytes and the real kernel.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use proptest::prelude::*;
use serde_json::json;
use testkit::{in_netns, ip_json, sh};

use super::read::each;
use super::*;
use crate::kernel::wire::{captured, decoded};
use crate::nl::{Batch, ROUTE};

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn full() -> Spec {
    Spec {
        gw: Some(ip("10.1.2.1")),
        src: Some(ip("10.1.2.3")),
        table: Some(1000),
        priority: Some(5),
        mtu: Some(1400),
        advmss: Some(1360),
        ..Spec::new(net("10.9.0.0/16"), 7)
    }
}

fn all(reply: Reply<'_>) -> Vec<Route> {
    let mut all = Vec::new();
    each(reply, |route| all.push(route));
    all
}

#[test]
fn others_read_our_routes() {
    let RouteNetlinkMessage::NewRoute(theirs) = decoded(&add(&full())) else {
        panic!()
    };
    let header = theirs.header;
    assert_eq!((header.destination_prefix_length, header.table), (16, 0));
    assert_eq!(
        (header.protocol, header.scope, header.kind),
        (
            RouteProtocol::Boot,
            RouteScope::Universe,
            RouteType::Unicast
        )
    );
    assert_eq!(
        theirs.attributes,
        [
            RouteAttribute::Oif(7),
            RouteAttribute::Destination(RouteAddress::Inet("10.9.0.0".parse().unwrap())),
            RouteAttribute::Gateway(RouteAddress::Inet("10.1.2.1".parse().unwrap())),
            RouteAttribute::PrefSource(RouteAddress::Inet("10.1.2.3".parse().unwrap())),
            RouteAttribute::Table(1000),
            RouteAttribute::Priority(5),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400), RouteMetric::Advmss(1360)]),
        ]
    );
    let bare = Spec {
        scope: 253,
        ..Spec::new(net("::/0"), 7)
    };
    let RouteNetlinkMessage::NewRoute(theirs) = decoded(&add(&bare)) else {
        panic!()
    };
    assert_eq!(
        (theirs.header.table, theirs.header.scope),
        (254, RouteScope::Link)
    );
    assert_eq!(theirs.attributes, [RouteAttribute::Oif(7)]);
    assert_eq!(
        add(&full()).step(),
        "add route 10.9.0.0/16 via 10.1.2.1 on link 7"
    );
}

#[test]
fn we_read_what_the_kernel_sent() {
    let base = Route {
        dst: net("10.9.0.0/16"),
        gw: Some(ip("10.1.2.1")),
        oif: 4,
        src: None,
        scope: 0,
        table: 1000,
        priority: 5,
        protocol: 3,
        mtu: Some(1400),
        advmss: Some(1360),
        nexthop: None,
    };
    let one = captured(include_str!("captured/table1000.hex"), all);
    assert_eq!(one, [[base]]);

    let plain = Route {
        table: 254,
        priority: 0,
        mtu: None,
        advmss: None,
        ..base
    };
    let main: Vec<Route> = captured(include_str!("captured/main4.hex"), all)
        .into_iter()
        .flatten()
        .collect();
    let want = [
        Route {
            dst: net("10.1.2.0/24"),
            gw: None,
            src: Some(ip("10.1.2.3")),
            scope: 253,
            protocol: 2,
            ..plain
        },
        // The blackhole in between leaves by no link.
        Route {
            dst: net("10.7.0.0/16"),
            gw: Some(ip("fd00::9")),
            ..plain
        },
        Route {
            dst: net("10.8.0.0/16"),
            ..plain
        },
        Route {
            dst: net("10.8.0.0/16"),
            gw: Some(ip("10.1.2.2")),
            ..plain
        },
    ];
    assert_eq!(main, want);
    let main6: Vec<Route> = captured(include_str!("captured/main6.hex"), all)
        .into_iter()
        .flatten()
        .collect();
    let hops: Vec<_> = main6
        .iter()
        .filter(|r| r.dst == net("fd01::/64"))
        .map(|r| r.gw)
        .collect();
    assert_eq!(hops, [Some(ip("fd00::1")), Some(ip("fd00::2"))]);
    let matched = captured(include_str!("captured/fibmatch.hex"), all);
    assert_eq!(matched[0].len(), 2);
}

proptest! {
    #[test]
    fn hostile_routes_never_panic(family in prop_oneof![Just(2_u8), Just(10), any::<u8>()],
                                  rest in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut payload = vec![family];
        payload.extend(rest);
        if let Some(kind) = payload.get_mut(7) {
            *kind = RTN_UNICAST;
        }
        let _ = all(Reply { msg_type: RTM_NEWROUTE, flags: 0, payload: &payload });
    }
}

#[test]
fn routes_have_every_field() {
    in_netns(|| {
        sh(
            "ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up
            ip addr add 10.1.2.3/24 dev v0; ip addr add fd00::3/64 dev v0 nodad",
        );
        let mut sock = Socket::open(ROUTE).unwrap();
        let v0 = link::get(&mut sock, "v0").unwrap().unwrap().index;
        let v1 = link::get(&mut sock, "v1").unwrap().unwrap().index;
        let routes = [
            Spec { oif: v0, ..full() },
            Spec {
                gw: Some(ip("10.1.2.1")),
                ..Spec::new(net("0.0.0.0/0"), v0)
            },
            Spec {
                scope: 253,
                ..Spec::new(net("10.5.0.0/16"), v0)
            },
            Spec {
                gw: Some(ip("192.0.2.9")),
                onlink: true,
                ..Spec::new(net("10.6.0.0/16"), v0)
            },
            Spec {
                gw: Some(ip("fd00::1")),
                ..Spec::new(net("10.7.0.0/16"), v0)
            },
            Spec {
                gw: Some(ip("fd00::1")),
                priority: Some(7),
                mtu: Some(1300),
                ..Spec::new(net("::/0"), v0)
            },
            Spec {
                table: Some(70),
                ..Spec::new(net("fd07::/64"), v0)
            },
        ];
        sock.run(&routes.iter().map(add).collect()).unwrap();

        let shown = ip_json(&["-d", "route", "show", "table", "1000"])[0].clone();
        assert_eq!(
            (&shown["dst"], &shown["gateway"]),
            (&json!("10.9.0.0/16"), &json!("10.1.2.1"))
        );
        assert_eq!(
            (&shown["prefsrc"], &shown["metric"]),
            (&json!("10.1.2.3"), &json!(5))
        );
        assert_eq!(shown["metrics"], json!([{ "mtu": 1400, "advmss": 1360 }]));
        let shown = ip_json(&["-d", "route", "show", "default"])[0].clone();
        assert_eq!(
            (&shown["gateway"], &shown["protocol"]),
            (&json!("10.1.2.1"), &json!("boot"))
        );
        let shown = ip_json(&["route", "show", "10.5.0.0/16"])[0].clone();
        assert_eq!(
            (&shown["scope"], &shown["dev"]),
            (&json!("link"), &json!("v0"))
        );
        assert_eq!(
            ip_json(&["route", "show", "10.6.0.0/16"])[0]["flags"],
            json!(["onlink"])
        );
        assert_eq!(
            ip_json(&["route", "show", "10.7.0.0/16"])[0]["via"],
            json!({"family": "inet6", "host": "fd00::1"})
        );
        let shown = ip_json(&["-6", "route", "show", "default"])[0].clone();
        assert_eq!(
            (&shown["metric"], &shown["metrics"]),
            (&json!(7), &json!([{ "mtu": 1300 }]))
        );

        let found = list(&mut sock, v0).unwrap();
        for wanted in &routes {
            let same =
                |r: &&Route| r.dst == wanted.dst && r.table == wanted.table.unwrap_or(TABLE_MAIN);
            let route = found
                .iter()
                .find(same)
                .unwrap_or_else(|| panic!("{wanted:?} in {found:?}"));
            assert_eq!(
                (route.gw, route.oif, route.mtu),
                (wanted.gw, v0, wanted.mtu),
                "{route:?}"
            );
            assert_eq!(route.advmss, wanted.advmss);
        }
        assert!(list(&mut sock, v1).unwrap().iter().all(|r| r.oif == v1));

        assert!(sock.request(add(&routes[1])).unwrap_err().is(Errno::EEXIST));
        let host_bits = Spec::new(net("10.5.0.9/16"), v0);
        assert!(sock.request(add(&host_bits)).unwrap_err().is(Errno::EINVAL));
        sock.run(&routes.iter().map(del).collect::<Batch>())
            .unwrap();
        assert!(sock.request(del(&routes[1])).unwrap_err().is(Errno::ESRCH));
    });
}

#[test]
fn the_default_routes_mtu() {
    in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        assert_eq!(default_route_mtu(&mut sock).unwrap(), None);
        sh(
            "ip link add v0 mtu 1410 type veth peer name v1; ip link set v1 up; ip link set v0 up
            ip addr add 10.1.2.3/24 dev v0; ip addr add fd00::3/64 dev v0 nodad
            ip -6 route add default via fd00::1 mtu 1390",
        );
        assert_eq!(default_route_mtu(&mut sock).unwrap(), Some(1390));
        sh("ip route add 192.0.2.0/24 via 10.1.2.9");
        assert_eq!(
            default_route_mtu(&mut sock).unwrap(),
            Some(1390),
            "that is no default route"
        );
        sh("ip route add default nexthop via 10.1.2.1 nexthop via 10.1.2.2");
        assert_eq!(default_route_mtu(&mut sock).unwrap(), Some(1410));
        sh("ip route del 192.0.2.0/24");
        assert_eq!(default_route_mtu(&mut sock).unwrap(), Some(1410));
        sh("ip route replace default via 10.1.2.1 mtu 1380");
        assert_eq!(default_route_mtu(&mut sock).unwrap(), Some(1380));
        assert_eq!(
            get(&mut sock, ip("10.1.2.77")).unwrap().unwrap().dst,
            net("10.1.2.0/24")
        );
    });
}
