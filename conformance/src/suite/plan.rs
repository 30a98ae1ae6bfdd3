//! What is run: case x plugin x version, and why the rest is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::case::{Case, Plugins};
use super::exec;
use super::play::KillsTheRest;
use super::profile::Profiles;
use super::versions::VERSIONS;
use crate::node::{self, Node};

/// A judged executable.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The executable.
    pub name: String,
    /// The versions it lists; none if it does not answer VERSION as it should.
    pub versions: Option<Vec<String>>,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Run<'s> {
    pub case: &'s Case,
    pub plugin: String,
    pub version: &'static str,
}

/// Something that does not apply.
#[derive(Debug, Clone)]
pub struct Skip<'s> {
    pub case: &'s Case,
    pub plugin: String,
    /// None: in no version.
    pub version: Option<&'static str>,
    pub why: String,
}

/// All of it.
#[derive(Debug)]
pub struct Plan<'s> {
    pub judged: Vec<Judged>,
    pub runs: Vec<Run<'s>>,
    pub skipped: Vec<Skip<'s>>,
}

/// The executables of a directory.
pub fn executables(dir: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let entries = fs::read_dir(dir).with_context(|| format!("--bin-dir {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let is_program = fs::metadata(entry.path())
            .is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0);
        if let (true, Ok(name)) = (is_program, entry.file_name().into_string()) {
            names.insert(name);
        }
    }
    ensure!(!names.is_empty(), "{} holds no executables", dir.display());
    Ok(names)
}

/// Those to judge: the ones that are named, or every one that has a profile.
pub fn judged(
    there: &BTreeSet<String>,
    named: &[String],
    cases: &[Case],
    profiles: &Profiles,
) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in named {
        ensure!(
            there.contains(name),
            "the directory has no executable {name}"
        );
        ensure!(
            cases.iter().any(|case| case.is_for(name, profiles)),
            "no case is for {name}: give a profile of it with --config"
        );
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if named.is_empty() {
        names.extend(there.iter().filter(|n| profiles.of(n).is_some()).cloned());
        ensure!(
            !names.is_empty(),
            "no executable there has a profile: give one with --config"
        );
    }
    Ok(names)
}

impl<'s> Plan<'s> {
    /// Asks plugins and kernel what applies. The calling thread stays what it is. `chosen`: nobody asked for other plugins
    /// than these.
    pub fn make(
        cases: &'s [Case],
        profiles: &Profiles,
        (names, chosen, limit): (&[String], bool, Duration),
        there: &BTreeSet<String>,
        versions: &[&'static str],
        bin_dir: &Path,
    ) -> Result<Plan<'s>> {
        let mut plan = Plan {
            judged: Vec::new(),
            runs: Vec::new(),
            skipped: Vec::new(),
        };
        let mut probes = Probes::default();
        for name in names {
            let listed = elsewhere(|| listed(name, bin_dir, limit))?;
            plan.judged.push(Judged {
                name: name.clone(),
                versions: listed,
            });
        }
        for case in cases {
            if let (Plugins::Named(wanted), false) = (&case.plugins, chosen) {
                for name in wanted.iter().filter(|n| !there.contains(*n)) {
                    plan.skip(case, name, None, format!("the directory has no {name}"));
                }
            }
            for judged in plan.judged.clone() {
                if !case.is_for(&judged.name, profiles) {
                    continue;
                }
                let why = not_at_all(case, &judged.name, profiles, there);
                let why = match why {
                    None => probes.unfit(case, &judged.name, profiles, bin_dir)?,
                    why => why,
                };
                if let Some(why) = why {
                    plan.skip(case, &judged.name, None, why);
                    continue;
                }
                for version in case.versions.iter().filter(|v| versions.contains(v)) {
                    let lists = |all: &Vec<String>| all.iter().any(|v| v == version);
                    if judged.versions.as_ref().is_some_and(|all| !lists(all)) {
                        let why = format!("{} does not list {version}", judged.name);
                        plan.skip(case, &judged.name, Some(version), why);
                        continue;
                    }
                    plan.runs.push(Run {
                        case,
                        plugin: judged.name.clone(),
                        version,
                    });
                }
            }
        }
        Ok(plan)
    }

    fn skip(&mut self, case: &'s Case, plugin: &str, version: Option<&'static str>, why: String) {
        self.skipped.push(Skip {
            case,
            plugin: plugin.to_owned(),
            version,
            why,
        });
    }
}

/// Whether a directory and a profile are enough for the case; if not, why.
fn not_at_all(
    case: &Case,
    plugin: &str,
    profiles: &Profiles,
    there: &BTreeSet<String>,
) -> Option<String> {
    let profile = profiles.of(plugin);
    let needs = profile.map(|p| p.needs.as_slice()).unwrap_or_default();
    for name in case.needs.iter().chain(needs) {
        if !there.contains(name) {
            return Some(format!(
                "it needs {name}, which the directory does not have"
            ));
        }
    }
    let verbs = profile.map(|p| p.verbs.as_slice()).unwrap_or_default();
    if verbs.is_empty() {
        return None;
    }
    let newest = case.versions.last()?;
    let steps = case.steps(plugin, profiles, newest).ok()?;
    let spoken = |v: &str| VERBS.contains(&v) && !verbs.iter().any(|known| known == v);
    let calls = steps.calls.iter().filter(|c| c.plugin == plugin);
    let unknown = calls.map(|c| c.verb.as_str()).find(|v| spoken(v))?;
    Some(format!("{plugin} has no {unknown}, says its profile"))
}

const VERBS: [&str; 6] = ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"];

/// What a plugin answers to VERSION.
fn listed(plugin: &str, bin_dir: &Path, limit: Duration) -> Result<Option<Vec<String>>> {
    let _node = Node::enter(bin_dir, &[], false)?;
    let _end = KillsTheRest;
    let newest = VERSIONS.last().copied().unwrap_or_default();
    let env = [
        ("CNI_COMMAND", "VERSION"),
        ("CNI_PATH", node::PLUGINS),
        ("PATH", node::TOOLS),
    ];
    let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let stdin = format!("{{\"cniVersion\":\"{newest}\"}}");
    let mut command = Command::new(node::plugin(plugin));
    let output = exec::run(&mut command, &env, stdin.as_bytes(), limit)?;
    let Some(answer) = output.json().filter(|_| output.is_success()) else {
        return Ok(None);
    };
    let all = answer.get("supportedVersions").and_then(Value::as_array);
    Ok(all.map(|all| {
        let texts = all.iter().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }))
}

/// On a thread of its own, which may then change its namespaces.
pub fn elsewhere<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}

/// What was asked of the kernel, each thing once.
#[derive(Default)]
struct Probes {
    kinds: BTreeMap<String, bool>,
    scripts: BTreeMap<String, Option<String>>,
}

impl Probes {
    /// What the kernel lacks for a case.
    fn unfit(
        &mut self,
        case: &Case,
        plugin: &str,
        profiles: &Profiles,
        bin_dir: &Path,
    ) -> Result<Option<String>> {
        let profile = profiles.of(plugin);
        let of_profile = profile.map(|p| p.kernel.as_slice()).unwrap_or_default();
        for kind in case.kernel.iter().chain(of_profile) {
            let is_there = match self.kinds.get(kind) {
                Some(known) => *known,
                None => elsewhere(|| has_kind(kind, bin_dir))?,
            };
            self.kinds.insert(kind.clone(), is_there);
            if !is_there {
                return Ok(Some(format!("the kernel has no links of the kind {kind}")));
            }
        }
        if case.probe.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.scripts.get(&case.probe) {
            return Ok(known.clone());
        }
        let unfit = elsewhere(|| {
            let _node = Node::enter(bin_dir, &["a".to_owned()], false)?;
            let _end = KillsTheRest;
            let output = exec::sh(&case.probe, &[])?;
            let why = format!("`{}` fails here{}", case.probe, output.tail());
            Ok((!output.is_success()).then_some(why))
        })?;
        self.scripts.insert(case.probe.clone(), unfit.clone());
        Ok(unfit)
    }
}

fn has_kind(kind: &str, bin_dir: &Path) -> Result<bool> {
    let more = match kind {
        "vlan" => "id 5",
        "vxlan" => "id 5 dstport 4789",
        "geneve" => "id 5 remote 192.0.2.1",
        "vrf" => "table 5",
        "gre" | "ipip" | "sit" => "local 192.0.2.2 remote 192.0.2.1",
        _ => "",
    };
    let below = match kind {
        "vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => "link below",
        _ => "",
    };
    let _node = Node::enter(bin_dir, &[], false)?;
    let script = format!(
        "ip link add below type veth peer name other\nip link add {below} name probe type {kind} {more}"
    );
    Ok(exec::sh(&script, &[])?.is_success())
}
