//! The runtime side: what a container runtime needs to attach its containers to CNI networks.
//!
//! The blocking counterpart of the reference's `libcni`, on the same files: it reads the same configuration directory,
//! and its result cache is the reference's, byte for byte, so that either can DEL what the other has ADDed. It starts
//! no threads and needs no async runtime. What it is not: it makes no namespaces, and talks to no container runtime.
//!
//! ```
//! use libcni::runtime::{Attach, NetworkList, Runtime};
//!
//! # use std::os::unix::fs::PermissionsExt;
//! # let dir = tempfile::tempdir()?;
//! # let (plugins, cache) = (dir.path().to_owned(), dir.path().join("cache"));
//! # let file = plugins.join("example");
//! # let add = r#"echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}]}'"#;
//! # std::fs::write(&file, format!("#!/bin/sh\n[ $CNI_COMMAND != ADD ] || {add}"))?;
//! # std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
//! let conf = br#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "example"}]}"#;
//! let list = NetworkList::parse(conf, None)?;
//! let runtime = Runtime::new([plugins]).cache_dir(cache);
//! let at = Attach::new("c1", "/run/netns/c1", "eth0");
//!
//! let result = runtime.add(&list, &at)?;
//! assert_eq!(result.ips[0].address.to_string(), "10.1.0.2/24");
//! assert_eq!(runtime.attachments()?[0].container_id, "c1");
//! runtime.check(&list, &at)?;
//! runtime.del(&list, &at)?;
//! assert!(runtime.attachments()?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The guide, with what differs from the reference: `docs/runtime.md`.

mod attach;
pub mod cache;
mod chain;
pub mod collect;
pub mod error;
pub mod exec;
mod execute;
mod file;
mod gc;
mod journal;
pub mod list;
mod request;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use cache::CacheEntry;
pub use error::{PluginFailure, RuntimeError};
pub use execute::PluginLog;
pub use journal::Pending;
pub use list::{ConfError, NetworkList, PluginConf, Scanned};

use crate::spec::json::Node;
use crate::spec::{Attachment, CniResult, Verb, Version};
use cache::Cache;
use chain::Pass;
use execute::LogSink;
use journal::Journal;
use request::Extra;

/// What the reference calls `RuntimeConf`: one interface of one container, and what its runtime knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Attach {
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_NETNS`: a path. Empty for a DEL if the namespace is gone.
    pub netns: String,
    /// `CNI_IFNAME`: the interface's name in the container.
    pub ifname: String,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// By capability (`portMappings`, `bandwidth`, ...), an object; each plugin gets what it declares, as `runtimeConfig`.
    pub capability_args: Node,
}

/// Runs plugins. Cheap to clone; many threads may use one.
#[derive(Debug, Clone)]
pub struct Runtime {
    plugin_path: Vec<PathBuf>,
    cache_dir: PathBuf,
    timeout: Duration,
    grace: Duration,
    log: LogSink,
}

const CACHE_DIR: &str = "/var/lib/cni";
/// Ours give up after 110 s by themselves; kubelet waits four minutes, containerd's CNI calls two.
const TIMEOUT: Duration = Duration::from_secs(115);
const GRACE: Duration = Duration::from_secs(5);
/// `Duration::MAX` from now is no time.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Attach {
    /// An attachment without arguments.
    pub fn new(
        container_id: impl Into<String>,
        netns: impl Into<String>,
        ifname: impl Into<String>,
    ) -> Self {
        Self {
            container_id: container_id.into(),
            netns: netns.into(),
            ifname: ifname.into(),
            args: Vec::new(),
            capability_args: Node::obj().build(),
        }
    }
}

impl Runtime {
    /// Looks for plugins in these directories, in order (`CNI_PATH`, `/opt/cni/bin`).
    pub fn new(plugin_path: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            plugin_path: plugin_path.into_iter().collect(),
            cache_dir: CACHE_DIR.into(),
            timeout: TIMEOUT,
            grace: GRACE,
            log: LogSink::default(),
        }
    }

    /// Keeps results here instead of in `/var/lib/cni`.
    #[must_use]
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = dir.into();
        self
    }

    /// How long a verb may take over the whole chain before the plugin at work is asked to stop; 115 s if not set.
    /// Undoing a failed ADD has this time again.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(FOR_EVER);
        self
    }

    /// How long a plugin that was asked to stop has until it is killed; 5 s if not set.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(FOR_EVER);
        self
    }

    /// Hands what plugins that succeed write to stderr to `sink`. If not set, it goes to this process's stderr, as the
    /// reference does it. What one that fails wrote is in the error.
    #[must_use]
    pub fn plugin_log(mut self, sink: impl Fn(&PluginLog<'_>) + Send + Sync + 'static) -> Self {
        self.log = LogSink::new(sink);
        self
    }

    /// Attaches: runs ADD of every plugin, each with the result of the one before, and caches the final result.
    ///
    /// Finishes a DEL of the same attachment that halted, or an earlier ADD that was broken off, first.
    ///
    /// # Errors
    /// What has been done was undone: DEL of the plugins that ran, the failing one included, from the last to the first.
    /// What that could not do is in the error and is finished by the next DEL or GC. Nothing is undone if the cache has the
    /// attachment already: then this was a second ADD, and the first one stands.
    pub fn add(&self, list: &NetworkList, at: &Attach) -> Result<CniResult, RuntimeError> {
        attach::add(self, list, at)
    }

    /// Detaches: runs DEL of every plugin from the last to the first, with the cached result, and forgets it.
    ///
    /// The chain is the one ADD ran: a plugin that is no longer in `list` is run with its cached configuration. Where `at`
    /// has no arguments, those of ADD are taken. After a DEL that halted it goes on at the plugin where that stopped. An
    /// ADD that is at work on it, in whatever process, comes to its end first.
    /// Deleting what does not exist is no error.
    ///
    /// # Errors
    /// The first plugin that fails; those before it in the chain were not run, because an address must not become free
    /// while something still points to it. The same call again goes on there.
    pub fn del(&self, list: &NetworkList, at: &Attach) -> Result<(), RuntimeError> {
        attach::del(self, list, at)
    }

    /// Whether the attachment is still as its ADD left it: CHECK of every plugin, forward. Runs nothing if the list says
    /// `disableCheck`.
    ///
    /// # Errors
    /// The first plugin that fails. Code 1 if the list's version is below 0.4.0, which has no CHECK.
    pub fn check(&self, list: &NetworkList, at: &Attach) -> Result<(), RuntimeError> {
        attach::check(self, list, at)
    }

    /// Whether ADD could succeed now: STATUS of every plugin, forward. Below version 1.1.0 there is none, so yes.
    ///
    /// # Errors
    /// The first plugin that fails, usually with code 50 or 51.
    pub fn status(&self, list: &NetworkList) -> Result<(), RuntimeError> {
        if list.version < Version::V1_1_0 {
            return Ok(());
        }
        Pass::new(self, list, Verb::Status, None).ask(Extra::Nothing)
    }

    /// The versions a plugin supports, as it answers VERSION. 0.1.0 for one that does not know this verb.
    ///
    /// # Errors
    /// There is no such plugin, or it answers neither way.
    pub fn versions(&self, kind: &str) -> Result<Vec<String>, RuntimeError> {
        self.ask_versions(kind)
    }

    /// Whether every plugin of the list is there and speaks the list's version.
    ///
    /// # Errors
    /// The first that does not.
    pub fn validate(&self, list: &NetworkList) -> Result<(), RuntimeError> {
        for (i, plugin) in list.plugins.iter().enumerate() {
            let seen = list.plugins.iter().take(i).any(|p| p.kind == plugin.kind);
            if seen {
                continue;
            }
            let supported = self.versions(&plugin.kind)?;
            if !supported.iter().any(|v| v == list.version.as_str()) {
                return Err(RuntimeError::Unsupported {
                    plugin: plugin.kind.clone(),
                    version: list.version,
                    supported,
                });
            }
        }
        Ok(())
    }

    /// Frees what no valid attachment owns: DEL of the cached attachments of this network that are not in `valid`, the
    /// end of DELs that halted and of ADDs that were broken off, then (since 1.1.0) GC of every plugin. Runs nothing if the
    /// list says `disableGC`. An empty `valid` frees everything.
    ///
    /// What an ADD of this library is at work on, in whatever process, counts as valid. ADDs by other libraries do not,
    /// and one that ended after `valid` was made is not in it: hold ADDs back from then on.
    ///
    /// # Errors
    /// All failures; it goes on past each.
    pub fn gc(&self, list: &NetworkList, valid: &[Attachment]) -> Result<(), RuntimeError> {
        gc::gc(self, list, valid)
    }

    /// The attachments of all networks, from the cache, whichever library wrote it. Torn entries are passed over.
    ///
    /// # Errors
    /// The cache directory cannot be read. A missing one is an empty one.
    pub fn attachments(&self) -> io::Result<Vec<CacheEntry>> {
        self.cache().entries()
    }

    /// DELs that halted half-way, and ADDs whose process died, of all networks.
    ///
    /// # Errors
    /// The cache directory cannot be read. A missing one is an empty one.
    pub fn pending(&self) -> io::Result<Vec<Pending>> {
        self.journal().all()
    }

    /// Of a verb that begins now.
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn cache(&self) -> Cache {
        Cache::new(&self.cache_dir)
    }

    fn journal(&self) -> Journal {
        Journal::new(&self.cache_dir)
    }
}

/// Keeps the examples of the guide working.
#[cfg(doctest)]
#[doc = include_str!("../../docs/runtime.md")]
struct Guide;

#[cfg(test)]
mod tests {
    /// A runtime's whole use fits on a screen.
    #[test]
    fn the_guide_is_short() {
        let guide = include_str!("../../docs/runtime.md");
        let (_, code) = guide.split_once("```rust\n").unwrap();
        let (code, _) = code.split_once("```").unwrap();
        assert!((20..40).contains(&code.lines().count()));
        for verb in ["add(", "del(", "gc(", "validate("] {
            assert!(code.contains(verb), "{verb}");
        }
    }
}
