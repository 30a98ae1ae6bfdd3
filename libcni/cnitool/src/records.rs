//! `last-ops`: the records of the last operations.

use std::collections::VecDeque;
use std::fs;

use anyhow::{Context, Result};
use libcni::record;

use crate::cli::{Cli, LastOps};
use crate::show;

/// Prints the last records of a file, oldest first.
pub fn last_ops(cli: &Cli, options: &LastOps) -> Result<()> {
    let file = &options.file;
    // Of a file that was just moved aside, that one is there.
    if !file.with_added_extension("1").exists() {
        fs::metadata(file).with_context(|| {
            format!("{}: records are off until PODWIRE_RECORD or the key `record` of a network names a file", file.display())
        })?;
    }
    let mut last = VecDeque::new();
    for operation in record::read(file) {
        if last.len() == options.count {
            last.pop_front();
        }
        last.push_back(operation);
    }
    for operation in last.iter().take(options.count) {
        if cli.json {
            show::line(&operation.to_line());
            continue;
        }
        let phases = operation.phases.iter();
        let phases: Vec<String> = phases.map(|p| format!("{} {} us", p.name, p.us)).collect();
        show::line(&format!(
            "{:>4} ago  {operation} ({})",
            show::age(operation.time),
            phases.join(", ")
        ));
    }
    Ok(())
}
