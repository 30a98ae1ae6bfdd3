//! For cargo-fuzz; see `fuzz::cache`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::cache(bytes));
