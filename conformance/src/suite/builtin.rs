//! The cases that come with the program, so that it works from anywhere.

use anyhow::Result;

use super::case::{Case, read_file};
use super::profile::Profiles;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each file of `cases/run`.
        pub const FILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../cases/run/", $name)))),*
        ];
    };
}

files!(
    "bridge.json",
    "chaining.json",
    "check.json",
    "concurrency.json",
    "delegation.json",
    "dualstack.json",
    "firstpacket.json",
    "gc.json",
    "hostile.json",
    "idempotence.json",
    "ipam.json",
    "loopback.json",
    "overlay.json",
    "protocol.json",
    "residue.json",
    "results.json",
    "status.json",
);

const PROFILES: &str = include_str!("../../cases/run/profiles.json");

/// All of them.
///
/// # Errors
/// A mistake in one.
pub fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, text) in FILES {
        cases.extend(read_file(name, text)?);
    }
    Ok(cases)
}

/// How the known plugins are called.
///
/// # Errors
/// A mistake in one.
pub fn profiles() -> Result<Profiles> {
    let mut profiles = Profiles::default();
    profiles.read("profiles.json", PROFILES)?;
    Ok(profiles)
}
