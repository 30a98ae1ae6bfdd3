//! Settings that have no netlink: files below `/proc/sys`, of the thread's own network namespace.
//!
//! Paths, not dotted names: an interface may be called `eth0.100`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::spec::error::{CniError, Code};

/// A setting that could not be read or written.
#[derive(Debug, Error)]
#[error("{step} {}: {source}", file.display())]
pub struct SysctlError {
    /// `read`, or `write "1" to`.
    pub step: String,
    /// The file below `/proc/sys`.
    pub file: PathBuf,
    /// What the kernel said; ENOENT is a kernel (or an interface) without the feature.
    pub source: io::Error,
}

/// `/proc/sys/net/ipv4/conf/IFNAME/KEY`; also for `all` and `default`. The name must be a valid one
/// (no `/`).
pub fn ipv4_conf(ifname: &str, key: &str) -> PathBuf {
    conf("/proc/sys/net/ipv4/conf", ifname, key)
}

/// `/proc/sys/net/ipv6/conf/IFNAME/KEY`, as [`ipv4_conf`]. Absent without IPv6.
pub fn ipv6_conf(ifname: &str, key: &str) -> PathBuf {
    conf("/proc/sys/net/ipv6/conf", ifname, key)
}

/// The value, without the newline at its end; its first 256 bytes.
pub fn read(file: impl AsRef<Path>) -> Result<String, SysctlError> {
    let file = file.as_ref();
    // One read gives a whole setting; `fs::read_to_string` makes four calls of it.
    let mut bytes = [0; 256];
    match File::open(file).and_then(|mut f| f.read(&mut bytes)) {
        Ok(length) => Ok(
            String::from_utf8_lossy(bytes.get(..length).unwrap_or_default())
                .trim_end()
                .to_owned(),
        ),
        Err(source) => Err(SysctlError {
            step: "read".into(),
            file: file.into(),
            source,
        }),
    }
}

/// Writes the value. The kernel's word is taken for it: it is not read back.
pub fn write(file: impl AsRef<Path>, value: &str) -> Result<(), SysctlError> {
    write_to(file.as_ref(), value)
}

/// Writes the value unless the file holds it already. A read-only `/proc/sys` (a container) that is right
/// is right.
pub fn ensure(file: impl AsRef<Path>, value: &str) -> Result<(), SysctlError> {
    let file = file.as_ref();
    if read(file)? == value {
        return Ok(());
    }
    write_to(file, value)
}

/// Writes the value if there is such a setting; for IPv6 settings on a node without IPv6.
pub fn write_if_present(file: impl AsRef<Path>, value: &str) -> Result<(), SysctlError> {
    match write_to(file.as_ref(), value) {
        Err(e) if e.source.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn conf(directory: &str, ifname: &str, key: &str) -> PathBuf {
    debug_assert!(
        !ifname.contains('/') && !key.contains('/'),
        "{ifname:?} {key:?}"
    );
    Path::new(directory).join(ifname).join(key)
}

fn write_to(file: &Path, value: &str) -> Result<(), SysctlError> {
    // Neither created nor truncated: a missing setting is an error, and one write is one change.
    let opened = OpenOptions::new().write(true).open(file);
    opened
        .and_then(|mut f| f.write_all(value.as_bytes()))
        .map_err(|source| SysctlError {
            step: format!("write {value:?} to"),
            file: file.into(),
            source,
        })
}

impl From<SysctlError> for CniError {
    fn from(error: SysctlError) -> Self {
        let remedy = match error.source.kind() {
            ErrorKind::NotFound => {
                "this kernel, or this interface, has no such setting (IPv6 switched off?)"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "/proc/sys is read-only here: set it on the node, or let the plugin run with CAP_NET_ADMIN on the host"
            }
            _ => "",
        };
        Self::new(Code::Io, error.to_string()).with_details(remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_writes_and_names_the_file() {
        testkit::in_netns(|| {
            testkit::sh("ip link add eth0.100 type bridge");
            let file = ipv6_conf("eth0.100", "accept_ra");
            write(&file, "0").unwrap();
            assert_eq!(read(&file).unwrap(), "0");
            ensure(&file, "2").unwrap();
            ensure(&file, "2").unwrap();
            assert_eq!(
                testkit::sh("cat /proc/sys/net/ipv6/conf/eth0.100/accept_ra"),
                "2\n"
            );
            let absent = ipv6_conf("nosuch", "accept_ra");
            write_if_present(&absent, "0").unwrap();
            let error = write(&absent, "0").unwrap_err();
            assert_eq!(
                error.to_string(),
                "write \"0\" to /proc/sys/net/ipv6/conf/nosuch/accept_ra: No such file or directory (os error 2)"
            );
            let cni = CniError::from(write(&file, "no number").unwrap_err());
            assert_eq!(cni.code, Code::Io);
            assert!(!absent.exists());
        });
    }
}
