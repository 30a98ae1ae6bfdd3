//! The same chains in the kernel's old iptables tables (`iptables-legacy`).
//!
//! Those have no other interface than replacing a whole table in the binary format of the `iptables` program, so here,
//! and only here, a program is run: by absolute path, without a shell or environment, waiting a few seconds at most for
//! its lock. Only when the table exists and holds the very chain, which is found by reading the table.

use std::net::IpAddr;

use super::iptables::{BASE, comment};
use crate::kernel::process;
use crate::kernel::xtables::Family;
use crate::spec::{Attachment, NetName, parse_cidr};

const TABLE: &str = "nat";
/// `-w`: how long the program waits for its lock.
const LOCK_WAIT_S: &str = "5";

/// Removes the jumps of the addresses and, unless others are left, the chain. Returns what failed, a line each: these
/// are another program's leftovers and must not make DEL fail for ever.
pub(super) fn remove(
    chain: &str,
    net: &NetName,
    attachment: &Attachment,
    addresses: &[IpAddr],
) -> Vec<String> {
    let mut warnings = Vec::new();
    for family in [Family::V4, Family::V6] {
        let ours = |ip: &&IpAddr| ip.is_ipv4() == (family == Family::V4);
        let addresses: Vec<IpAddr> = addresses.iter().filter(ours).copied().collect();
        if addresses.is_empty() || !holds(family, chain) {
            continue;
        }
        let Some(program) = family.program("") else {
            let missing = [
                chain,
                " stays in the ",
                TABLE,
                " table of iptables-legacy: no iptables-legacy is installed",
            ];
            warnings.push(missing.concat());
            continue;
        };
        let leftover = Leftover {
            program: &program,
            chain,
            comment: comment(net, attachment.container_id.as_str()),
        };
        if let Err(reason) = leftover.remove(&addresses) {
            warnings.push(
                [
                    chain,
                    " stays in the ",
                    TABLE,
                    " table of iptables-legacy: ",
                    &reason,
                ]
                .concat(),
            );
        }
    }
    warnings
}

/// Does the `nat` table exist and have this chain?
fn holds(family: Family, chain: &str) -> bool {
    let table = family.table(TABLE);
    table.is_ok_and(|table| table.is_some_and(|table| table.has_chain(chain)))
}

/// A chain to be removed by a program.
struct Leftover<'a> {
    program: &'a str,
    chain: &'a str,
    comment: String,
}

// === impl Leftover ===

impl Leftover<'_> {
    fn remove(&self, addresses: &[IpAddr]) -> Result<(), String> {
        let mut others = false;
        for line in self.run(&["-S", BASE])?.lines() {
            let Some(source) = jump_source(line, self.chain) else {
                continue;
            };
            let prefix = parse_cidr(source);
            if !prefix.is_some_and(|prefix| addresses.iter().any(|ip| prefix.contains(*ip))) {
                others = true;
                continue;
            }
            let mut delete = vec!["-D", BASE, "-s", source];
            if line.contains(" --comment ") {
                delete.extend(["-m", "comment", "--comment", &self.comment]);
            }
            delete.extend(["-j", self.chain]);
            self.run(&delete)?;
        }
        if others {
            return Ok(());
        }
        self.run(&["-F", self.chain])?;
        self.run(&["-X", self.chain]).map(drop)
    }

    /// Runs the program on the table; what it printed, or why it failed.
    fn run(&self, args: &[&str]) -> Result<String, String> {
        let words = [&["-w", LOCK_WAIT_S, "-t", TABLE], args].concat();
        process::told(self.program, &words, "")
    }
}

/// The `-s` of a rule as `iptables -S` prints it, if the rule jumps to the chain.
fn jump_source<'a>(line: &'a str, chain: &str) -> Option<&'a str> {
    let rule = line.strip_suffix(chain)?.strip_suffix(" -j ")?;
    let (_, after) = rule.split_once(" -s ")?;
    after.split(' ').next()
}
