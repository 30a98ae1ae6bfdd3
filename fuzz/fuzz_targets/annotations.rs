//! For cargo-fuzz; see `fuzz::annotations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::annotations(bytes));
