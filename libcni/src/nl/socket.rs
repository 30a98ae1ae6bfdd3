//! One netlink socket: send, match the answers, wait for events.

mod dump;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::libc::{MSG_DONTWAIT, MSG_TRUNC};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::error::NlError;
use super::frame::{Frame, Frames, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN};
use super::message::{Batch, Message, add_flags, write_at};
use super::{ACK, STOP};

/// The kernel fills at most this much per dump datagram (`af_netlink.c`, `max_recvmsg_len`) and a
/// single answer of ours is far below it.
const RECEIVE_BYTES: usize = 32 * 1024;
/// The default `net.core.wmem_default` is 208 KiB, some of it bookkeeping: above this we ask for more.
const SEND_BYTES_BY_DEFAULT: usize = 128 * 1024;
/// Rtnetlink and nf_tables answer before send returns; this only bounds what should never happen.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A netlink socket in the network namespace of the thread that opened it. It stays in that namespace
/// when the thread moves on.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    buffer: Vec<u8>,
    seq: u32,
    subscriptions: u32,
    /// A notification came before the answer that did not know of it yet, or between the parts of a dump.
    overtaken: bool,
}

/// One message of an answer: type, flags, and what follows the netlink header (the family's fixed
/// header, then attributes).
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// `RTM_NEWLINK`, ...
    pub msg_type: u16,
    /// `NLM_F_*`
    pub flags: u16,
    /// Family header and attributes.
    pub payload: &'a [u8],
}

/// What [`Socket::next_event`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Messages were handed to the callback.
    Seen,
    /// The kernel dropped messages because we read too slowly (ENOBUFS): read the state again.
    Overrun,
    /// The deadline passed in silence.
    Timeout,
}

/// One attempt to receive.
enum Received {
    /// This many bytes are in the buffer.
    Datagram(usize),
    /// Nothing is queued.
    Empty,
    /// The datagram did not fit and is gone; the buffer has grown to hold its like.
    Truncated,
    /// The kernel dropped something (ENOBUFS).
    Overrun,
}

// === impl Socket ===

impl Socket {
    /// Opens a socket of a protocol ([`super::ROUTE`], [`super::NETFILTER`]), close-on-exec. Four
    /// system calls.
    pub fn open(protocol: isize) -> Result<Self, NlError> {
        let inner = netlink_sys::Socket::new(protocol)
            .map_err(|e| NlError::io("open a netlink socket", &e))?;
        // Comforts, each absent from some kernel we run on (4.12, 4.2, 4.20): errors in words, acks
        // without a copy of the request, and dumps that obey their filter. All readers cope without.
        let _ = inner.set_ext_ack(true);
        let _ = inner.set_cap_ack(true);
        let _ = inner.set_netlink_get_strict_chk(true);
        Ok(Self {
            inner,
            // Not zeroed: of its eight pages an answer touches one, and the first touch of a page is the dear part.
            buffer: Vec::with_capacity(RECEIVE_BYTES),
            seq: 0,
            subscriptions: 0,
            overtaken: false,
        })
    }

    /// Sends all messages at once and learns what became of each. The first failure (in the order of
    /// the batch) is returned; later messages were tried nevertheless. Two system calls when all is well.
    pub fn run(&mut self, batch: &Batch) -> Result<(), NlError> {
        self.exchange(batch, |_, _| {})
    }

    /// Like [`Socket::run`] with every message's own outcome, in order. The outer error is a socket
    /// that failed: then nothing is known about any of them.
    pub fn run_all(&mut self, batch: &Batch) -> Result<Vec<Result<(), NlError>>, NlError> {
        self.exchange_all(batch, |_, _| {})
    }

    /// [`Socket::run_all`] and [`Socket::exchange`] in one.
    pub fn exchange_all(
        &mut self,
        batch: &Batch,
        mut each: impl FnMut(usize, Reply<'_>),
    ) -> Result<Vec<Result<(), NlError>>, NlError> {
        let mut outcomes = vec![Ok(()); batch.len()];
        for (index, error) in self.transact(batch, &mut each)? {
            if let Some(outcome) = outcomes.get_mut(index) {
                *outcome = Err(error);
            }
        }
        Ok(outcomes)
    }

    /// Like [`Socket::run`] for one message.
    pub fn request(&mut self, message: Message) -> Result<(), NlError> {
        self.run(&Batch::from(message))
    }

    /// Like [`Socket::run`] for a batch that contains requests with answers (gets, or changes with
    /// [`super::ECHO`]): `each` is given the index of the message and its answer.
    pub fn exchange(
        &mut self,
        batch: &Batch,
        mut each: impl FnMut(usize, Reply<'_>),
    ) -> Result<(), NlError> {
        let failures = self.transact(batch, &mut each)?;
        match failures.into_iter().min_by_key(|(index, _)| *index) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Asks for one object. The answer borrows the socket's buffer.
    pub fn get(&mut self, message: Message) -> Result<Reply<'_>, NlError> {
        let message = message.unacked();
        let step = message.step().into_owned();
        let batch = Batch::from(message);
        let mut place = None;
        // A lost or truncated answer to a question is asked for again.
        for _ in 0..3 {
            let (seq, _) = self.send(&batch)?;
            place = self.await_answer(seq, &step)?;
            if place.is_some() {
                break;
            }
        }
        let frame = place.and_then(|(start, end)| self.buffer.get(start..end));
        match frame.and_then(|bytes| Frames::new(bytes).next()) {
            Some(frame) => Ok(Reply::from(frame)),
            None => Err(NlError::because(
                step,
                Errno::ENOBUFS as i32,
                "the answer was lost three times",
            )),
        }
    }

    /// Joins a multicast group (`RTNLGRP_LINK` is 1). Requests go on working, but answers and notifications
    /// share one queue: a request throws away what is in it, so ask for the state after subscribing and
    /// after each [`Socket::next_event`].
    pub fn subscribe(&mut self, group: u32) -> Result<(), NlError> {
        let step = "subscribe to kernel notifications";
        // An unbound socket has port 0, the kernel's own, and a notification is not sent back to the port
        // that caused it. The first send binds, too, and binding twice is refused.
        if self.seq == 0 {
            self.inner.bind_auto().map_err(|e| NlError::io(step, &e))?;
        }
        self.inner
            .add_membership(group)
            .map_err(|e| NlError::io(step, &e))?;
        self.subscriptions += 1;
        Ok(())
    }

    /// Leaves a multicast group.
    pub fn unsubscribe(&mut self, group: u32) -> Result<(), NlError> {
        let step = "unsubscribe from kernel notifications";
        self.inner
            .drop_membership(group)
            .map_err(|e| NlError::io(step, &e))?;
        self.subscriptions = self.subscriptions.saturating_sub(1);
        self.drain(step)
    }

    /// Waits for the next notification until the deadline and hands its messages to `each`.
    pub fn next_event(
        &mut self,
        deadline: Instant,
        mut each: impl FnMut(Reply<'_>),
    ) -> Result<Event, NlError> {
        let step = "wait for a kernel notification";
        if std::mem::take(&mut self.overtaken) {
            return Ok(Event::Overrun);
        }
        loop {
            match self.receive(step)? {
                Received::Datagram(length) => {
                    for frame in Frames::new(self.datagram(length)) {
                        each(Reply::from(frame));
                    }
                    return Ok(Event::Seen);
                }
                Received::Truncated | Received::Overrun => return Ok(Event::Overrun),
                Received::Empty if self.wait(step, deadline)? => {}
                Received::Empty => return Ok(Event::Timeout),
            }
        }
    }

    /// Sends and gathers the failures as `(index, error)`.
    ///
    /// Only the last message asks for an ack. The kernel works through a send in order and reports
    /// an error without being asked, so when the last verdict is in, silence about an earlier message
    /// means success: one receive instead of one per message.
    fn transact(
        &mut self,
        batch: &Batch,
        each: &mut dyn FnMut(usize, Reply<'_>),
    ) -> Result<Vec<(usize, NlError)>, NlError> {
        let mut failures = Vec::new();
        if batch.is_empty() {
            return Ok(failures);
        }
        let last = batch.entries.iter().rposition(|e| e.acked);
        let last_step = &*batch.step(last.unwrap_or_default()).unwrap_or_default();
        let (first_seq, deadline) = self.send(batch)?;
        loop {
            let length = match self.receive(last_step)? {
                Received::Datagram(length) => length,
                // Only an echo or a get can be that long, and the ack still comes.
                Received::Truncated => continue,
                // What was dropped is an event or an echo. If it was the ack after all, the wait below ends in an
                // error that says so.
                Received::Overrun if self.subscriptions > 0 => continue,
                // Hundreds of verdicts, then: some are missing.
                Received::Overrun => {
                    self.drain(last_step)?;
                    let why = "so many answers came at once that some were lost";
                    let step = last_step.to_owned();
                    return Err(NlError::because(step, Errno::ENOBUFS as i32, why));
                }
                // An nf_tables batch refused as a whole (EPERM) answers for its first message only.
                Received::Empty if last.is_none() || !failures.is_empty() => return Ok(failures),
                Received::Empty if self.wait(last_step, deadline)? => continue,
                Received::Empty => return Err(unanswered(last_step)),
            };
            let mut done = false;
            for frame in Frames::new(self.datagram(length)) {
                let Ok(index) = usize::try_from(frame.seq.wrapping_sub(first_seq)) else {
                    continue;
                };
                if index >= batch.len() {
                    continue;
                }
                match frame.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        if !frame.is_ack() {
                            let step = batch.step(index).unwrap_or_default();
                            failures.extend(frame.verdict(&step).err().map(|e| (index, e)));
                        }
                        done |= Some(index) == last;
                    }
                    NLMSG_NOOP | NLMSG_OVERRUN => {}
                    _ => each(index, Reply::from(frame)),
                }
            }
            if done {
                return Ok(failures);
            }
        }
    }

    /// Waits for the message that answers `seq` and returns where in the buffer it is; `None` when it
    /// was lost on the way.
    fn await_answer(&mut self, seq: u32, step: &str) -> Result<Option<(usize, usize)>, NlError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let length = match self.receive(step)? {
                Received::Datagram(length) => length,
                Received::Truncated | Received::Overrun => return Ok(None),
                Received::Empty if self.wait(step, deadline)? => continue,
                Received::Empty => return Err(unanswered(step)),
            };
            self.overtaken |= Frames::new(self.datagram(length)).any(|f| f.seq != seq);
            let datagram = self.datagram(length);
            let mut rest = Frames::new(datagram);
            loop {
                let start = length - rest.remaining();
                let Some(frame) = rest.next() else { break };
                if frame.seq != seq {
                    continue;
                }
                match frame.kind {
                    NLMSG_NOOP | NLMSG_OVERRUN => {}
                    NLMSG_ERROR | NLMSG_DONE => {
                        frame.verdict(step)?;
                        // A bare ack where an object was asked for.
                        return Err(NlError::because(
                            step,
                            Errno::EPROTO as i32,
                            "no object in the answer",
                        ));
                    }
                    _ => return Ok(Some((start, length))),
                }
            }
        }
    }

    /// Sends the batch with fresh sequence numbers; returns the first of them and until when to wait
    /// for answers.
    fn send(&mut self, batch: &Batch) -> Result<(u32, Instant), NlError> {
        let step = &*batch.step(0).unwrap_or("send nothing".into());
        if let Some(big) = batch.entries.iter().position(|e| e.oversize) {
            let why = "an attribute is longer than 64 KiB";
            return Err(NlError::because(
                batch.step(big).unwrap_or_default(),
                Errno::EMSGSIZE as i32,
                why,
            ));
        }
        let first_seq = self.seq.wrapping_add(1);
        let mut bytes = batch.bytes.clone();
        for entry in &batch.entries {
            self.seq = self.seq.wrapping_add(1);
            write_at(&mut bytes, entry.offset + 8, &self.seq.to_ne_bytes());
        }
        if let Some(last) = batch.entries.iter().rfind(|e| e.acked) {
            add_flags(&mut bytes, last.offset, ACK);
        }
        if bytes.len() > SEND_BYTES_BY_DEFAULT {
            self.grow_send_buffer(bytes.len());
        }
        if self.subscriptions > 0 {
            // A queue full of notifications has no room for the answer, and what is asked now is newer than they.
            self.drain(step)?;
            self.overtaken = false;
        }
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.inner.send_to(&bytes, &kernel, 0) {
                Ok(_) => return Ok((first_seq, Instant::now() + ANSWER_TIMEOUT)),
                Err(e) if retry(&e) => {}
                Err(e) => return Err(NlError::io(step, &e)),
            }
        }
    }

    fn grow_send_buffer(&self, bytes: usize) {
        // Twice: the kernel counts its own bookkeeping against it. Without privilege over the
        // initial namespace the plain option, capped by wmem_max, is all there is; the send then says EMSGSIZE.
        if setsockopt(self, sockopt::SndBufForce, &(bytes * 2)).is_err() {
            let _ = setsockopt(self, sockopt::SndBuf, &(bytes * 2));
        }
    }

    /// Takes one datagram of the kernel's off the queue, without waiting.
    fn receive(&mut self, step: &str) -> Result<Received, NlError> {
        loop {
            self.buffer.clear();
            let room = self.buffer.capacity();
            match self
                .inner
                .recv_from(&mut self.buffer, MSG_DONTWAIT | MSG_TRUNC)
            {
                // Any process may send to our port; only the kernel (port 0) is believed.
                Ok((_, from)) if from.port_number() != 0 => {}
                Ok((length, _)) if length > room => {
                    self.buffer.clear();
                    self.buffer.reserve(length.next_multiple_of(4096));
                    return Ok(Received::Truncated);
                }
                Ok((length, _)) => return Ok(Received::Datagram(length)),
                Err(e) if retry(&e) => {}
                Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => return Ok(Received::Empty),
                    Some(Errno::ENOBUFS) => return Ok(Received::Overrun),
                    _ => return Err(NlError::io(step, &e)),
                },
            }
        }
    }

    fn drain(&mut self, step: &str) -> Result<(), NlError> {
        while !matches!(self.receive(step)?, Received::Empty) {}
        Ok(())
    }

    /// Sleeps until something is queued (true) or the deadline has passed (false).
    fn wait(&self, step: &str, deadline: Instant) -> Result<bool, NlError> {
        loop {
            // Rounded up, so that the last fraction of a millisecond does not spin.
            let left = deadline
                .saturating_duration_since(Instant::now())
                .as_micros()
                .div_ceil(1000);
            let timeout = i32::try_from(left)
                .ok()
                .and_then(|ms| PollTimeout::try_from(ms).ok());
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::EINTR) if !STOP.load(Ordering::Relaxed) => {}
                Err(e) => return Err(NlError::new(step, e as i32)),
            }
        }
    }

    fn datagram(&self, length: usize) -> &[u8] {
        self.buffer.get(..length).unwrap_or_default()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<'a> From<Frame<'a>> for Reply<'a> {
    fn from(frame: Frame<'a>) -> Self {
        Reply {
            msg_type: frame.kind,
            flags: frame.flags,
            payload: frame.payload,
        }
    }
}

/// A signal came, and it was not the one that ends us.
fn retry(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EINTR as i32) && !STOP.load(Ordering::Relaxed)
}

fn unanswered(step: &str) -> NlError {
    NlError::because(
        step,
        Errno::ETIMEDOUT as i32,
        "the kernel did not answer; its effect is unknown",
    )
}
