//! For cargo-fuzz; see `fuzz::store`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::store(bytes));
