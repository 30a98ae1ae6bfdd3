//! Nodes as the API server writes them, and as nobody should.

use super::*;

const NODE: &str = r#"{
  "metadata": {
    "name": "n1", "uid": "u", "resourceVersion": "7", "creationTimestamp": null,
    "annotations": {
      "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"12:c6:65:89:b4:e3\"}",
      "csi.volume.kubernetes.io/nodeid": "{\"driver\":\"x\"}", "x/public-ip-overwrite": "192.0.2.1"
    },
    "managedFields": [ { "manager": "kubelet", "fieldsV1": { "f:metadata": {} } } ]
  },
  "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": [ "10.244.1.0/24", "fd00:1::/64" ], "taints": [] },
  "status": {
    "conditions": [
      { "type": "Ready", "status": "True" },
      { "type": "NetworkUnavailable", "status": "False", "reason": "R", "message": "M",
        "lastTransitionTime": "2026-01-01T00:00:00Z" }
    ],
    "addresses": [
      { "type": "InternalIP", "address": "192.0.2.1" }, { "type": "InternalIP", "address": "2001:db8::1" },
      { "type": "InternalIP", "address": "no" }, { "type": "ExternalIP", "address": "203.0.113.1" }
    ],
    "images": [ { "names": ["a"], "sizeBytes": 1 } ]
  }
}"#;

#[test]
fn what_is_kept_of_a_node() {
    let node = Node::parse(NODE.as_bytes()).unwrap();
    assert_eq!((node.name.as_str(), node.version.as_str()), ("n1", "7"));
    let keys: Vec<_> = node
        .annotations
        .iter()
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "flannel.alpha.coreos.com/backend-data",
            "x/public-ip-overwrite"
        ]
    );
    assert_eq!(node.pod_cidrs, ["10.244.1.0/24", "fd00:1::/64"]);
    assert_eq!(node.internal_ips.len(), 2);
    let condition = node.condition.unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "R")
    );
}

#[test]
fn go_writes_null_where_nothing_is() {
    for json in [
        r#"{"metadata":{"name":"n","annotations":null},"spec":null,"status":null}"#,
        r#"{"metadata":{"name":"n"},"spec":{"podCIDR":null,"podCIDRs":null},"status":{"conditions":null,"addresses":null}}"#,
        r#"{"metadata":{"name":"n"}}"#,
    ] {
        let wanted = Node {
            name: "n".into(),
            ..Node::default()
        };
        assert_eq!(Node::parse(json.as_bytes()), Ok(wanted), "{json}");
    }
}

#[test]
fn a_value_that_is_too_long_is_a_number() {
    let text = |bytes| {
        format!(
            r#"{{"metadata":{{"name":"n","annotations":{{"x.y/public-ip":"{}"}}}}}}"#,
            "A".repeat(bytes)
        )
    };
    let kept = |bytes| {
        Node::parse(text(bytes).as_bytes()).unwrap().annotations[0]
            .1
            .clone()
    };
    assert!(kept(MAX_VALUE_BYTES).is_ok());
    assert_eq!(kept(MAX_VALUE_BYTES + 1), Err(MAX_VALUE_BYTES + 1));
}

#[test]
fn events_of_every_kind() {
    let told = |kind: &str, object: &str| {
        Event::parse(format!(r#"{{"type":"{kind}","object":{object}}}"#).as_bytes())
    };
    let head = r#"{"metadata":{"name":"n","resourceVersion":"8"}}"#;
    assert!(matches!(told("ADDED", NODE), Event::Node(node) if node.name == "n1"));
    assert!(matches!(told("MODIFIED", head), Event::Node(_)));
    assert!(
        matches!(told("DELETED", head), Event::Gone { name, version } if (name.as_str(), version.as_str()) == ("n", "8"))
    );
    assert!(matches!(told("BOOKMARK", head), Event::Bookmark { version } if version == "8"));
    let status = r#"{"kind":"Status","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}"#;
    assert!(matches!(
        told("ERROR", status),
        Event::Error { code: 410, .. }
    ));
    assert!(matches!(told("NEWS", head), Event::Unknown(_)));
    let odd = r#"{"metadata":{"name":"n","resourceVersion":"8"},"spec":7}"#;
    assert!(matches!(told("MODIFIED", odd), Event::Unreadable { name, .. } if name == "n"));
    assert!(matches!(told("DELETED", odd), Event::Gone { .. }));
    let secret = format!(
        r#"{{"metadata":{{"name":"n"}},"spec":"{}"}}"#,
        "A\\u001b".repeat(5000)
    );
    let Event::Unreadable { why, .. } = told("ADDED", &secret) else {
        panic!("it cannot be read");
    };
    assert!(why.len() < 400 && !why.contains('\u{1b}'), "{why}");
    for text in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"type":"ADDED"}"#,
        r#"{"type":7,"object":{}}"#,
    ] {
        assert!(
            matches!(Event::parse(text.as_bytes()), Event::Unknown(_)),
            "{text}"
        );
    }
}
