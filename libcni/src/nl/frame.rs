//! The messages inside one received datagram (`struct nlmsghdr` and what follows).

use super::attr::{self, Attrs};
use super::error::NlError;

/// `sizeof(struct nlmsghdr)`: u32 length, u16 type, u16 flags, u32 seq, u32 port.
pub(super) const HEADER_BYTES: usize = 16;

pub(super) const NLMSG_NOOP: u16 = 1;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_OVERRUN: u16 = 4;

pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;

/// One message as received, header taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    pub(super) payload: &'a [u8],
}

/// Walks a datagram; ends at the first impossible length.
#[derive(Debug)]
pub(super) struct Frames<'a>(&'a [u8]);

// === impl Frames ===

impl<'a> Frames<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }

    /// Bytes not walked over yet.
    pub(super) fn remaining(&self) -> usize {
        self.0.len()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let length = usize::try_from(attr::u32(self.0)?).ok()?;
        let kind = attr::u16(self.0.get(4..)?)?;
        let flags = attr::u16(self.0.get(6..)?)?;
        let seq = attr::u32(self.0.get(8..)?)?;
        let Some(payload) = self.0.get(HEADER_BYTES..length) else {
            self.0 = &[];
            return None;
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame {
            kind,
            flags,
            seq,
            payload,
        })
    }
}

// === impl Frame ===

impl Frame<'_> {
    /// Is it an `NLMSG_ERROR` that says yes?
    pub(super) fn is_ack(&self) -> bool {
        self.kind == NLMSG_ERROR && attr::i32(self.payload) == Some(0)
    }

    /// The verdict of an `NLMSG_ERROR` or the tail of an `NLMSG_DONE`: nothing when it is an ack.
    pub(super) fn verdict(&self, step: &str) -> Result<(), NlError> {
        // i32 negated errno, then (NLMSG_ERROR only) the header of the request, then the request's
        // payload unless capped, then attributes. A DONE without a payload is a plain end.
        let code = match (self.kind, attr::i32(self.payload)) {
            (_, Some(code)) => code,
            (NLMSG_DONE, None) => 0,
            (_, None) => -(nix::errno::Errno::EPROTO as i32),
        };
        if code >= 0 {
            return Ok(());
        }
        let mut error = NlError::new(step, code.saturating_neg());
        if self.flags & NLM_F_ACK_TLVS != 0 {
            self.explain(&mut error);
        }
        Err(error)
    }

    fn explain(&self, error: &mut NlError) {
        let mut skip = 4;
        if self.kind == NLMSG_ERROR {
            skip += HEADER_BYTES;
            if self.flags & NLM_F_CAPPED == 0 {
                let quoted = self.payload.get(4..).and_then(attr::u32);
                let quoted = quoted
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or(HEADER_BYTES);
                skip += quoted
                    .saturating_sub(HEADER_BYTES)
                    .min(self.payload.len())
                    .next_multiple_of(4);
            }
        }
        for (kind, payload) in Attrs::after(self.payload, skip) {
            match kind {
                NLMSGERR_ATTR_MSG => error.ext_ack = attr::str(payload).map(str::to_owned),
                NLMSGERR_ATTR_OFFS => error.attr_offset = attr::u32(payload),
                NLMSGERR_ATTR_MISS_TYPE if error.ext_ack.is_none() => {
                    error.ext_ack = attr::u32(payload).map(|n| format!("attribute {n} is missing"));
                }
                _ => {}
            }
        }
    }
}
