//! For cargo-fuzz; see `fuzz::subnet_env`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::subnet_env(bytes));
