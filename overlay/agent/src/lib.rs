//! `overlayd`, the overlay's agent: a directory says who the other nodes are, the kernel is made to agree.
//!
//! ```text
//! directory (file, etcd, kubernetes) -> View -> judged peers -> desired state -> diff -> one batch -> kernel
//! ```
//! The kernel's side is the crate `fabric`; here is what waits: directories, events, signals, health.

pub mod agent;
pub mod cache;
pub mod conflist;
pub mod directory;
pub mod events;
pub mod http;
pub mod join;
pub mod metrics;
pub mod notify;
pub mod options;
pub mod path;
pub mod readable;
pub mod release;
pub mod rules;
pub mod run;
pub mod show;
pub mod step;
pub mod survey;
