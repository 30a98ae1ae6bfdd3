//! `gc`: as the reference's, and the collector for runtimes that never call GC.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use libcni::runtime::collect::{self, Found, Life, Memory, Verdict};
use libcni::runtime::{NetworkList, Runtime};
use libcni::spec::Node;
use libcni::store::live::{self, Which};

use crate::cli::{Cli, Gc};
use crate::show;

/// How long a runtime may take to answer.
const CRI_TIMEOUT: Duration = Duration::from_secs(30);
/// containerd attaches `lo` as a network of its own, by this name.
const CONTAINERDS_LOOPBACK: &str = "cni-loopback";
/// Below the cache directory.
const MEMORY: &str = "podwire/first-seen";

/// Collects, or does what the reference does.
pub fn gc(cli: &Cli, options: &Gc) -> Result<()> {
    if options.from_cri.is_some() || options.from_netns.is_some() {
        return collect(cli, options);
    }
    let name = options.network.as_deref().unwrap_or_default();
    let list = cli.place.network(name)?;
    let runtime = cli.place.runtime();
    if options.dry_run {
        let mut entries = runtime.attachments()?;
        entries.retain(|entry| entry.network == name);
        for entry in entries {
            let (id, ifname) = (&entry.container_id, &entry.ifname);
            show::line(&format!(
                "would free {name}/{id}/{ifname}: every attachment is named by this command"
            ));
        }
        return Ok(());
    }
    Ok(runtime.gc(&list, &[])?)
}

fn collect(cli: &Cli, options: &Gc) -> Result<()> {
    let runtime = cli.place.runtime();
    let list = network(cli, options)?;
    let loopback = loopback(&runtime)?;
    let mut lists = vec![&list];
    lists.extend(options.from_cri.as_ref().and(loopback.as_ref()));
    let memory_file = cli.place.cache_dir.join(MEMORY);
    let mut memory = Memory::read(&memory_file);

    // What stands first, then who lives: a pod that comes up in between is seen alive.
    let all = collect::find(&runtime, &lists)?;
    let life = life(options)?;
    let now = SystemTime::now();
    memory.update(&all, now);
    if !options.dry_run {
        memory
            .write(&memory_file)
            .with_context(|| format!("write {}", memory_file.display()))?;
    }
    let mut report = Report::new(cli.json, options.dry_run);
    for found in &all {
        let verdict = life.judge(found, memory.since(found), now, options.grace);
        let by = lists.iter().find(|list| list.name == found.network);
        report.settle(&runtime, by.unwrap_or(&&list), found, &verdict);
    }
    report.finish()
}

/// The network to collect on: named, or the one a runtime of Kubernetes takes.
fn network(cli: &Cli, options: &Gc) -> Result<NetworkList> {
    if let Some(name) = &options.network {
        return cli.place.network(name);
    }
    let dir = cli.place.conf_dir();
    let files = NetworkList::scan(&dir)?;
    match files.into_iter().find_map(|file| file.outcome.ok()) {
        Some(list) => Ok(list),
        None => bail!(
            "no network configuration in {}: nothing to collect on",
            dir.display()
        ),
    }
}

/// containerd's loopback network, whose configuration is in no file but in the cache.
fn loopback(runtime: &Runtime) -> Result<Option<NetworkList>> {
    let mut entries = runtime.attachments()?.into_iter();
    let entry = entries.find(|entry| entry.network == CONTAINERDS_LOOPBACK);
    Ok(entry.and_then(|entry| NetworkList::parse(&entry.config, None).ok()))
}

fn life(options: &Gc) -> Result<Life> {
    if let Some(socket) = &options.from_cri {
        // Whatever a process is in lives, even if this runtime does not know it: another's, or started by hand.
        let live = live::look(Which::Occupied).context("look into namespaces")?;
        let client = cri::Client::connect(socket, CRI_TIMEOUT)?;
        // Also those that are not ready: they are the runtime's to stop.
        let sandboxes = client.list_pod_sandboxes()?;
        let containers: BTreeSet<String> = sandboxes.into_iter().map(|s| s.id).collect();
        return Ok(Life {
            containers: Some(containers),
            live,
            within: None,
        });
    }
    let dir = options
        .from_netns
        .as_deref()
        .unwrap_or(Path::new("/run/netns"));
    ensure!(
        dir.is_dir(),
        "{} is no directory: nothing is freed on such evidence",
        dir.display()
    );
    let live = live::look(Which::All).context("look into namespaces")?;
    Ok(Life {
        containers: None,
        live,
        within: Some(dir.to_owned()),
    })
}

/// What was decided, told as it happens.
struct Report {
    json: bool,
    dry_run: bool,
    items: Vec<Node>,
    freed: usize,
    kept: usize,
    failed: usize,
}

impl Report {
    fn new(json: bool, dry_run: bool) -> Self {
        Self {
            json,
            dry_run,
            items: Vec::new(),
            freed: 0,
            kept: 0,
            failed: 0,
        }
    }

    fn settle(&mut self, runtime: &Runtime, list: &NetworkList, found: &Found, verdict: &Verdict) {
        let why = match verdict {
            Verdict::Alive(why) => return self.keep(found, why),
            Verdict::Young(left) => {
                return self.keep(
                    found,
                    &format!(
                        "may be just being added; asked again in {} s",
                        left.as_secs()
                    ),
                );
            }
            Verdict::Dead(_) if found.has_changed() => {
                return self.keep(found, "somebody works on it at this moment");
            }
            Verdict::Dead(why) => why,
        };
        self.freed += 1;
        if self.dry_run {
            return self.tell(found, "would free", why);
        }
        match found.release(runtime, list) {
            Ok(()) => self.tell(found, "freed", why),
            Err(e) => {
                (self.freed, self.failed) = (self.freed - 1, self.failed + 1);
                self.tell(found, "not freed", &e.to_string());
            }
        }
    }

    fn keep(&mut self, found: &Found, why: &str) {
        self.kept += 1;
        if self.dry_run || self.json {
            self.tell(found, "kept", why);
        }
    }

    fn tell(&mut self, found: &Found, what: &str, why: &str) {
        if self.json {
            let texts =
                |items: Vec<String>| Node::Array(items.into_iter().map(Node::from).collect());
            let addresses = found.addresses.iter().map(ToString::to_string).collect();
            let node = Node::obj()
                .put("network", found.network.as_str())
                .put("containerID", found.container_id.as_str())
                .put("ifname", found.ifname.as_str())
                .put("outcome", what)
                .put("why", why)
                .put_filled("addresses", texts(addresses))
                .put_filled("links", texts(found.links.clone()));
            self.items.push(node.build());
            return;
        }
        let mut traces: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
        traces.extend(found.links.iter().cloned());
        let traces = if traces.is_empty() {
            String::new()
        } else {
            format!(" ({})", traces.join(", "))
        };
        show::line(&format!("{what} {}{traces}: {why}", found.key()));
    }

    fn finish(self) -> Result<()> {
        if self.json {
            show::line(&Node::Array(self.items).write_indented());
        } else {
            let freed = if self.dry_run {
                "would be freed"
            } else {
                "freed"
            };
            show::line(&format!(
                "{} {freed}, {} kept, {} failed",
                self.freed, self.kept, self.failed
            ));
        }
        ensure!(
            self.failed == 0,
            "{} attachments could not be freed; they are tried again next time",
            self.failed
        );
        Ok(())
    }
}
