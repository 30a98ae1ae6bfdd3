//! The MAC of this node's VTEP, which stays the same for ever: peers that miss a change send into the void.
//!
//! What the directory remembers that we published comes first: the others have that. A directory may forget, so there
//! is a file on this node as well. Only a node that has neither takes the MAC that its device has, as one that flanneld
//! made; so somebody who changes a living device's MAC is not followed ([`crate::converge`] sets it back). A node that
//! never had one gets a new one.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use libcni::kernel::{Mac, vxlan};
use libcni::nl::{NlError, Socket};
use thiserror::Error;

use crate::file;

/// A MAC that cannot be kept.
#[derive(Debug, Error)]
pub enum MacError {
    /// The kernel refused to tell the device's.
    #[error(transparent)]
    Kernel(#[from] NlError),
    /// The file cannot be written.
    #[error("keep the VTEP's MAC in {}: {source}", file.display())]
    Keep {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file cannot be read. Nobody knows then whether there was one.
    #[error("read the VTEP's MAC from {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The MAC for a device, which is kept in the file from now on: what the directory remembers (`hint`), else what the
/// file says, else that of the device, else a fresh one. One that no interface can have is none; a file that holds
/// anything else is as good as absent.
///
/// # Errors
/// The kernel does not tell, or the file cannot be read or written.
pub fn choose(
    sock: &mut Socket,
    device: &str,
    hint: Option<Mac>,
    file: &Path,
) -> Result<Mac, MacError> {
    let kept = kept(file)?;
    let known = [hint, kept].into_iter().flatten();
    let mac = match known.into_iter().find(|mac| is_somebodys(*mac)) {
        Some(mac) => mac,
        None => {
            let living = vxlan::get(sock, device)?.and_then(|(link, _)| link.mac);
            let living = living.filter(|mac| is_somebodys(*mac));
            living.unwrap_or_else(Mac::random_local)
        }
    };
    if kept != Some(mac) {
        let text = format!("{mac}\n");
        file::replace(file, text.as_bytes(), 0o644).map_err(|source| MacError::Keep {
            file: file.into(),
            source,
        })?;
    }
    Ok(mac)
}

fn kept(file: &Path) -> Result<Option<Mac>, MacError> {
    match fs::read(file) {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| Mac::parse(text.trim()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MacError::Read {
            file: file.into(),
            source,
        }),
    }
}

fn is_somebodys(mac: Mac) -> bool {
    !mac.is_zero() && !mac.is_multicast()
}

#[cfg(test)]
mod tests {
    use libcni::nl::ROUTE;
    use testkit::{in_netns, sh};

    use super::*;

    const A: Mac = Mac([0x2a, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([0x2a, 0, 0, 0, 0, 0xb]);

    /// Across restart, reboot (no device) and a directory that forgets (no hint).
    #[test]
    fn rule_3_the_mac_stays() {
        in_netns(|| {
            let mut sock = Socket::open(ROUTE).unwrap();
            let file = Path::new("/run/overlay/flannel.1.mac");
            let mut choose = |hint| choose(&mut sock, "flannel.1", hint, file).unwrap();
            let first = choose(None);
            assert!(!first.is_multicast() && !first.is_zero());
            assert_eq!(choose(None), first);
            assert_eq!(fs::read_to_string(file).unwrap(), format!("{first}\n"));
            // What was published counts for more: the others have that.
            assert_eq!(choose(Some(A)), A);
            assert_eq!(choose(None), A);
            assert_eq!(choose(Some(Mac::default())), A, "nobody's");
            // Somebody changed it on the living device.
            sh(&format!(
                "ip link add flannel.1 address {B} type vxlan id 1 dstport 8472"
            ));
            assert_eq!((choose(Some(A)), choose(None)), (A, A));
            // A device that flanneld made, on a node that never was ours.
            fs::remove_file(file).unwrap();
            assert_eq!(choose(None), B);
            sh("ip link del flannel.1");
            assert_eq!(choose(None), B);
            for torn in ["", "2a:00", "\u{0}\u{0}\u{0}", "01:00:00:00:00:00"] {
                fs::write(file, torn).unwrap();
                let fresh = choose(None);
                assert!(is_somebodys(fresh) && fresh != B, "{torn:?}");
                assert_eq!(choose(None), fresh);
            }
            // Not of a device that happens to have the name.
            fs::remove_file(file).unwrap();
            sh(&format!("ip link add flannel.1 address {A} type bridge"));
            assert_ne!(choose(None), A);
        });
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_absent_one() {
        in_netns(|| {
            let mut sock = Socket::open(ROUTE).unwrap();
            let error = choose(&mut sock, "flannel.1", None, Path::new("/run")).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("read the VTEP's MAC from /run: "),
                "{error}"
            );
        });
    }
}
