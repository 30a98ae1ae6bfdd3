//! Asking for lists.

use std::time::Instant;

use nix::errno::Errno;

use super::super::DUMP;
use super::super::error::NlError;
use super::super::frame::{
    Frames, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN,
};
use super::super::message::{Batch, Message, add_flags};
use super::{ANSWER_TIMEOUT, Received, Reply, Socket, unanswered};

/// A dump that meets a concurrent change is begun again this often. Under a storm of changes (hundreds
/// of pods starting) several in a row are normal, each costs a millisecond or so.
const DUMP_TRIES: u32 = 16;

/// How one run of a dump ended.
enum DumpEnd {
    Complete,
    Again,
}

impl Socket {
    /// Asks for a list; `parse` turns each message into an item or skips it. A dump that a concurrent
    /// change interrupted (`NLM_F_DUMP_INTR`) may miss or repeat items, so it is thrown away and begun
    /// again, at most 16 times; then EAGAIN.
    pub fn dump<T>(
        &mut self,
        message: Message,
        mut parse: impl FnMut(Reply<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NlError> {
        let mut items = Vec::new();
        self.dump_into(message, &mut items, |items, reply| {
            items.extend(parse(reply));
        })?;
        Ok(items)
    }

    /// [`Socket::dump`] into a collection of the caller's, emptied when the dump is begun again: thousands of items
    /// need no list of their own.
    pub fn dump_into<C: Default>(
        &mut self,
        message: Message,
        items: &mut C,
        mut each: impl FnMut(&mut C, Reply<'_>),
    ) -> Result<(), NlError> {
        let mut message = message.unacked();
        add_flags(&mut message.bytes, 0, DUMP);
        let step = message.step().into_owned();
        let batch = Batch::from(message);
        for _ in 0..DUMP_TRIES {
            *items = C::default();
            let end = self.dump_once(&batch, &step, &mut |reply| each(items, reply))?;
            if let DumpEnd::Complete = end {
                return Ok(());
            }
        }
        let why = format!("interrupted {DUMP_TRIES} times by concurrent changes");
        Err(NlError::because(step, Errno::EAGAIN as i32, why))
    }

    fn dump_once(
        &mut self,
        batch: &Batch,
        step: &str,
        each: &mut dyn FnMut(Reply<'_>),
    ) -> Result<DumpEnd, NlError> {
        let (seq, _) = self.send(batch)?;
        let mut interrupted = false;
        loop {
            // The kernel refuses a second dump on a socket (EBUSY) until the first is read to its end,
            // hence no early return for an interrupted one.
            let deadline = Instant::now() + ANSWER_TIMEOUT;
            let length = match self.receive(step)? {
                Received::Datagram(length) => length,
                // Something is missing from the list, as if a change had interrupted it.
                Received::Truncated | Received::Overrun => {
                    interrupted = true;
                    continue;
                }
                Received::Empty if self.wait(step, deadline)? => continue,
                Received::Empty => return Err(unanswered(step)),
            };
            self.overtaken |= Frames::new(self.datagram(length)).any(|f| f.seq != seq);
            for frame in Frames::new(self.datagram(length)).filter(|f| f.seq == seq) {
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match frame.verdict(step) {
                            // Kernels from 6.0 may end an interrupted dump with the error itself.
                            Err(e) if e.is(Errno::EINTR) => Ok(DumpEnd::Again),
                            Err(e) => Err(e),
                            Ok(()) if interrupted => Ok(DumpEnd::Again),
                            Ok(()) => Ok(DumpEnd::Complete),
                        };
                    }
                    NLMSG_NOOP | NLMSG_OVERRUN => {}
                    _ if interrupted => {}
                    _ => each(Reply::from(frame)),
                }
            }
        }
    }
}
