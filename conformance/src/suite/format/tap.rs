//! Test Anything Protocol, version 14. What fails without counting is a TODO.

use std::fmt::Write;

use crate::suite::report::{Report, Status};

pub fn write(report: &Report) -> String {
    let mut out = format!("TAP version 14\n1..{}\n", report.assertions.len());
    for (i, assertion) in report.assertions.iter().enumerate() {
        let status = assertion.status();
        let ok = match status {
            Status::Pass | Status::Skipped => "ok",
            Status::Fail | Status::Broken => "not ok",
        };
        let title = line(&assertion.title());
        let level = assertion.level.name();
        let _ = write!(out, "{ok} {} - {title} {level}", i + 1);
        let why = assertion.told(status);
        match status {
            Status::Pass => out.push('\n'),
            Status::Skipped => {
                let _ = writeln!(out, " # SKIP {}", line(&why.join("; ")));
            }
            Status::Fail | Status::Broken => {
                if !report.counts(assertion) {
                    let _ = write!(out, " # TODO only {level}");
                }
                let _ = writeln!(out, "\n  ---\n  about: {}", text(&assertion.about));
                let _ = writeln!(out, "  spec: {}\n  why:", text(&assertion.spec));
                for why in why {
                    let _ = writeln!(out, "    - {}", text(&why));
                }
                if let Some(known) = &assertion.known {
                    let _ = writeln!(out, "  known: {}", text(known));
                }
                let _ = writeln!(out, "  again: {}\n  ...", text(&assertion.again));
            }
        }
    }
    out
}

/// Without what would begin a directive or another line.
fn line(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('#', "\\#")
        .replace('\n', " ")
}

/// JSON's texts are YAML's.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
