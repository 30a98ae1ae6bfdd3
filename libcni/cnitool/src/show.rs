//! What is printed, for people and (`--json`) for programs.
#![allow(clippy::print_stdout)] // the one place that does

use std::io::Write;
use std::time::SystemTime;

use anyhow::Result;
use libcni::runtime::{CacheEntry, NetworkList, Scanned};
use libcni::spec::Node;
use libcni::spec::json::Fields;

use crate::cli::Cli;

/// Without a newline at the end, as plugins print.
pub fn text(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // Who reads half of it wants no more.
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// With one.
pub fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// Columns as wide as their longest cell; the first row is the heading.
pub fn table(rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    for row in rows {
        let cells = row.iter().zip(&widths);
        let shown: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        line(shown.join("  ").trim_end());
    }
}

/// How long ago, in the largest unit that is not zero.
pub fn age(since: SystemTime) -> String {
    let seconds = since.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// Attachments in the cache, and halted DELs.
pub fn list(cli: &Cli, network: Option<&str>) -> Result<()> {
    let runtime = cli.place.runtime();
    let wanted = |name: &str| network.is_none_or(|network| network == name);
    let mut entries = runtime.attachments()?;
    entries.retain(|entry| wanted(&entry.network));
    let mut halted = runtime.pending()?;
    halted.retain(|pending| wanted(&pending.network));
    if cli.json {
        let items = entries.iter().map(|entry| as_json(entry).build());
        let halted = halted.iter().map(|pending| {
            let node = Node::obj()
                .put("network", pending.network.as_str())
                .put("containerID", pending.container_id.as_str())
                .put("ifname", pending.ifname.as_str());
            node.put("halted", pending.why.as_str()).build()
        });
        line(&Node::Array(items.chain(halted).collect()).write_indented());
        return Ok(());
    }
    let heading = [
        "NETWORK",
        "CONTAINER",
        "INTERFACE",
        "ADDRESSES",
        "NAMESPACE",
        "AGE",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for entry in &entries {
        rows.push(vec![
            entry.network.clone(),
            entry.container_id.clone(),
            entry.ifname.clone(),
            addresses(entry).join(" "),
            entry.netns.clone().unwrap_or_else(|| "-".into()),
            age(entry.modified),
        ]);
    }
    table(&rows);
    for pending in &halted {
        line(&format!(
            "DEL halted, the next DEL or GC goes on: {}/{}/{}: {}",
            pending.network, pending.container_id, pending.ifname, pending.why
        ));
    }
    Ok(())
}

fn as_json(entry: &CacheEntry) -> libcni::spec::json::ObjBuilder {
    let addresses: Vec<Node> = addresses(entry).into_iter().map(Node::from).collect();
    let since = entry.modified.duration_since(SystemTime::UNIX_EPOCH);
    Node::obj()
        .put("network", entry.network.as_str())
        .put("containerID", entry.container_id.as_str())
        .put("ifname", entry.ifname.as_str())
        .put("addresses", addresses)
        .put_some("netns", entry.netns.as_deref())
        .put("since", since.unwrap_or_default().as_secs())
        .put("file", entry.file.to_string_lossy().into_owned())
}

/// The result's addresses, whichever version wrote it.
fn addresses(entry: &CacheEntry) -> Vec<String> {
    let Some(result) = &entry.result else {
        return Vec::new();
    };
    let Ok(fields) = Fields::of(result, "") else {
        return Vec::new();
    };
    let text = |at: &[&str]| fields.str_at(at).ok().flatten();
    let old = [text(&["ip4", "ip"]), text(&["ip6", "ip"])];
    let ips = fields
        .array_of_fields("ips")
        .ok()
        .flatten()
        .unwrap_or_default();
    let new = ips.iter().filter_map(|ip| ip.str("address").ok().flatten());
    old.into_iter().flatten().chain(new).collect()
}

/// Files in the order runtimes take them.
pub fn networks(cli: &Cli) -> Result<()> {
    let files = NetworkList::scan(&cli.place.conf_dir())?;
    if cli.json {
        let items = files.iter().map(|file| {
            let path = file.path.to_string_lossy().into_owned();
            match &file.outcome {
                Ok(list) => Node::obj()
                    .put("file", path)
                    .put("network", list.name.as_str())
                    .put("cniVersion", list.version.as_str())
                    .put("plugins", kinds(list).as_slice())
                    .build(),
                Err(e) => Node::obj()
                    .put("file", path)
                    .put("error", e.to_string())
                    .build(),
            }
        });
        line(&Node::Array(items.collect()).write_indented());
        return Ok(());
    }
    let mut rows = vec![
        ["FILE", "NETWORK", "VERSION", "PLUGINS", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut taken = false;
    for Scanned { path, outcome } in &files {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        rows.push(match outcome {
            Ok(list) => {
                let first = !std::mem::replace(&mut taken, true);
                let note = if first {
                    "containerd and CRI-O take this one"
                } else {
                    ""
                };
                let chain = kinds(list).join(" + ");
                vec![
                    file,
                    list.name.clone(),
                    list.version.as_str().into(),
                    chain,
                    note.into(),
                ]
            }
            Err(e) => vec![file, "-".into(), "-".into(), "-".into(), e.to_string()],
        });
    }
    if files.is_empty() {
        line(&format!(
            "no network configurations in {}",
            cli.place.conf_dir().display()
        ));
        return Ok(());
    }
    table(&rows);
    Ok(())
}

fn kinds(list: &NetworkList) -> Vec<String> {
    list.plugins
        .iter()
        .map(|plugin| plugin.kind.clone())
        .collect()
}

/// Spec versions of plugins.
pub fn versions(cli: &Cli, plugins: &[String]) -> Result<()> {
    let mut kinds_wanted = plugins.to_vec();
    if plugins.is_empty() {
        let files = NetworkList::scan(&cli.place.conf_dir())?;
        kinds_wanted = files
            .iter()
            .filter_map(|f| f.outcome.as_ref().ok())
            .flat_map(kinds)
            .collect();
        kinds_wanted.sort();
        kinds_wanted.dedup();
    }
    let runtime = cli.place.runtime();
    let mut answers = Node::obj();
    let mut failed = None;
    for kind in &kinds_wanted {
        match runtime.versions(kind) {
            Ok(versions) if cli.json => answers = answers.put(kind, versions.as_slice()),
            Ok(versions) => line(&format!("{kind}: {}", versions.join(", "))),
            Err(e) => {
                if failed.is_some() {
                    eprintln!("{e}");
                } else {
                    failed = Some(e);
                }
            }
        }
    }
    if cli.json {
        line(&answers.build().write_indented());
    }
    failed.map_or(Ok(()), |e| Err(e.into()))
}
