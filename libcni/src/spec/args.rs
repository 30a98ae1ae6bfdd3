//! The `CNI_*` environment and `CNI_ARGS` (spec section 2, "Execution Protocol": Parameters).

use std::fmt;

use super::error::{CniError, Code, quoted};
use super::name::{Attachment, ContainerId, IfName};

/// Where variables come from: the process, or a map in tests. Unset and empty are the same thing.
pub trait Env {
    /// The variable's value, `None` if it is not set. Bytes that are not UTF-8 come as U+FFFD.
    fn var(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

/// What the caller wants (`CNI_COMMAND`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach it; tolerates everything missing.
    Del,
    /// Is it still attached as the result says (since 0.4.0).
    Check,
    /// Remove what no valid attachment owns (since 1.1.0).
    Gc,
    /// Could ADD succeed now (since 1.1.0).
    Status,
    /// Which versions are supported. Reads no stdin.
    Version,
}

/// What the environment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// `CNI_COMMAND` is empty: somebody ran the plugin by hand. Not an error: name and versions on stderr, exit 0.
    About,
    /// A verb nobody knows. The reference still reads and checks stdin first, so that a broken config wins;
    /// then it is [`unknown_command`].
    Unknown(String),
    /// A valid call.
    Call(CallEnv),
}

/// The environment of a valid call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEnv {
    /// What to do.
    pub verb: Verb,
    /// `CNI_CONTAINERID` and `CNI_IFNAME`: there for ADD, DEL and CHECK, not even looked at for the others.
    pub attachment: Option<Attachment>,
    /// `CNI_NETNS`, a path: there for ADD and CHECK, perhaps for DEL.
    pub netns: Option<String>,
    /// `CNI_ARGS` as given, for [`parse_args`]; `""` if not set.
    pub args: String,
    /// `CNI_PATH` split at colons; an empty element means the current directory. Empty for VERSION if not set.
    pub path: Vec<String>,
    /// `CNI_NETNS_OVERRIDE` is `1` or `true`: the caller wants to work on the plugin's own namespace.
    pub netns_override: bool,
}

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }
}

/// A fixed environment.
impl Env for [(&str, &str)] {
    fn var(&self, name: &str) -> Option<String> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    }
}

// === impl Verb ===

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 6] = [
        Verb::Add,
        Verb::Del,
        Verb::Check,
        Verb::Gc,
        Verb::Status,
        Verb::Version,
    ];

    /// The verb as `CNI_COMMAND` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }

    /// The verb with exactly this spelling.
    pub fn parse(text: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.as_str() == text)
    }

    /// ADD, DEL and CHECK are about one attachment.
    fn names_attachment(self) -> bool {
        matches!(self, Verb::Add | Verb::Del | Verb::Check)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Invocation ===

impl Invocation {
    /// Reads and checks the variables in the reference's order: the first invalid value is the error; else all missing
    /// ones together. Values a verb does not need are not checked. Code 4.
    pub fn read(env: &(impl Env + ?Sized)) -> Result<Invocation, CniError> {
        let var = |name: &str| env.var(name).unwrap_or_default();
        let command = var("CNI_COMMAND");
        if command.is_empty() {
            return Ok(Invocation::About);
        }
        let Some(verb) = Verb::parse(&command) else {
            return Ok(Invocation::Unknown(command));
        };
        let mut missing: Vec<&str> = Vec::new();

        let names_attachment = verb.names_attachment();
        let id = required(
            var("CNI_CONTAINERID"),
            names_attachment,
            "CNI_CONTAINERID",
            &mut missing,
        );
        let id = id.as_deref().map(ContainerId::parse).transpose()?;

        let netns = var("CNI_NETNS");
        if netns.is_empty() && matches!(verb, Verb::Add | Verb::Check) {
            missing.push("CNI_NETNS");
        }

        let ifname = required(
            var("CNI_IFNAME"),
            names_attachment,
            "CNI_IFNAME",
            &mut missing,
        );
        let ifname = match ifname.as_deref() {
            Some(ifname) => Some(IfName::parse(utf8("CNI_IFNAME", ifname)?)?),
            None => None,
        };

        let path = var("CNI_PATH");
        if path.is_empty() && verb != Verb::Version {
            missing.push("CNI_PATH");
        }

        if !missing.is_empty() {
            return Err(CniError::new(
                Code::InvalidEnvironment,
                format!("required env variables [{}] missing", missing.join(",")),
            ));
        }
        let args = var("CNI_ARGS");
        if verb.names_attachment() {
            utf8("CNI_NETNS", &netns)?;
        }
        let netns_override = var("CNI_NETNS_OVERRIDE");
        Ok(Invocation::Call(CallEnv {
            verb,
            attachment: id.zip(ifname).map(|(container_id, ifname)| Attachment {
                container_id,
                ifname,
            }),
            netns: Some(netns).filter(|path| !path.is_empty()),
            args,
            path: if path.is_empty() {
                Vec::new()
            } else {
                path.split(':').map(str::to_owned).collect()
            },
            netns_override: netns_override == "1" || netns_override.eq_ignore_ascii_case("true"),
        }))
    }
}

/// The value if it is needed and there; notes it as missing if it is needed and not there.
fn required(
    value: String,
    needed: bool,
    name: &'static str,
    missing: &mut Vec<&'static str>,
) -> Option<String> {
    if !needed {
        return None;
    }
    if value.is_empty() {
        missing.push(name);
        return None;
    }
    Some(value)
}

/// Refuses what [`Env::var`] had to replace. A path changed that way would not be found, and DEL takes a path that is
/// not there for a pod that is gone.
fn utf8<'v>(name: &str, value: &'v str) -> Result<&'v str, CniError> {
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(
            CniError::new(Code::InvalidEnvironment, format!("{name} is not UTF-8"))
                .with_details(value),
        );
    }
    Ok(value)
}

/// The error for [`Invocation::Unknown`], once the config has been checked. Code 4.
pub fn unknown_command(command: &str) -> CniError {
    CniError::new(
        Code::InvalidEnvironment,
        format!("unknown CNI_COMMAND: {command}"),
    )
}

/// The keys that this suite's plugins know. `CNI_ARGS` go to every plugin of a chain and to its IPAM, so each lets those
/// of the others pass.
pub const KNOWN_ARGS: &[&str] = &["IP", "GATEWAY", "MAC"];

/// Reads `CNI_ARGS`: `KEY=VALUE` pairs between `;`, keys in exact case. Returns the pairs whose key is in `known`, in
/// order; of equal keys the last counts. Values may be empty.
///
/// Every piece needs exactly one `=`, so a `;` at the end is an error. An unknown key is an error too unless
/// `IgnoreUnknown` is 1 or true, wherever it stands. Code 4.
pub fn parse_args(args: &str, known: &[&str]) -> Result<Vec<(String, String)>, CniError> {
    let invalid =
        |msg: String| CniError::new(Code::InvalidEnvironment, msg).with_details(ARGS_HINT);
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut unknown: Vec<&str> = Vec::new();
    let mut ignore_unknown = false;
    if args.is_empty() {
        return Ok(pairs);
    }
    for pair in args.split(';') {
        let Some((key, value)) = pair
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
        else {
            return Err(invalid(format!("ARGS: invalid pair {}", quoted(pair))));
        };
        if key == "IgnoreUnknown" {
            ignore_unknown = match value {
                "1" => true,
                "0" => false,
                _ if value.eq_ignore_ascii_case("true") => true,
                _ if value.eq_ignore_ascii_case("false") => false,
                _ => {
                    return Err(invalid(format!(
                        "ARGS: error parsing value of pair {}: boolean unmarshal error: invalid input {value}",
                        quoted(pair)
                    )));
                }
            };
        } else if known.contains(&key) {
            match pairs.iter_mut().find(|(seen, _)| seen == key) {
                Some(seen) => seen.1 = value.to_owned(),
                None => pairs.push((key.to_owned(), value.to_owned())),
            }
        } else {
            unknown.push(pair);
        }
    }
    if !unknown.is_empty() && !ignore_unknown {
        let unknown: Vec<String> = unknown.into_iter().map(quoted).collect();
        return Err(invalid(format!(
            "ARGS: unknown args [{}]",
            unknown.join(" ")
        )));
    }
    Ok(pairs)
}

const ARGS_HINT: &str =
    "CNI_ARGS is KEY=VALUE pairs separated by ';'; IgnoreUnknown=1 lets unknown keys pass";

#[cfg(test)]
mod tests;
