//! kube-proxy's nftables flavour (1.31 and later): its table for one service.

use std::fmt::Write;
use std::fs;

use conformance::fleet::{NETWORK, Node};

use crate::bed::Service;

/// Loads it on a node.
pub fn load(service: &Service, node: &Node) {
    let file = format!("/run/{}-kube-proxy", node.name);
    fs::write(&file, table(service, node)).unwrap();
    node.space.sh(&format!("nft -f {file}")).unwrap();
}

fn table(service: &Service, node: &Node) -> String {
    let Service {
        name,
        cluster_ip,
        port,
        node_port,
        endpoints,
    } = service;
    let (address, count) = (node.address(), endpoints.len());
    let endpoint = |at: usize| {
        let (ip, target) = endpoints[at];
        format!("endpoint-WEBWEBWE-{name}/tcp/http__{ip}/{target}")
    };
    let mut text = String::from("table ip kube-proxy {\n    comment \"rules for kube-proxy\"\n");
    for (at, (ip, target)) in endpoints.iter().enumerate() {
        write!(
            text,
            "    chain {} {{
        ip saddr {ip} jump mark-for-masquerade
        meta l4proto tcp dnat to {ip}:{target}
    }}\n",
            endpoint(at)
        )
        .unwrap();
    }
    let choice: Vec<String> = (0..count)
        .map(|at| format!("{at} : goto {}", endpoint(at)))
        .collect();
    let choice = choice.join(", ");
    let (chain, external) = (
        format!("service-WEBWEBWE-{name}/tcp/http"),
        format!("external-WEBWEBWE-{name}/tcp/http"),
    );
    write!(
        text,
        r#"    set cluster-ips {{
        type ipv4_addr
        comment "Active ClusterIPs"
        elements = {{ {cluster_ip} }}
    }}
    set nodeport-ips {{
        type ipv4_addr
        comment "IPs that accept NodePort traffic"
        elements = {{ {address} }}
    }}
    map service-ips {{
        type ipv4_addr . inet_proto . inet_service : verdict
        comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
        elements = {{ {cluster_ip} . tcp . {port} : goto {chain} }}
    }}
    map service-nodeports {{
        type inet_proto . inet_service : verdict
        comment "NodePort traffic"
        elements = {{ tcp . {node_port} : goto {external} }}
    }}
    chain mark-for-masquerade {{
        meta mark set meta mark or 0x4000
    }}
    chain {chain} {{
        ip daddr {cluster_ip} tcp dport {port} ip saddr != {NETWORK} jump mark-for-masquerade
        numgen random mod {count} vmap {{ {choice} }}
    }}
    chain {external} {{
        jump mark-for-masquerade
        goto {chain}
    }}
    chain services {{
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
    }}
    chain masquerading {{
        meta mark and 0x4000 == 0 return
        meta mark set meta mark xor 0x4000
        masquerade fully-random
    }}
    chain cluster-ips-check {{
        ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
    }}
    chain filter-forward {{
        type filter hook forward priority -110; policy accept;
        ct state new jump cluster-ips-check
    }}
    chain filter-output {{
        type filter hook output priority -90; policy accept;
        ct state new jump cluster-ips-check
    }}
    chain nat-prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        jump services
    }}
    chain nat-output {{
        type nat hook output priority -100; policy accept;
        jump services
    }}
    chain nat-postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        jump masquerading
    }}
}}
"#
    )
    .unwrap();
    text
}
