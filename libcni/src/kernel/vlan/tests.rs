//! Against `netlink-packet-route` and, where it can VLAN filtering, the real kernel.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkMessage,
};
use proptest::prelude::*;
use testkit::{in_netns, sh};

use super::*;
use crate::kernel::link;
use crate::kernel::mac::Mac;
use crate::kernel::wire::{decoded, read_back};
use crate::nl::{Batch, ROUTE};

const RANGE: Vlans = Vlans {
    first: 100,
    last: 199,
    pvid: false,
    untagged: false,
};

fn info(flags: BridgeVlanInfoFlags, vid: u16) -> AfSpecBridge {
    AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid })
}

#[test]
fn others_read_our_vlans() {
    let RouteNetlinkMessage::SetLink(theirs) = decoded(&add(7, &[Vlans::access(5), RANGE])) else {
        panic!()
    };
    assert_eq!(theirs.header.index, 7);
    let pvid = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
    let want = vec![
        info(pvid, 5),
        info(BridgeVlanInfoFlags::RangeBegin, 100),
        info(BridgeVlanInfoFlags::RangeEnd, 199),
    ];
    assert_eq!(theirs.attributes, [LinkAttribute::AfSpecBridge(want)]);
    let RouteNetlinkMessage::DelLink(theirs) = decoded(&del(7, &[Vlans::tagged(1)])) else {
        panic!()
    };
    assert_eq!(
        theirs.attributes,
        [LinkAttribute::AfSpecBridge(vec![info(
            BridgeVlanInfoFlags::empty(),
            1
        )])]
    );
    let RouteNetlinkMessage::SetLink(theirs) = decoded(&add_self(7, &[Vlans::tagged(9)])) else {
        panic!()
    };
    let want = vec![
        AfSpecBridge::Flags(BridgeFlag::LowerDev),
        info(BridgeVlanInfoFlags::empty(), 9),
    ];
    assert_eq!(theirs.attributes, [LinkAttribute::AfSpecBridge(want)]);
}

/// The answer of kernels before 5.6, of one port among others.
#[test]
fn we_read_others_ports() {
    let mut theirs = LinkMessage::default();
    theirs.header.interface_family = netlink_packet_route::AddressFamily::Bridge;
    theirs.header.index = 7;
    theirs.attributes = vec![LinkAttribute::AfSpecBridge(vec![
        info(BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged, 5),
        info(BridgeVlanInfoFlags::RangeBegin, 100),
        info(BridgeVlanInfoFlags::RangeEnd, 199),
    ])];
    let read = |index| {
        read_back(RouteNetlinkMessage::NewLink(theirs.clone()), |r| {
            from_link_reply(r, index)
        })
    };
    assert_eq!(read(7), [Vlans::access(5), RANGE]);
    assert_eq!(read(8), []);
}

/// Laid out after `br_vlan_fill_vids` (net/bridge/br_vlan.c): this machine's kernel has no VLAN filtering to
/// capture from.
#[test]
fn we_read_vlan_entries() {
    let entry = |flags: u16, first: u16, last: Option<u16>| {
        let info = [flags.to_ne_bytes(), first.to_ne_bytes()].concat();
        move |m: Message| {
            m.nest(BRIDGE_VLANDB_ENTRY, |m| {
                let m = m.bytes(BRIDGE_VLANDB_ENTRY_INFO, &info);
                let m = last.map_or(m.clone(), |last| m.u16(BRIDGE_VLANDB_ENTRY_RANGE, last));
                m.u8(4, 3)
            })
        }
    };
    let mut message = Message::new(RTM_NEWVLAN, 0, "x").header(&[AF_BRIDGE, 0, 0, 0, 7, 0, 0, 0]);
    message = entry(INFO_PVID | INFO_UNTAGGED, 5, None)(message);
    message = entry(0, 100, Some(199))(message);
    let bytes = message.to_bytes();
    let reply = Reply {
        msg_type: RTM_NEWVLAN,
        flags: 0,
        payload: &bytes[16..],
    };
    assert_eq!(from_vlan_reply(reply, 7), [Vlans::access(5), RANGE]);
    assert_eq!(from_vlan_reply(reply, 8), []);
}

proptest! {
    #[test]
    fn hostile_vlans_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let index = payload.get(4..).and_then(attr::u32).unwrap_or_default();
        let _ = from_vlan_reply(Reply { msg_type: RTM_NEWVLAN, flags: 0, payload: &payload }, index);
        let _ = from_link_reply(Reply { msg_type: RTM_NEWLINK, flags: 0, payload: &payload }, index);
    }
}

#[test]
fn vlans_come_and_go() {
    in_netns(|| {
        let mut sock = Socket::open(ROUTE).unwrap();
        if let Err(e) = sock.request(link::bridge("br0", Mac([2, 0, 0, 0, 0, 9]), None, true)) {
            assert!(e.is(Errno::EOPNOTSUPP), "{e}");
            return testkit::skip(
                "no VLAN filtering in this kernel (CONFIG_BRIDGE_VLAN_FILTERING)",
            );
        }
        sh("ip link add v0 type veth peer name v1; ip link set v0 master br0");
        let br0 = link::get(&mut sock, "br0").unwrap().unwrap();
        assert_eq!(br0.vlan_filtering, Some(true));
        let v0 = link::get(&mut sock, "v0").unwrap().unwrap().index;
        assert_eq!(list(&mut sock, v0).unwrap(), [Vlans::access(1)]);
        let batch = Batch::from_iter([
            del(v0, &[Vlans::tagged(1)]),
            add(v0, &[Vlans::access(5), RANGE, Vlans::tagged(4094)]),
            add_self(br0.index, &[Vlans::tagged(5)]),
        ]);
        sock.run(&batch).unwrap();
        let want = [Vlans::access(5), RANGE, Vlans::tagged(4094)];
        assert_eq!(list(&mut sock, v0).unwrap(), want);
        assert_eq!(list_with_ports(&mut sock, v0, "x".into()).unwrap(), want);
        assert_eq!(
            list(&mut sock, br0.index).unwrap(),
            [Vlans::access(1), Vlans::tagged(5)]
        );
        assert!(sh("bridge -c vlan show dev v0").contains("5 PVID Egress Untagged"));
        sock.request(del(v0, &[RANGE])).unwrap();
        assert_eq!(
            list(&mut sock, v0).unwrap(),
            [Vlans::access(5), Vlans::tagged(4094)]
        );
    });
}

#[test]
fn a_bridge_without_filtering_has_no_list() {
    in_netns(|| {
        sh(
            "ip link add br0 type bridge; ip link add v0 type veth peer name v1; ip link set v0 master br0",
        );
        let mut sock = Socket::open(ROUTE).unwrap();
        let v1 = link::get(&mut sock, "v1").unwrap().unwrap().index;
        assert_eq!(list(&mut sock, v1).unwrap(), []);
    });
}
