//! Running the `iptables` programs, where there is no other way: by absolute path, without a shell or environment,
//! waiting a few seconds at most for their lock.

use libcni::kernel::process;

/// `-w`: how long a program waits for its lock.
const LOCK_WAIT_S: &str = "5";

/// Gives `iptables-restore` changes to some tables; each table's happen together or not at all.
pub(super) fn restore(program: &str, tables: &[(&str, Vec<String>)]) -> Result<(), String> {
    let mut text = String::new();
    for (table, changes) in tables {
        text.push_str(&format!("*{table}\n{}\nCOMMIT\n", changes.join("\n")));
    }
    process::told(program, &["-w", LOCK_WAIT_S, "--noflush"], &text).map(drop)
}

/// `iptables -S`: the rules of a chain, a line each, in the form that [`restore`] takes.
pub(super) fn list(program: &str, table: &str, chain: &str) -> Result<String, String> {
    process::told(program, &["-w", LOCK_WAIT_S, "-t", table, "-S", chain], "")
}
