//! One node of a flannel-like network, as state: what the network is ([`conf`]), who else is in it ([`peer`]), what a
//! directory says about it in flannel's words ([`lease`]), and what the node's plugins are told ([`subnet_env`], [`status`]).
//!
//! Nothing here waits, spawns or runs on its own. The agent (`overlayd`) and the CNI plugin `overlay` are its users.

pub mod conf;
pub mod file;
pub mod lease;
pub mod peer;
pub mod status;
pub mod subnet_env;

pub use conf::{Backend, NetConf, Network, Vxlan};
pub use peer::{Kind, Peer, Site, Vtep};
pub use status::Status;
pub use subnet_env::SubnetEnv;
