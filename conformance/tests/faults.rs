//! Bad input, a node in a bad way, processes that die: the right code, a message that names the step and the remedy,
//! everything undone, and the next try works.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "faults/killed.rs"]
mod killed;
#[path = "bed/node.rs"]
mod node;
