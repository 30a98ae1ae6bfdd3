//! For cargo-fuzz; see `fuzz::netlink`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::netlink(bytes));
