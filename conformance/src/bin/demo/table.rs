//! The one table: a row per fact, a column per pod.

use std::fmt::Write as _;

use crate::sight::{Bridge, Pod};

/// A row's label, and how to read a pod's cell, one line each.
type Row = (&'static str, fn(&Pod) -> Vec<String>);

const ROWS: [Row; 17] = [
    ("pod", |pod| vec![pod.name.clone()]),
    ("container", |pod| vec![pod.container.clone()]),
    ("netns", |pod| vec![pod.netns.clone()]),
    ("address", |pod| vec![pod.address.clone()]),
    ("MAC of eth0", |pod| vec![pod.mac.clone()]),
    ("veth pair", |pod| vec![pod.veth.clone()]),
    ("MAC of host end", |pod| vec![pod.host_mac.clone()]),
    ("alias of host end", |pod| vec![pod.alias.clone()]),
    ("MTU", |pod| vec![pod.mtu.clone()]),
    ("bridge port", |pod| vec![pod.port.clone()]),
    ("hairpin", |pod| vec![pod.hairpin.clone()]),
    ("routes in the pod", |pod| pod.routes.clone()),
    ("FDB of the port", |pod| pod.fdb.clone()),
    ("node's neighbour", |pod| vec![pod.neighbour.clone()]),
    ("masquerading", |pod| pod.rules.clone()),
    ("reservation", |pod| {
        vec![pod.reservation.clone(), pod.content.clone()]
    }),
    ("cached result", |pod| vec![pod.cache.clone()]),
];

pub(crate) fn draw(pods: &[Pod], bridge: &Bridge) -> String {
    // Each row as lines of cells, the label first.
    let mut lines: Vec<Vec<String>> = Vec::new();
    for (label, cell) in ROWS {
        let cells: Vec<Vec<String>> = pods.iter().map(cell).collect();
        // A row that says nothing of any pod is left out.
        if cells.iter().flatten().all(String::is_empty) {
            continue;
        }
        for n in 0..cells.iter().map(Vec::len).max().unwrap_or_default() {
            let mut line = vec![if n == 0 {
                label.to_owned()
            } else {
                String::new()
            }];
            line.extend(
                cells
                    .iter()
                    .map(|cell| cell.get(n).cloned().unwrap_or_default()),
            );
            lines.push(line);
        }
    }
    let columns = pods.len() + 1;
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let rule = format!(
        "+{}",
        widths
            .iter()
            .map(|width| format!("{}+", "-".repeat(width + 2)))
            .collect::<String>()
    );
    let inner = rule.len().saturating_sub(4);

    let mut drawn = format!("{rule}\n");
    let Bridge {
        name,
        address,
        mac,
        mtu,
        state,
        ports,
        rules,
    } = bridge;
    let head = format!("bridge {name}  {address}  {mac}  MTU {mtu}  {state}  {ports} ports");
    for text in std::iter::once(head).chain(rules.iter().map(|rule| format!("rule of {rule}"))) {
        for line in wrapped(&text, inner) {
            let _ = writeln!(drawn, "| {line:<inner$} |");
        }
    }
    drawn.push_str(&rule);
    drawn.push('\n');
    for (n, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        let _ = writeln!(drawn, "| {} |", cells.join(" | "));
        if n == 0 {
            let _ = writeln!(drawn, "{rule}");
        }
    }
    drawn.push_str(&rule);
    drawn.push_str("\n(reservations lie in /var/lib/cni/networks/cbr0/, cached results in /var/lib/cni/results/)");
    drawn
}

/// Lines of at most `width` characters, unless one word is longer; all but the first are indented.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, "   ".to_owned()));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}
