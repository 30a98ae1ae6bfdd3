//! Changes that happen together or not at all.

use nix::errno::Errno;

use super::{Netfilter, SUBSYS};
use crate::nl::{Batch, Message, NlError};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_BATCH_GENID: u16 = 1;

/// How often a change that met another process's is worked out afresh.
const TRIES: u32 = 16;

/// Runs one attempt after the other, counted from 1, until one does not lose a race; the last error, if all do.
pub fn settle<T>(mut attempt: impl FnMut(u32) -> Result<T, NlError>) -> Result<T, NlError> {
    let mut tries = 1;
    loop {
        match attempt(tries) {
            Err(error) if tries < TRIES && lost_a_race(&error) => tries += 1,
            outcome => return outcome,
        }
    }
}

/// [`settle`] for tidying up behind a change: a race that is lost each time leaves it to the next one, and is no error.
pub fn tidy(mut attempt: impl FnMut() -> Result<(), NlError>) -> Result<(), NlError> {
    match settle(|_| attempt()) {
        Err(error) if lost_a_race(&error) => Ok(()),
        outcome => outcome,
    }
}

/// Did somebody else's change come between looking and writing? ENOENT and EEXIST: what was seen (not) to be there is
/// gone (made) meanwhile; EBUSY: it found a user; ERESTART: the generation moved on; EAGAIN: so did a dump's.
pub(crate) fn lost_a_race(error: &NlError) -> bool {
    /// `include/linux/errno.h`; user space has no name for it.
    const ERESTART: i32 = 85;
    error.errno == ERESTART
        || [Errno::ENOENT, Errno::EEXIST, Errno::EBUSY, Errno::EAGAIN]
            .iter()
            .any(|errno| error.is(*errno))
}

/// A batch of nf_tables changes, atomic: packets and readers see all of it or nothing.
#[derive(Debug, Default)]
pub struct Transaction {
    changes: Vec<Message>,
    generation: Option<u32>,
}

impl Transaction {
    /// An empty one.
    pub fn new() -> Transaction {
        Transaction::default()
    }

    /// One that is refused with ERESTART if anything in this namespace's rules changed since `generation` was read
    /// ([`Netfilter::generation`]): the way to delete what a look found to be unused. Linux 4.10; older kernels do
    /// not compare.
    pub fn at_generation(generation: u32) -> Transaction {
        Transaction {
            changes: Vec::new(),
            generation: Some(generation),
        }
    }

    /// One that makes what the following look finds missing, in an attempt of [`settle`]. Others may be making the same: a
    /// transaction that is refused for its generation costs nothing, one that is refused for what is in it a grace
    /// period. Where strangers change their rules without a pause the generation never holds, so after half the tries it
    /// is not minded.
    pub fn begin(netfilter: &mut Netfilter, attempt: u32) -> Result<Transaction, NlError> {
        if attempt <= TRIES / 2 {
            Ok(Transaction::at_generation(netfilter.generation()?))
        } else {
            Ok(Transaction::new())
        }
    }

    /// Adds a change behind the others; later ones may refer to what earlier ones make.
    pub fn push(&mut self, change: Message) {
        self.changes.push(change);
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Sends it, in one system call; an empty one is not sent. On error nothing has changed, and the error's step is
    /// that of the first change the kernel refused. A refused transaction costs a grace period (about 12 ms) before this
    /// returns, during which nobody else can commit; one refused for its generation does not.
    pub fn commit(self, netfilter: &mut Netfilter) -> Result<(), NlError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut begin = edge(NFNL_MSG_BATCH_BEGIN, "begin an nf_tables transaction");
        if let Some(generation) = self.generation {
            begin = begin.be32(NFNL_BATCH_GENID, generation);
        }
        let mut batch = Batch::from(begin);
        let last = self.changes.len() - 1;
        for (n, change) in self.changes.into_iter().enumerate() {
            // The kernel reports each refused change by itself; success needs to be heard only once.
            batch.push(if n == last { change } else { change.unacked() });
        }
        batch.push(edge(NFNL_MSG_BATCH_END, "commit an nf_tables transaction"));
        netfilter.socket()?.run(&batch)
    }
}

/// `NFNL_MSG_BATCH_BEGIN` or `_END`. Without an ack: before Linux 6.10 the kernel answers such a request wrongly.
fn edge(kind: u16, step: &'static str) -> Message {
    // struct nfgenmsg: the subsystem goes into res_id, big endian.
    let [high, low] = (SUBSYS >> 8).to_be_bytes();
    Message::new(kind, 0, step)
        .header(&[0, 0, high, low])
        .unacked()
}
