//! For cargo-fuzz; see `fuzz::etcd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::etcd(bytes));
