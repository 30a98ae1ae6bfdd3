//! Timing.
fn main() {}
