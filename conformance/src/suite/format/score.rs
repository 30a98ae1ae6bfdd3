//! Counting: how many passed of those that apply, by level.

use std::collections::BTreeMap;

use crate::suite::case::Level;
use crate::suite::report::{Report, Status};

/// Of MUST, SHOULD and MAY: passed, applicable.
pub type Cells = [(usize, usize); 3];

/// One table of the scorecard.
#[derive(Debug)]
pub struct Score {
    pub title: &'static str,
    pub rows: Vec<(String, Cells)>,
}

/// Everything once, then by area, by plugin and by version.
pub fn scores(report: &Report) -> [Score; 4] {
    let mut tables: [BTreeMap<String, Cells>; 4] = Default::default();
    let [all, areas, plugins, versions] = &mut tables;
    for assertion in &report.assertions {
        let level = assertion.level;
        let status = assertion.status();
        count(all, "all", level, status);
        count(areas, &assertion.area, level, status);
        count(plugins, &assertion.plugin, level, status);
        for (version, (status, _)) in &assertion.versions {
            count(versions, version, level, *status);
        }
    }
    let titles = ["all", "area", "plugin", "version"];
    let mut tables = tables.into_iter();
    titles.map(|title| Score {
        title,
        rows: tables.next().unwrap_or_default().into_iter().collect(),
    })
}

fn count(table: &mut BTreeMap<String, Cells>, row: &str, level: Level, status: Status) {
    if status == Status::Skipped {
        return;
    }
    let cells = table.entry(row.to_owned()).or_default();
    if let Some((passed, all)) = cells.get_mut(level as usize) {
        *all += 1;
        *passed += usize::from(status == Status::Pass);
    }
}

/// `12/13`, or a dash where there is nothing.
pub fn cell((passed, all): (usize, usize)) -> String {
    match all {
        0 => "-".to_owned(),
        all => format!("{passed}/{all}"),
    }
}

/// Why what was not run does not apply, the most frequent first.
pub fn not_applicable(report: &Report) -> Vec<(usize, String)> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for assertion in report.all(Status::Skipped) {
        for why in assertion
            .of(Status::Skipped)
            .iter()
            .flat_map(|(_, why)| *why)
        {
            *reasons.entry(why).or_default() += 1;
        }
    }
    let mut reasons: Vec<(usize, String)> = reasons
        .into_iter()
        .map(|(why, n)| (n, why.to_owned()))
        .collect();
    reasons.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    reasons
}
