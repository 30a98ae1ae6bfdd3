//! What this suite keeps in nf_tables: masquerading and MAC filtering.
//!
//! Two tables are ours alone, `inet podwire` ([`masquerade`]) and `bridge podwire` ([`spoof`]); each exists only while
//! something is in it. Nothing grows a rule per pod, packets of other software pass untouched, and every object says in
//! a comment whose it is: the network, and for what belongs to one pod also the container ID and the interface.
//! [`legacy`] finds and removes what the Go plugins left behind.
//!
//! All functions take the process's [`crate::kernel::nft::Netfilter`], which opens itself when first needed. Drop it
//! last: after a deletion its close waits for a grace period (about 15 ms), which then overlaps with whatever was done
//! meanwhile.
//!
//! Many processes change the rules at once. Each change is one transaction; one that lost a race is worked out afresh
//! from what is there then, a bounded number of times.

use std::borrow::Cow;

use nix::errno::Errno;
use thiserror::Error;

use crate::kernel::nft::{self, Family, lost_a_race};
use crate::nl::{NlError, errno_name};
use crate::spec::{Attachment, CniError, Code, NetName};

pub mod legacy;
pub mod masquerade;
pub mod sha512;
pub mod spoof;

/// Name of our table in each family.
const TABLE: &str = "podwire";
const TABLE_COMMENT: &str = "made by the podwire CNI plugins, changed with every pod: do not edit";

/// Bytes of a network's name in a comment; longer ones are hashed. With the container ID, the interface and two blanks
/// it stays below what `nft` takes for a comment (127).
const COMMENT_NET_BYTES: usize = 40;
/// Bytes of a container ID in a comment. Runtimes use 64.
const COMMENT_ID_BYTES: usize = 68;
/// Bytes of a network's name in the name of a chain or set.
const OBJECT_NET_BYTES: usize = 64;

/// Why packet filtering is not as wanted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// The kernel refused.
    #[error("{what}: {source}")]
    Kernel {
        /// What for: "masquerade network cbr0".
        what: String,
        /// The step and the errno.
        source: NlError,
    },
    /// CHECK: what ADD made is not there any more, or is not the same.
    #[error("{what}: {object} in table {} podwire is missing or was changed", family_name(*.family))]
    Tampered {
        /// What for.
        what: String,
        /// In which family's table.
        family: Family,
        /// "chain net/cbr0".
        object: String,
    },
}

// === impl FirewallError ===

impl FirewallError {
    fn kernel(what: &str, source: NlError) -> FirewallError {
        FirewallError::Kernel {
            what: what.to_owned(),
            source,
        }
    }

    /// May the same call work a moment later?
    pub fn is_transient(&self) -> bool {
        match self {
            FirewallError::Kernel { source, .. } => lost_a_race(source),
            FirewallError::Tampered { .. } => false,
        }
    }
}

/// CHECK: something is not as ADD left it (docs/bridge.md).
const NOT_AS_LEFT: Code = Code::Other(103);

impl From<FirewallError> for CniError {
    fn from(error: FirewallError) -> CniError {
        let code = match &error {
            _ if error.is_transient() => Code::TryAgain,
            FirewallError::Tampered { .. } => NOT_AS_LEFT,
            FirewallError::Kernel { .. } => Code::Internal,
        };
        let remedy = match &error {
            FirewallError::Tampered { .. } => "delete and re-create the pod, and find out who edits the podwire tables".into(),
            FirewallError::Kernel { source, .. } => match Errno::from_raw(source.errno) {
                Errno::EPERM => "nf_tables needs CAP_NET_ADMIN over the host's network namespace".into(),
                Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EINVAL => {
                    "needs Linux 5.2 or later with nf_tables, its NAT and its inet and bridge families".into()
                }
                _ if error.is_transient() => "other processes kept changing the rules; try again".into(),
                _ => errno_name(source.errno),
            },
        };
        CniError::new(code, error.to_string()).with_details(remedy)
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::Inet => "inet",
        Family::Ip => "ip",
        Family::Bridge => "bridge",
        Family::Ip6 => "ip6",
    }
}

/// [`nft::settle`] for this purpose.
fn settle<T>(
    what: &str,
    attempt: impl FnMut(u32) -> Result<T, NlError>,
) -> Result<T, FirewallError> {
    nft::settle(attempt).map_err(|error| FirewallError::kernel(what, error))
}

/// Whose an element is: `<network> <container ID> <interface>`.
fn owner(net: &NetName, attachment: &Attachment) -> String {
    let id = shortened(attachment.container_id.as_str(), COMMENT_ID_BYTES);
    [
        &shortened(net.as_str(), COMMENT_NET_BYTES),
        " ",
        &id,
        " ",
        attachment.ifname.as_str(),
    ]
    .concat()
}

/// Is it the comment of an element of this network, whichever the attachment?
fn is_of_network(comment: &str, net: &NetName) -> bool {
    comment.split(' ').next() == Some(&shortened(net.as_str(), COMMENT_NET_BYTES))
}

/// The text, or if it is too long its beginning and a hash of all of it; `max_bytes` is at least 18. The alphabet stays
/// that of names in `nft`.
pub fn shortened(text: &str, max_bytes: usize) -> Cow<'_, str> {
    const HASH_DIGITS: usize = 16;
    if text.len() <= max_bytes {
        return text.into();
    }
    let head = text
        .get(..max_bytes.saturating_sub(HASH_DIGITS + 1))
        .unwrap_or_default();
    [head, "_", &sha512::hex(text, HASH_DIGITS)].concat().into()
}

#[cfg(test)]
mod tests;
