//! For cargo-fuzz; see `fuzz::args`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::args(bytes));
