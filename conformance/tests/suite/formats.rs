//! Each format says the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Bed, text};

/// That each element is closed, and how many there are of each name.
fn elements(xml: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let (tag, rest) = tag.split_once('>').unwrap_or_else(|| panic!("<{tag}"));
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let is_reference = |r: &str| {
            ["lt;", "gt;", "amp;", "quot;", "#"]
                .iter()
                .any(|k| r.starts_with(k))
        };
        let references = tag.split('&').skip(1).chain(rest.split('&').skip(1));
        references.for_each(|r| assert!(is_reference(r), "&{r}"));
        if tag.starts_with('?') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        *counts.entry(name.clone()).or_insert(0) += 1;
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    counts
}

#[test]
fn each_format() {
    let bed = Bed::new();
    let filter = [
        "toy.good",
        "toy.skipped",
        "toy.quirk.code",
        "toy.quirk.lie",
        "toy.broken.setup",
    ];
    let filter: Vec<&str> = filter.iter().flat_map(|f| ["--filter", f]).collect();
    let write = |format| {
        text(
            &bed.run(&[&["--format", format], filter.as_slice()].concat())
                .stdout,
        )
    };

    let report: Value = serde_json::from_str(&write("json")).unwrap();
    let assertions = report["assertions"].as_array().unwrap().len();
    assert_eq!(
        report["score"]["all"]["all"]["SHOULD"],
        json!({"passed": 0, "applicable": 1})
    );
    assert_eq!(report["plugins"]["toy"]["versions"][0], "0.4.0");

    let xml = elements(&write("junit"));
    assert_eq!(xml["testcase"], assertions);
    assert_eq!((xml["failure"], xml["error"], xml["skipped"]), (1, 1, 7));

    let tap = write("tap");
    let mut lines = tap.lines();
    assert_eq!(lines.next(), Some("TAP version 14"));
    assert_eq!(lines.next(), Some(format!("1..{assertions}").as_str()));
    let points: Vec<&str> = tap
        .lines()
        .filter(|l| l.starts_with("ok ") || l.starts_with("not ok "))
        .collect();
    for (i, point) in points.iter().enumerate() {
        let number = point.trim_start_matches("not ").split(' ').nth(1).unwrap();
        assert_eq!(number, (i + 1).to_string(), "{point}");
    }
    assert_eq!(points.len(), assertions);
    let with = |what: &str| points.iter().filter(|p| p.contains(what)).count();
    assert_eq!((with("# SKIP"), with("# TODO")), (6, 1), "{tap}");

    let markdown = write("markdown");
    assert!(
        markdown.contains("| MUST | `toy.quirk.code` | toy | 1.0.0 |"),
        "{markdown}"
    );
    let table = write("table");
    assert!(table.contains("FAIL MUST toy.quirk.code [toy]"), "{table}");
    assert!(
        table.contains("not applicable: 1 (it needs nobody"),
        "{table}"
    );
    assert!(
        table.lines().last().unwrap().starts_with("FAILED: toy."),
        "{table}"
    );
}
