//! The scorecard at a terminal.

use std::fmt::Write;

use super::score::{cell, not_applicable, scores};
use crate::suite::report::{Assertion, Report, Status};

pub fn write(report: &Report) -> String {
    let mut out = String::new();
    for assertion in report.all(Status::Fail).chain(report.all(Status::Broken)) {
        failure(&mut out, assertion);
    }
    let [all, areas, plugins, versions] = scores(report);
    for (heading, score) in [
        ("AREA", areas),
        ("PLUGIN", plugins),
        ("VERSION", versions),
        ("", all),
    ] {
        let _ = writeln!(
            out,
            "{heading:<16} {:>11} {:>11} {:>11}",
            "MUST", "SHOULD", "MAY"
        );
        for (name, cells) in score.rows {
            let _ = write!(out, "{name:<16}");
            for pair in cells {
                let _ = write!(out, " {:>11}", cell(pair));
            }
            out.push('\n');
        }
        out.push('\n');
    }
    for (n, why) in not_applicable(report) {
        let _ = writeln!(out, "not applicable: {n} ({why})");
    }
    for glob in &report.unused {
        let _ = writeln!(out, "known, and did not fail: {glob}");
    }
    let _ = writeln!(out, "{}", report.summary());
    out
}

fn failure(out: &mut String, assertion: &Assertion) {
    let status = assertion.status();
    let _ = writeln!(
        out,
        "{} {} {}\n    {} ({})",
        status.name().to_uppercase(),
        assertion.level.name(),
        assertion.title(),
        assertion.about,
        assertion.spec
    );
    for (versions, why) in assertion.of(status) {
        for why in why {
            let _ = writeln!(out, "    {}: {why}", versions.join(" "));
        }
    }
    if let Some(why) = &assertion.known {
        let _ = writeln!(out, "    known: {why}");
    }
    let _ = writeln!(out, "    again: {}", assertion.again);
    out.push_str("    as shell: the same with --explain\n\n");
}
