//! host-local
fn main() {}
