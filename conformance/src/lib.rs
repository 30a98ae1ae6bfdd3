//! Black-box checks of any directory of CNI plugins.
//!
//! Nothing here links a plugin: what is judged are executables, called the way container runtimes call them.

pub mod containerd;
pub mod crash;
pub mod cri;
pub mod deployment;
pub mod differential;
pub mod fleet;
mod format;
pub mod ground;
mod keys;
pub mod load;
pub mod node;
pub mod place;
pub mod podman;
pub mod residue;
pub mod suite;
