//! What docs/overlayd.md names exists, and what exists is in it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Instant;

use clap::CommandFactory;
use fabric::converge::Report;
use fabric::judge::{Reason, Refusal};
use overlayd::directory::View;
use overlayd::metrics::Metrics;
use overlayd::options::Options;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/overlayd.md");
    std::fs::read_to_string(path).unwrap()
}

/// Words of a text that begin like this.
fn words<'a>(text: &'a str, prefix: &'a str, more: &'a str) -> BTreeSet<&'a str> {
    let is_part = move |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    let found = text.match_indices(prefix).map(move |(at, _)| {
        let word = &text[at..];
        let end = word
            .char_indices()
            .find(|(_, c)| !is_part(*c) && *c != '-' && *c != '_')
            .map_or(word.len(), |(i, _)| i);
        &word[..end]
    });
    found.collect()
}

#[test]
fn every_option_is_documented_and_every_documented_one_exists() {
    let command = Options::command();
    let all = command.get_arguments().chain(
        command
            .get_subcommands()
            .flat_map(|sub| sub.get_arguments()),
    );
    let visible = all
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| arg.get_long())
        .map(|long| format!("--{long}"));
    let visible: BTreeSet<String> = visible.collect();
    let page = page();
    let named = words(&page, "--", "-");
    let missing: Vec<_> = visible
        .iter()
        .filter(|long| !named.contains(long.as_str()))
        .collect();
    // Of node names the table says NODE_NAME.
    assert_eq!(missing, ["--node-name"], "not in docs/overlayd.md");
    // etcdctl's own, and clap's.
    let others = ["--prefix", "--help"];
    let unknown: Vec<_> = named
        .iter()
        .filter(|name| {
            !visible.contains(**name)
                && !others.contains(name)
                && name.contains(char::is_alphanumeric)
        })
        .collect();
    assert!(unknown.is_empty(), "no such option: {unknown:?}");
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let mut metrics = Metrics::new();
    let skipped = [("a".to_owned(), "no lease".to_owned())].into();
    metrics.viewed(&View {
        skipped,
        ..View::default()
    });
    metrics.failed("rules");
    let refusal = Refusal {
        key: "a".into(),
        name: "a".into(),
        v6: None,
        reason: Reason::NoVtep,
    };
    metrics.reconciled(
        &Report {
            refused: vec![refusal],
            ..Report::default()
        },
        1,
        None,
    );
    let text = metrics.text(Some(Instant::now()));
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let existing: BTreeSet<String> = families
        .map(|family| {
            let (name, kind) = family.split_once(' ').unwrap();
            // A counter's sample has this at its end.
            if kind == "counter" {
                format!("{name}_total")
            } else {
                name.to_owned()
            }
        })
        .collect();
    let page = page();
    let documented: BTreeSet<String> = words(&page, "overlayd_", "_")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(existing, documented);
}
