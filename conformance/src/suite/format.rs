//! The report, for people and for other programs.

mod json;
mod junit;
mod markdown;
mod score;
mod table;
mod tap;

use super::report::Report;

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people, at a terminal.
    Table,
    /// Everything.
    Json,
    /// For CI.
    Junit,
    /// For people, in a document.
    Markdown,
    /// Test Anything Protocol, version 14.
    Tap,
}

impl Format {
    /// The whole text.
    #[must_use]
    pub fn write(self, report: &Report) -> String {
        match self {
            Format::Table => table::write(report),
            Format::Json => json::write(report),
            Format::Junit => junit::write(report),
            Format::Markdown => markdown::write(report),
            Format::Tap => tap::write(report),
        }
    }
}
