//! What a plugin reads: configurations laid over each other, results of other versions.

use serde_json::{Map, Value};

/// A call's stdin.
#[derive(Debug, Clone)]
pub enum Stdin {
    /// Complete but for `prevResult`.
    Object(Map<String, Value>),
    /// Text of an object.
    Raw(String),
    /// Exactly that.
    Bytes(String),
    /// What this shell prints, with the object in `CONFIG`.
    Script(Map<String, Value>, String),
}

/// Objects key by key at every depth; null takes a key away.
pub fn lay_over(below: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (below.get_mut(&key), value) {
            (_, Value::Null) => drop(below.remove(&key)),
            (Some(Value::Object(below)), Value::Object(over)) => lay_over(below, over),
            (_, Value::Object(over)) => {
                let mut new = Map::new();
                lay_over(&mut new, over);
                below.insert(key, Value::Object(new));
            }
            (_, value) => drop(below.insert(key, value)),
        }
    }
}

/// A result written as of 1.0.0, in another version's words.
pub fn as_of(result: &Value, version: &str) -> Value {
    let mut result = result.clone();
    let Value::Object(map) = &mut result else {
        return result;
    };
    map.insert("cniVersion".to_owned(), version.into());
    if version >= "1.0.0" {
        return result;
    }
    let ips = match map.get_mut("ips") {
        Some(Value::Array(ips)) => ips,
        _ => return result,
    };
    let is_v6 = |ip: &Value| {
        let address = ip.get("address").and_then(Value::as_str);
        address.unwrap_or_default().contains(':')
    };
    if version >= "0.3.0" {
        for ip in ips {
            let family = if is_v6(ip) { "6" } else { "4" };
            if let Value::Object(ip) = ip {
                ip.insert("version".to_owned(), family.into());
            }
        }
        return result;
    }
    let mut old = Map::new();
    for ip in ips {
        let family = if is_v6(ip) { "ip6" } else { "ip4" };
        let mut entry = Map::new();
        for (from, to) in [("address", "ip"), ("gateway", "gateway")] {
            if let Some(value) = ip.get(from) {
                entry.insert(to.to_owned(), value.clone());
            }
        }
        old.entry(family).or_insert(Value::Object(entry));
    }
    old.insert("cniVersion".to_owned(), version.into());
    Value::Object(old)
}
