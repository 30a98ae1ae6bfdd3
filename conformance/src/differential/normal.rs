//! What is random, replaced by what it must be consistent with.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use serde_json::Value;

/// Random names and addresses seen so far, with what they stand for. Grows from call to call, as a link that is gone may
/// still be named in what is printed next.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<String, String>,
    /// Lower case: what the case itself says is not random.
    said: String,
}

/// A link, as far as names depend on it.
#[derive(Debug, Clone)]
pub struct Link {
    /// `host` or the pod's name.
    pub place: String,
    /// In the kernel.
    pub name: String,
    /// Of this link.
    pub index: u64,
    /// Of its peer, in the peer's namespace.
    pub peer: Option<u64>,
    /// Its MAC.
    pub mac: String,
}

// === impl Names ===

impl Names {
    /// `said`: the case's own text.
    pub fn new(said: &str) -> Names {
        Names {
            known: BTreeMap::new(),
            said: said.to_lowercase(),
        }
    }

    /// Takes in the links there are now.
    pub fn learn(&mut self, links: &[Link]) {
        for link in links {
            if link.place == "host" && is_random_veth(&link.name) {
                let pod_end = links
                    .iter()
                    .find(|l| l.place != "host" && l.peer == Some(link.index));
                let stands_for = match pod_end {
                    Some(end) => format!("VETH({}/{})", end.place, end.name),
                    None => "VETH(?)".to_owned(),
                };
                self.known.insert(link.name.clone(), stands_for);
            }
        }
        for link in links {
            if let Some(address) = link_local(&link.mac) {
                let name = self.text(&link.name);
                let stands_for = format!("fe80::MAC({}/{name})", link.place);
                self.known.insert(address, stands_for);
            }
        }
    }

    /// The text without anything random.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (random, stands_for) in &self.known {
            if text.contains(random) {
                text = text.replace(random, stands_for);
            }
        }
        if !text.contains(':') {
            return text;
        }
        without_gone_links(&self.without_macs(&text))
    }

    fn without_macs(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            match rest.get(..17) {
                Some(mac) if is_random_mac(mac) && !self.said.contains(&mac.to_lowercase()) => {
                    out.push_str("MAC");
                    rest = rest.get(17..).unwrap_or_default();
                }
                _ => {
                    out.push(c);
                    rest = rest.get(c.len_utf8()..).unwrap_or_default();
                }
            }
        }
        out
    }
}

/// A link-local address of a MAC that no link has any more: a bridge keeps the one it got before it took over a port's MAC.
fn without_gone_links(text: &str) -> String {
    const PREFIX: &str = "fe80::";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, from) = rest.split_at(at);
        let end = from
            .find(|c: char| c != ':' && !c.is_ascii_hexdigit())
            .unwrap_or(from.len());
        let (address, after) = from.split_at(end);
        let parsed = address.parse::<Ipv6Addr>().map(|a| a.octets());
        // The local bit is inverted in there.
        let random =
            matches!(parsed, Ok([.., first, _, _, 0xff, 0xfe, _, _, _]) if (first ^ 2) & 3 == 2);
        out.push_str(before);
        out.push_str(if random { "fe80::MAC(gone)" } else { address });
        rest = after;
    }
    out + rest
}

/// The one pattern that names of host ends have.
fn is_random_veth(name: &str) -> bool {
    let digits = name.strip_prefix("veth").unwrap_or_default();
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    digits.len() == 8 && digits.chars().all(hex)
}

fn octets(mac: &str) -> Option<[u8; 6]> {
    let mut parts = mac.split(':');
    let mut octets = [0; 6];
    for octet in &mut octets {
        let part = parts.next().filter(|p| p.len() == 2)?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

/// Locally administered, of one station: what the kernel and plugins make up.
fn is_random_mac(text: &str) -> bool {
    octets(text).is_some_and(|[first, ..]| first & 3 == 2)
}

/// EUI-64 (RFC 4291, appendix A).
fn link_local(mac: &str) -> Option<String> {
    let [a, b, c, d, e, f] = octets(mac)?;
    let host = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let address = Ipv6Addr::from((0xfe80u128 << 112) | u128::from(host));
    (mac != "00:00:00:00:00:00").then(|| address.to_string())
}

/// Whether the Result tells the MACs that the kernel has: one line per interface.
pub fn macs(result: &Value, links: &[Link], names: &Names) -> String {
    let none = Vec::new();
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let interfaces = interfaces.unwrap_or(&none);
    let mut lines = Vec::new();
    for interface in interfaces {
        let text = |key: &str| {
            interface
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let place = match text("sandbox") {
            "" => "host",
            path => path.rsplit('/').next().unwrap_or_default(),
        };
        let link = links
            .iter()
            .find(|l| l.place == place && l.name == text("name"));
        let verdict = match link {
            None => "no such link",
            Some(link) if link.mac == text("mac").to_lowercase() => "as the kernel",
            Some(_) => "not the kernel's",
        };
        lines.push(format!("{}: {verdict}", names.text(text("name"))));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(place: &str, name: &str, index: u64, peer: u64, mac: &str) -> Link {
        Link {
            place: place.into(),
            name: name.into(),
            index,
            peer: Some(peer),
            mac: mac.into(),
        }
    }

    #[test]
    fn random_things_are_named_after_what_they_belong_to() {
        let mut names = Names::new(r#"{"mac": "02:AA:00:00:00:01"}"#);
        let links = [
            link("host", "veth0badcafe", 3, 2, "b6:7b:17:73:41:bd"),
            link("a", "eth0", 2, 3, "02:aa:00:00:00:01"),
        ];
        names.learn(&links);
        assert_eq!(
            names.text("veth0badcafe b6:7b:17:73:41:bd 02:aa:00:00:00:01 01:80:c2:00:00:00"),
            "VETH(a/eth0) MAC 02:aa:00:00:00:01 01:80:c2:00:00:00"
        );
        assert_eq!(
            names.text("fe80::b47b:17ff:fe73:41bd"),
            "fe80::MAC(host/VETH(a/eth0))"
        );
        assert_eq!(
            names.text("fe80::8441:f5ff:fe9c:f785/64 fe80::1"),
            "fe80::MAC(gone)/64 fe80::1"
        );
        // Another pattern is no random name.
        assert_eq!(names.text("veth0BADCAFE"), "veth0BADCAFE");
        assert!(!is_random_veth("vethabc"));
    }

    #[test]
    fn macs_of_the_result_are_the_kernels() {
        let links = [link("a", "eth0", 2, 3, "02:aa:00:00:00:01")];
        let result = serde_json::json!({"interfaces": [
            {"name": "eth0", "mac": "02:AA:00:00:00:01", "sandbox": "/run/netns/a"},
            {"name": "eth0", "mac": "02:aa:00:00:00:02", "sandbox": "/run/netns/a"},
            {"name": "cni0", "mac": "02:aa:00:00:00:01"},
        ]});
        assert_eq!(
            macs(&result, &links, &Names::default()),
            "eth0: as the kernel\neth0: not the kernel's\ncni0: no such link"
        );
    }
}
