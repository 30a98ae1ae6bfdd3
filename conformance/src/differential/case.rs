//! Cases as data: `cases/differential/*.json`, each an array of cases.
//!
//! ```json
//! {
//!     "name": "bridge/gateway", "why": "optional remark",
//!     "plugin": "bridge",
//!     "config": {"isGateway": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}},
//!     "raw": "instead of config: the text itself, @VERSION@ is the spec version",
//!     "versions": ["0.4.0", "1.0.0"],
//!     "setup": "ip link add cni0 type bridge",
//!     "pods": ["a"], "dad": false,
//!     "env": {"CNI_ARGS": "IP=10.1.0.9", "CNI_PATH": null},
//!     "calls": [{"verb": "ADD", "container": "c1", "pod": "a", "ifname": "eth0", "before": "shell", "in_pod": "shell",
//!                "config": {}, "env": {}, "prev": {}, "any_version": true}],
//!     "differs": ["H1", {"id": "B2", "paths": ["add/error/code"], "ref": "999", "ours": "7", "versions": ["1.0.0"]}],
//!     "variants": {"v6": {"config": {}}}
//! }
//! ```
//!
//! `cniVersion`, `name` (`mynet`) and `type` are added to `config` where it does not say otherwise. `env` and `config` of a
//! call are laid over the case's, key by key; `null` in `env` takes a variable away. Without `calls` it is ADD, CHECK (where
//! the version has it and ADD succeeded), DEL, DEL. CHECK and DEL get that side's own result as `prevResult` from 0.4.0 on,
//! as runtimes do it, unless `prev` says otherwise. A variant is the case with its own keys laid over, `config` key by key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::keys::Keys;

use super::declared::{Declared, Definitions};
use super::{Sides, VERSIONS};

/// Everything there is to run, and the differences it declares.
#[derive(Debug)]
pub struct Cases {
    /// In the order of the files.
    pub cases: Vec<Case>,
    pub(super) definitions: Definitions,
    /// Some were left out, so that not everything declared can occur.
    pub(super) partial: bool,
}

/// One configuration and what is done with it, in some spec versions.
#[derive(Debug, Clone)]
pub struct Case {
    /// `file/what[/variant]`
    pub name: String,
    /// The executable's name.
    pub plugin: String,
    /// Spec versions to run it in.
    pub versions: Vec<String>,
    pub(super) config: Config,
    pub(super) setup: String,
    pub(super) pods: Vec<String>,
    pub(super) dad: bool,
    pub(super) calls: Vec<Call>,
    pub(super) declared: Vec<Declared>,
}

#[derive(Debug, Clone)]
pub(super) enum Config {
    Object(Map<String, Value>),
    Raw(String),
}

/// One call of the plugin.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub verb: String,
    pub container: String,
    pub pod: String,
    pub ifname: String,
    pub before: String,
    pub in_pod: String,
    pub config: Map<String, Value>,
    /// `None` takes the variable away.
    pub env: BTreeMap<String, Option<String>>,
    pub prev: Prev,
    /// Also in versions that do not have the verb.
    pub any_version: bool,
    /// Only where the ADD before succeeded.
    pub after_success: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prev {
    /// This attachment's own result.
    Own,
    /// This value; `null` is none.
    Given(Value),
}

// === impl Cases ===

impl Cases {
    /// Reads `differences.json` and every other `*.json` of the directory.
    pub fn read(dir: &Path) -> Result<Cases> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                files.push(path);
            }
        }
        files.sort();
        let read = files.iter().map(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            Ok((name.into_owned(), text))
        });
        Cases::of(read.collect::<Result<Vec<_>>>()?)
    }

    /// Of files by name and text, in this order.
    pub(super) fn of(files: impl IntoIterator<Item = (String, String)>) -> Result<Cases> {
        let mut definitions = Definitions::default();
        let mut raw = Vec::new();
        for (file, text) in files {
            let value = serde_json::from_str::<Value>(&text).with_context(|| file.clone())?;
            if file == "differences.json" {
                definitions = Definitions::read(value).with_context(|| file.clone())?;
            } else {
                raw.push((file, value));
            }
        }
        let mut cases: Vec<Case> = Vec::new();
        for (file, value) in raw {
            let Value::Array(items) = value else {
                bail!("{file}: not an array of cases");
            };
            for item in items {
                for flat in variants(item).with_context(|| file.clone())? {
                    let name = text_of(&flat, "name");
                    let case = Case::read(flat, &definitions)
                        .with_context(|| format!("{file}: case {name}"))?;
                    ensure!(
                        cases.iter().all(|c| c.name != case.name),
                        "two cases are named {name}"
                    );
                    cases.push(case);
                }
            }
        }
        Ok(Cases {
            cases,
            definitions,
            partial: false,
        })
    }

    /// Only those whose name contains the text, each in these versions at most.
    #[must_use]
    pub fn only(mut self, name_contains: &str, versions: &[&str]) -> Cases {
        self.partial = !name_contains.is_empty() || versions != VERSIONS;
        self.cases.retain(|c| c.name.contains(name_contains));
        for case in &mut self.cases {
            case.versions.retain(|v| versions.contains(&v.as_str()));
        }
        self
    }

    /// Takes those away whose plugin one of the directories does not have, and names these plugins.
    pub(super) fn without_plugins_missing_in(&mut self, sides: &Sides) -> Vec<String> {
        let is_there = |plugin: &str| {
            let mut dirs = [&sides.reference, &sides.ours].into_iter();
            dirs.all(|dir| dir.join(plugin).is_file())
        };
        let all = self.cases.iter().map(|case| case.plugin.clone());
        let absent: BTreeSet<String> = all.filter(|plugin| !is_there(plugin)).collect();
        self.cases.retain(|case| !absent.contains(&case.plugin));
        self.partial |= !absent.is_empty();
        absent.into_iter().collect()
    }

    /// The same cases, nothing declared: what equal sides must pass.
    #[must_use]
    pub fn without_differences(mut self) -> Cases {
        self.definitions = Definitions::default();
        for case in &mut self.cases {
            case.declared.clear();
        }
        self
    }
}

/// A case with `variants` is a family: one case for each.
fn variants(item: Value) -> Result<Vec<Map<String, Value>>> {
    let Value::Object(mut base) = item else {
        bail!("a case is an object");
    };
    let Some(variants) = base.remove("variants") else {
        return Ok(vec![base]);
    };
    let Value::Object(variants) = variants else {
        bail!("variants is an object");
    };
    let mut flat = Vec::new();
    for (suffix, over) in variants {
        let Value::Object(over) = over else {
            bail!("variant {suffix} is an object");
        };
        let mut case = base.clone();
        for (key, value) in over {
            match (key.as_str(), case.get_mut(&key), value) {
                ("config", Some(Value::Object(config)), Value::Object(over)) => config.extend(over),
                ("differs", Some(Value::Array(all)), Value::Array(more)) => all.extend(more),
                (_, _, value) => drop(case.insert(key, value)),
            }
        }
        let name = format!("{}/{suffix}", text_of(&case, "name"));
        case.insert("name".into(), name.into());
        flat.push(case);
    }
    Ok(flat)
}

fn text_of(map: &Map<String, Value>, key: &str) -> String {
    let text = map.get(key).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

// === impl Case ===

impl Case {
    fn read(map: Map<String, Value>, definitions: &Definitions) -> Result<Case> {
        let mut keys = Keys(map);
        keys.0.remove("why");
        let name = keys.text("name")?.context("a case has a name")?;
        let plugin = keys.text("plugin")?.context("plugin")?;
        let config = match (keys.object("config")?, keys.text("raw")?) {
            (Some(map), None) => Config::Object(map),
            (None, Some(text)) => Config::Raw(text),
            _ => bail!("either config or raw"),
        };
        let versions = match keys.texts("versions")? {
            Some(versions) => versions,
            None => VERSIONS.map(String::from).to_vec(),
        };
        let pods = keys.texts("pods")?.unwrap_or_else(|| vec!["a".to_owned()]);
        let env = keys.env()?;
        let calls = match keys.0.remove("calls") {
            Some(Value::Array(calls)) => calls
                .into_iter()
                .map(|call| Call::read(call, &env))
                .collect::<Result<_>>()?,
            Some(_) => bail!("calls is an array"),
            None => Call::usual(&env),
        };
        let declared = match keys.0.remove("differs") {
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| definitions.declare(item))
                .collect::<Result<_>>()?,
            Some(_) => bail!("differs is an array"),
            None => Vec::new(),
        };
        let case = Case {
            name,
            plugin,
            versions,
            config,
            setup: keys.text("setup")?.unwrap_or_default(),
            pods,
            dad: keys.flag("dad")?.unwrap_or_default(),
            calls,
            declared,
        };
        keys.finish()?;
        Ok(case)
    }

    /// The bytes for stdin.
    pub(super) fn stdin(&self, call: &Call, version: &str, prev: Option<&Value>) -> String {
        match &self.config {
            Config::Object(config) => {
                let mut all = config.clone();
                all.extend(call.config.clone());
                for (key, value) in [
                    ("cniVersion", version),
                    ("name", "mynet"),
                    ("type", &self.plugin),
                ] {
                    all.entry(key).or_insert_with(|| value.into());
                }
                if let Some(prev) = prev {
                    all.insert("prevResult".into(), prev.clone());
                }
                Value::Object(all).to_string()
            }
            Config::Raw(text) => {
                let text = text.replace("@VERSION@", version);
                match (prev, text.trim_end().strip_suffix('}')) {
                    (Some(prev), Some(open)) => format!("{open}, \"prevResult\": {prev}}}"),
                    _ => text,
                }
            }
        }
    }

    /// Everything the case itself says: nothing of it is random.
    pub(super) fn said(&self) -> String {
        let mut said = match &self.config {
            Config::Object(map) => Value::Object(map.clone()).to_string(),
            Config::Raw(text) => text.clone(),
        };
        said += &self.setup;
        for call in &self.calls {
            said += &format!("{call:?}");
        }
        said
    }
}

// === impl Call ===

impl Call {
    fn new(verb: &str, env: &BTreeMap<String, Option<String>>) -> Call {
        Call {
            verb: verb.to_owned(),
            container: "c1".to_owned(),
            pod: "a".to_owned(),
            ifname: "eth0".to_owned(),
            before: String::new(),
            in_pod: String::new(),
            config: Map::new(),
            env: env.clone(),
            prev: Prev::Own,
            any_version: false,
            after_success: verb == "CHECK",
        }
    }

    fn usual(env: &BTreeMap<String, Option<String>>) -> Vec<Call> {
        ["ADD", "CHECK", "DEL", "DEL"]
            .iter()
            .map(|verb| Call::new(verb, env))
            .collect()
    }

    fn read(value: Value, env: &BTreeMap<String, Option<String>>) -> Result<Call> {
        let Value::Object(map) = value else {
            bail!("a call is an object");
        };
        let mut keys = Keys(map);
        let mut call = Call::new(&keys.text("verb")?.context("a call has a verb")?, env);
        call.after_success = false;
        call.container = keys.text("container")?.unwrap_or(call.container);
        call.pod = keys.text("pod")?.unwrap_or(call.pod);
        call.ifname = keys.text("ifname")?.unwrap_or(call.ifname);
        call.before = keys.text("before")?.unwrap_or_default();
        call.in_pod = keys.text("in_pod")?.unwrap_or_default();
        call.config = keys.object("config")?.unwrap_or_default();
        call.env.extend(keys.env()?);
        if let Some(prev) = keys.0.remove("prev") {
            call.prev = Prev::Given(prev);
        }
        call.any_version = keys.flag("any_version")?.unwrap_or_default();
        keys.finish()?;
        Ok(call)
    }

    /// Whether the version has the verb.
    pub(super) fn fits(&self, version: &str) -> bool {
        self.any_version || self.verb != "CHECK" || version >= "0.4.0"
    }
}
