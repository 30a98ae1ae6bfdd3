//! loopback
fn main() {}
