//! What a case does, for one plugin in one version.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::expect::Expect;
use super::input::{Stdin, as_of, lay_over};
use super::profile::{Kind, Profile};
use super::versions::{self, VERSIONS};
use crate::keys::Keys;
use crate::node;

/// How often a call may be made.
const MOST_TIMES: u64 = 256;

/// A container's name may be of thousands of characters, to see what comes of it.
const LONGEST_TOLD: usize = 40;

/// All of it.
#[derive(Debug, Clone)]
pub struct Steps {
    pub setup: String,
    pub pods: Vec<String>,
    pub dad: bool,
    /// A failed ADD must have undone its work by itself.
    pub undone: bool,
    pub calls: Vec<Call>,
    pub leaves: Vec<String>,
    /// Names the network's bridge may have.
    pub bridges: Vec<String>,
}

/// One call of the plugin, or several alike.
#[derive(Debug, Clone)]
pub struct Call {
    pub verb: String,
    pub plugin: String,
    pub container: String,
    pub pod: String,
    pub ifname: String,
    pub before: String,
    pub in_pod: String,
    /// `None` takes the variable away.
    pub env: BTreeMap<String, Option<String>>,
    pub stdin: Stdin,
    pub prev: Prev,
    pub times: usize,
    pub at_once: bool,
    pub beside: bool,
    pub expect: Expect,
    pub holds: Vec<Hold>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Prev {
    /// As runtimes do it: the attachment's last result for CHECK and DEL, from 0.4.0 on.
    Usual,
    /// The attachment's last result.
    Chain,
    /// This value; `null` is none.
    Given(Value),
}

/// Something that must be so after a call.
#[derive(Debug, Clone)]
pub struct Hold {
    /// A pod, or nothing for the node.
    pub place: String,
    pub sh: String,
    pub ok: bool,
    pub says: Option<String>,
    pub json: Map<String, Value>,
}

/// What calls take from their case.
struct Frame<'a> {
    plugin: &'a str,
    profile: &'a Profile,
    version: &'a str,
    pods: &'a [String],
    env: BTreeMap<String, Option<String>>,
    config: Map<String, Value>,
    raw: Option<String>,
}

// === impl Steps ===

impl Steps {
    pub(super) fn read(
        steps: Value,
        plugin: &str,
        profile: &Profile,
        version: &str,
    ) -> Result<Steps> {
        let mut keys = Keys::of(steps, "a case")?;
        let pods = keys.texts("pods")?.unwrap_or_else(|| vec!["a".to_owned()]);
        let (config, raw) = (keys.object("config")?, keys.text("raw")?);
        ensure!(config.is_none() || raw.is_none(), "either config or raw");
        let mut all = profile.config.clone();
        lay_over(&mut all, config.unwrap_or_default());
        let mut env = profile.env.clone();
        env.extend(keys.env()?);
        let frame = Frame {
            plugin,
            profile,
            version,
            pods: &pods,
            env,
            config: all,
            raw,
        };
        let items = match keys.array("calls")? {
            Some(items) => items,
            None => vec![
                json!({"verb": "ADD"}),
                json!({"verb": "CHECK", "versions": "0.4.0+"}),
                json!({"verb": "DEL"}),
                json!({"verb": "DEL"}),
            ],
        };
        ensure!(!items.is_empty(), "there are no calls");
        let mut calls: Vec<Call> = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let call = frame
                .call(item)
                .with_context(|| format!("call {}", i + 1))?;
            calls.extend(call);
        }
        ensure!(
            calls.first().is_none_or(|call| !call.beside),
            "there is no call that the first could be beside"
        );
        let mut setup = keys.script("setup")?;
        let mut leaves = keys.texts("leaves")?.unwrap_or_default();
        if !profile.setup.is_empty() {
            setup = format!("{}\n{setup}", profile.setup).trim().to_owned();
        }
        leaves.extend(profile.leaves.iter().cloned());
        let steps = Steps {
            setup,
            dad: keys.flag("dad")?.unwrap_or(false),
            undone: keys.flag("undone")?.unwrap_or(false),
            bridges: bridges(&calls),
            calls,
            leaves,
            pods,
        };
        keys.finish()?;
        Ok(steps)
    }
}

fn bridges(calls: &[Call]) -> Vec<String> {
    let mut names = vec!["cni0".to_owned()];
    for call in calls {
        if let Stdin::Object(config) = &call.stdin
            && let Some(Value::String(name)) = config.get("bridge")
        {
            names.push(name.clone());
        }
    }
    names.sort();
    names.dedup();
    names
}

impl Frame<'_> {
    /// None where it is not made in this version.
    fn call(&self, item: Value) -> Result<Option<Call>> {
        let mut keys = Keys::of(item, "a call")?;
        keys.take("why");
        let verb = keys.text("verb")?.context("a call has a verb")?;
        let is_made = match keys.take("versions") {
            Some(value) => versions::of_value(&value)?.contains(&self.version),
            None => true,
        };
        let plugin = keys.text("plugin")?;
        let plugin = plugin.unwrap_or_else(|| self.plugin.to_owned());
        ensure!(
            !plugin.is_empty() && !plugin.contains('/'),
            "plugin is the name of an executable"
        );
        let mut env = self.env.clone();
        env.extend(keys.env()?);
        let pod = match keys.text("pod")? {
            Some(pod) => pod,
            None => self.pods.first().cloned().unwrap_or_default(),
        };
        let ifname = match (keys.text("ifname")?, &self.profile.ifname) {
            (Some(name), _) => name,
            (None, Some(name)) if plugin == self.plugin => name.clone(),
            (None, _) => "eth0".to_owned(),
        };
        let prev = match keys.take("prev") {
            None if verb == "ADD" && self.profile.kind == Kind::Meta && plugin == self.plugin => {
                match &self.profile.prev {
                    Some(prev) => Prev::Given(as_of(prev, self.version)),
                    None => Prev::Usual,
                }
            }
            None => Prev::Usual,
            Some(Value::String(text)) if text == "chain" => Prev::Chain,
            Some(value) => Prev::Given(value),
        };
        let stdin = self.stdin(&mut keys, &plugin)?;
        let times = keys.number("times", MOST_TIMES)?;
        ensure!(times != Some(0), "times is at least 1");
        let mut holds = Vec::new();
        for (i, item) in keys
            .array("holds")?
            .unwrap_or_default()
            .into_iter()
            .enumerate()
        {
            holds.push(Hold::read(item).with_context(|| format!("holds {}", i + 1))?);
        }
        let expect = keys.take("expect").unwrap_or_else(|| json!({}));
        let times = usize::try_from(times.unwrap_or(1))?;
        let call = Call {
            expect: Expect::read(expect, times).context("expect")?,
            verb,
            plugin,
            container: keys.text("container")?.unwrap_or_else(|| "c1".to_owned()),
            pod,
            ifname,
            before: keys.script("before")?,
            in_pod: keys.script("in_pod")?,
            env,
            stdin,
            prev,
            times,
            at_once: keys.flag("at_once")?.unwrap_or(false),
            beside: keys.flag("beside")?.unwrap_or(false),
            holds,
        };
        keys.finish()?;
        Ok(is_made.then_some(call))
    }

    fn stdin(&self, keys: &mut Keys, plugin: &str) -> Result<Stdin> {
        let config = keys.object("config")?;
        let raw = keys.text("raw")?;
        let bytes = keys.text("stdin")?;
        let script = keys.script("stdin_sh")?;
        let given = [raw.is_some(), bytes.is_some(), !script.is_empty()];
        ensure!(
            given.iter().filter(|g| **g).count() <= 1,
            "only one of raw, stdin and stdin_sh"
        );
        let from_case = config.is_none();
        let mut all = self.config.clone();
        lay_over(&mut all, config.unwrap_or_default());
        for (key, value) in [
            ("cniVersion", self.version),
            ("name", "testnet"),
            ("type", plugin),
        ] {
            all.entry(key).or_insert_with(|| value.into());
        }
        if !script.is_empty() {
            return Ok(Stdin::Script(all, script));
        }
        let inside = Value::Object(all.clone()).to_string();
        let inside = inside.trim_start_matches('{');
        let inside = inside.strip_suffix('}').unwrap_or(inside);
        let filled = |text: &str| text.replace("@CONFIG@", inside);
        Ok(match (raw, bytes, &self.raw) {
            (_, Some(bytes), _) => Stdin::Bytes(filled(&bytes)),
            (Some(raw), ..) => Stdin::Raw(filled(&raw)),
            (_, _, Some(raw)) if from_case => Stdin::Raw(filled(raw)),
            _ => Stdin::Object(all),
        })
    }
}

// === impl Call ===

impl Call {
    /// The one with this number: `{n}` is it.
    #[must_use]
    pub fn numbered(&self, n: usize) -> Call {
        let n = n.to_string();
        let put = |text: &mut String| {
            if text.contains("{n}") {
                *text = text.replace("{n}", &n);
            }
        };
        let mut call = self.clone();
        for text in [&mut call.container, &mut call.pod, &mut call.ifname] {
            put(text);
        }
        call.env.values_mut().flatten().for_each(put);
        match &mut call.stdin {
            Stdin::Object(map) | Stdin::Script(map, _) => {
                for value in map.values_mut() {
                    super::matching::each_text(value, &put);
                }
            }
            Stdin::Raw(text) | Stdin::Bytes(text) => put(text),
        }
        for hold in &mut call.holds {
            put(&mut hold.place);
            put(&mut hold.sh);
        }
        call
    }

    /// The version its configuration names.
    #[must_use]
    pub fn version<'a>(&'a self, of_run: &'a str) -> &'a str {
        match &self.stdin {
            Stdin::Object(map) | Stdin::Script(map, _) => {
                map.get("cniVersion").and_then(Value::as_str)
            }
            Stdin::Raw(_) | Stdin::Bytes(_) => None,
        }
        .filter(|v| VERSIONS.contains(v))
        .unwrap_or(of_run)
    }

    /// What it reads, or what the script that makes that finds in `CONFIG`.
    #[must_use]
    pub fn input(&self, prev: Option<&Value>) -> String {
        match (&self.stdin, prev) {
            (Stdin::Object(map) | Stdin::Script(map, _), None) => {
                Value::Object(map.clone()).to_string()
            }
            (Stdin::Object(map) | Stdin::Script(map, _), Some(prev)) => {
                let mut map = map.clone();
                map.insert("prevResult".to_owned(), prev.clone());
                Value::Object(map).to_string()
            }
            (Stdin::Raw(text), Some(prev)) => match text.trim_end().strip_suffix('}') {
                Some(open) => format!("{open}, \"prevResult\": {prev}}}"),
                None => text.clone(),
            },
            (Stdin::Raw(text) | Stdin::Bytes(text), _) => text.clone(),
        }
    }

    /// Its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let at = (&*self.container, &*self.pod, &*self.ifname);
        node::environment(&self.verb, at, &self.env)
    }

    /// As people speak of it.
    #[must_use]
    pub fn title(&self) -> String {
        let container: String = self.container.chars().take(LONGEST_TOLD).collect();
        format!(
            "{} {} of {container}/{}",
            self.plugin, self.verb, self.ifname
        )
    }
}

// === impl Hold ===

impl Hold {
    fn read(item: Value) -> Result<Hold> {
        let mut keys = Keys::of(item, "it")?;
        keys.take("why");
        let hold = Hold {
            place: keys.text("in")?.unwrap_or_default(),
            sh: keys.script("sh")?,
            ok: keys.flag("ok")?.unwrap_or(true),
            says: keys.text("says")?,
            json: keys.object("json")?.unwrap_or_default(),
        };
        keys.finish()?;
        if hold.sh.is_empty() {
            bail!("sh: what to run");
        }
        if let Some(pointer) = hold
            .json
            .keys()
            .find(|p| !p.is_empty() && !p.starts_with('/'))
        {
            bail!("{pointer} is no JSON pointer (/like/0/this)");
        }
        Ok(hold)
    }
}
