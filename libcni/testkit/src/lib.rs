//! Test fixtures: every kernel test lives in namespaces of its own and leaves nothing behind.
//!
//! [`in_netns`] is the whole idea: the test binary runs itself again for that one test, inside a new
//! user, network and mount namespace. So tests need no root, cannot meet each other's names, run in
//! parallel and have nothing to clean up. [`Pod`] is a second network namespace in there, [`Call`] runs a
//! plugin as a container runtime would, and `ip`, `nft` and friends ([`sh`], [`ip_json`]) are the oracles.
//!
//! ```no_run
//! #[test]
//! fn a_bridge_has_a_name() {
//!     testkit::in_netns(|| {
//!         testkit::sh("ip link add br0 type bridge");
//!         assert_eq!(testkit::ip_json(&["link", "show", "br0"])[0]["ifname"], "br0");
//!     });
//! }
//! ```
// This crate runs inside tests only, where a panic with the reason is the right answer to a surprise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::exit
)]

mod bins;
mod call;
mod netns;
mod pod;
mod shell;

pub use bins::bin_dir;
pub use call::{Call, Output};
pub use netns::{in_netns, in_netns_as_root, skip};
pub use pod::Pod;
pub use shell::{eventually, ip_json, kernel, script, sh, waits_for_a_lock};
