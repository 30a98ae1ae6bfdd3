//! Bad input, a node in a bad way, processes that die: the right code, a message that names the step and the remedy,
//! everything undone, and the next try works.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "faults/damage.rs"]
mod damage;
#[path = "faults/delegate.rs"]
mod delegate;
#[path = "faults/ground.rs"]
mod ground;
#[path = "faults/input.rs"]
mod input;
#[path = "faults/killed.rs"]
mod killed;
#[path = "bed/node.rs"]
mod node;
#[path = "faults/refusal.rs"]
mod refusal;
