//! Running the `iptables` programs, where there is no other way: by absolute path, without a shell or environment,
//! waiting a few seconds at most for their lock.

use std::path::Path;

use libcni::kernel::process::{self, Ended, Environment};

/// `-w`: how long a program waits for its lock.
const LOCK_WAIT_S: &str = "5";

/// Gives `iptables-restore` changes to some tables; each table's happen together or not at all.
pub(super) fn restore(program: &str, tables: &[(&str, Vec<String>)]) -> Result<(), String> {
    let mut text = String::new();
    for (table, changes) in tables {
        text.push_str(&format!("*{table}\n{}\nCOMMIT\n", changes.join("\n")));
    }
    run(program, &["-w", LOCK_WAIT_S, "--noflush"], &text).map(drop)
}

/// `iptables -S`: the rules of a chain, a line each, in the form that [`restore`] takes.
pub(super) fn list(program: &str, table: &str, chain: &str) -> Result<String, String> {
    run(program, &["-w", LOCK_WAIT_S, "-t", table, "-S", chain], "")
}

/// What it printed, or why it failed.
fn run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let failed = |reason: &str| [program, " ", &args.join(" "), ": ", reason].concat();
    let words = [&[program], args].concat();
    let output = process::run(
        Path::new(program),
        &words,
        Environment::Empty,
        input.as_bytes(),
    )
    .map_err(|error| failed(&error.to_string()))?;
    match output.ended {
        Ended::Exit(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        ended => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default();
            Err(failed(&[&ended.to_string(), " ", said].concat()))
        }
    }
}
