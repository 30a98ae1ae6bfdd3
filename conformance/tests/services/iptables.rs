//! kube-proxy's iptables flavour: what it gives to `iptables-restore` for one service.

use std::fmt::Write;
use std::fs;

use conformance::fleet::{NETWORK, Node};

use crate::bed::Service;

/// Loads it on a node, by one kind of iptables.
pub fn load(service: &Service, node: &Node, kind: &str) {
    let file = format!("/run/{}-kube-proxy", node.name);
    fs::write(&file, rules(service)).unwrap();
    node.space
        .sh(&format!("iptables-{kind}-restore --noflush {file}"))
        .unwrap();
    let listed = node
        .space
        .sh(&format!(
            "iptables-{kind} -t nat -S KUBE-SVC-WEBWEBWEBWEBWEBW"
        ))
        .unwrap();
    let last = listed.lines().rev().nth(1).unwrap();
    assert!(last.contains("--mode random --probability 0.5"), "{listed}");
}

fn rules(service: &Service) -> String {
    let Service {
        name,
        cluster_ip,
        port,
        node_port,
        endpoints,
    } = service;
    let mut text = String::from(
        r#"*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-EXT-WEBWEBWEBWEBWEBW - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WEBWEBWEBWEBWEBW - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
"#,
    );
    let sep = |at: usize| format!("KUBE-SEP-WEBWEBWEBWEBWEB{at}");
    for at in 0..endpoints.len() {
        writeln!(text, ":{} - [0:0]", sep(at)).unwrap();
    }
    write!(
        text,
        r#"-A KUBE-SERVICES -d {cluster_ip}/32 -p tcp -m comment --comment "{name}:http cluster IP" -m tcp --dport {port} -j KUBE-SVC-WEBWEBWEBWEBWEBW
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "{name}:http" -m tcp --dport {node_port} -j KUBE-EXT-WEBWEBWEBWEBWEBW
-A KUBE-EXT-WEBWEBWEBWEBWEBW -m comment --comment "masquerade traffic for {name}:http external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-WEBWEBWEBWEBWEBW -j KUBE-SVC-WEBWEBWEBWEBWEBW
-A KUBE-SVC-WEBWEBWEBWEBWEBW ! -s {NETWORK} -d {cluster_ip}/32 -p tcp -m comment --comment "{name}:http cluster IP" -m tcp --dport {port} -j KUBE-MARK-MASQ
"#
    )
    .unwrap();
    for (at, (ip, target)) in endpoints.iter().enumerate() {
        // 1/6, 1/5, ... 1/2, and the last takes what is left.
        let left = f64::from(u32::try_from(endpoints.len() - at).unwrap());
        let chance = match left {
            1.0 => String::new(),
            _ => format!(
                " -m statistic --mode random --probability {:.10}",
                1.0 / left
            ),
        };
        write!(
            text,
            r#"-A KUBE-SVC-WEBWEBWEBWEBWEBW -m comment --comment "{name}:http -> {ip}:{target}"{chance} -j {sep}
-A {sep} -s {ip}/32 -m comment --comment "{name}:http" -j KUBE-MARK-MASQ
-A {sep} -p tcp -m comment --comment "{name}:http" -m tcp -j DNAT --to-destination {ip}:{target}
"#,
            sep = sep(at)
        )
        .unwrap();
    }
    text + "COMMIT\n"
}
