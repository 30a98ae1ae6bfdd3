//! What a failing plugin prints: a code, one line of message, details (spec section 5, "Error").

use std::borrow::Cow;
use std::fmt;

use super::json::{FieldError, Fields, JsonError, Node};

/// The well-known error codes, and room for a delegate's own.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// 1: the config's `cniVersion` is not one the plugin supports.
    IncompatibleVersion,
    /// 2: a field of the config is not supported; the message names key and value.
    UnsupportedField,
    /// 3: the container is unknown; the runtime need not call DEL.
    UnknownContainer,
    /// 4: a `CNI_*` variable is missing or invalid; the message names it.
    InvalidEnvironment,
    /// 5: reading stdin or writing stdout failed.
    Io,
    /// 6: bytes that should be JSON or a version are not.
    Decode,
    /// 7: the network configuration is invalid.
    InvalidConfig,
    /// 8: `CNI_NETNS` is not usable. Known to the reference's `types.go`, not to the spec's table.
    InvalidNetns,
    /// 11: a transient condition; the runtime should try again later.
    TryAgain,
    /// 50: STATUS only: the plugin cannot serve ADD.
    NotAvailable,
    /// 51: STATUS only: as 50, and existing containers may have limited connectivity.
    NotAvailableLimited,
    /// 999: everything without a code of its own.
    Internal,
    /// Any other number, for example 0 or a delegate's own from 100 up.
    Other(u32),
}

/// An error as CNI transports it: printed on stdout, exit status 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// What kind of failure; runtimes decide by it.
    pub code: Code,
    /// What failed, in one line, with its nouns.
    pub msg: String,
    /// errno, kernel text and the remedy; empty if there is nothing to add.
    pub details: String,
}

// === impl Code ===

impl Code {
    /// The number on the wire.
    pub fn as_u32(self) -> u32 {
        match self {
            Code::IncompatibleVersion => 1,
            Code::UnsupportedField => 2,
            Code::UnknownContainer => 3,
            Code::InvalidEnvironment => 4,
            Code::Io => 5,
            Code::Decode => 6,
            Code::InvalidConfig => 7,
            Code::InvalidNetns => 8,
            Code::TryAgain => 11,
            Code::NotAvailable => 50,
            Code::NotAvailableLimited => 51,
            Code::Internal => 999,
            Code::Other(n) => n,
        }
    }

    /// The code for a number on the wire; a number without a name is kept as [`Code::Other`].
    pub fn from_u32(n: u32) -> Code {
        match n {
            1 => Code::IncompatibleVersion,
            2 => Code::UnsupportedField,
            3 => Code::UnknownContainer,
            4 => Code::InvalidEnvironment,
            5 => Code::Io,
            6 => Code::Decode,
            7 => Code::InvalidConfig,
            8 => Code::InvalidNetns,
            11 => Code::TryAgain,
            50 => Code::NotAvailable,
            51 => Code::NotAvailableLimited,
            999 => Code::Internal,
            n => Code::Other(n),
        }
    }
}

// === impl CniError ===

impl CniError {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> CniError {
        CniError {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// The same error with its details replaced.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> CniError {
        self.details = details.into();
        self
    }

    /// The error object in the reference's key order; no `details` if empty, and no `cniVersion`: the spec asks for it,
    /// the reference never prints it, and it would have to be guessed before the config is read.
    pub fn to_node(&self) -> Node {
        Node::obj()
            .put("code", self.code.as_u32())
            .put("msg", self.msg.as_str())
            .put_filled("details", self.details.as_str())
            .build()
    }

    /// The bytes a plugin prints: the object indented by four spaces, no newline at the end.
    pub fn to_json(&self) -> String {
        self.to_node().write_indented()
    }

    /// Reads an error object as a delegate prints it. A missing code is 0 (`Other(0)`), as in the reference.
    pub fn from_node(node: &Node) -> Result<CniError, FieldError> {
        let fields = Fields::of(node, "")?;
        Ok(CniError {
            code: Code::from_u32(fields.u32("code")?.unwrap_or(0)),
            msg: fields.str("msg")?.unwrap_or_default(),
            details: fields.str("details")?.unwrap_or_default(),
        })
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            f.write_str("; ")?;
            f.write_str(&self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for CniError {}

impl From<FieldError> for CniError {
    fn from(error: FieldError) -> CniError {
        CniError::new(
            Code::InvalidConfig,
            format!("invalid network config: {}", error.what()),
        )
        .with_details(format!("allowed: {}", error.allowed()))
    }
}

impl From<JsonError> for CniError {
    fn from(error: JsonError) -> CniError {
        CniError::new(Code::Decode, error.to_string())
    }
}

/// A mistake of the network configuration (code 7): what is wrong, and in `details` what would be right.
pub fn invalid_config(msg: impl Into<String>, details: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidConfig, msg).with_details(details)
}

/// Text in double quotes as Go's `%q` shows it, for messages the reference prints that way.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let escape: Cow<'_, str> = match c {
            '"' => "\\\"".into(),
            '\\' => "\\\\".into(),
            '\n' => "\\n".into(),
            '\r' => "\\r".into(),
            '\t' => "\\t".into(),
            '\0'..='\x1f' | '\x7f' => format!("\\x{:02x}", u32::from(c)).into(),
            c => {
                out.push(c);
                continue;
            }
        };
        out.push_str(&escape);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_number() {
        for n in 0..1100 {
            assert_eq!(Code::from_u32(n).as_u32(), n);
        }
        assert_eq!(Code::from_u32(11), Code::TryAgain);
        assert_eq!(Code::from_u32(0), Code::Other(0));
    }

    /// Spec section 5 "Error", with the reference's bytes: order, indent, escapes, no newline.
    #[test]
    fn printed_as_the_reference_prints_it() {
        let error = CniError::new(
            Code::InvalidConfig,
            "invalid characters found in network name",
        )
        .with_details("a<b>&");
        assert_eq!(
            error.to_json(),
            "{\n    \"code\": 7,\n    \"msg\": \"invalid characters found in network name\",\n    \"details\": \"a\\u003cb\\u003e\\u0026\"\n}"
        );
        assert_eq!(
            CniError::new(Code::Internal, "x").to_json(),
            "{\n    \"code\": 999,\n    \"msg\": \"x\"\n}"
        );
    }

    #[test]
    fn read_back_from_a_delegate() {
        let read = |text: &str| CniError::from_node(&Node::parse(text.as_bytes()).unwrap());
        assert_eq!(
            read(r#"{"cniVersion":"1.1.0","CODE":11,"msg":"busy","details":"lock held"}"#).unwrap(),
            CniError::new(Code::TryAgain, "busy").with_details("lock held")
        );
        assert_eq!(read("{}").unwrap(), CniError::new(Code::Other(0), ""));
        assert!(read(r#"{"code":"1"}"#).is_err());
        assert!(read("[]").is_err());
    }

    #[test]
    fn shown_with_details() {
        assert_eq!(CniError::new(Code::Io, "a").to_string(), "a");
        assert_eq!(
            CniError::new(Code::Io, "a").with_details("b").to_string(),
            "a; b"
        );
        assert_eq!(quoted("a\"\\\n\u{1}ü"), "\"a\\\"\\\\\\n\\x01ü\"");
    }
}
