//! The process's netfilter socket.

use super::SUBSYS;
use crate::nl::{Message, NETFILTER, NlError, Reply, Socket, attr};
use nix::errno::Errno;

const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;

/// A netfilter socket that is opened at the first use, so that whoever finds nothing to do pays nothing.
///
/// One per process, dropped last: closing it waits for a grace period (about 15 ms) after any deletion, the process's
/// own or another's that is still under way. Conntrack uses the same one.
#[derive(Debug, Default)]
pub struct Netfilter(Option<Socket>);

impl Netfilter {
    /// Not opened yet.
    pub const fn unopened() -> Netfilter {
        Netfilter(None)
    }

    /// The socket, opened now if it was not.
    pub fn socket(&mut self) -> Result<&mut Socket, NlError> {
        match &mut self.0 {
            Some(socket) => Ok(socket),
            closed => Ok(closed.insert(Socket::open(NETFILTER)?)),
        }
    }

    /// Has anything been asked of the kernel yet?
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the kernel has nf_tables; one without holds no rules. One read.
    pub fn is_there(&mut self) -> Result<bool, NlError> {
        match self.generation() {
            Ok(_) => Ok(true),
            // No netfilter sockets; or the subsystem is not there.
            Err(e)
                if [
                    Errno::EPROTONOSUPPORT,
                    Errno::EAFNOSUPPORT,
                    Errno::EINVAL,
                    Errno::EOPNOTSUPP,
                ]
                .into_iter()
                .any(|errno| e.is(errno)) =>
            {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// The number of the namespace's current ruleset; each transaction makes a new one.
    pub fn generation(&mut self) -> Result<u32, NlError> {
        let message = Message::new(SUBSYS | NFT_MSG_GETGEN, 0, "read the ruleset's generation")
            .header(&[0; 4]);
        let reply = self.socket()?.get(message)?;
        let id = attributes(&reply).find(NFTA_GEN_ID).and_then(attr::be32);
        id.ok_or_else(|| {
            NlError::because(
                "read the ruleset's generation",
                Errno::EPROTO as i32,
                "no NFTA_GEN_ID",
            )
        })
    }

    /// Is this the error of a kernel without nf_tables? Then there is nothing to find in it, and nothing to remove.
    pub fn is_unsupported(&mut self, error: &NlError) -> bool {
        // No netfilter sockets at all; or sockets for conntrack, but the subsystem's number is unknown, to which the
        // kernel answers EINVAL. That can mean many things, so ask something that cannot be invalid.
        error.is(Errno::EPROTONOSUPPORT)
            || error.is(Errno::EINVAL) && self.generation().is_err_and(|e| e.is(Errno::EINVAL))
    }

    /// Asks for one object; `None` if it, or what it would be in, does not exist.
    pub(super) fn find<T>(
        &mut self,
        message: Message,
        read: impl FnOnce(Reply<'_>) -> T,
    ) -> Result<Option<T>, NlError> {
        match self.socket()?.get(message).map(read) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is(Errno::ENOENT) || self.is_unsupported(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for all objects of a kind; none if what they would be in does not exist.
    pub(super) fn list<T>(
        &mut self,
        message: Message,
        mut read: impl FnMut(Reply<'_>) -> T,
    ) -> Result<Vec<T>, NlError> {
        match self.socket()?.dump(message, |reply| Some(read(reply))) {
            Err(error) if error.is(Errno::ENOENT) || self.is_unsupported(&error) => Ok(Vec::new()),
            listed => listed,
        }
    }
}

/// What follows `struct nfgenmsg`.
pub(super) fn attributes<'a>(reply: &Reply<'a>) -> attr::Attrs<'a> {
    attr::Attrs::after(reply.payload, 4)
}
