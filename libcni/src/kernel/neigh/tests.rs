//! Against `netlink-packet-route`, captured bytes and the real kernel.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use proptest::prelude::*;
use testkit::{in_netns, ip_json, sh};

use super::*;
use crate::kernel::link;
use crate::kernel::wire::{captured, decoded};
use crate::nl::{Batch, ROUTE};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn others_read_our_neighbours() {
    let message = replace(7, ip("10.1.2.9"), MAC, State::Permanent);
    let RouteNetlinkMessage::NewNeighbour(theirs) = decoded(&message) else {
        panic!()
    };
    assert_eq!(
        (theirs.header.ifindex, theirs.header.state),
        (7, NeighbourState::Permanent)
    );
    assert_eq!(
        theirs.attributes,
        [
            NeighbourAttribute::Destination(NeighbourAddress::Inet("10.1.2.9".parse().unwrap())),
            NeighbourAttribute::LinkLayerAddress(MAC.0.to_vec()),
        ]
    );
}

#[test]
fn messages_say_what_they_do() {
    let set = replace(7, ip("10.1.2.9"), MAC, State::Permanent);
    assert_eq!(
        set.step(),
        "set neighbour 10.1.2.9 of link 7 to 02:00:00:00:00:09"
    );
    assert_eq!(
        del(7, ip("fd00::9")).step(),
        "delete neighbour fd00::9 of link 7"
    );
}

#[test]
fn we_read_what_the_kernel_sent() {
    let got = captured(include_str!("captured/dump.hex"), Neigh::from_reply);
    assert_eq!(
        got[0],
        Some((
            4,
            Neigh {
                ip: ip("10.1.2.9"),
                mac: Some(MAC),
                state: State::Permanent
            }
        ))
    );
    let multicast = Neigh {
        ip: ip("ff02::1:ff00:1"),
        mac: Mac::parse("33:33:ff:00:00:01"),
        state: State::Other(0x40),
    };
    assert_eq!(got[1], Some((4, multicast)));
    assert_eq!(
        got.last(),
        Some(&None),
        "the end of the dump is no neighbour"
    );
}

proptest! {
    #[test]
    fn hostile_neighbours_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Neigh::from_reply(Reply { msg_type: RTM_NEWNEIGH, flags: 0, payload: &payload });
    }
}

#[test]
fn neighbours_are_replaced_and_forgotten() {
    in_netns(|| {
        sh(
            "ip link add br0 type bridge; ip addr add 10.1.0.1/16 dev br0; ip addr add fd00::1/64 dev br0 nodad",
        );
        sh(
            "ip link set br0 up; ip neigh add 10.1.2.9 lladdr 02:00:00:00:00:01 dev br0 nud permanent",
        );
        let mut sock = Socket::open(ROUTE).unwrap();
        let br0 = link::get(&mut sock, "br0").unwrap().unwrap().index;
        let both = [ip("10.1.2.9"), ip("fd00::9")];
        sock.run(
            &both
                .iter()
                .map(|i| replace(br0, *i, MAC, State::Reachable))
                .collect(),
        )
        .unwrap();
        for address in both {
            let shown =
                ip_json(&["neigh", "show", "to", &address.to_string(), "dev", "br0"])[0].clone();
            assert_eq!(
                (&shown["lladdr"], &shown["state"][0]),
                (&"02:00:00:00:00:09".into(), &"REACHABLE".into())
            );
            let got = get(&mut sock, br0, address).unwrap().unwrap();
            assert_eq!(
                got,
                Neigh {
                    ip: address,
                    mac: Some(MAC),
                    state: State::Reachable
                }
            );
        }
        let listed = list(&mut sock, br0).unwrap();
        assert!(
            both.iter().all(|b| listed.iter().any(|n| n.ip == *b)),
            "{listed:?}"
        );

        sock.run(&both.iter().map(|i| del(br0, *i)).collect())
            .unwrap();
        let outcomes = sock
            .run_all(&Batch::from_iter([
                del(br0, both[0]),
                del(br0, ip("10.1.77.77")),
            ]))
            .unwrap();
        for outcome in outcomes {
            // The first may linger for a moment as a dead entry, whose second deletion is fine too.
            assert!(outcome.is_ok() || outcome.is_err_and(|e| e.is(Errno::ENOENT)));
        }
        assert_eq!(get(&mut sock, br0, ip("10.1.77.77")).unwrap(), None);
        let left = get(&mut sock, br0, both[0]).unwrap();
        assert!(
            left.is_none_or(|n| n.mac.is_none() || n.state != State::Reachable),
            "{left:?}"
        );
    });
}
