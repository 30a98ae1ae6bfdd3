//! Against the real kernel; `ip` and `bridge` are the oracles.

mod fixture;
mod shape;
