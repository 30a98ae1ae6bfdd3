//! Cases as data: files `*.json`, each `{"area": "check", "cases": [ … ]}`.
//!
//! ```json
//! {
//!     "id": "check.bridge.address-gone", "why": "optional remark",
//!     "level": "MUST", "spec": "CHECK",
//!     "about": "CHECK notices that the pod's address is gone",
//!     "plugin": "bridge",
//!     "versions": "0.4.0+",
//!     "config": {"isGateway": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}},
//!     "needs": ["host-local"], "kernel": ["vlan"],
//!     "calls": [
//!         {"verb": "ADD", "expect": {"result": {"ips": [{"address": "10.1.0.2/24"}]}}},
//!         {"verb": "CHECK", "in_pod": "ip addr flush dev eth0", "expect": {"ok": false}}
//!     ],
//!     "variants": {"v6": {"config": {}}}
//! }
//! ```
//!
//! **A case**: `id` (`AREA.what`, lower case, dots and hyphens; unique), `level` (`MUST`, `SHOULD`, `MAY`), `spec` (the
//! section of the CNI specification, the page of a plugin's keys, or `practice`) and `about` (a sentence) are required, and `plugin`: a name, an array of names, or `*`
//! for every judged plugin that has a profile (with `kinds`, only of these kinds: `interface`, `ipam`, `meta`).
//!
//! When it applies: `versions` (`"0.4.0+"`, `"0.3.0...1.0.0"`, an array; all seven if not given), `needs` (other
//! executables of the directory), `kernel` (link kinds), `probe` (shell that succeeds where the case makes sense).
//!
//! What is done: `setup` (shell in the node, a text or an array of lines), `pods` (network namespaces at
//! `/run/netns/NAME`; `["a"]`), `dad` (true: duplicate address detection as the kernel has it), `env`, and either `config`
//! (laid over the profile's; `cniVersion`, `name` (`testnet`) and `type` are added where absent) or `raw` (the text itself).
//! Laid over is key by key at every depth, and `null` takes a key away. The profile's setup goes first. `calls` (ADD, CHECK,
//! DEL, DEL if not given) are made in this order. After them, each attachment that an ADD made and no DEL took away gets its
//! DEL, and so does one whose ADD failed (whatever that DEL answers), unless the case says `"undone": true`: a failed ADD
//! has to undo its work by itself. What is then there beyond the start is residue, unless a glob of `leaves` names it (a
//! line as the report prints it: `file /var/lib/cni/x/*`).
//!
//! Shell of a case runs with `sh -euc`; `RESULT` in its environment is what the last successful ADD printed.
//!
//! In every text of a case `@VERSION@` is the version of the run, `@PLUGIN@` the plugin's name; in `raw` and `stdin`
//! `@CONFIG@` is the inside of the object that `config` would have sent (never empty).
//!
//! A variant is the case with its own keys instead, but `config` laid over and `env` key by key; its ID is `id.VARIANT`.
//!
//! **A call**: `verb`; `plugin` (another executable), `container` (`c1`), `pod` (the first one; `""` for none; a name that
//! is not of `pods` is a path that does not exist), `ifname` (the profile's or `eth0`), `versions` (only made there),
//! `before` (shell in the node) and `in_pod` (shell in the pod) to break or prepare something, `config` and `env` laid over
//! the case's (`env`: `null` takes away), `raw`, `stdin` (the exact bytes) or `stdin_sh` (shell that prints it, with the
//! object in `CONFIG` and the version in `VERSION`) instead of it. `prev` is the `prevResult`:
//! `"chain"` is this attachment's last result, `null` none; without it, CHECK and DEL from 0.4.0 on get the last result,
//! and so does ADD of a plugin of the kind `meta` what its profile says.
//!
//! `times`: the call is made so often, `{n}` in container, pod, ifname, env, config, in a probe's `in` and `sh` being 0, 1,
//! …; one after the other, or with `at_once` in parallel. `beside: true`: in parallel with the call before it.
//!
//! `expect` (default: success, with nothing on stdout but for ADD and VERSION): `ok` (false: exit status not 0 and one CNI
//! error object on stdout), `any` (either, well formed), `code` (or an array) and `msg` (part of `msg` or `details`, or
//! `/…/`) if it fails, `stdout` (exactly, or `/…/`), `result` (a part of what is
//! printed: of objects the keys given, of arrays each element; a text `/…/` is a regular expression), `absent` (JSON
//! pointers), `within_ms`; of `times`: `successes` (how many succeed; the others must fail properly) and `distinct` (JSON
//! pointers of values that no two of the successful have in common).
//!
//! `holds`: after the call, in `in` (a pod, or nothing for the node) `sh` must succeed (`ok: false`: fail) and print
//! `says` (a part, or `/…/`), or JSON that has at each pointer of `json` that value.
//!
//! No call may die by a signal, take more than 20 s (`--time-limit`), print more than 1 MiB or leave a process that keeps its stdout open.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::input::lay_over;
use super::matching::each_text;
use super::profile::{Kind, Profile, Profiles};
use super::steps::Steps;
use super::versions::{self, VERSIONS};
use crate::keys::Keys;

/// How much a failure weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Without it the plugin does not conform.
    Must,
    /// There may be reasons.
    Should,
    /// Good to know.
    May,
}

/// One case, of no particular plugin or version yet.
#[derive(Debug, Clone)]
pub struct Case {
    /// Stable, unique.
    pub id: String,
    /// The file's.
    pub area: String,
    /// Its weight.
    pub level: Level,
    /// The section of the specification, or what else asks for it.
    pub spec: String,
    /// A sentence for people.
    pub about: String,
    /// Whom it judges.
    pub plugins: Plugins,
    /// Executables it needs besides.
    pub needs: Vec<String>,
    /// Link kinds.
    pub kernel: Vec<String>,
    /// Shell that succeeds where the case makes sense.
    pub probe: String,
    /// Versions it is of.
    pub versions: Vec<&'static str>,
    steps: Map<String, Value>,
}

/// Whom a case judges.
#[derive(Debug, Clone, PartialEq)]
pub enum Plugins {
    /// Everyone with a profile of these kinds; all if there are none.
    Any(Vec<Kind>),
    /// Those.
    Named(Vec<String>),
}

// === impl Level ===

impl Level {
    /// All, the heaviest first.
    pub const ALL: [Level; 3] = [Level::Must, Level::Should, Level::May];

    /// As in RFC 2119.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::May => "MAY",
        }
    }
}

// === reading ===

/// The cases of a directory's `*.json` (but `profiles.json`, and those that hold no cases: reasons of failures).
pub fn read_dir(dir: &Path) -> Result<Vec<Case>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("--cases {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            files.push(path);
        }
    }
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| name.clone())?;
        cases.extend(read_file(&name, &text)?);
    }
    ensure!(!cases.is_empty(), "{} holds no cases", dir.display());
    Ok(cases)
}

/// The cases of a file; none of one that is not for cases.
pub fn read_file(name: &str, text: &str) -> Result<Vec<Case>> {
    let value = serde_json::from_str::<Value>(text).with_context(|| name.to_owned())?;
    if value.get("cases").is_none() {
        return Ok(Vec::new());
    }
    cases_of(value).with_context(|| name.to_owned())
}

fn cases_of(file: Value) -> Result<Vec<Case>> {
    let mut keys = Keys::of(file, "the file")?;
    keys.take("why");
    let area = keys.text("area")?.context("the file has no area")?;
    let items = keys.array("cases")?.unwrap_or_default();
    keys.finish()?;
    let mut cases = Vec::new();
    for item in items {
        let id = item.get("id").and_then(Value::as_str);
        let id = id.unwrap_or("without an id").to_owned();
        for flat in variants(item).with_context(|| format!("case {id}"))? {
            let own = flat.get("id").and_then(Value::as_str);
            let own = own.unwrap_or(&id).to_owned();
            cases.push(Case::read(&area, flat).with_context(|| format!("case {own}"))?);
        }
    }
    Ok(cases)
}

/// That no two have the same ID.
pub fn are_unique(cases: &[Case]) -> Result<()> {
    let mut ids: Vec<&str> = cases.iter().map(|c| c.id.as_str()).collect();
    ids.sort_unstable();
    for (a, b) in ids.iter().zip(ids.iter().skip(1)) {
        ensure!(a != b, "two cases have the ID {a}");
    }
    Ok(())
}

/// A case with `variants` is a family: one case for each.
fn variants(item: Value) -> Result<Vec<Map<String, Value>>> {
    let Value::Object(mut base) = item else {
        bail!("a case is an object");
    };
    let Some(variants) = base.remove("variants") else {
        return Ok(vec![base]);
    };
    let id = base.get("id").and_then(Value::as_str).context("id")?;
    let id = id.to_owned();
    let mut flat = Vec::new();
    for (suffix, over) in Keys::of(variants, "variants")?.0 {
        let mut case = base.clone();
        for (key, value) in Keys::of(over, &format!("variant {suffix}"))?.0 {
            match (key.as_str(), case.get_mut(&key), value) {
                ("config", Some(Value::Object(below)), Value::Object(over)) => {
                    lay_over(below, over);
                }
                ("env", Some(Value::Object(below)), Value::Object(over)) => below.extend(over),
                (_, _, value) => drop(case.insert(key, value)),
            }
        }
        case.insert("id".into(), format!("{id}.{suffix}").into());
        flat.push(case);
    }
    ensure!(!flat.is_empty(), "there are no variants in variants");
    Ok(flat)
}

// === impl Case ===

impl Case {
    fn read(area: &str, map: Map<String, Value>) -> Result<Case> {
        let mut keys = Keys(map);
        keys.take("why");
        let id = keys.text("id")?.context("a case has an id")?;
        let ends = id
            .strip_prefix(area)
            .and_then(|rest| rest.strip_prefix('.'));
        ensure!(
            ends.is_some_and(|e| !e.is_empty()),
            "the id begins with the area: {area}.…"
        );
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        ensure!(id.chars().all(fits), "an id is a-z, 0-9, dots and hyphens");
        let level = match keys.text("level")?.as_deref() {
            Some("MUST") => Level::Must,
            Some("SHOULD") => Level::Should,
            Some("MAY") => Level::May,
            _ => bail!("level is MUST, SHOULD or MAY"),
        };
        let kinds = keys.texts("kinds")?;
        let plugins = match keys.texts("plugin")?.context("a case has a plugin")? {
            names if names == ["*"] => {
                let kinds = kinds.unwrap_or_default();
                Plugins::Any(kinds.iter().map(|k| Kind::read(k)).collect::<Result<_>>()?)
            }
            _ if kinds.is_some() => bail!("kinds is for the plugin \"*\""),
            names => Plugins::Named(names),
        };
        let versions = match keys.take("versions") {
            Some(value) => versions::of_value(&value)?,
            None => VERSIONS.to_vec(),
        };
        let case = Case {
            id,
            area: area.to_owned(),
            level,
            spec: keys.text("spec")?.context("spec: the section it is from")?,
            about: keys
                .text("about")?
                .context("about: what it is, for people")?,
            plugins,
            needs: keys.texts("needs")?.unwrap_or_default(),
            kernel: keys.texts("kernel")?.unwrap_or_default(),
            probe: keys.script("probe")?,
            versions,
            steps: keys.0,
        };
        // Mistakes are told before anything runs.
        let nobody = Profile::default();
        case.read_steps("nobody", &nobody, "1.1.0")?;
        Ok(case)
    }

    /// Whether it is about this plugin.
    #[must_use]
    pub fn is_for(&self, plugin: &str, profiles: &Profiles) -> bool {
        let profile = profiles.of(plugin);
        match &self.plugins {
            Plugins::Any(kinds) => {
                profile.is_some_and(|p| kinds.is_empty() || kinds.contains(&p.kind))
            }
            Plugins::Named(names) => {
                let like = profile.and_then(|p| p.like.as_deref());
                names
                    .iter()
                    .any(|n| n == plugin || Some(n.as_str()) == like)
            }
        }
    }

    /// A failed ADD has to undo its work by itself; what is left then is the case's own subject.
    #[must_use]
    pub fn undone(&self) -> bool {
        self.steps.get("undone") == Some(&Value::Bool(true))
    }

    /// What there is to do for a plugin in a version.
    pub fn steps(&self, plugin: &str, profiles: &Profiles, version: &str) -> Result<Steps> {
        let nobody = Profile::default();
        let profile = profiles.of(plugin).unwrap_or(&nobody);
        self.read_steps(plugin, profile, version)
    }

    fn read_steps(&self, plugin: &str, profile: &Profile, version: &str) -> Result<Steps> {
        let mut steps = Value::Object(self.steps.clone());
        each_text(&mut steps, &|text| {
            if text.contains('@') {
                *text = text
                    .replace("@VERSION@", version)
                    .replace("@PLUGIN@", plugin);
            }
        });
        Steps::read(steps, plugin, profile, version)
    }
}
