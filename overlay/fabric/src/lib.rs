//! One node of a flannel-like network, as state: what the network is ([`conf`]), who else is in it ([`peer`]), what a
//! directory says about it in flannel's words ([`lease`]), what this node is ([`own`], [`parent`], [`mac`]), which peers
//! are believed ([`mod@judge`]), how the kernel is made to agree ([`converge`]), and what the node's plugins are told
//! ([`subnet_env`], [`status`]).
//!
//! Nothing here waits, spawns or runs on its own. The agent (`overlayd`) and the CNI plugin `overlay` are its users.

pub mod conf;
pub mod converge;
mod device;
pub mod file;
pub mod firewall;
mod hash;
pub mod judge;
pub mod lease;
pub mod mac;
pub mod own;
pub mod parent;
pub mod peer;
pub mod state;
pub mod status;
pub mod subnet_env;

pub use conf::{Backend, NetConf, Network, Vxlan};
pub use converge::{Fabric, FabricError, Others, Peers, Report};
pub use judge::{Accepted, Judged, Reason, Refusal, Standing, judge};
pub use own::{Own, OwnSide, Parent};
pub use peer::{Kind, Peer, Site, Vtep};
pub use status::Status;
pub use subnet_env::SubnetEnv;
