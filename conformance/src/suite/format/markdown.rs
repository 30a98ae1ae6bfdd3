//! The scorecard for a document.

use std::fmt::Write;

use super::score::{cell, not_applicable, scores};
use crate::suite::report::{Report, Status};

pub fn write(report: &Report) -> String {
    let mut out = format!("# CNI conformance\n\n{}\n\n", report.summary());
    for score in scores(report) {
        let _ = writeln!(
            out,
            "| {} | MUST | SHOULD | MAY |\n|---|---:|---:|---:|",
            score.title
        );
        for (name, cells) in score.rows {
            let cells = cells.map(cell).join(" | ");
            let _ = writeln!(out, "| {} | {cells} |", escaped(&name));
        }
        out.push('\n');
    }
    let failed: Vec<_> = report
        .all(Status::Fail)
        .chain(report.all(Status::Broken))
        .collect();
    if !failed.is_empty() {
        out += "## Failures\n\n| level | assertion | plugin | versions | why | known |\n|---|---|---|---|---|---|\n";
    }
    for assertion in failed {
        for (versions, why) in assertion.of(assertion.status()) {
            let _ = writeln!(
                out,
                "| {} | `{}` | {} | {} | {} | {} |",
                assertion.level.name(),
                assertion.id,
                assertion.plugin,
                versions.join(" "),
                escaped(&why.join("; ")),
                escaped(assertion.known.as_deref().unwrap_or_default())
            );
        }
    }
    let reasons = not_applicable(report);
    if !reasons.is_empty() {
        out += "\n## Not applicable\n\n";
    }
    for (n, why) in reasons {
        let _ = writeln!(out, "- {n}: {}", escaped(&why));
    }
    out
}

/// In a cell of a table.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '<' | '[' | '\\' => out.extend(['\\', c]),
            '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
