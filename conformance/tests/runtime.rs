//! `libcni::runtime` over real chains of real executables, in namespaces of their own.
// Clippy exempts `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "runtime/bench.rs"]
mod bench;
#[path = "runtime/crash.rs"]
mod crash;
#[path = "runtime/interop.rs"]
mod interop;
#[path = "runtime/matrix.rs"]
mod matrix;
#[path = "runtime/mixed.rs"]
mod mixed;
#[path = "runtime/records.rs"]
mod records;
#[path = "runtime/scripts.rs"]
mod scripts;
#[path = "runtime/verbs.rs"]
mod verbs;
