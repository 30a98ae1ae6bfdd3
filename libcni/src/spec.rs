//! The CNI specification as types: versions, configuration, results, errors, environment.
//!
//! Pure: nothing here opens a file, reads the environment by itself or prints. Bytes come in, bytes go out, and both
//! are the ones the reference library (`containernetworking/cni` v1.3.0) would read and write, so that a delegate, a
//! runtime or a cached result from either side can meet the other. Section numbers in comments are those of the
//! [specification](https://www.cni.dev/docs/spec/).

pub mod args;
pub mod cidr;
pub mod conf;
pub mod error;
pub mod json;
pub mod name;
pub mod result;
pub mod version;

pub use args::{CallEnv, Env, Invocation, ProcessEnv, Verb, parse_args};
pub use cidr::{IpNetwork, parse_cidr, parse_ip};
pub use conf::NetConf;
pub use error::{CniError, Code, invalid_config};
pub use json::{FieldError, Fields, JsonError, Node};
pub use name::{Attachment, ContainerId, IfName, NetName};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use version::Version;
