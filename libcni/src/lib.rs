//! CNI for Rust: what a plugin needs to speak the spec, change the kernel and keep its state.
//!
//! - [`spec`]: versions, configuration, results, errors, environment. Pure: no I/O.
//! - [`plugin`]: verb dispatch, the stdin/stdout/panic edge, delegation. The only place that prints.
//! - [`record`]: one structured record per operation, off unless asked for.
//! - [`runtime`]: the other side: lists of plugins, the result cache, ADD to GC over chains. For container runtimes.
//! - [`file`]: files that are whole or not there.
//! - [`store`]: the host-local reservation directory, shared with the reference plugin.
//! - [`nl`]: netlink framing and sockets. Knows netlink, not networking.
//! - [`kernel`]: one module per kernel noun (link, address, route, ...), built on [`nl`].
//! - [`firewall`]: what this suite keeps in nf_tables, built on [`kernel::nft`].
pub mod file;
pub mod firewall;
pub mod kernel;
pub mod nl;
pub mod plugin;
pub mod record;
pub mod runtime;
pub mod spec;
pub mod store;
