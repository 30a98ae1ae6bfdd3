//! The keys of an object in a file for people: each is taken once, and what is left is a mistake.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail, ensure};
use serde_json::{Map, Value};

/// What has not been taken yet.
#[derive(Debug)]
pub struct Keys(pub Map<String, Value>);

impl Keys {
    /// Of a value that must be an object.
    pub fn of(value: Value, what: &str) -> Result<Keys> {
        match value {
            Value::Object(map) => Ok(Keys(map)),
            other => bail!("{what} is an object, not {other}"),
        }
    }

    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    pub fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(anyhow!("{key} is a text, not {other}")),
        }
    }

    /// An array of texts, or one.
    pub fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.0.remove(key) else {
            return Ok(None);
        };
        let mut texts = Vec::new();
        match &value {
            Value::String(text) => texts.push(text.clone()),
            Value::Array(items) => {
                for item in items {
                    let Value::String(text) = item else {
                        bail!("{key} holds {item}, which is no text");
                    };
                    texts.push(text.clone());
                }
            }
            other => bail!("{key} is an array of texts, not {other}"),
        }
        Ok(Some(texts))
    }

    /// Shell: a text, or an array of lines.
    pub fn script(&mut self, key: &str) -> Result<String> {
        Ok(self.texts(key)?.unwrap_or_default().join("\n"))
    }

    pub fn object(&mut self, key: &str) -> Result<Option<Map<String, Value>>> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(anyhow!("{key} is an object, not {other}")),
        }
    }

    pub fn array(&mut self, key: &str) -> Result<Option<Vec<Value>>> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(anyhow!("{key} is an array, not {other}")),
        }
    }

    pub fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(anyhow!("{key} is true or false, not {other}")),
        }
    }

    pub fn number(&mut self, key: &str, most: u64) -> Result<Option<u64>> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|n| *n <= most) {
                Some(n) => Ok(Some(n)),
                None => Err(anyhow!("{key} is a number up to {most}, not {value}")),
            },
        }
    }

    /// Variables; `null` takes one away.
    pub fn env(&mut self) -> Result<BTreeMap<String, Option<String>>> {
        let mut env = BTreeMap::new();
        for (key, value) in self.object("env")?.unwrap_or_default() {
            ensure!(
                !key.is_empty() && !key.contains(['=', '\0']),
                "{key:?} cannot be a variable's name"
            );
            let value = match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => bail!("env {key} is a text or null, not {other}"),
            };
            env.insert(key, value);
        }
        Ok(env)
    }

    pub fn finish(self) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => Err(anyhow!("unknown key {key:?}")),
        }
    }
}
