//! Everything there is to know, for programs.

use serde_json::{Map, Value, json};

use super::score::scores;
use crate::suite::case::Level;
use crate::suite::report::{Assertion, Report, Status};

pub fn write(report: &Report) -> String {
    let mut score = Map::new();
    for table in scores(report) {
        let mut rows = Map::new();
        for (name, cells) in table.rows {
            let mut row = Map::new();
            for (level, (passed, all)) in Level::ALL.iter().zip(cells) {
                let cell = json!({"passed": passed, "applicable": all});
                row.insert(level.name().to_owned(), cell);
            }
            rows.insert(name, Value::Object(row));
        }
        score.insert(table.title.to_owned(), Value::Object(rows));
    }
    let plugins: Map<String, Value> = report
        .judged
        .iter()
        .map(|judged| (judged.name.clone(), json!({"versions": judged.versions})))
        .collect();
    let whole = json!({
        "plugins": plugins,
        "cases": report.cases,
        "runs": report.runs,
        "seconds": report.took.as_secs_f64(),
        "score": score,
        "knownButPassed": report.unused,
        "assertions": report.assertions.iter().map(assertion).collect::<Vec<_>>(),
    });
    format!("{whole:#}\n")
}

fn assertion(assertion: &Assertion) -> Value {
    let versions: Map<String, Value> = assertion
        .versions
        .iter()
        .filter(|(version, _)| !version.is_empty())
        .map(|(version, (status, why))| {
            let of = json!({"status": status.name(), "why": why});
            (version.clone(), of)
        })
        .collect();
    let status = assertion.status();
    let mut value = json!({
        "id": assertion.id,
        "case": assertion.case,
        "area": assertion.area,
        "level": assertion.level.name(),
        "spec": assertion.spec,
        "about": assertion.about,
        "plugin": assertion.plugin,
        "status": status.name(),
        "versions": versions,
    });
    let Value::Object(map) = &mut value else {
        return value;
    };
    match status {
        Status::Pass => {}
        Status::Skipped => {
            let why: Vec<&String> = assertion.versions.values().flat_map(|(_, w)| w).collect();
            map.insert("why".to_owned(), json!(why));
        }
        Status::Fail | Status::Broken => {
            map.insert("again".to_owned(), assertion.again.clone().into());
            map.insert("script".to_owned(), assertion.script.clone().into());
            map.insert("known".to_owned(), json!(assertion.known));
        }
    }
    value
}
