//! What went wrong, for people at 3 a.m. and for programs.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::list::{ConfError, PluginConf};
use crate::kernel::process::Ended;
use crate::spec::error::{CniError, Code};
use crate::spec::{Verb, Version};

/// Why a verb failed. Its text is one line (one per failure for GC) that names plugin and verb, what the plugin said,
/// and what is left to do.
///
/// ```
/// use libcni::runtime::{Attach, NetworkList, Runtime};
/// use libcni::spec::error::Code;
///
/// # let dir = tempfile::tempdir()?;
/// let conf = br#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "bridge"}]}"#;
/// let list = NetworkList::parse(conf, None)?;
/// let runtime = Runtime::new(["/nowhere".into()]).cache_dir(dir.path());
/// let error = runtime.add(&list, &Attach::new("c1", "/run/netns/c1", "eth0")).unwrap_err();
///
/// let text = r#"plugin type="bridge" failed (add): failed to find plugin "bridge" in path [/nowhere]"#;
/// assert!(error.to_string().starts_with(text));
/// match error.code() {
///     Some(Code::TryAgain) => println!("later: {error}"),
///     _ => println!("{:?} is not usable: {error}", error.plugin()),
/// }
/// # Ok::<(), libcni::runtime::ConfError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The configuration.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// A name, an argument or the configuration is not valid for this verb. Nothing was run.
    #[error("{0}")]
    Invalid(CniError),
    /// A plugin failed.
    #[error(transparent)]
    Plugin(Box<PluginFailure>),
    /// A plugin does not speak the version of the list ([`Runtime::validate`](super::Runtime::validate)).
    #[error("plugin {plugin} does not support config version \"{version}\"; it supports {}", supported.join(", "))]
    Unsupported {
        /// Its `type`.
        plugin: String,
        /// The list's version.
        version: Version,
        /// What it answered to VERSION.
        supported: Vec<String>,
    },
    /// A file of the cache directory cannot be read or written.
    #[error("{what} {}: {source}", path.display())]
    State {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// More than one failure; GC goes on past each.
    #[error("{}", lines(.0))]
    Several(Vec<RuntimeError>),
}

/// How a plugin failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct PluginFailure {
    /// `type` of the plugin.
    pub kind: String,
    /// Its `name`, if the plugin object has one.
    pub name: Option<String>,
    /// What it was asked to do.
    pub verb: Verb,
    /// Its place in the chain, from 1.
    pub step: usize,
    /// How many plugins the chain has.
    pub steps: usize,
    /// What it said on stdout; or, where it said nothing that can be read, what is known: stderr and how it ended.
    pub error: CniError,
    /// It was started, so it may have done something.
    pub started: bool,
    /// Exit status or signal, if it was started and ended.
    pub ended: Option<Ended>,
    /// The time it had, if it had to be stopped.
    pub late: Option<Duration>,
    /// The last [`STDERR_TAIL_BYTES`](super::exec::STDERR_TAIL_BYTES) of its stderr.
    pub stderr: String,
    /// What undoing or recording it could not do.
    pub also: Vec<RuntimeError>,
    /// Plugins whose DEL is still to be run, in that order. The next DEL or GC does it.
    pub left: Vec<String>,
}

// === impl RuntimeError ===

impl RuntimeError {
    /// The code the plugin gave, or the one of a name or argument that is not valid.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Invalid(error) => Some(error.code),
            Self::Plugin(failure) => Some(failure.error.code),
            Self::Unsupported { .. } => Some(Code::IncompatibleVersion),
            Self::Several(all) => all.iter().find_map(Self::code),
            Self::Conf(_) | Self::State { .. } => None,
        }
    }

    /// `type` of the plugin that failed.
    #[must_use]
    pub fn plugin(&self) -> Option<&str> {
        match self {
            Self::Unsupported { plugin, .. } => Some(plugin),
            _ => self.failure().map(|failure| failure.kind.as_str()),
        }
    }

    /// What the plugin that failed was asked to do.
    #[must_use]
    pub fn verb(&self) -> Option<Verb> {
        self.failure().map(|failure| failure.verb)
    }

    /// All that is known of the (first) plugin that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&PluginFailure> {
        match self {
            Self::Plugin(failure) => Some(failure),
            Self::Several(all) => all.iter().find_map(Self::failure),
            _ => None,
        }
    }

    /// One of several, none if there are none.
    pub(super) fn gathered(mut all: Vec<Self>) -> Result<(), Self> {
        match all.len() {
            0 => Ok(()),
            1 => Err(all.remove(0)),
            _ => Err(Self::Several(all)),
        }
    }

    /// Says which plugins' DEL is still to be run.
    pub(super) fn leave<'a>(&mut self, plugins: impl Iterator<Item = &'a PluginConf>) {
        if let Self::Plugin(failure) = self {
            failure.left = plugins.map(|plugin| plugin.kind.clone()).collect();
        }
    }

    /// Adds to a plugin's failure what failed because of it.
    pub(super) fn and(mut self, other: Self) -> Self {
        match &mut self {
            Self::Plugin(failure) => {
                failure.also.push(other);
                self
            }
            _ => Self::Several(vec![self, other]),
        }
    }
}

impl From<CniError> for RuntimeError {
    fn from(error: CniError) -> Self {
        Self::Invalid(error)
    }
}

fn lines(errors: &[RuntimeError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

// === impl PluginFailure ===

impl std::error::Error for PluginFailure {}

/// As the reference words it, `plugin type="bridge" failed (add): ...`, because people search logs for that.
impl fmt::Display for PluginFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin type={:?}", self.kind)?;
        if let Some(name) = &self.name {
            write!(f, " name={name:?}")?;
        }
        let verb = match self.verb {
            Verb::Add => "add",
            Verb::Del => "delete",
            Verb::Check => "check",
            Verb::Gc => "gc",
            Verb::Status => "status",
            Verb::Version => "version",
        };
        write!(f, " failed ({verb}): ")?;
        if let Some(after) = self.late {
            write!(f, "not done after {after:?} and stopped")?;
            if let Some(ended) = self.ended {
                write!(f, " ({ended})")?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}", self.error)?;
        for other in &self.also {
            write!(f, "; and {other}")?;
        }
        if !self.left.is_empty() {
            let left = self.left.join(", ");
            write!(f, "; still to be deleted, by the next DEL or GC: {left}")?;
        }
        Ok(())
    }
}
