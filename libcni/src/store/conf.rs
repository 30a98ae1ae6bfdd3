//! host-local's configuration: which keys it reads from the network's config, and what it refuses.
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use super::range::{Range, RangeSet, RawRange};
use super::{NetDir, resolv};
use crate::spec::args::KNOWN_ARGS;
use crate::spec::error::{CniError, Code, quoted};
use crate::spec::json::{FieldError, Fields, Node};
use crate::spec::{Route, Version, parse_args, parse_cidr, parse_ip};

/// host-local's part of a network's config, validated.
#[derive(Debug, Clone)]
pub struct IpamConf {
    /// Where the reservations are.
    pub dir: NetDir,
    /// `runtimeConfig.ipRanges`, the range written directly into `ipam`, `ipam.ranges`: in this order. Never empty.
    pub sets: Vec<RangeSet>,
    /// `ipam.routes`, returned as they are.
    pub routes: Vec<Route>,
    /// `ipam.resolvConf`: the file whose content becomes the result's `dns`.
    pub resolv_conf: Option<PathBuf>,
    /// The addresses asked for, each once: `IP` of CNI_ARGS, `args.cni.ips`, `runtimeConfig.ips`.
    pub requested: Vec<IpAddr>,
}

impl IpamConf {
    /// Reads and validates. `config` is the whole network config, `args` is CNI_ARGS.
    ///
    /// # Errors
    /// Code 7 with the reference's text for what it refuses too; code 4 for CNI_ARGS.
    pub fn parse(config: &Node, args: &str, version: Version) -> Result<Self, CniError> {
        let fields = Fields::of(config, "")?;
        let Some(ipam) = fields.fields("ipam")? else {
            return Err(CniError::new(
                Code::InvalidConfig,
                "IPAM config missing 'ipam' key",
            ));
        };
        let runtime = fields.fields("runtimeConfig")?;
        let mut raw = match &runtime {
            Some(runtime) => range_sets(runtime, "ipRanges")?,
            None => Vec::new(),
        };
        let inline = range(&ipam)?;
        if inline.subnet.is_some() {
            raw.push(vec![inline]);
        }
        raw.extend(range_sets(&ipam, "ranges")?);
        let sets = validate(&raw, version)?;
        let routes = ipam.array_of_fields("routes")?.unwrap_or_default();
        Ok(Self {
            dir: NetDir::of(config)?,
            sets,
            routes: routes.iter().map(Route::read).collect::<Result<_, _>>()?,
            resolv_conf: ipam
                .str("resolvConf")?
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            requested: requested(&fields, runtime.as_ref(), args)?,
        })
    }

    /// Every range there is, over all sets.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.sets.iter().flat_map(RangeSet::ranges)
    }

    /// Every subnet addresses come from, each once: what a masquerade rule has to cover.
    #[must_use]
    pub fn subnets(&self) -> Vec<IpNetwork> {
        let mut subnets = Vec::new();
        for range in self.ranges() {
            if !subnets.contains(&range.subnet) {
                subnets.push(range.subnet);
            }
        }
        subnets
    }

    /// `dns` of the result: what is in the file `resolvConf` names.
    pub(super) fn dns(&self) -> Result<crate::spec::Dns, super::StoreError> {
        match &self.resolv_conf {
            Some(path) => resolv::read(path),
            None => Ok(crate::spec::Dns::default()),
        }
    }
}

fn range_sets(fields: &Fields<'_>, key: &str) -> Result<Vec<Vec<RawRange>>, FieldError> {
    let mut sets = Vec::new();
    for (i, set) in fields
        .array(key)?
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        let path = format!("{}[{i}]", fields.path_of(key));
        let ranges = match set {
            Node::Array(ranges) => ranges.as_slice(),
            Node::Null => &[],
            other => return Err(FieldError::wrong_type(path, other, "an array of ranges")),
        };
        let ranges = ranges.iter().enumerate();
        sets.push(
            ranges
                .map(|(j, node)| range(&Fields::of(node, &format!("{path}[{j}]"))?))
                .collect::<Result<_, _>>()?,
        );
    }
    Ok(sets)
}

fn range(fields: &Fields<'_>) -> Result<RawRange, FieldError> {
    Ok(RawRange {
        subnet: fields.cidr("subnet")?,
        start: fields.ip("rangeStart")?,
        end: fields.ip("rangeEnd")?,
        gateway: fields.ip("gateway")?,
    })
}

fn validate(raw: &[Vec<RawRange>], version: Version) -> Result<Vec<RangeSet>, CniError> {
    let refuse =
        |msg: String, details: &str| CniError::new(Code::InvalidConfig, msg).with_details(details);
    if raw.is_empty() {
        return Err(refuse(
            "no IP ranges specified".to_owned(),
            "set ipam.ranges to an array of range sets, like [[{\"subnet\": \"10.1.2.0/24\"}]]",
        ));
    }
    let mut sets: Vec<RangeSet> = Vec::with_capacity(raw.len());
    for (i, set) in raw.iter().enumerate() {
        let set = RangeSet::new(set).map_err(|why| {
            refuse(
                format!("invalid range set {i}: {why}"),
                "sets count from 0: runtimeConfig.ipRanges, ipam.subnet, ipam.ranges",
            )
        })?;
        sets.push(set);
    }
    let v4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if version < Version::V0_3_0 && (v4 > 1 || sets.len() - v4 > 1) {
        let msg = format!(
            "CNI version {} does not support more than 1 address per family",
            version.as_str()
        );
        return Err(refuse(msg, "set cniVersion to 0.3.0 or later"));
    }
    for (i, one) in sets.iter().enumerate() {
        for (j, other) in sets.iter().enumerate().skip(i + 1) {
            if one.overlaps(other) {
                return Err(refuse(
                    format!("range set {i} overlaps with {j}"),
                    &format!("{one} and {other}"),
                ));
            }
        }
    }
    Ok(sets)
}

fn requested(
    fields: &Fields<'_>,
    runtime: Option<&Fields<'_>>,
    args: &str,
) -> Result<Vec<IpAddr>, CniError> {
    let mut all: Vec<IpAddr> = Vec::new();
    let mut add = |ip| {
        if !all.contains(&ip) {
            all.push(ip);
        }
    };
    for (key, value) in parse_args(args, KNOWN_ARGS)? {
        if key == "IP" && !value.is_empty() {
            add(requested_ip(&value).ok_or_else(|| {
                let pair = quoted(&format!("{key}={value}"));
                let msg =
                    format!("ARGS: error parsing value of pair {pair}: invalid IP address {value}");
                CniError::new(Code::InvalidEnvironment, msg)
            })?);
        }
    }
    let cni = match fields.fields("args")? {
        Some(args) => args.fields("cni")?,
        None => None,
    };
    for fields in [cni.as_ref(), runtime].into_iter().flatten() {
        for (i, text) in fields
            .strings("ips")?
            .unwrap_or_default()
            .into_iter()
            .enumerate()
        {
            if text.is_empty() {
                return Err(CniError::new(
                    Code::InvalidConfig,
                    "cannot understand ip: IP <nil> not v4 nor v6",
                )
                .with_details(format!("{}[{i}] is empty", fields.path_of("ips"))));
            }
            let path = || format!("{}[{i}]", fields.path_of("ips"));
            let ip = requested_ip(&text).ok_or_else(|| {
                FieldError::bad_value(path(), text, "an IP address, with or without prefix length")
            })?;
            add(ip);
        }
    }
    Ok(all)
}

/// `10.1.2.3` or `10.1.2.3/24`; the length says nothing that the range does not say better.
fn requested_ip(text: &str) -> Option<IpAddr> {
    if text.contains('/') {
        parse_cidr(text).map(|net| net.ip())
    } else {
        parse_ip(text)
    }
}

#[cfg(test)]
mod tests;
