//! The executable `bridge`.
#![cfg_attr(not(test), no_main)]

libcni::plugin_main!(bridge::Bridge, "bridge");
