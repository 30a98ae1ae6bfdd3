//! The configuration one plugin gets on stdin (spec section 3, "Deriving request configuration from plugin configuration").

use super::list::{NetworkList, PluginConf};
use crate::spec::json::{Node, Number};
use crate::spec::{Attachment, Fields};

/// What a verb adds to a plugin's configuration.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extra<'a> {
    /// ADD, DEL, CHECK.
    Attachment {
        /// The result so far, or the final one.
        prev: Option<&'a Node>,
        /// Everything the runtime knows by capability; the plugin gets what it declares.
        capability_args: &'a Node,
    },
    /// STATUS.
    Nothing,
    /// GC: who may keep what they have.
    Valid(&'a [Attachment]),
}

/// The bytes for stdin: compact, keys sorted. An injected key replaces one that is there.
pub(super) fn request(list: &NetworkList, plugin: &PluginConf, extra: Extra<'_>) -> Vec<u8> {
    let mut node = plugin.node().clone();
    if let Node::Object(entries) = &mut node {
        let mut put = |key: &str, value: Node| entries.push((key.to_owned(), value));
        put("name", list.name.as_str().into());
        put("cniVersion", list.version.as_str().into());
        match extra {
            Extra::Nothing => {}
            Extra::Attachment {
                prev,
                capability_args,
            } => {
                if let Some(prev) = prev {
                    put("prevResult", prev.clone());
                }
                if let Some(config) = runtime_config(plugin, capability_args) {
                    put("runtimeConfig", config);
                }
            }
            Extra::Valid(valid) => {
                let valid: Vec<Node> = valid.iter().map(valid_attachment).collect();
                // The second is a slip of early libraries, which plugins of that time read.
                put("cni.dev/valid-attachments", valid.clone().into());
                put("cni.dev/attachments", valid.into());
            }
        }
    }
    as_go_map(&mut node);
    node.write_compact().into_bytes()
}

fn valid_attachment(attachment: &Attachment) -> Node {
    Node::obj()
        .put("containerID", attachment.container_id.as_str())
        .put("ifname", attachment.ifname.as_str())
        .build()
}

fn runtime_config(plugin: &PluginConf, capability_args: &Node) -> Option<Node> {
    let args = Fields::of(capability_args, "").ok()?.entries();
    let wanted: Vec<(String, Node)> = args
        .into_iter()
        .filter(|(key, _)| plugin.capabilities.iter().any(|c| c == key))
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect();
    (!wanted.is_empty()).then_some(Node::Object(wanted))
}

/// A document as it leaves a Go `map[string]interface{}`: keys sorted, `1.0` and `1e3` as the integers they are, without
/// which a Go plugin would not take them for a field like `mtu`. (Go also rounds integers beyond 2^53; that is not done.)
pub(super) fn as_go_map(node: &mut Node) {
    node.sort_keys();
    integers(node);
}

fn integers(node: &mut Node) {
    match node {
        Node::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|_| number.is_f64()).and_then(whole) {
                *number = whole;
            }
        }
        Node::Array(items) => items.iter_mut().for_each(integers),
        Node::Object(entries) => entries.iter_mut().for_each(|(_, value)| integers(value)),
        Node::Null | Node::Bool(_) | Node::String(_) => {}
    }
}

fn whole(value: f64) -> Option<Number> {
    /// Up to here every integer is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation)] // whole and in range
    (value.fract() == 0.0 && value.abs() <= EXACT).then(|| Number::from(value as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ContainerId, IfName};

    fn list(plugin: &str) -> NetworkList {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"net","plugins":[{plugin}]}}"#);
        NetworkList::parse(text.as_bytes(), None).unwrap()
    }

    fn of(plugin: &str, extra: Extra<'_>) -> String {
        let list = list(plugin);
        String::from_utf8(request(&list, &list.plugins[0], extra)).unwrap()
    }

    fn node(text: &str) -> Node {
        Node::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_are_sorted_and_injected_ones_win() {
        let plugin = r#"{"type":"t","prevResult":{"x":1},"runtimeConfig":{"old":1},"name":"own","cniVersion":"0.1.0",
            "z":{"b":1.0,"a":[1e3,1.5,9007199254740993]},"html":"<&>"}"#;
        let nothing = r#"{"cniVersion":"1.1.0","html":"\u003c\u0026\u003e","name":"net","prevResult":{"x":1},"runtimeConfig":{"old":1},"type":"t","z":{"a":[1000,1.5,9007199254740993],"b":1}}"#;
        assert_eq!(of(plugin, Extra::Nothing), nothing);
        let none = node("{}");
        let prev = node(r#"{"ips":[],"cniVersion":"1.1.0"}"#);
        let extra = Extra::Attachment {
            prev: Some(&prev),
            capability_args: &none,
        };
        assert_eq!(
            of(plugin, extra),
            nothing.replace(r#"{"x":1}"#, r#"{"cniVersion":"1.1.0","ips":[]}"#)
        );
    }

    /// Spec section 3: only what the plugin declares and the runtime has, and no key at all if that is nothing.
    #[test]
    fn capabilities_choose_the_runtime_config() {
        let args = node(r#"{"portMappings":[{"hostPort":80}],"mac":"x","ips":null}"#);
        let with = |capabilities: &str| {
            let plugin = format!(r#"{{"type":"t","capabilities":{capabilities}}}"#);
            let extra = Extra::Attachment {
                prev: None,
                capability_args: &args,
            };
            let text = of(&plugin, extra);
            let node = Node::parse(text.as_bytes()).unwrap();
            let config = Fields::of(&node, "").unwrap().node("runtimeConfig");
            config.map(|c| c.write_compact())
        };
        assert_eq!(
            with(r#"{"portMappings":true,"bandwidth":true,"mac":false}"#).unwrap(),
            r#"{"portMappings":[{"hostPort":80}]}"#
        );
        assert_eq!(with(r#"{"bandwidth":true}"#), None);
        assert_eq!(with("{}"), None);
    }

    #[test]
    fn gc_names_the_valid_under_both_keys() {
        let valid = [Attachment {
            container_id: ContainerId::parse("c1").unwrap(),
            ifname: IfName::parse("eth0").unwrap(),
        }];
        assert_eq!(
            of(r#"{"type":"t"}"#, Extra::Valid(&valid)),
            r#"{"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}],"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}],"cniVersion":"1.1.0","name":"net","type":"t"}"#
        );
        assert!(
            of(r#"{"type":"t"}"#, Extra::Valid(&[])).contains(r#""cni.dev/valid-attachments":[]"#)
        );
    }
}
