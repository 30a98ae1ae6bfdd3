//! The kernel's networking, one module per noun, over [`crate::nl`]. No JSON, no configuration, no files of ours.
//!
//! Functions that change something return a [`crate::nl::Message`], so that callers pack what belongs
//! together into one send; functions that ask take the socket.

pub mod conntrack;
pub mod nft;
