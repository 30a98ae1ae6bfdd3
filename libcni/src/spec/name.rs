//! Names that come from outside and end up in file names and kernel objects: checked once, valid ever after.

use std::fmt;

use super::error::{CniError, Code};

/// `CNI_CONTAINERID`: an ASCII letter or digit, then letters, digits, `_`, `.`, `-`. No length limit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// `CNI_IFNAME`: 1 to 15 bytes, not `.` or `..`, without `/`, `:` or white space; what the kernel takes
/// (`dev_valid_name()`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

/// A network's `name`: the same alphabet as [`ContainerId`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetName(String);

/// What ADD makes and DEL removes: one interface of one container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The container.
    pub container_id: ContainerId,
    /// The interface in it.
    pub ifname: IfName,
}

/// IFNAMSIZ - 1: the kernel's name buffer holds 16 bytes with the NUL.
const IFNAME_MAX_BYTES: usize = 15;

macro_rules! name {
    ($type:ident) => {
        impl $type {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $type {
            type Error = CniError;
            fn try_from(text: &str) -> Result<$type, CniError> {
                $type::parse(text)
            }
        }

        impl std::str::FromStr for $type {
            type Err = CniError;
            fn from_str(text: &str) -> Result<$type, CniError> {
                $type::parse(text)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(ContainerId);
name!(IfName);
name!(NetName);

impl ContainerId {
    /// Checks and takes an ID. Code 3 if empty, code 4 otherwise.
    pub fn parse(text: &str) -> Result<ContainerId, CniError> {
        if text.is_empty() {
            return Err(CniError::new(Code::UnknownContainer, "missing containerID"));
        }
        if !is_cni_name(text) {
            return Err(CniError::new(
                Code::InvalidEnvironment,
                "invalid characters in containerID",
            )
            .with_details(text));
        }
        Ok(ContainerId(text.to_owned()))
    }
}

impl NetName {
    /// Checks and takes a network name; code 7 if it is none.
    pub fn parse(text: &str) -> Result<NetName, CniError> {
        if text.is_empty() {
            return Err(CniError::new(Code::InvalidConfig, "missing network name"));
        }
        if !is_cni_name(text) {
            return Err(CniError::new(
                Code::InvalidConfig,
                "invalid characters found in network name",
            )
            .with_details(text));
        }
        Ok(NetName(text.to_owned()))
    }
}

impl IfName {
    /// Takes a name this crate composed itself, of parts that cannot make it invalid.
    pub(crate) fn new_unchecked(name: String) -> IfName {
        debug_assert!(IfName::parse(&name).is_ok(), "{name:?}");
        IfName(name)
    }

    /// Checks and takes an interface name; code 4 if it is none.
    pub fn parse(text: &str) -> Result<IfName, CniError> {
        let invalid = |msg: &str| CniError::new(Code::InvalidEnvironment, msg);
        if text.is_empty() {
            return Err(invalid("interface name is empty"));
        }
        if text.len() > IFNAME_MAX_BYTES {
            return Err(invalid("interface name is too long")
                .with_details("interface name should be less than 16 characters"));
        }
        if text == "." || text == ".." {
            return Err(invalid("interface name is . or .."));
        }
        if text
            .chars()
            .any(|c| c == '/' || c == ':' || c.is_whitespace())
        {
            return Err(invalid(
                "interface name contains / or : or whitespace characters",
            ));
        }
        // In an environment there is none, in JSON there may be; the kernel would read the name up to it.
        if text.contains('\0') {
            return Err(invalid("interface name contains a NUL"));
        }
        Ok(IfName(text.to_owned()))
    }
}

/// `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`
fn is_cni_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}
