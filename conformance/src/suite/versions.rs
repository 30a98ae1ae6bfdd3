//! Versions of the specification.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Every version there has been.
pub const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// `1.0.0`, `0.4.0+`, `0.3.0...1.0.0`, or several with commas.
///
/// # Errors
/// A version that there is not.
pub fn parse(text: &str) -> Result<Vec<&'static str>> {
    let mut chosen = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let (first, last) = if let Some((first, last)) = part.split_once("...") {
            (known(first)?, known(last)?)
        } else if let Some(first) = part.strip_suffix('+') {
            (known(first)?, VERSIONS.len() - 1)
        } else {
            (known(part)?, known(part)?)
        };
        ensure!(first <= last, "{part} is the wrong way round");
        chosen.extend(VERSIONS.iter().take(last + 1).skip(first));
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

fn known(version: &str) -> Result<usize> {
    let place = VERSIONS.iter().position(|v| *v == version);
    place.with_context(|| format!("no version {version}; there are {}", VERSIONS.join(", ")))
}

/// As in a case: a text or an array of them.
pub fn of_value(value: &Value) -> Result<Vec<&'static str>> {
    match value {
        Value::String(text) => parse(text),
        Value::Array(items) => {
            let mut texts = Vec::new();
            for item in items {
                texts.push(item.as_str().context("versions are texts")?);
            }
            parse(&texts.join(","))
        }
        other => bail!("versions are texts, not {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{VERSIONS, parse};

    #[test]
    fn ranges() {
        assert_eq!(parse("0.4.0+").unwrap(), ["0.4.0", "1.0.0", "1.1.0"]);
        assert_eq!(parse("0.3.0...0.4.0").unwrap(), ["0.3.0", "0.3.1", "0.4.0"]);
        assert_eq!(parse("1.0.0,0.1.0").unwrap(), ["0.1.0", "1.0.0"]);
        assert_eq!(parse("0.1.0+").unwrap(), VERSIONS);
        for wrong in ["", "2.0.0", "1.0.0...0.4.0", "1.0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
