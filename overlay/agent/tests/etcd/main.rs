//! The etcd directory against a real etcd, each test in a network namespace with its own.
//!
//! Names say which rule, item or defect of the wire contract a test proves: `rule_6_...`, `item_5_...`,
//! `defect_d1_...`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod away;
mod chaos;
mod follow;
mod hostile;
mod keep;
mod lease;
mod node;
mod rekey;
mod secure;
mod server;
