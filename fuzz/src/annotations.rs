//! Nodes of Kubernetes as its API server sends them: flannel's annotations, podCIDRs, lists and watches.

use std::collections::BTreeMap;

use fabric::lease::parse_backend_data;
use fabric::{Kind, NetConf, Vtep};
use libcni::kernel::Mac;
use overlayd::directory::kubernetes::fuzzing::{annotations as wanted, lease, names, peer, stream};
use overlayd::directory::{End, Lease, Me};

const PREFIX: &str = "flannel.alpha.coreos.com";
const CONF: &[u8] = br#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:244::/56", "Backend": {"Type": "vxlan"}}"#;
const CONF_V4: &[u8] = br#"{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}"#;

/// A Node, a NodeList, or the lines of a watch.
pub fn annotations(bytes: &[u8]) {
    for conf in [CONF, CONF_V4] {
        let conf = NetConf::parse(conf).unwrap_or_else(|e| panic!("{e}"));
        of_node(&conf, bytes);
    }
    for watch in [false, true] {
        let whole = stream(bytes, watch, bytes.len());
        for piece in [1, 7] {
            assert_eq!(
                stream(bytes, watch, piece),
                whole,
                "in pieces of {piece} bytes"
            );
        }
    }
    let _ = names(&String::from_utf8_lossy(bytes));
}

fn of_node(conf: &NetConf, json: &[u8]) {
    match peer(PREFIX, conf, json) {
        Ok(peer) => {
            assert_eq!(peer.kind, conf.backend.kind());
            for v6 in [false, true] {
                assert_eq!(
                    peer.site(v6).is_some(),
                    conf.network(v6).is_some(),
                    "{peer:?}"
                );
                if let Some(site) = peer.site(v6) {
                    assert_eq!(site.subnet.is_ipv6(), v6);
                    assert_eq!(site.public_ip.is_ipv6(), v6);
                    assert_eq!(site.vtep.is_some(), peer.kind == Kind::Vxlan);
                }
            }
        }
        Err(why) => assert!(why.len() < 4096, "{why}"),
    }
    if let Ok(lease) = lease(conf, json) {
        for (v6, subnet) in [(false, lease.v4), (true, lease.v6)] {
            let network = conf.network(v6);
            assert_eq!(subnet.is_some(), network.is_some());
            if let Some((subnet, network)) = subnet.zip(network) {
                assert!(
                    network.net.contains(subnet.network())
                        && network.net.contains(subnet.broadcast())
                );
            }
        }
        published(conf, &lease, json);
    }
}

/// What a node writes is what the others read of it, its operator's wishes for the address aside.
fn published(conf: &NetConf, lease: &Lease, json: &[u8]) {
    let end = |ip: &str, last: u8| End {
        public_ip: ip.parse().unwrap_or_else(|e| panic!("{e}")),
        vtep: (conf.backend.kind() == Kind::Vxlan).then_some(Vtep {
            mac: Mac([0x2a, 0, 0, 0, 0, last]),
            vni: Some(1),
        }),
    };
    let me = Me {
        kind: conf.backend.kind(),
        v4: Some(end("192.0.2.1", 4)),
        v6: conf.v6.is_some().then(|| end("2001:db8::1", 6)),
    };
    let told: BTreeMap<String, String> = match wanted(PREFIX, lease, &me, json) {
        Ok(told) => told,
        Err(why) => panic!("{why}"),
    };
    let [gate, v4, v6] = names(PREFIX).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(told.get(&gate).map(String::as_str), Some("true"));
    for (key, subnet, end) in [(v4, lease.v4, me.v4), (v6, lease.v6, me.v6)] {
        let data = told
            .get(&key)
            .map(|text| parse_backend_data(text.as_bytes()));
        let expected = subnet.zip(end).map(|(_, end)| end.vtep);
        assert_eq!(data, expected, "{told:?}");
    }
    assert!(told.keys().all(|key| key.starts_with(PREFIX)), "{told:?}");
}
