//! The overlay's files: of all nodes, of this node's lease, of what the agent knew last.

use std::fs;

use fabric::SubnetEnv;
use fabric::lease::Subnets;
use libcni::spec::IpNetwork;
use overlayd::cache::{self, Known};

use crate::config::refused;
use crate::etcd::written;
use crate::scratch;

/// `peersFile`.
pub fn peers(bytes: &[u8]) {
    match overlay::peers::read(&scratch::file("peers", bytes)) {
        Err(error) => refused(&error),
        Ok(fleet) => {
            for (key, peer) in &fleet.peers {
                let subnets = Subnets::parse(key);
                let subnets = subnets.unwrap_or_else(|e| panic!("{key}: {e}"));
                assert_eq!(peer.v4.map(|site| site.subnet), Some(subnets.v4));
                assert_eq!(peer.v6.map(|site| site.subnet), subnets.v6);
                written(&subnets, peer);
                assert!(fleet.of_subnet(&subnets.v4).is_some());
            }
            for note in &fleet.notes {
                assert!(!note.contains('\n'), "{note:?}");
            }
        }
    }
}

/// `subnet.env`
pub fn subnet_env(bytes: &[u8]) {
    let file = scratch::file("subnet.env", bytes);
    let env = match SubnetEnv::read(&file) {
        Ok(env) => env,
        Err(error) => return refused(&error),
    };
    let first = |nets: &[IpNetwork], v6: bool| nets.iter().find(|n| n.is_ipv6() == v6).copied();
    let whole = [false, true]
        .map(|v6| first(&env.networks, v6).zip(first(&env.subnets, v6)))
        .map(|pair| pair.map(|(network, subnet)| (vec![network], vec![subnet])));
    // Of a family that has only one of the two nothing is written.
    let Some((networks, subnets)) = whole
        .into_iter()
        .flatten()
        .reduce(|a, b| ([a.0, b.0].concat(), [a.1, b.1].concat()))
    else {
        return;
    };
    let wanted = SubnetEnv {
        networks,
        subnets,
        ..env.clone()
    };
    env.write(&file).unwrap_or_else(|e| panic!("{e}"));
    let again = SubnetEnv::read(&file);
    assert_eq!(again, Ok(wanted), "written and read");
}

/// `state.json` of `overlayd`.
pub fn state(bytes: &[u8]) {
    let dir = scratch::dir();
    fs::write(cache::path(&dir), bytes).unwrap_or_else(|e| panic!("{e}"));
    let Some(known) = Known::read(&dir) else {
        return;
    };
    known.write(&dir).unwrap_or_else(|e| panic!("{e}"));
    let again = Known::read(&dir).map(|again| format!("{again:?}"));
    assert_eq!(again, Some(format!("{known:?}")), "written and read");
    let _ = known.lease();
}
