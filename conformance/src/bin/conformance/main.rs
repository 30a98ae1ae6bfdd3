//! `conformance`: judges any directory of CNI plugins. See docs/conformance.md.

// It talks to people.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use conformance::{crash, differential, ground, load, suite};

/// Judge any directory of CNI plugins: against the specification, against another directory, by crashes, under load.
#[derive(Debug, Parser)]
#[command(
    name = "conformance",
    version,
    max_term_width = 110,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Exit status: 0 passed, 1 something failed, 2 it could not be run.\n\
    Everything happens in namespaces made for it; without root, in a user namespace."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(suite::Options),
    Diff(differential::Options),
    Crash(crash::Options),
    Load(load::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = ground::enter().and_then(|()| match cli.command {
        Command::Run(options) => options.run(),
        Command::Diff(options) => options.run(),
        Command::Crash(options) => options.run(),
        Command::Load(options) => options.run(),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}
