//! Comparing what a case wants with what there is.

use anyhow::{Context, Result};
use regex_lite::Regex;
use serde_json::Value;

/// A text: itself, or `/regex/`, which is somewhere in it.
pub fn is_text(want: &str, got: &str) -> Result<bool> {
    match pattern(want)? {
        Some(pattern) => Ok(pattern.is_match(got)),
        None => Ok(want == got),
    }
}

/// As [`is_text`], but a plain text may also be a part.
pub fn says(want: &str, got: &str) -> Result<bool> {
    match pattern(want)? {
        Some(pattern) => Ok(pattern.is_match(got)),
        None => Ok(got.contains(want)),
    }
}

/// Of a text `/…/`. It is matched in time that grows with pattern times text, whatever a plugin prints.
pub fn pattern(want: &str) -> Result<Option<Regex>> {
    let inner = want.strip_prefix('/').and_then(|w| w.strip_suffix('/'));
    match inner.filter(|inner| !inner.is_empty()) {
        Some(inner) => {
            let regex = Regex::new(inner).with_context(|| format!("the pattern {want}"))?;
            Ok(Some(regex))
        }
        None => Ok(None),
    }
}

/// What of `want` is not so in `got`, a sentence each: of objects the keys that are wanted, of arrays every element.
pub fn differences(want: &Value, got: &Value) -> Result<Vec<String>> {
    let mut all = Vec::new();
    compare(want, got, "", &mut all)?;
    Ok(all)
}

fn compare(want: &Value, got: &Value, at: &str, all: &mut Vec<String>) -> Result<()> {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (key, want) in want {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                match got.get(key) {
                    Some(got) => compare(want, got, &at, all)?,
                    None => all.push(format!("{at} is missing, it should be {want}")),
                }
            }
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => {
            for (i, (want, got)) in want.iter().zip(got).enumerate() {
                compare(want, got, &format!("{at}/{i}"), all)?;
            }
        }
        (Value::Array(wanted), Value::Array(got_all)) => all.push(format!(
            "{} has {} elements, not {}: {got}",
            place(at),
            got_all.len(),
            wanted.len()
        )),
        (Value::String(text), Value::String(is)) if is_text(text, is)? => {}
        (want, got) if want == got => {}
        (want, got) => all.push(format!("{} is {got}, it should be {want}", place(at))),
    }
    Ok(())
}

fn place(at: &str) -> &str {
    match at {
        "" => "it",
        at => at,
    }
}

/// Every text of a value, to be looked at or changed.
pub fn each_text(value: &mut Value, change: &impl Fn(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, change)),
        Value::Object(map) => map.values_mut().for_each(|item| each_text(item, change)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::differences;

    #[test]
    fn a_part_of_an_object_and_the_whole_of_an_array() {
        let got = json!({"a": 1, "b": [{"c": "10.1.0.2/24", "d": null}, 2]});
        for (want, number) in [
            (json!({}), 0),
            (json!({"a": 1, "b": [{"c": "/^10[.]/"}, 2]}), 0),
            (json!({"a": 2, "x": 1}), 2),
            (json!({"b": [{}]}), 1),
            (json!({"b": [{"c": "10.1.0.2"}, 3]}), 2),
            (json!([]), 1),
        ] {
            let all = differences(&want, &got).unwrap();
            assert_eq!(all.len(), number, "{want}: {all:?}");
        }
    }
}
