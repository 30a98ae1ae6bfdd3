//! The same calls to two directories of plugins, and everything visible afterwards compared.
//!
//! Each side gets a node and pods of its own (fresh network namespaces with the same paths), the same setup, environment
//! and stdin. After every call a [`Trace`] holds what it printed and what the kernel and the store then hold, one line of
//! text per fact. What must be random (MACs, names of host ends, interface indices, timers) is replaced by what it has to
//! be consistent with; everything else is compared as it is.
//!
//! A difference is an error unless the cases declare it under an ID, and so is a declared one that does not occur. The
//! document the IDs are explained in has to list exactly those: see [`Ids`].
//!
//! [`compare`] wants to run as root of a user namespace (`testkit::in_netns`): it makes network and mount namespaces.

mod builtin;
mod case;
mod declared;
mod normal;
mod options;
mod pattern;
mod report;
pub(crate) mod snapshot;
mod told;
mod trace;
mod work;

pub use case::{Case, Cases};
pub use declared::Ids;
pub use options::Options;
pub(crate) use pattern::matches as glob;
pub use report::{Report, Wrong};
pub use trace::Trace;
pub use work::{Sides, compare};

/// The spec versions both sides know: Debian's reference plugins are of before 1.1.0.
pub const VERSIONS: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];
