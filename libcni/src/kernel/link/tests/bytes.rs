//! What is sent and what is read, byte by byte.

use super::*;

#[test]
fn others_read_our_veth() {
    let netns = File::open("/proc/self/ns/net").unwrap();
    let message = veth(&spec(&netns, Some(7)));
    assert_eq!(
        message.step(),
        "create veth veth0 with its peer eth0 in the pod"
    );
    let RouteNetlinkMessage::NewLink(host) = decoded(&message) else {
        panic!()
    };
    assert_eq!(
        (host.header.flags, host.header.change_mask),
        (LinkFlags::Up, LinkFlags::Up)
    );
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName("eth0".into()),
        LinkAttribute::Address(POD_MAC.0.to_vec()),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
        LinkAttribute::Mtu(1450),
    ];
    assert_eq!(
        host.attributes,
        [
            LinkAttribute::IfName("veth0".into()),
            LinkAttribute::Address(HOST_MAC.0.to_vec()),
            LinkAttribute::Controller(7),
            LinkAttribute::Mtu(1450),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ]
    );
}

#[test]
fn others_read_our_bridge_and_port() {
    let RouteNetlinkMessage::NewLink(made) = decoded(&bridge("cni0", HOST_MAC, None, true)) else {
        panic!()
    };
    assert_eq!(
        made.attributes[2],
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])),
        ])
    );
    let RouteNetlinkMessage::NewLink(port) = decoded(&set_bridge_port(7, true, false)) else {
        panic!()
    };
    assert_eq!(port.header.index, 7);
    assert_eq!(
        port.attributes,
        [LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::HairpinMode(true),
                InfoBridgePort::Isolated(false),
            ])),
        ])]
    );
}

#[test]
fn we_read_others_links() {
    let mut theirs = LinkMessage::default();
    theirs.header.index = 12;
    theirs.header.flags = LinkFlags::Up | LinkFlags::Promisc;
    theirs.attributes = vec![
        LinkAttribute::IfName("veth0".into()),
        LinkAttribute::Address(HOST_MAC.0.to_vec()),
        LinkAttribute::Mtu(9000),
        LinkAttribute::Link(2),
        LinkAttribute::LinkNetNsId(4),
        LinkAttribute::Controller(3),
        LinkAttribute::OperState(State::LowerLayerDown),
        LinkAttribute::IfAlias("podwire:x".into()),
    ];
    let link = read_back(RouteNetlinkMessage::NewLink(theirs), Link::from_reply).unwrap();
    assert!(link.is_up() && link.is_promisc());
    let want = Link {
        index: 12,
        name: "veth0".into(),
        mac: Some(HOST_MAC),
        mtu: 9000,
        flags: 0x101,
        peer_index: Some(2),
        link_netnsid: Some(4),
        master: Some(3),
        operstate: 3,
        alias: Some("podwire:x".into()),
        ..Link::default()
    };
    assert_eq!(link, want);
}

#[test]
fn we_read_what_the_kernel_sent() {
    let port = captured(include_str!("../captured/veth-port.hex"), |r| {
        Link::from_reply(r).unwrap()
    })
    .remove(0);
    let want = Link {
        index: 4,
        name: "v0".into(),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        mtu: 1450,
        flags: 0x11043,
        kind: Some("veth".into()),
        master: Some(2),
        peer_index: Some(3),
        link_netnsid: None,
        alias: Some("podwire".into()),
        operstate: 6,
        promiscuity: 1,
        port: Some(BridgePort {
            state: 3,
            hairpin: true,
            isolated: true,
        }),
        vlan_filtering: None,
        accept_ra: Some(1),
    };
    assert_eq!(port, want);
    assert!(
        !port.is_promisc(),
        "its bridge wants all frames, no administrator does"
    );
    let bridge = captured(include_str!("../captured/bridge.hex"), |r| {
        Link::from_reply(r).unwrap()
    })
    .remove(0);
    assert_eq!(
        (bridge.name.as_str(), bridge.kind.as_deref()),
        ("br0", Some("bridge"))
    );
    assert_eq!(
        (bridge.vlan_filtering, bridge.port, bridge.master),
        (Some(false), None, None)
    );
}

proptest! {
    #[test]
    fn hostile_links_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Link::from_reply(Reply { msg_type: RTM_NEWLINK, flags: 0, payload: &payload });
    }
}
