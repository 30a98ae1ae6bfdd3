//! How patches are merged.

use serde_json::Value;

/// `application/merge-patch+json`, RFC 7396.
pub fn merge(to: &mut Value, by: &Value) {
    combine(to, by, false);
}

/// `application/strategic-merge-patch+json`: lists of a Node's conditions and addresses are merged by `type`.
pub fn strategic(to: &mut Value, by: &Value) {
    combine(to, by, true);
}

fn combine(to: &mut Value, by: &Value, by_type: bool) {
    let Value::Object(by) = by else {
        *to = by.clone();
        return;
    };
    if !to.is_object() {
        *to = Value::Object(Default::default());
    }
    let to = to.as_object_mut().unwrap();
    for (key, value) in by {
        if value.is_null() {
            to.remove(key);
        } else if by_type && matches!(key.as_str(), "conditions" | "addresses") {
            let list = to.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            merge_by_type(list.as_array_mut().unwrap(), value.as_array().unwrap());
        } else {
            combine(to.entry(key).or_insert(Value::Null), value, by_type);
        }
    }
}

fn merge_by_type(to: &mut Vec<Value>, by: &[Value]) {
    for one in by {
        match to.iter_mut().find(|has| has["type"] == one["type"]) {
            Some(has) => combine(has, one, true),
            None => to.push(one.clone()),
        }
    }
}
