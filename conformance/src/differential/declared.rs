//! Intended differences: what may differ, under an ID that `docs/differences.md` explains.
//!
//! ```json
//! {"id": "B2", "paths": ["*/link/veth*/txqlen"], "ref": null, "ours": "1000", "versions": ["1.0.0"], "plugins": ["bridge"]}
//! {"id": "R1", "paths": ["*/stdout"], "rewrite": [{"find": "a", "put": "b"}, "sort-keys", "no-empty-dns"]}
//! {"id": "B9", "only_ours": {"error": "*file exists", "stdout": "*10.1.2.2/24*"}}
//! {"id": "B10", "only_theirs": {"error": "`mtu` -1 is out of range"}}
//! ```
//! `paths`, `ref` and `ours` are patterns (`*` is any text); `null` is a fact that side does not have, a missing key
//! anything. A rewrite changes the reference's text before it is compared with ours. `only_ours` stands for an ADD that
//! the reference fails with that message and ours does not, `only_theirs` for the other way round; what follows from it in
//! kernel and store differs then, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::case::Case;
use super::pattern;
use crate::keys::Keys;

/// `differences.json`: `everywhere` holds in every case, `named` in those that say so.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub everywhere: Vec<Declared>,
    named: BTreeMap<String, Vec<Declared>>,
}

/// One entry. Clones count as one.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    /// Several entries may share one: they are parts of the same difference.
    pub id: String,
    parts: Vec<Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// As written, for messages.
    text: String,
    paths: Vec<String>,
    change: Change,
    versions: Option<Vec<String>>,
    plugins: Option<Vec<String>>,
    seen: AtomicBool,
}

#[derive(Debug)]
enum Change {
    Values { reference: Side, ours: Side },
    Rewrite(Vec<Rewrite>),
}

#[derive(Debug)]
enum Side {
    Anything,
    Absent,
    Like(String),
}

#[derive(Debug)]
enum Rewrite {
    Replace { find: String, put: String },
    SortKeys,
    NoEmptyDns,
}

/// The IDs that the cases use.
#[derive(Debug, Clone, Default)]
pub struct Ids(BTreeSet<String>);

// === impl Definitions ===

impl Definitions {
    pub fn read(value: Value) -> Result<Definitions> {
        let Value::Object(map) = value else {
            bail!("an object with `everywhere` and `named`");
        };
        let mut keys = Keys(map);
        let mut definitions = Definitions::default();
        for (key, named) in [("everywhere", false), ("named", true)] {
            let Some(Value::Array(items)) = keys.0.remove(key) else {
                bail!("{key} is an array");
            };
            for item in items {
                let declared = Declared::read(item)?;
                if named {
                    let all = definitions.named.entry(declared.id.clone());
                    all.or_default().push(declared);
                } else {
                    definitions.everywhere.push(declared);
                }
            }
        }
        keys.finish()?;
        Ok(definitions)
    }

    /// What a case declares: the ID of a named one, or an entry of its own.
    pub fn declare(&self, item: Value) -> Result<Declared> {
        let Value::String(id) = item else {
            return Declared::read(item);
        };
        let parts = self
            .named
            .get(&id)
            .with_context(|| format!("no difference is named {id}"))?;
        Ok(Declared {
            id,
            parts: parts.iter().flat_map(|d| d.parts.clone()).collect(),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Declared> {
        self.everywhere.iter().chain(self.named.values().flatten())
    }
}

// === impl Declared ===

impl Declared {
    fn read(item: Value) -> Result<Declared> {
        let text = item.to_string();
        let Value::Object(map) = item else {
            bail!("{text}: a difference is an ID or an object");
        };
        let mut keys = Keys(map);
        keys.0.remove("why");
        let id = keys.text("id")?.with_context(|| format!("{text}: no id"))?;
        ensure!(is_id(&id), "{id:?}: an ID is a capital letter and a number");
        let versions = keys.texts("versions")?;
        let plugins = keys.texts("plugins")?;
        let changes = match (keys.object("only_ours")?, keys.object("only_theirs")?) {
            (Some(map), None) => one_side_only(Keys(map), false)?,
            (None, Some(map)) => one_side_only(Keys(map), true)?,
            _ => vec![(
                keys.texts("paths")?.context("paths")?,
                Change::read(&mut keys)?,
            )],
        };
        keys.finish().with_context(|| text.clone())?;
        let entry = |(paths, change): (Vec<String>, Change)| {
            Arc::new(Entry {
                text: format!("{text} at {paths:?}"),
                paths,
                change,
                versions: versions.clone(),
                plugins: plugins.clone(),
                seen: AtomicBool::new(false),
            })
        };
        Ok(Declared {
            id,
            parts: changes.into_iter().map(entry).collect(),
        })
    }

    /// Whether it is to be expected in this run.
    pub fn applies(&self, case: &Case, version: &str) -> bool {
        self.parts.iter().any(|p| p.applies(case, version))
    }
}

impl Entry {
    fn applies(&self, case: &Case, version: &str) -> bool {
        let has = |list: &Option<Vec<String>>, item: &str| {
            list.as_ref().is_none_or(|l| l.iter().any(|i| i == item))
        };
        has(&self.versions, version) && has(&self.plugins, &case.plugin)
    }
}

/// Explains a difference by what is declared: the IDs it needed, or what remains unexplained.
pub(super) fn explain<'d>(
    declared: impl Iterator<Item = &'d Declared>,
    (case, version): (&Case, &str),
    (path, reference, ours): (&str, Option<&str>, Option<&str>),
) -> std::result::Result<Vec<&'d str>, Option<String>> {
    let mut used = Vec::new();
    let mut reference = reference.map(str::to_owned);
    for declared in declared {
        for part in &declared.parts {
            let here =
                part.applies(case, version) && part.paths.iter().any(|p| pattern::matches(p, path));
            if !here {
                continue;
            }
            match &part.change {
                Change::Values {
                    reference: theirs,
                    ours: mine,
                } => {
                    if theirs.is(reference.as_deref()) && mine.is(ours) {
                        part.seen.store(true, Ordering::Relaxed);
                        used.push(declared.id.as_str());
                        return Ok(used);
                    }
                }
                Change::Rewrite(steps) => {
                    let Some(before) = &reference else { continue };
                    let after = steps.iter().fold(before.clone(), |t, s| s.apply(t));
                    if after != *before {
                        part.seen.store(true, Ordering::Relaxed);
                        used.push(declared.id.as_str());
                        reference = Some(after);
                    }
                    if reference.as_deref() == ours {
                        return Ok(used);
                    }
                }
            }
        }
    }
    Err(reference)
}

/// An ADD that fails on one side only.
fn one_side_only(mut keys: Keys, theirs: bool) -> Result<Vec<(Vec<String>, Change)>> {
    let like = |text: &str| Side::Like(text.to_owned());
    let change = |failed: Side, fine: Side| match theirs {
        false => Change::Values {
            reference: failed,
            ours: fine,
        },
        true => Change::Values {
            reference: fine,
            ours: failed,
        },
    };
    let error = keys.text("error")?.context("error")?;
    let stdout = keys.text("stdout")?.unwrap_or_else(|| "*".to_owned());
    keys.finish()?;
    let at = |path: &str| vec![path.to_owned()];
    let after = [
        "add/macs",
        "add/host/*",
        "add/a/*",
        "add/files/*",
        "check/*",
        "del*",
    ];
    Ok(vec![
        (at("add/exit"), change(like("1"), like("0"))),
        (at("add/error/code"), change(like("*"), Side::Absent)),
        (at("add/error/msg"), change(like(&error), Side::Absent)),
        (at("add/stdout"), change(Side::Absent, like(&stdout))),
        (
            after.map(String::from).to_vec(),
            change(Side::Anything, Side::Anything),
        ),
    ])
}

impl Change {
    fn read(keys: &mut Keys) -> Result<Change> {
        Ok(match keys.0.remove("rewrite") {
            Some(Value::Array(items)) => Change::Rewrite(
                items
                    .into_iter()
                    .map(Rewrite::read)
                    .collect::<Result<_>>()?,
            ),
            Some(other) => bail!("rewrite is an array, not {other}"),
            None => Change::Values {
                reference: Side::read(keys.0.remove("ref"))?,
                ours: Side::read(keys.0.remove("ours"))?,
            },
        })
    }
}

impl Side {
    fn read(value: Option<Value>) -> Result<Side> {
        Ok(match value {
            None => Side::Anything,
            Some(Value::Null) => Side::Absent,
            Some(Value::String(text)) => Side::Like(text),
            Some(other) => bail!("a side is a text or null, not {other}"),
        })
    }

    fn is(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Side::Anything, _) | (Side::Absent, None) => true,
            (Side::Like(like), Some(value)) => pattern::matches(like, value),
            _ => false,
        }
    }
}

impl Rewrite {
    fn read(value: Value) -> Result<Rewrite> {
        Ok(match value {
            Value::String(name) if name == "sort-keys" => Rewrite::SortKeys,
            Value::String(name) if name == "no-empty-dns" => Rewrite::NoEmptyDns,
            Value::Object(map) => {
                let mut keys = Keys(map);
                let rewrite = Rewrite::Replace {
                    find: keys.text("find")?.context("find")?,
                    put: keys.text("put")?.context("put")?,
                };
                keys.finish()?;
                rewrite
            }
            other => return Err(anyhow!("no rewrite: {other}")),
        })
    }

    fn apply(&self, text: String) -> String {
        match self {
            Rewrite::Replace { find, put } => text.replace(find, put),
            // serde_json's objects are sorted already.
            Rewrite::SortKeys => match serde_json::from_str::<Value>(&text) {
                Ok(value) => as_go_prints(&value),
                Err(_) => text,
            },
            Rewrite::NoEmptyDns => match serde_json::from_str::<Value>(&text) {
                Ok(Value::Object(mut map)) if map.get("dns").is_some_and(is_empty) => {
                    map.remove("dns");
                    as_go_prints(&Value::Object(map))
                }
                _ => text,
            },
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(|o| o.is_empty())
}

/// `json.MarshalIndent(v, "", "    ")` of a map.
fn as_go_prints(value: &Value) -> String {
    let two = serde_json::to_string_pretty(value).unwrap_or_default();
    let lines = two.lines().map(|line| {
        let text = line.trim_start_matches(' ');
        format!("{}{text}", " ".repeat(2 * (line.len() - text.len())))
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")]
        .iter()
        .fold(text, |t, (raw, escaped)| t.replace(raw, escaped))
}

// === impl Ids ===

/// A capital letter and a number: `B12`.
pub(super) fn is_id(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_uppercase())
        && text.len() > 1
        && chars.all(|c| c.is_ascii_digit())
}

impl Ids {
    /// Everything the cases declare.
    pub(super) fn of(definitions: &Definitions, cases: &[Case]) -> Ids {
        let of_cases = cases.iter().flat_map(|c| &c.declared);
        let all = definitions.all().chain(of_cases);
        Ids(all.map(|d| d.id.clone()).collect())
    }

    /// Entries that never explained anything.
    pub(super) fn unseen(definitions: &Definitions, cases: &[Case]) -> Vec<String> {
        let of_cases = cases.iter().flat_map(|c| &c.declared);
        let entries = definitions.all().chain(of_cases).flat_map(|d| &d.parts);
        let unseen = entries.filter(|e| !e.seen.load(Ordering::Relaxed));
        let texts: BTreeSet<&str> = unseen.map(|e| e.text.as_str()).collect();
        texts.into_iter().map(str::to_owned).collect()
    }

    /// What the document's tables and the cases do not agree on. A row of the document is `| B12 | ...`.
    pub fn missing_in(&self, document: &str) -> Vec<String> {
        let rows = document.lines().filter_map(|line| {
            let id = line.strip_prefix('|')?.split('|').next()?.trim();
            is_id(id).then(|| id.to_owned())
        });
        let mut told = BTreeSet::new();
        let mut wrong = Vec::new();
        for id in rows {
            if !self.0.contains(&id) {
                wrong.push(format!("{id} is in the document, but no case declares it"));
            }
            if !told.insert(id.clone()) {
                wrong.push(format!("{id} has two rows in the document"));
            }
        }
        for id in self.0.difference(&told) {
            wrong.push(format!(
                "{id} is declared, but the document has no row of it"
            ));
        }
        wrong
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_go() {
        let text = as_go_prints(&serde_json::json!({"b": [1, {"c": {}}], "a": "<"}));
        let want = "{\n    \"a\": \"\\u003c\",\n    \"b\": [\n        1,\n        {\n            \"c\": {}\n        }\n    ]\n}";
        assert_eq!(text, want);
    }

    #[test]
    fn the_document_and_the_cases_agree() {
        let ids = Ids(["A1", "B12"].map(String::from).into());
        let document = "| ID | x |\n|---|---|\n| A1 | x |\n| B12 | y |\n";
        assert!(ids.missing_in(document).is_empty());
        let wrong = ids.missing_in("| A1 | x |\n| A1 | y |\n| C3 | z |\n");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
    }
}
