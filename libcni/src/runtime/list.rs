//! Network configuration lists: `.conflist` files, and `.conf`/`.json` files of a single plugin.
//!
//! What is accepted, and which version is chosen, is what the reference library does (C: `libcni/conf.go`), for the
//! same directory is read by it: containerd, podman and others embed it.

mod find;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::spec::json::{FieldError, Fields, JsonError, Node};
use crate::spec::version::{Numbers, Version};
use crate::spec::{CniError, NetName};

pub use find::Scanned;

/// A network: its name and the chain of plugins that attach containers to it.
#[derive(Debug, Clone)]
pub struct NetworkList {
    /// The network's name. Not checked before a verb is run.
    pub name: String,
    /// The version every plugin of the chain is spoken to in: the latest of `cniVersions` that exists, or `cniVersion`.
    pub version: Version,
    /// `disableCheck`: CHECK succeeds and runs nothing.
    pub disable_check: bool,
    /// `disableGC`: GC succeeds and runs nothing.
    pub disable_gc: bool,
    /// `loadOnlyInlinedPlugins`: the folder named like the network is not looked at.
    pub load_only_inlined_plugins: bool,
    /// The chain, in the order of ADD.
    pub plugins: Vec<PluginConf>,
    /// The file it came from.
    pub source: Option<PathBuf>,
    bytes: Vec<u8>,
}

/// One plugin of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConf {
    /// `type`: the file name of the executable.
    pub kind: String,
    /// `name` of the plugin object itself; in lists there is seldom one.
    pub name: Option<String>,
    /// The `capabilities` set to true: which of [`Attach::capability_args`](super::Attach::capability_args) it gets.
    pub capabilities: Vec<String>,
    node: Node,
}

/// Why a file is no network configuration, or a network is not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfError {
    /// The file or directory cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is not JSON.
    #[error("is not JSON: {0}")]
    Json(#[from] JsonError),
    /// A key is missing, of the wrong type or without meaning.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// `cniVersions` holds something that is no version number.
    #[error("\"cniVersions\": {0}")]
    Versions(CniError),
    /// A chain without plugins, inline or in the network's folder.
    #[error("no plugin configs found")]
    NoPlugins,
    /// What is wrong with one file.
    #[error("{} {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ConfError>,
    },
    /// No file of the directory holds a network of this name.
    #[error("{}", not_found(name, dir, found, broken))]
    NotFound {
        /// The name looked for.
        name: String,
        /// The directory.
        dir: PathBuf,
        /// The networks that are there.
        found: Vec<String>,
        /// Files that could not be read and may have held it.
        broken: Vec<ConfError>,
    },
}

// === impl NetworkList ===

impl NetworkList {
    /// Reads a `.conflist`. With `conf_dir`, the plugins in `<conf_dir>/<network>/*.conf` are appended to the chain, as
    /// CNI 1.1.0 has it, unless the list says `loadOnlyInlinedPlugins`.
    ///
    /// ```
    /// use libcni::runtime::list::NetworkList;
    /// use libcni::spec::Version;
    ///
    /// let text = br#"{"cniVersion": "0.4.0", "cniVersions": ["0.4.0", "1.0.0", "7.0.0"], "name": "pods",
    ///                 "plugins": [{"type": "bridge", "capabilities": {"mac": true}}]}"#;
    /// let list = NetworkList::parse(text, None)?;
    /// assert_eq!(list.version, Version::V1_0_0);
    /// assert_eq!(list.plugins[0].capabilities, ["mac"]);
    /// # Ok::<(), libcni::runtime::list::ConfError>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong, without the name of the file, which is not known here.
    pub fn parse(bytes: &[u8], conf_dir: Option<&Path>) -> Result<Self, ConfError> {
        let node = Node::parse(bytes)?;
        let fields = Fields::of(&node, "")?;
        let name = required(&fields, "name", "the network's name")?;
        let load_only_inlined_plugins = flag(&fields, "loadOnlyInlinedPlugins")?;
        let mut plugins = Vec::new();
        match fields.array("plugins")? {
            Some(items) if items.is_empty() => return Err(ConfError::NoPlugins),
            None if load_only_inlined_plugins => return Err(ConfError::NoPlugins),
            items => {
                for (i, item) in items.into_iter().flatten().enumerate() {
                    plugins.push(PluginConf::read(item, &format!("plugins[{i}]"))?);
                }
            }
        }
        if let Some(dir) = conf_dir
            && !load_only_inlined_plugins
            // Any other name would lead out of the directory, and is refused by every verb.
            && NetName::parse(&name).is_ok()
        {
            plugins.extend(find::folder(&dir.join(&name))?);
        }
        if plugins.is_empty() {
            return Err(ConfError::NoPlugins);
        }
        Ok(Self {
            version: version(&fields)?,
            disable_check: flag(&fields, "disableCheck")?,
            disable_gc: flag(&fields, "disableGC")?,
            load_only_inlined_plugins,
            plugins,
            source: None,
            bytes: bytes.to_vec(),
            name,
        })
    }

    /// Reads a configuration of one plugin (`.conf`, `.json`) as the list of one that the reference makes of it.
    ///
    /// # Errors
    /// As [`NetworkList::parse`].
    pub fn parse_single(bytes: &[u8]) -> Result<Self, ConfError> {
        let node = Node::parse(bytes)?;
        let fields = Fields::of(&node, "")?;
        required(&fields, "type", "the file name of a plugin")?;
        let text = |key| Ok::<_, FieldError>(fields.str(key)?.unwrap_or_default());
        let mut list = Node::obj()
            .put("cniVersion", text("cniVersion")?)
            .put("name", text("name")?)
            .put("plugins", vec![node.clone()])
            .build();
        list.sort_keys();
        Self::parse(list.write_compact().as_bytes(), None)
    }

    /// The configuration as it was read, which is what the result cache keeps.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same network with another chain, written out so that [`NetworkList::bytes`] alone gives it back.
    pub(super) fn with_plugins(&self, plugins: Vec<PluginConf>) -> Self {
        let nodes: Vec<Node> = plugins.iter().map(|plugin| plugin.node.clone()).collect();
        let node = Node::obj()
            .put("cniVersion", self.version.as_str())
            .put("name", self.name.as_str())
            .put("plugins", nodes)
            .build();
        Self {
            plugins,
            bytes: node.write_compact().into_bytes(),
            ..self.clone()
        }
    }
}

// === impl PluginConf ===

impl PluginConf {
    /// The whole object, as written.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    fn read(node: &Node, path: &str) -> Result<Self, FieldError> {
        let fields = Fields::of(node, path)?;
        let mut capabilities = Vec::new();
        if let Some(map) = fields.fields("capabilities")? {
            for (key, value) in map.entries() {
                match value {
                    Node::Bool(true) => capabilities.push(key.to_owned()),
                    Node::Bool(false) | Node::Null => {}
                    other => {
                        return Err(FieldError::wrong_type(
                            map.path_of(key),
                            other,
                            TRUE_OR_FALSE,
                        ));
                    }
                }
            }
        }
        Ok(Self {
            kind: required(&fields, "type", "the file name of a plugin")?,
            name: fields.str("name")?.filter(|name| !name.is_empty()),
            capabilities,
            node: node.clone(),
        })
    }
}

/// As errors and lists show it: `bridge`, or `bridge (front)` if it has a name.
impl fmt::Display for PluginConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

// === reading ===

const TRUE_OR_FALSE: &str = "true or false";

fn required(fields: &Fields<'_>, key: &str, allowed: &'static str) -> Result<String, FieldError> {
    fields
        .str(key)?
        .filter(|text| !text.is_empty())
        .ok_or_else(|| FieldError::missing(fields.path_of(key), allowed))
}

/// A boolean that may be written as a string, in any case.
fn flag(fields: &Fields<'_>, key: &str) -> Result<bool, FieldError> {
    let Some(node) = fields.node(key) else {
        return Ok(false);
    };
    match &*node {
        Node::Bool(value) => Ok(*value),
        Node::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Node::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        other => Err(FieldError::wrong_type(
            fields.path_of(key),
            other,
            TRUE_OR_FALSE,
        )),
    }
}

/// The latest version of `cniVersions` and `cniVersion` that exists. What is from the future is passed over, for a list
/// may be written for runtimes to come.
fn version(fields: &Fields<'_>) -> Result<Version, ConfError> {
    let single = fields.str("cniVersion")?.unwrap_or_default();
    let mut best = None;
    for text in fields.strings("cniVersions")?.unwrap_or_default() {
        Numbers::parse(&text).map_err(ConfError::Versions)?;
        best = best.max(Version::parse(&text));
    }
    let single_version = match single.as_str() {
        "" => Some(Version::V0_1_0),
        text => Version::parse(text),
    };
    best.max(single_version).ok_or_else(|| {
        FieldError::bad_value(
            fields.path_of("cniVersion"),
            single,
            format!("a version from 0.1.0 to {}", Version::CURRENT),
        )
        .into()
    })
}

fn not_found(name: &str, dir: &Path, found: &[String], broken: &[ConfError]) -> String {
    let dir = dir.display();
    let mut text = if found.is_empty() && broken.is_empty() {
        format!("no net configurations found in {dir}")
    } else {
        format!("no net configuration with name {name:?} in {dir}")
    };
    if !found.is_empty() {
        text += &format!("; there are: {}", found.join(", "));
    }
    for error in broken {
        text += &format!("; not usable: {error}");
    }
    text
}

#[cfg(test)]
mod tests;
