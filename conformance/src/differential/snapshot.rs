//! What kernel and store hold, as facts.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use super::normal::{Link, Names};
use super::trace::Trace;
use crate::node::{self, Node};

const SYSCTL: &str = "/proc/sys/net";
/// Duplicate address detection takes up to 2 s, where a case has it.
const SETTLE: Duration = Duration::from_secs(30);

/// While anybody holds the kernel's RTNL, reading these spins (`restart_syscall`). The first is among the link's
/// attributes, the second cannot be read until somebody sets it.
const UNREAD: [&str; 2] = ["addr_gen_mode", "stable_secret"];

/// Facts that tell the time of the snapshot, or a number the kernel counts up.
const VOLATILE: [&str; 14] = [
    "ifindex",
    "link_index",
    "link_netnsid",
    "addr_info",
    "link",
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "gc_timer",
    "hold_timer",
    "message_age_timer",
    "forward_delay_timer",
    "topology_change",
    "topology_change_detected",
];

/// One namespace's links and routes, as `ip` lists them.
pub(crate) struct Place {
    /// `host` or a pod's name.
    name: String,
    pub(crate) links: Vec<Value>,
    pub(crate) routes: Vec<Value>,
    pub(crate) neighbours: Vec<Value>,
    /// IPv4 rules.
    pub(crate) rules: Vec<Value>,
    sysctls: Vec<(String, String)>,
}

/// The moment's state of node, pods and store.
#[derive(Default)]
pub struct Snapshot {
    places: Vec<Place>,
    files: Vec<(String, String)>,
}

impl Snapshot {
    /// Reads the files.
    pub fn of_files() -> Result<Snapshot> {
        let mut files = Vec::new();
        for root in ["/run", "/var/lib/cni"] {
            walk(Path::new(root), &mut files).context(root)?;
        }
        Ok(Snapshot {
            places: Vec::new(),
            files,
        })
    }

    /// Waits until every address is usable, then reads the kernel's part, too.
    pub fn of_all(node: &Node, sysctls: bool) -> Result<Snapshot> {
        let mut places = vec![Place::read("host", sysctls)?];
        for pod in node.pods() {
            places.push(node.inside(pod, || Place::read(&pod.name, sysctls))?);
        }
        Ok(Snapshot {
            places,
            ..Snapshot::of_files()?
        })
    }

    /// The links, for [`Names::learn`].
    pub fn links(&self) -> Vec<Link> {
        let links = |place: &Place| -> Vec<Link> {
            let link = |l: &Value| Link {
                place: place.name.clone(),
                name: of(l, "ifname").as_str().unwrap_or_default().to_owned(),
                index: of(l, "ifindex").as_u64().unwrap_or_default(),
                peer: of(l, "link_index").as_u64(),
                mac: of(l, "address").as_str().unwrap_or_default().to_owned(),
            };
            place.links.iter().map(link).collect()
        };
        self.places.iter().flat_map(links).collect()
    }

    /// Everything, below `prefix`.
    pub fn tell(&self, prefix: &str, names: &Names, trace: &mut Trace) {
        for place in &self.places {
            let prefix = format!("{prefix}/{}", place.name);
            for link in &place.links {
                tell_link(&prefix, link, &place.links, names, trace);
            }
            let unsettled = place.unsettled();
            for route in &place.routes {
                let settled =
                    of(route, "table") != "local" || !unsettled.contains(&of(route, "dst"));
                if settled {
                    tell_route(&prefix, route, names, trace);
                }
            }
            for (key, value) in &place.sysctls {
                trace.put(
                    format!("{prefix}/sysctl/{}", names.text(key)),
                    names.text(value),
                );
            }
        }
        for (path, content) in &self.files {
            trace.put(format!("{prefix}/files{path}"), names.text(content));
        }
    }
}

// === impl Place ===

impl Place {
    /// Of the thread's namespace, once every address is usable.
    pub(crate) fn read(name: &str, sysctls: bool) -> Result<Place> {
        let end = Instant::now() + SETTLE;
        let mut place = Place::read_now(name)?;
        while !place.is_settled() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
            place = Place::read_now(name)?;
        }
        if sysctls {
            place.read_sysctls()?;
        }
        Ok(place)
    }

    /// IPv6 addresses of links that have lost their carrier: whether they were tentative by then is chance.
    fn unsettled(&self) -> Vec<&Value> {
        let lost = self.links.iter().filter(|link| !has_carrier(link));
        let addresses = lost.filter_map(|link| of(link, "addr_info").as_array());
        let v6 = addresses.flatten().filter(|a| of(a, "family") == "inet6");
        v6.map(|a| of(a, "local")).collect()
    }

    /// What links say of their carrier is what they do, and of each that has one, every address is usable: not tentative,
    /// and its route has come (the kernel adds that a moment after the IPv6 address, from a work queue).
    fn is_settled(&self) -> bool {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        self.links.iter().all(|link| {
            let carrier = has_carrier(link);
            let operates = matches!(of(link, "operstate").as_str(), Some("UP" | "UNKNOWN"));
            let usable = |a: &Value| {
                let routed =
                    |r: &Value| of(r, "table") == "local" && of(r, "dst") == of(a, "local");
                of(a, "dadfailed") == true
                    || (of(a, "tentative") != true && self.routes.iter().any(routed))
            };
            carrier == operates && (!carrier || list(of(link, "addr_info")).iter().all(usable))
        })
    }

    fn read_now(name: &str) -> Result<Place> {
        // Asking for one link by its name makes the kernel deliver what it has put off about its carrier (rtnl_getlink
        // calls linkwatch_sync_dev); for a bridge that may else be a second late.
        let mut batch = String::new();
        for link in interfaces()? {
            batch += &format!("link show dev {link}\n");
        }
        batch += "addr show\nroute show table all\nneigh show\nrule show\n";
        let mut ip = Command::new(node::tool("ip"));
        ip.args(["-d", "-j", "-force", "-batch", "-"]);
        let output = node::run(&mut ip, &[], batch.as_bytes())?;
        let text = String::from_utf8(output.stdout)?;
        let mut place = Place {
            name: name.to_owned(),
            links: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
            rules: Vec::new(),
            sysctls: Vec::new(),
        };
        for list in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            for item in list?.as_array().cloned().unwrap_or_default() {
                if item.get("addr_info").is_some() {
                    place.links.push(item);
                } else if item.get("priority").is_some() && item.get("dev").is_none() {
                    place.rules.push(item);
                } else if item.get("state").is_some() {
                    place.neighbours.push(item);
                } else if item.get("dst").is_some() {
                    place.routes.push(item);
                }
            }
        }
        ensure!(!place.links.is_empty(), "ip lists no link: {text}");
        Ok(place)
    }

    fn read_sysctls(&mut self) -> Result<()> {
        let mut read = |file: String| {
            // An interface may lack what `all` has.
            if let Ok(value) = read_line(&format!("{SYSCTL}/{file}")) {
                self.sysctls.push((file, value));
            }
        };
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            read(switch.to_owned());
        }
        for family in ["ipv4", "ipv6"] {
            let conf = format!("{SYSCTL}/{family}/conf");
            let mut keys = dir(&format!("{conf}/all"))?;
            keys.retain(|k| !UNREAD.contains(&k.as_str()));
            for link in interfaces()? {
                for key in &keys {
                    read(format!("{family}/conf/{link}/{key}"));
                }
            }
        }
        Ok(())
    }
}

/// What a sysctl says. There are hundreds, so in three system calls.
fn read_line(path: &str) -> Result<String> {
    let mut buffer = [0; 256];
    let n = File::open(path)?.read(&mut buffer)?;
    let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default());
    Ok(text.trim_end().to_owned())
}

/// Every interface has a directory of its own here.
fn interfaces() -> Result<Vec<String>> {
    let mut names = dir(&format!("{SYSCTL}/ipv4/conf"))?;
    names.retain(|n| n != "all" && n != "default");
    Ok(names)
}

fn dir(path: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).with_context(|| path.to_owned())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn has_carrier(link: &Value) -> bool {
    let flags = of(link, "flags").as_array();
    let has = |flag: &str| flags.is_some_and(|all| all.iter().any(|f| f == flag));
    has("UP") && has("LOWER_UP")
}

fn tell_link(prefix: &str, link: &Value, all: &[Value], names: &Names, trace: &mut Trace) {
    let name = of(link, "ifname").as_str().unwrap_or_default();
    let name_told = names.text(name);
    let path = format!("{prefix}/link/{name_told}");
    trace.put_link(path.clone(), name_told);
    let mac = of(link, "address").as_str().unwrap_or_default();
    if of(of(link, "linkinfo"), "info_kind") == "bridge" {
        let is_ports = |l: &Value| of(l, "master") == name && of(l, "address") == mac;
        let whose = if all.iter().any(is_ports) {
            "a port's"
        } else {
            "its own"
        };
        trace.put(format!("{path}/mac"), whose);
    }
    flatten(&path, "", link, names, trace);
    for address in of(link, "addr_info")
        .as_array()
        .cloned()
        .unwrap_or_default()
    {
        let Value::Object(mut address) = address else {
            continue;
        };
        let local = take_text(&mut address, "local");
        let prefixlen = address.remove("prefixlen").unwrap_or_default();
        let path = format!("{prefix}/addr/{}/{local}/{prefixlen}", names.text(name));
        if !has_carrier(link) {
            address.remove("tentative");
        }
        for key in ["valid_life_time", "preferred_life_time"] {
            if address.get(key).and_then(Value::as_u64) == Some(u64::from(u32::MAX)) {
                address.remove(key);
            } else {
                address.insert(key.to_owned(), "finite".into());
            }
        }
        trace.put(names.text(&path), names.text(&words(&address)));
    }
}

/// A key's value, or null.
fn of<'v>(value: &'v Value, key: &str) -> &'v Value {
    value.get(key).unwrap_or(&Value::Null)
}

fn take_text(map: &mut Map<String, Value>, key: &str) -> String {
    match map.remove(key) {
        Some(Value::String(text)) => text,
        other => other.unwrap_or_default().to_string(),
    }
}

/// One fact per attribute, however deep.
fn flatten(path: &str, key: &str, value: &Value, names: &Names, trace: &mut Trace) {
    match value {
        Value::Object(map) => {
            for (inner, value) in map {
                if VOLATILE.contains(&inner.as_str()) {
                    continue;
                }
                let dotted = match key {
                    "" => inner.clone(),
                    outer => format!("{outer}.{inner}"),
                };
                flatten(path, &dotted, value, names, trace);
            }
        }
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().map(plain).collect();
            items.sort();
            trace.put(format!("{path}/{key}"), names.text(&items.join(" ")));
        }
        value => {
            let mut text = plain(value);
            // "8000.e:d2:4:0:0:1" holds the bridge's MAC, not padded.
            if key.ends_with("bridge_id") || key.ends_with("root_id") {
                text.truncate(text.find('.').unwrap_or(text.len()));
            }
            trace.put(format!("{path}/{key}"), names.text(&text));
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn words(map: &Map<String, Value>) -> String {
    let words: Vec<String> = map
        .iter()
        .filter(|(_, v)| !v.as_array().is_some_and(Vec::is_empty))
        .map(|(k, v)| format!("{k} {}", plain(v)))
        .collect();
    words.join(", ")
}

fn tell_route(prefix: &str, route: &Value, names: &Names, trace: &mut Trace) {
    let Value::Object(mut route) = route.clone() else {
        return;
    };
    let path = format!(
        "{prefix}/route/{}/{}/{}",
        take_text(&mut route, "table"),
        take_text(&mut route, "dev"),
        take_text(&mut route, "dst"),
    );
    trace.put(names.text(&path), names.text(&words(&route)));
}

/// Modes and contents of everything below, but for what the harness put there.
fn walk(dir: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        entries.push(entry?.path());
    }
    entries.sort();
    for path in entries {
        if path == Path::new("/run/netns") || path == Path::new(node::PLUGINS) {
            continue;
        }
        let status = fs::symlink_metadata(&path)?;
        let mode = status.permissions().mode() & 0o7777;
        let told = if status.is_dir() {
            format!("{mode:04o} directory")
        } else if status.is_file() {
            match fs::read_to_string(&path) {
                Ok(text) => format!("{mode:04o} {text:?}"),
                Err(e) if e.kind() == ErrorKind::InvalidData => format!("{mode:04o} binary"),
                Err(e) => return Err(e).with_context(|| path.display().to_string()),
            }
        } else {
            format!("{mode:04o} {:?}", status.file_type())
        };
        files.push((path.display().to_string(), told));
        if status.is_dir() {
            walk(&path, files)?;
        }
    }
    Ok(())
}
