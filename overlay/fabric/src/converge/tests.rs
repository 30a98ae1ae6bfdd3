//! Against the real kernel; `ip` and `bridge` are the oracles.

mod backends;
mod fixture;
mod hostile;
mod repair;
mod shape;
mod takeover;
mod traffic;
