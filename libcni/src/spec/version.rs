//! Spec versions: the seven that exist, and the comparison of strings that may be anything.

use std::fmt;

use super::error::{CniError, Code, quoted};

/// A published version of the specification. Ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0, which a config without `cniVersion` means.
    V0_1_0,
    /// 0.2.0: VERSION.
    V0_2_0,
    /// 0.3.0: the plugin chain, `interfaces` and `ips`.
    V0_3_0,
    /// 0.3.1: as 0.3.0.
    V0_3_1,
    /// 0.4.0: CHECK, `prevResult` on DEL.
    V0_4_0,
    /// 1.0.0: `ips[].version` gone.
    V1_0_0,
    /// 1.1.0: GC, STATUS, more route and interface fields.
    V1_1_0,
}

/// Versions that share one shape of Result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    Ip4Ip6,
    /// 0.3.0, 0.3.1 and 0.4.0: lists, `ips[].version`.
    Lists,
    /// 1.0.0 and 1.1.0: lists, printed with sorted keys.
    Sorted,
}

/// Up to three numbers of a version string, for comparing only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbers(i64, i64, i64);

// === impl Version ===

impl Version {
    /// Every version, oldest first, the order in which VERSION lists them.
    pub const ALL: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];

    /// The version this library implements; VERSION answers with it whatever the caller's is.
    pub const CURRENT: Version = Version::V1_1_0;

    /// The version as it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The version with exactly this spelling: `1.0` and `1.0.00` are none, as for the reference.
    pub fn parse(text: &str) -> Option<Version> {
        Version::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// Which shape a Result of this version has.
    pub fn group(self) -> Group {
        match self {
            Version::V0_1_0 | Version::V0_2_0 => Group::Ip4Ip6,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => Group::Lists,
            Version::V1_0_0 | Version::V1_1_0 => Group::Sorted,
        }
    }

    /// The version as numbers.
    pub fn numbers(self) -> Numbers {
        match self {
            Version::V0_1_0 => Numbers(0, 1, 0),
            Version::V0_2_0 => Numbers(0, 2, 0),
            Version::V0_3_0 => Numbers(0, 3, 0),
            Version::V0_3_1 => Numbers(0, 3, 1),
            Version::V0_4_0 => Numbers(0, 4, 0),
            Version::V1_0_0 => Numbers(1, 0, 0),
            Version::V1_1_0 => Numbers(1, 1, 0),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Numbers ===

impl Numbers {
    /// Reads one to three decimal numbers between dots; missing ones are 0, and `""` is 0.1.0.
    /// Anything else is a [`Code::Decode`] error naming the part.
    pub fn parse(text: &str) -> Result<Numbers, CniError> {
        if text.is_empty() {
            return Ok(Version::V0_1_0.numbers());
        }
        let mut parts = text.split('.');
        let mut number = |name: &str| match parts.next() {
            None => Ok(0),
            Some(part) => part.parse::<i64>().map_err(|_| {
                CniError::new(
                    Code::Decode,
                    format!(
                        "failed to convert {name} version part {}: not a number",
                        quoted(part)
                    ),
                )
            }),
        };
        if text.split('.').count() > 3 {
            return Err(CniError::new(
                Code::Decode,
                format!("invalid version {}: too many parts", quoted(text)),
            ));
        }
        Ok(Numbers(
            number("major")?,
            number("minor")?,
            number("micro")?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seven_versions() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
            assert_eq!(Numbers::parse(version.as_str()), Ok(version.numbers()));
        }
        assert!(Version::ALL.is_sorted());
        assert!(Version::ALL.map(Version::numbers).is_sorted());
        assert!(Version::ALL.map(Version::group).is_sorted());
        for text in [
            "", "1.1", "1.1.0 ", "v1.1.0", "01.1.0", "1.1.00", "1.2.0", "0.3.2",
        ] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }

    /// Spec section 1 asks for Semantic Version 2.0; the reference compares up to three numbers.
    #[test]
    fn any_version_compares_by_its_numbers() {
        let numbers = |text: &str| Numbers::parse(text).unwrap();
        for (less, more) in [
            ("", "0.1.1"),
            ("0.4.0", "0.10.0"),
            ("0.9.9", "1"),
            ("1", "1.0.1"),
            ("1.1", "1.1.1"),
            ("-1", "0"),
            ("9.9.9", "10"),
        ] {
            assert!(numbers(less) < numbers(more), "{less} < {more}");
        }
        for (a, b) in [
            ("", "0.1.0"),
            ("1", "1.0.0"),
            ("1.1", "1.1.0"),
            ("01.1.00", "1.1.0"),
            ("+1", "1"),
        ] {
            assert_eq!(numbers(a), numbers(b), "{a} = {b}");
        }
    }

    #[test]
    fn no_version_says_which_part() {
        for (text, want) in [
            (
                "abc",
                r#"failed to convert major version part "abc": not a number"#,
            ),
            (
                ".1",
                r#"failed to convert major version part "": not a number"#,
            ),
            (
                "1.x",
                r#"failed to convert minor version part "x": not a number"#,
            ),
            (
                "1.",
                r#"failed to convert minor version part "": not a number"#,
            ),
            (
                "1.1.0-rc1",
                r#"failed to convert micro version part "0-rc1": not a number"#,
            ),
            ("1.1.0.0", r#"invalid version "1.1.0.0": too many parts"#),
            ("x.y.z.", r#"invalid version "x.y.z.": too many parts"#),
            (
                "99999999999999999999",
                r#"failed to convert major version part "99999999999999999999": not a number"#,
            ),
        ] {
            assert_eq!(
                Numbers::parse(text),
                Err(CniError::new(Code::Decode, want)),
                "{text}"
            );
        }
    }
}
