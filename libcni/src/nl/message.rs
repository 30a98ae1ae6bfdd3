//! Messages to send, and many of them packed for one send.

use std::borrow::Cow;

use super::REQUEST;
use super::frame::HEADER_BYTES;

const NLA_F_NESTED: u16 = 0x8000;

/// One request: type, flags, family header and attributes, plus the words for its failure.
///
/// Built by value, `Message::new(..).header(..).u32(..)`. Nothing fails while building; an attribute
/// beyond the format's 64 KiB makes the send fail with EMSGSIZE.
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) bytes: Vec<u8>,
    step: Step,
    pub(super) acked: bool,
    pub(super) oversize: bool,
}

/// The words for a message's failure.
#[derive(Debug, Clone)]
enum Step {
    /// These.
    Said(Cow<'static, str>),
    /// Read from what follows the message's netlink header, if somebody wants to know.
    Read(fn(&[u8]) -> String),
}

/// Requests that travel in one send. The kernel works through them in order; one that fails does not
/// stop the later ones (except in nf_tables, whose batches are transactions).
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

/// What is remembered of a message packed into a batch.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Where it starts in the batch.
    pub(super) offset: usize,
    step: Step,
    pub(super) acked: bool,
    pub(super) oversize: bool,
}

// === impl Message ===

impl Message {
    /// `step` is what a human would call this request: "create veth vethab12 in the pod". It opens the
    /// text of the error, so it carries the nouns.
    pub fn new(msg_type: u16, flags: u16, step: impl Into<Cow<'static, str>>) -> Self {
        Self::with_step(msg_type, flags, Step::Said(step.into()))
    }

    /// The same for messages that are sent by the thousand: the words are read from the message, by `read` from what
    /// follows the netlink header, when it has failed.
    pub fn readable(msg_type: u16, flags: u16, read: fn(&[u8]) -> String) -> Self {
        Self::with_step(msg_type, flags, Step::Read(read))
    }

    fn with_step(msg_type: u16, flags: u16, step: Step) -> Self {
        // 256 bytes hold every link message of a pod; one allocation for nearly all of them.
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&msg_type.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self {
            bytes,
            step,
            acked: true,
            oversize: false,
        }
    }

    /// Never ask for an ack: for what opens and closes an nf_tables batch. An error for it is
    /// still reported.
    pub fn unacked(self) -> Self {
        Self {
            acked: false,
            ..self
        }
    }

    /// The family's fixed header (`struct ifinfomsg`, `rtmsg`, `nfgenmsg`, ...), padded to 4 bytes.
    /// Inside [`Message::nest`] it is the header of the nest, as `VETH_INFO_PEER` wants it.
    pub fn header(mut self, header: &[u8]) -> Self {
        self.bytes.extend_from_slice(header);
        self.pad();
        self
    }

    /// An attribute with any payload.
    pub fn bytes(mut self, attr: u16, payload: &[u8]) -> Self {
        match u16::try_from(payload.len() + 4) {
            Ok(length) => {
                self.bytes.extend_from_slice(&length.to_ne_bytes());
                self.bytes.extend_from_slice(&attr.to_ne_bytes());
                self.bytes.extend_from_slice(payload);
                self.pad();
            }
            Err(_) => self.oversize = true,
        }
        self
    }

    /// An attribute that says something by being there.
    pub fn flag(self, attr: u16) -> Self {
        self.bytes(attr, &[])
    }

    /// Unsigned 8 bit.
    pub fn u8(self, attr: u16, value: u8) -> Self {
        self.bytes(attr, &[value])
    }

    /// Unsigned 16 bit, host byte order.
    pub fn u16(self, attr: u16, value: u16) -> Self {
        self.bytes(attr, &value.to_ne_bytes())
    }

    /// Unsigned 32 bit, host byte order.
    pub fn u32(self, attr: u16, value: u32) -> Self {
        self.bytes(attr, &value.to_ne_bytes())
    }

    /// Unsigned 64 bit, host byte order.
    pub fn u64(self, attr: u16, value: u64) -> Self {
        self.bytes(attr, &value.to_ne_bytes())
    }

    /// Unsigned 16 bit, network byte order.
    pub fn be16(self, attr: u16, value: u16) -> Self {
        self.bytes(attr, &value.to_be_bytes())
    }

    /// Unsigned 32 bit, network byte order.
    pub fn be32(self, attr: u16, value: u32) -> Self {
        self.bytes(attr, &value.to_be_bytes())
    }

    /// Unsigned 64 bit, network byte order.
    pub fn be64(self, attr: u16, value: u64) -> Self {
        self.bytes(attr, &value.to_be_bytes())
    }

    /// Text with a closing NUL, as every kernel version takes it.
    pub fn str(mut self, attr: u16, value: &str) -> Self {
        match u16::try_from(value.len() + 5) {
            Ok(length) => {
                self.bytes.extend_from_slice(&length.to_ne_bytes());
                self.bytes.extend_from_slice(&attr.to_ne_bytes());
                self.bytes.extend_from_slice(value.as_bytes());
                self.bytes.push(0);
                self.pad();
            }
            Err(_) => self.oversize = true,
        }
        self
    }

    /// An attribute made of attributes, marked `NLA_F_NESTED`.
    pub fn nest(mut self, attr: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes
            .extend_from_slice(&(attr | NLA_F_NESTED).to_ne_bytes());
        let mut message = inside(self);
        match u16::try_from(message.bytes.len().saturating_sub(start)) {
            Ok(length) => write_at(&mut message.bytes, start, &length.to_ne_bytes()),
            Err(_) => message.oversize = true,
        }
        message
    }

    /// The words for its failure.
    pub fn step(&self) -> Cow<'_, str> {
        self.step.of(&self.bytes)
    }

    /// The message as it will be sent, its length filled in, sequence number zero.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        set_length(&mut bytes, 0);
        bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

// === impl Step ===

impl Step {
    fn of(&self, message: &[u8]) -> Cow<'_, str> {
        match self {
            Self::Said(words) => Cow::Borrowed(words),
            Self::Read(read) => Cow::Owned(read(message.get(HEADER_BYTES..).unwrap_or_default())),
        }
    }
}

// === impl Batch ===

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message behind the others.
    pub fn push(&mut self, message: Message) {
        let offset = self.bytes.len();
        if self.entries.is_empty() {
            self.bytes = message.bytes;
        } else {
            self.bytes.extend_from_slice(&message.bytes);
        }
        set_length(&mut self.bytes, offset);
        let Message {
            step,
            acked,
            oversize,
            ..
        } = message;
        self.entries.push(Entry {
            offset,
            step,
            acked,
            oversize,
        });
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there nothing to send?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The words of message `index`, counted from 0 in the order of pushing.
    pub fn step(&self, index: usize) -> Option<Cow<'_, str>> {
        let entry = self.entries.get(index)?;
        let end = self
            .entries
            .get(index + 1)
            .map_or(self.bytes.len(), |next| next.offset);
        let bytes = self.bytes.get(entry.offset..end).unwrap_or_default();
        Some(entry.step.of(bytes))
    }
}

impl From<Message> for Batch {
    fn from(message: Message) -> Self {
        let mut batch = Self::new();
        batch.push(message);
        batch
    }
}

impl FromIterator<Message> for Batch {
    fn from_iter<I: IntoIterator<Item = Message>>(messages: I) -> Self {
        let mut batch = Self::new();
        batch.extend(messages);
        batch
    }
}

impl Extend<Message> for Batch {
    fn extend<I: IntoIterator<Item = Message>>(&mut self, messages: I) {
        for message in messages {
            self.push(message);
        }
    }
}

/// Fills in the length of the message that runs from `offset` to the end.
fn set_length(bytes: &mut [u8], offset: usize) {
    let length = bytes.len().saturating_sub(offset);
    debug_assert!(length >= HEADER_BYTES, "a message has a header");
    // More than 4 GiB cannot be sent anyway; the send refuses it by the buffer's own length.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    write_at(bytes, offset, &length.to_ne_bytes());
}

/// Sets flags of the message at `offset`.
pub(super) fn add_flags(bytes: &mut [u8], offset: usize, more: u16) {
    let at = offset + 6;
    let flags = bytes
        .get(at..)
        .and_then(super::attr::u16)
        .unwrap_or_default();
    write_at(bytes, at, &(flags | more).to_ne_bytes());
}

/// Overwrites bytes that are there; nothing when they are not.
pub(super) fn write_at<const N: usize>(bytes: &mut [u8], at: usize, value: &[u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = *value;
    }
}
