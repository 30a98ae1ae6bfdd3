//! What must hold for whatever bytes a plugin, a runtime or the agent is given: one function per kind of input, which
//! panics if it does not hold. Nothing panics by itself, hangs or eats memory; and
//!
//! - what was read, printed and read again is the same;
//! - a conversion loses no address;
//! - no name leads out of its directory;
//! - an entry that is wrong changes nothing for the others.
//!
//! cargo-fuzz calls them from `fuzz_targets/` (`make fuzz`), `tests/bounded.rs` with the corpus and mutations of it.

mod annotations;
mod args;
mod cache;
mod config;
mod etcd;
mod input;
mod netlink;
mod peers;
mod result;
mod scratch;
mod store;

pub use annotations::annotations;
pub use args::args;
pub use cache::cache;
pub use config::config;
pub use etcd::etcd;
pub use netlink::netlink;
pub use peers::{peers, state, subnet_env};
pub use result::result;
pub use store::store;

/// Takes any bytes; panics if something does not hold.
pub type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Target); 11] = [
    ("annotations", annotations),
    ("args", args),
    ("cache", cache),
    ("config", config),
    ("etcd", etcd),
    ("netlink", netlink),
    ("peers", peers),
    ("result", result),
    ("state", state),
    ("store", store),
    ("subnet_env", subnet_env),
];
