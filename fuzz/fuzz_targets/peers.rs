//! For cargo-fuzz; see `fuzz::peers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::peers(bytes));
