//! The executable `overlay`, and under that name `flannel`.
#![cfg_attr(not(test), no_main)]

libcni::plugin_main!(overlay::Overlay, "overlay");
