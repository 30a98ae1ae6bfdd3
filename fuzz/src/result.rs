//! Results: what a delegate answers, `prevResult`, and the versions they are told in.

use libcni::spec::version::Group;
use libcni::spec::{CniResult, Node, Version};

use crate::config::refused;

/// A result, of whatever version.
pub fn result(bytes: &[u8]) {
    let Ok(node) = Node::parse(bytes) else {
        return;
    };
    for version in Version::ALL {
        match CniResult::parse_prev(&node, version) {
            Ok(result) => converted(&result),
            Err(error) => refused(&error),
        }
    }
    // Where it does not name its version, the shapes of the two ends of the scale.
    for version in [Version::V0_1_0, Version::CURRENT] {
        match CniResult::parse(&node, version) {
            Ok(result) => converted(&result),
            Err(error) => refused(&error),
        }
    }
}

/// Into each version and back.
pub(crate) fn converted(result: &CniResult) {
    for version in Version::ALL {
        let node = match result.to_node(version) {
            Ok(node) => node,
            Err(error) => {
                assert!(result.ips.is_empty(), "{error}: {result:?}");
                refused(&error);
                continue;
            }
        };
        let text = node.write_indented();
        let printed = Node::parse(text.as_bytes());
        let printed = printed.unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(printed, node, "printed and read");
        let back = CniResult::parse(&node, version);
        let back = back.unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(Ok(&back), CniResult::parse_prev(&node, version).as_ref());
        assert_eq!(Ok(&node), back.to_node(version).as_ref(), "written twice");
        assert_eq!(back.dns, result.dns);
        match version.group() {
            Group::Ip4Ip6 => first_of_each_family(result, &back),
            Group::Lists | Group::Sorted => {
                assert_eq!(back.ips, result.ips);
                assert_eq!(back.routes, result.routes);
                let names = |r: &CniResult| -> Vec<_> {
                    let of = |i: &libcni::spec::Interface| {
                        (i.name.clone(), i.mac.clone(), i.sandbox.clone())
                    };
                    r.interfaces.iter().map(of).collect()
                };
                assert_eq!(names(&back), names(result));
            }
        }
        if version.group() == Group::Sorted {
            assert_eq!(back, *result);
        }
    }
}

fn first_of_each_family(from: &CniResult, to: &CniResult) {
    for v6 in [false, true] {
        let first = |r: &CniResult| {
            let found = r.ips.iter().find(|ip| ip.address.is_ipv6() == v6);
            found.map(|ip| (ip.address, ip.gateway))
        };
        assert_eq!(first(from), first(to));
        let of_family = |r: &CniResult| -> Vec<_> {
            let routes = r.routes.iter().filter(|r| r.dst.is_ipv6() == v6);
            routes.map(|r| (r.dst, r.gw)).collect()
        };
        if first(from).is_some() {
            assert_eq!(of_family(from), of_family(to));
        }
    }
}
