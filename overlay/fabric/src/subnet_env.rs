//! `subnet.env`: what the node's agent (flanneld's or ours) tells of its lease. One `KEY=value` a line.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use libcni::spec::error::{CniError, Code};
use libcni::spec::{IpNetwork, parse_cidr};

use crate::conf::{address, number};
use crate::file;

/// The node's lease, with what the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    /// `FLANNEL_NETWORK` and `FLANNEL_IPV6_NETWORK`: the cluster's networks.
    pub networks: Vec<IpNetwork>,
    /// `FLANNEL_SUBNET` and `FLANNEL_IPV6_SUBNET`: this node's subnets, as networks.
    pub subnets: Vec<IpNetwork>,
    /// `FLANNEL_MTU`: what fits through the tunnel, in bytes.
    pub mtu: u32,
    /// `FLANNEL_IPMASQ`: whether the agent masquerades.
    pub ip_masq: bool,
}

impl SubnetEnv {
    /// Reads the file.
    ///
    /// # Errors
    /// Code 50 if it is not there: the agent has not got a lease yet. Code 5, 7 if it cannot be read or used.
    pub fn read(file: &Path) -> Result<Self, CniError> {
        let text = fs::read(file).map_err(|e| {
            let shown = file.display();
            if e.kind() == ErrorKind::NotFound {
                let msg = format!("failed to load flannel 'subnet.env' file: open {shown}: no such file or directory");
                return CniError::new(Code::NotAvailable, msg).with_details(
                    "the node's agent writes it when it has a lease: check the log of overlayd or flanneld on this node",
                );
            }
            CniError::new(Code::Io, format!("read {shown}: {e}"))
        })?;
        Self::parse(&String::from_utf8_lossy(&text)).map_err(|why| {
            CniError::new(Code::InvalidConfig, format!("{} {why}", file.display())).with_details(
                "the node's agent writes this file; restart it to have it written anew",
            )
        })
    }

    /// Writes the file, whole or not at all, readable by all.
    ///
    /// # Errors
    /// As the file system's.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        file::replace(file, self.text().as_bytes(), 0o644)
    }

    /// flannel's lines, in flannel's order. A subnet is told by its first address, the bridge's.
    fn text(&self) -> String {
        let mut text = String::new();
        for (v6, network_key, subnet_key) in [
            (false, "FLANNEL_NETWORK", "FLANNEL_SUBNET"),
            (true, "FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"),
        ] {
            let of_family =
                |nets: &[IpNetwork]| nets.iter().find(|net| net.is_ipv6() == v6).copied();
            let Some((network, subnet)) = of_family(&self.networks).zip(of_family(&self.subnets))
            else {
                continue;
            };
            let first = address(number(subnet.network()).saturating_add(1), v6);
            text += &format!(
                "{network_key}={network}\n{subnet_key}={first}/{}\n",
                subnet.prefix()
            );
        }
        text + &format!(
            "FLANNEL_MTU={}\nFLANNEL_IPMASQ={}\n",
            self.mtu, self.ip_masq
        )
    }

    /// Lines of other keys, and what is no assignment at all, are nobody's business here.
    fn parse(text: &str) -> Result<Self, String> {
        let value = |key: &str| {
            let lines = text.lines().filter_map(|line| line.trim().split_once('='));
            // The last one counts, as for a shell.
            let mut of_key = lines.filter(|(k, v)| *k == key && !v.is_empty());
            of_key.next_back().map(|(_, v)| v.trim_matches(['"', '\'']))
        };
        let families = [
            ("FLANNEL_NETWORK", "FLANNEL_SUBNET"),
            ("FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"),
        ];
        let networks = families.map(|(network, _)| (network, value(network)));
        let subnets = families.map(|(_, subnet)| (subnet, value(subnet)));
        let mut missing = Vec::new();
        for pair in [&networks, &subnets] {
            if pair.iter().all(|(_, value)| value.is_none()) {
                missing.extend(pair.iter().map(|(key, _)| *key));
            }
        }
        let (mtu, ip_masq) = (value("FLANNEL_MTU"), value("FLANNEL_IPMASQ"));
        missing.extend(mtu.is_none().then_some("FLANNEL_MTU"));
        missing.extend(ip_masq.is_none().then_some("FLANNEL_IPMASQ"));
        if !missing.is_empty() {
            return Err(format!("is missing {}", missing.join(", ")));
        }
        Ok(Self {
            networks: cidrs(&networks)?,
            subnets: cidrs(&subnets)?,
            mtu: mtu_bytes(mtu.unwrap_or_default())?,
            ip_masq: ip_masq == Some("true"),
        })
    }
}

fn mtu_bytes(text: &str) -> Result<u32, String> {
    let mtu = text.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
    mtu.ok_or_else(|| {
        format!("has FLANNEL_MTU={text:?}: a number of bytes from 68 to 65535 is wanted")
    })
}

/// Each a CIDR, or, from builds with several networks, a list of them; host bits off.
fn cidrs(values: &[(&str, Option<&str>)]) -> Result<Vec<IpNetwork>, String> {
    let mut all = Vec::new();
    for (key, value) in values {
        for text in value.iter().flat_map(|value| value.split(',')) {
            let wrong = || format!("has {key}={text:?}: a network as 10.244.0.0/16 is wanted");
            let cidr = parse_cidr(text.trim()).ok_or_else(wrong)?;
            all.push(IpNetwork::new(cidr.network(), cidr.prefix()).map_err(|_| wrong())?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_file_of_a_dual_stack_node() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n\
            FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\nFLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\n\
            FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n";
        let env = SubnetEnv::parse(text).unwrap();
        assert_eq!(env.networks, nets(&["10.244.0.0/16", "2001:cafe:42::/56"]));
        assert_eq!(env.subnets, nets(&["10.244.3.0/24", "2001:cafe:42::/64"]));
        assert_eq!((env.mtu, env.ip_masq), (1430, true));
    }

    /// Section 5, item 1: the bytes of flannel's writer.
    #[test]
    fn item_1_it_is_written_as_flannel_does() {
        let v4 = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n";
        let v6 = "FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\nFLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\n";
        for families in [v4.to_owned(), v6.to_owned(), format!("{v4}{v6}")] {
            let text = format!("{families}FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n");
            let env = SubnetEnv::parse(&text).unwrap();
            assert_eq!(env.text(), text);
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("flannel/subnet.env");
            env.write(&file).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(SubnetEnv::read(&file).unwrap(), env);
        }
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        let text = "# by hand\nEXTRA=1\nFLANNEL_MTU\n\nFLANNEL_NETWORK=10.0.0.0/8,10.0.0.0/8\r\n\
            FLANNEL_SUBNET=\"10.1.2.1/24\"\nFLANNEL_MTU=1400\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false";
        let env = SubnetEnv::parse(text).unwrap();
        assert_eq!(env.networks, nets(&["10.0.0.0/8", "10.0.0.0/8"]));
        assert_eq!(env.subnets, nets(&["10.1.2.0/24"]));
        assert_eq!((env.mtu, env.ip_masq), (1450, false));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |text: &str| SubnetEnv::parse(text).unwrap_err();
        assert_eq!(
            missing(""),
            "is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"
        );
        assert_eq!(
            missing("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_IPMASQ=true"),
            "is missing FLANNEL_MTU"
        );
        for (wrong, word) in [
            ("FLANNEL_NETWORK=10.0.0.0\n", "FLANNEL_NETWORK"),
            ("FLANNEL_SUBNET=10.0.0.300/24\n", "FLANNEL_SUBNET"),
            ("FLANNEL_MTU=67\n", "FLANNEL_MTU"),
            ("FLANNEL_MTU=big\n", "FLANNEL_MTU"),
        ] {
            let rest = "FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
            let error = missing(&format!("{rest}{wrong}"));
            assert!(error.contains(&format!("has {word}=")), "{error}");
        }
    }
}
