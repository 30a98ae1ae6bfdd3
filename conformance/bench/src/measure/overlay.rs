//! The overlay's own work: from what the directory says to what the kernel has, and back to nothing to do.
//!
//! The library is called in this process, as `overlayd` does: there is no program to start. Times are as they are, not
//! ratios, because that is what was promised.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fabric::{Backend, Fabric, Kind, Others, Own, OwnSide, Parent, Peer, Peers, Site, Vtep, Vxlan};
use libcni::kernel::{Mac, addr, link};
use libcni::nl::{Batch, ROUTE, Socket};
use libcni::spec::IpNetwork;

use crate::args::Options;
use crate::ground::{Ground, Who};
use crate::report::Report;

pub mod agent;

pub const COLD_5000: &str = "overlay: 5,000 peers, cold";
pub const COLD_10000: &str = "overlay: 10,000 peers, cold";
pub const RESTART: &str = "overlay: restart with 5,000 peers in place";
pub const RESTART_MESSAGES: &str = "overlay: changes sent at a restart with 5,000 peers in place";
pub const CHANGE: &str = "overlay: one peer of 5,000 changes";

const PARENT: &str = "underlay0";

pub fn measure(ground: &Ground, options: &Options, report: &mut Report) -> Result<()> {
    report.expect_rows(&[COLD_5000, COLD_10000, RESTART, CHANGE]);
    let own = own()?;
    let (few, many) = (peers(5_000), peers(10_000));
    for round in 0..options.rounds(9, 3) {
        let mut fabric = cold(&own, &few, COLD_5000, report)?;
        restart(&own, &few, report)?;
        for change in 0..10 {
            one_changes(&mut fabric, &few, round * 10 + change, report)?;
        }
        fabric.remove()?;
        cold(&own, &many, COLD_10000, report)?.remove()?;
    }
    let mut sock = Socket::open(ROUTE)?;
    sock.request(link::del(PARENT))?;
    if let Some(bin_dir) = ground.overlay_dir() {
        agent::measure(bin_dir, ground.scratch(), &few, report)?;
    }
    Ok(())
}

/// Device, neighbours, forwarding entries, routes, from nothing.
fn cold(own: &Own, peers: &Peers, row: &'static str, report: &mut Report) -> Result<Fabric> {
    let mut fabric = Fabric::open(own.clone())?;
    let done = fabric.converge(peers, Others::Remove)?;
    ensure!(done.failed.is_empty(), "{:?}", done.failed.first());
    ensure!(done.added >= 3 * peers.len(), "{} added", done.added);
    report.push(row, Who::Ours, done.took.as_secs_f64() * 1e3);
    Ok(fabric)
}

/// A fresh agent: it remembers nothing, reads everything, finds nothing to do.
fn restart(own: &Own, peers: &Peers, report: &mut Report) -> Result<()> {
    let done = Fabric::open(own.clone())?.converge(peers, Others::Remove)?;
    ensure!(done.failed.is_empty(), "{:?}", done.failed.first());
    report.push(RESTART, Who::Ours, done.took.as_secs_f64() * 1e3);
    report.at_most(RESTART_MESSAGES, Who::Ours, count(done.messages));
    Ok(())
}

/// A node comes back under another address, and goes on.
fn one_changes(
    fabric: &mut Fabric,
    peers: &Peers,
    which: usize,
    report: &mut Report,
) -> Result<()> {
    let mut changed = peers.clone();
    let at = (which * 37) % peers.len();
    let (key, peer) = peers.iter().nth(at).context("a peer")?;
    let mut peer = Peer::clone(peer);
    if let Some(site) = &mut peer.v4 {
        site.public_ip = Ipv4Addr::new(203, 0, 113, 7).into();
        site.vtep = Some(Vtep {
            mac: Mac([0x2a, 2, 0, 0, 0, 7]),
            vni: Some(1),
        });
    }
    changed.insert(key.clone(), Arc::new(peer));
    for listed in [&changed, peers] {
        let done = fabric.follow(listed, Others::Remove)?;
        ensure!(done.failed.is_empty(), "{:?}", done.failed.first());
        ensure!(done.messages == 3, "{} messages", done.messages);
        report.push(CHANGE, Who::Ours, done.took.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// This node, on an underlay of its own.
fn own() -> Result<Own> {
    let mut sock = Socket::open(ROUTE)?;
    let local = Ipv4Addr::new(192, 0, 2, 1);
    sock.request(link::bridge(PARENT, Mac::random_local(), None, false))?;
    let parent = link::get(&mut sock, PARENT)?.context("the underlay, made just now")?;
    sock.run(&Batch::from_iter([
        addr::add(parent.index, format!("{local}/24").parse()?, true),
        link::up(parent.index),
    ]))?;
    Ok(Own {
        backend: Backend::Vxlan(Vxlan::default()),
        parent: Parent {
            index: parent.index,
            name: parent.name,
            mtu: parent.mtu,
            v4: Some(local),
            v6: None::<Ipv6Addr>,
        },
        v4: Some(OwnSide {
            network: "10.0.0.0/8".parse()?,
            subnet: "10.255.255.0/24".parse()?,
            local: local.into(),
            mac: Mac([0x2a, 0, 0, 0, 0, 1]),
        }),
        v6: None,
    })
}

fn peers(count: u16) -> Peers {
    (0..count)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let site = Site {
                subnet: subnet(high, low),
                public_ip: IpAddr::V4(Ipv4Addr::new(198, 18, high, low)),
                vtep: Some(Vtep {
                    mac: Mac([0x2a, 1, 0, 0, high, low]),
                    vni: Some(1),
                }),
            };
            let name = format!("node-{number:05}");
            let peer = Peer {
                name: name.clone(),
                kind: Kind::Vxlan,
                v4: Some(site),
                v6: None,
            };
            (name, Arc::new(peer))
        })
        .collect()
}

fn subnet(high: u8, low: u8) -> IpNetwork {
    // Of IPv4, 24 is a length.
    IpNetwork::new(Ipv4Addr::new(10, high, low, 0).into(), 24)
        .unwrap_or(IpNetwork::V4(Ipv4Addr::UNSPECIFIED.into()))
}

fn count(number: usize) -> f64 {
    // Far below 2^53.
    number as f64
}
