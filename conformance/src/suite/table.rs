//! The scorecard for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::case::Level;
use super::report::{Report, Status};

/// Columns: name, then passed of applicable for each level, then what is wrong.
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    for assertion in report.all(Status::Fail).chain(report.all(Status::Broken)) {
        let status = assertion.status();
        let _ = writeln!(
            out,
            "{} {} {} [{}] {}",
            status.name().to_uppercase(),
            assertion.level.name(),
            assertion.id,
            assertion.plugin,
            assertion.about
        );
        for (versions, why) in assertion.of(status) {
            for why in why {
                let _ = writeln!(out, "    {}: {why}", versions.join(" "));
            }
        }
    }
    let mut areas: BTreeMap<&str, [[usize; 2]; 3]> = BTreeMap::new();
    for assertion in &report.assertions {
        let of_area = areas.entry(&assertion.area).or_default();
        let Some(cell) = of_area.get_mut(assertion.level as usize) else {
            continue;
        };
        let [passed, all] = cell;
        match assertion.status() {
            Status::Skipped => {}
            Status::Pass => {
                *passed += 1;
                *all += 1;
            }
            Status::Fail | Status::Broken => *all += 1,
        }
    }
    let _ = writeln!(
        out,
        "{:<16} {:>12} {:>12} {:>12}",
        "", "MUST", "SHOULD", "MAY"
    );
    for (area, levels) in areas {
        let _ = write!(out, "{area:<16}");
        for (_, [passed, all]) in Level::ALL.iter().zip(levels) {
            let cell = match all {
                0 => "-".to_owned(),
                all => format!("{passed}/{all}"),
            };
            let _ = write!(out, " {cell:>12}");
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "{} cases, {} runs, {:.1} s",
        report.cases,
        report.runs,
        report.took.as_secs_f64()
    );
    out
}
