//! The keys every plugin's config has, and the checks every plugin makes before its own (spec section 1,
//! "Network configuration format", and section 2, "Execution Protocol").

use super::args::Verb;
use super::error::{CniError, Code, quoted};
use super::json::{FieldError, Fields, Node};
use super::name::{Attachment, ContainerId, IfName, NetName};
use super::result::CniResult;
use super::version::{Numbers, Version};

pub use super::result::Dns;

/// The common part of a plugin's config.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// `cniVersion`; 0.1.0 if missing or empty. One of the versions the plugin supports.
    pub cni_version: Version,
    /// `name` of the network.
    pub name: NetName,
    /// `type`, the plugin's file name; `""` if missing, which the reference does not mind.
    pub type_: String,
    /// `ipam.type`; none if missing or empty.
    pub ipam_type: Option<String>,
    /// `dns`.
    pub dns: Dns,
    /// `prevResult` as given; see [`NetConf::prev`].
    pub prev_result: Option<Node>,
    /// `runtimeConfig`, an object: what the runtime knows of this container, by capability.
    pub runtime_config: Option<Node>,
    /// `args.cni`, an object: conventional per-container arguments.
    pub args_cni: Option<Node>,
    /// `cni.dev/valid-attachments`: who may keep what they have, for GC. `Some(vec![])` is nobody, `None` was not said.
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// Parses stdin. Code 6 with the reference's text.
pub fn decode(stdin: &[u8]) -> Result<Node, CniError> {
    Node::parse(stdin).map_err(|error| not_decoded(&error.to_string()))
}

/// The first check of a config, made for every verb with stdin and even for unknown ones: an object with a valid
/// `name`. Code 6 for a wrong type, 7 for a missing or invalid name.
pub fn network_name(config: &Node) -> Result<NetName, CniError> {
    let read = || Fields::of(config, "")?.str("name");
    let name = read().map_err(|error: FieldError| not_decoded(&error.to_string()))?;
    NetName::parse(&name.unwrap_or_default())
}

impl NetConf {
    /// Checks and reads a config for `verb` in the reference's order: name, version, then the rest.
    ///
    /// Code 6: a wrong type of `name` or `cniVersion`, or a version that is no version (CHECK, GC, STATUS).
    /// Code 7: a missing or invalid name, a wrong type of any other common key. Code 1: the verb is younger than the
    /// config's version, or that version is not in `supported`.
    pub fn read(config: &Node, verb: Verb, supported: &[Version]) -> Result<NetConf, CniError> {
        let name = network_name(config)?;
        let fields = Fields::of(config, "")?;
        let cni_version = version(&fields, verb, supported)?;
        if verb == Verb::Del {
            return Ok(NetConf::for_del(&fields, name, cni_version));
        }
        let ipam_type = match fields.fields("ipam")? {
            Some(ipam) => ipam.str("type")?.filter(|text| !text.is_empty()),
            None => None,
        };
        Ok(NetConf {
            cni_version,
            name,
            type_: fields.str("type")?.unwrap_or_default(),
            ipam_type,
            dns: fields
                .fields("dns")?
                .as_ref()
                .map(Dns::read)
                .transpose()?
                .unwrap_or_default(),
            prev_result: object(&fields, "prevResult")?,
            runtime_config: object(&fields, "runtimeConfig")?,
            args_cni: match fields.fields("args")? {
                Some(args) => object(&args, "cni")?,
                None => None,
            },
            valid_attachments: valid_attachments(&fields)?,
        })
    }

    /// What DEL needs, as far as it can be read: a config that went wrong since ADD must not keep anything reserved.
    fn for_del(fields: &Fields<'_>, name: NetName, cni_version: Version) -> NetConf {
        let object = |key| object(fields, key).ok().flatten();
        let text = |path: &[&str]| fields.str_at(path).ok().flatten().unwrap_or_default();
        NetConf {
            cni_version,
            name,
            type_: text(&["type"]),
            ipam_type: Some(text(&["ipam", "type"])).filter(|text| !text.is_empty()),
            dns: Dns::default(),
            prev_result: object("prevResult"),
            runtime_config: object("runtimeConfig"),
            args_cni: None,
            valid_attachments: None,
        }
    }

    /// `prevResult`, read in the config's version group; none if the config has none. Code 7.
    pub fn prev(&self) -> Result<Option<CniResult>, CniError> {
        self.prev_result
            .as_ref()
            .map(|node| CniResult::parse_prev(node, self.cni_version))
            .transpose()
    }
}

fn not_decoded(why: &str) -> CniError {
    CniError::new(
        Code::Decode,
        format!("error unmarshall network config: {why}"),
    )
}

fn version(fields: &Fields<'_>, verb: Verb, supported: &[Version]) -> Result<Version, CniError> {
    let text = fields
        .str("cniVersion")
        .map_err(|error| {
            CniError::new(
                Code::Decode,
                format!("decoding version from network config: {error}"),
            )
        })?
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| Version::V0_1_0.as_str().to_owned());
    let since = match verb {
        Verb::Check => Some(Version::V0_4_0),
        Verb::Gc | Verb::Status => Some(Version::V1_1_0),
        Verb::Add | Verb::Del | Verb::Version => None,
    };
    let incompatible = |msg: String| CniError::new(Code::IncompatibleVersion, msg);
    if let Some(since) = since {
        let numbers = Numbers::parse(&text)?;
        if numbers < since.numbers() {
            return Err(
                incompatible(format!("config version does not allow {verb}")).with_details(
                    format!(
                        "the config is {}, {verb} exists since {since}",
                        quoted(&text)
                    ),
                ),
            );
        }
        if supported.iter().all(|version| version.numbers() < numbers) {
            return Err(incompatible(format!(
                "plugin version does not allow {verb}"
            )));
        }
    }
    supported
        .iter()
        .copied()
        .find(|version| version.as_str() == text)
        .ok_or_else(|| {
            let supported: Vec<String> = supported
                .iter()
                .map(|version| quoted(version.as_str()))
                .collect();
            incompatible("incompatible CNI versions".to_owned()).with_details(format!(
                "config is {}, plugin supports [{}]",
                quoted(&text),
                supported.join(" ")
            ))
        })
}

fn object(fields: &Fields<'_>, key: &str) -> Result<Option<Node>, FieldError> {
    // Checks the type; the merged node is what is kept.
    fields.fields(key)?;
    Ok(fields.node(key).map(std::borrow::Cow::into_owned))
}

/// The spec's key, or the one earlier libraries sent by mistake. GC deletes what is not listed, so an entry that cannot
/// be read is an error and not one attachment less.
fn valid_attachments(fields: &Fields<'_>) -> Result<Option<Vec<Attachment>>, FieldError> {
    let entries = match fields.array_of_fields("cni.dev/valid-attachments")? {
        Some(entries) => entries,
        None => match fields.array_of_fields("cni.dev/attachments")? {
            Some(entries) => entries,
            None => return Ok(None),
        },
    };
    entries
        .iter()
        .map(|entry| {
            Ok(Attachment {
                container_id: name(entry, "containerID", "a container ID", ContainerId::parse)?,
                ifname: name(entry, "ifname", "an interface name", IfName::parse)?,
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}

fn name<T>(
    entry: &Fields<'_>,
    key: &str,
    allowed: &'static str,
    parse: fn(&str) -> Result<T, CniError>,
) -> Result<T, FieldError> {
    let text = entry
        .str(key)?
        .ok_or_else(|| FieldError::missing(entry.path_of(key), allowed))?;
    parse(&text).map_err(|_| FieldError::bad_value(entry.path_of(key), text, allowed))
}

#[cfg(test)]
mod tests;
