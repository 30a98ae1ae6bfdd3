//! JUnit's XML, as CI systems read it: a suite for each area.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::suite::report::{Assertion, Report, Status};

pub fn write(report: &Report) -> String {
    let mut areas: BTreeMap<&str, Vec<&Assertion>> = BTreeMap::new();
    for assertion in &report.assertions {
        areas.entry(&assertion.area).or_default().push(assertion);
    }
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let _ = writeln!(
        out,
        "<testsuites name=\"CNI conformance\" {} time=\"{:.3}\">",
        counts(report, report.assertions.iter()),
        report.took.as_secs_f64()
    );
    for (area, all) in areas {
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" {}>",
            escaped(area),
            counts(report, all.iter().copied())
        );
        for assertion in all {
            one(&mut out, report, assertion);
        }
        out += "  </testsuite>\n";
    }
    out + "</testsuites>\n"
}

fn counts<'r>(report: &Report, all: impl Iterator<Item = &'r Assertion>) -> String {
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    for assertion in all {
        tests += 1;
        match (assertion.status(), report.counts(assertion)) {
            (Status::Pass, _) => {}
            (Status::Fail, true) => failures += 1,
            (Status::Broken, true) => errors += 1,
            _ => skipped += 1,
        }
    }
    format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"")
}

fn one(out: &mut String, report: &Report, assertion: &Assertion) {
    let _ = write!(
        out,
        "    <testcase classname=\"{}\" name=\"{}\"",
        escaped(&assertion.plugin),
        escaped(&assertion.title())
    );
    let status = assertion.status();
    let why = assertion.told(status).join("\n");
    let level = assertion.level.name();
    let element = match (status, report.counts(assertion)) {
        (Status::Pass, _) => return out.push_str("/>\n"),
        (Status::Fail, true) => "failure",
        (Status::Broken, true) => "error",
        (Status::Skipped, _) => "skipped",
        (_, false) => {
            let message = format!("fails, and is only {level}: {why}");
            let _ = writeln!(
                out,
                "><skipped message=\"{}\"/></testcase>",
                escaped(&message)
            );
            return;
        }
    };
    let _ = write!(out, "><{element} message=\"{}\"", escaped(&why));
    if element == "skipped" {
        *out += "/></testcase>\n";
        return;
    }
    let known = assertion.known.as_deref();
    let text = format!(
        "{level} ({}): {}\n{why}\n{}again: {}",
        assertion.spec,
        assertion.about,
        known.map(|k| format!("known: {k}\n")).unwrap_or_default(),
        assertion.again
    );
    let _ = writeln!(
        out,
        " type=\"{level}\">{}</{element}></testcase>",
        escaped(&text)
    );
}

/// What XML 1.0 cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '"' => out += "&quot;",
            '\n' => out += "&#10;",
            '\t' => out += "&#9;",
            '\u{fffe}' | '\u{ffff}' => {}
            c if c < ' ' => {}
            c => out.push(c),
        }
    }
    out
}
