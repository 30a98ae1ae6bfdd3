//! `cnitool`: what a container runtime does with plugins, by hand. See docs/cnitool.md.
//!
//! Commands, environment, container IDs and output are those of the reference's `cnitool`, so that scripts written for
//! it go on working; `list`, `networks`, `version`, `last-ops`, `--json` and the collecting `gc` are additions.

mod cli;
mod gc;
mod records;
mod show;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
