//! For cargo-fuzz; see `fuzz::result`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::result(bytes));
