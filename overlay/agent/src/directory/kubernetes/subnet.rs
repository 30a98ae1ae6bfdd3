//! A node's subnets, which Kubernetes gives: `spec.podCIDRs`, or the older `spec.podCIDR`.

use fabric::NetConf;
use libcni::spec::{IpNetwork, parse_cidr};

use super::annotation::brief;
use super::node::Node;
use crate::directory::Lease;

/// Picks one per family of the network, host bits off.
///
/// # Errors
/// Why there is not (yet) what is needed.
pub fn pick(node: &Node, conf: &NetConf) -> Result<Lease, String> {
    let given = &node.pod_cidrs;
    if given.is_empty() {
        return Err(
            "it has no podCIDR yet; the controller-manager gives one (--allocate-node-cidrs)"
                .into(),
        );
    }
    if given.len() > 2 {
        return Err(format!(
            "it has {} podCIDRs; one of each family is the most there can be",
            given.len()
        ));
    }
    let mut nets = Vec::new();
    for text in given {
        let net = parse_cidr(text)
            .and_then(|net| IpNetwork::new(net.network(), net.prefix()).ok())
            .ok_or_else(|| format!("its podCIDR {} is no subnet", brief(text)))?;
        nets.push(net);
    }
    let side = |v6: bool| {
        if conf.network(v6).is_none() {
            return Ok(None);
        }
        let found = nets.iter().find(|net| net.is_ipv6() == v6).copied();
        let family = if v6 { "IPv6" } else { "IPv4" };
        let missing = || {
            format!(
                "it has no podCIDR of {family}, only {}",
                brief(&given.join(","))
            )
        };
        found.map(Some).ok_or_else(missing)
    };
    Ok(Lease {
        v4: side(false)?,
        v6: side(true)?,
    })
}

/// Does it all lie inside the network?
///
/// # Errors
/// What does not, and what to do.
pub fn check(lease: &Lease, conf: &NetConf) -> Result<(), String> {
    for (v6, subnet) in [(false, lease.v4), (true, lease.v6)] {
        let Some((subnet, network)) = subnet.zip(conf.network(v6)) else {
            continue;
        };
        if !network.net.contains(subnet.network()) || subnet.prefix() < network.net.prefix() {
            return Err(format!(
                "its podCIDR {subnet} lies outside of the network {}: the network configuration and the \
                 controller-manager's --cluster-cidr must say the same",
                network.net
            ));
        }
    }
    Ok(())
}

/// For logs.
pub fn show(lease: &Lease) -> String {
    let sides = [lease.v4, lease.v6];
    let texts: Vec<_> = sides.iter().flatten().map(ToString::to_string).collect();
    texts.join(" and ")
}
