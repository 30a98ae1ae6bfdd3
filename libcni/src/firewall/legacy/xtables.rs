//! The same chains in the kernel's old iptables tables (`iptables-legacy`).
//!
//! Those have no other interface than replacing a whole table in the binary format of the `iptables` program, so here,
//! and only here, a program is run: by absolute path, without a shell or environment, waiting a few seconds at most for
//! its lock. Only when the table exists and holds the very chain, which is found by reading the table.
#![allow(unsafe_code)]

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::iptables::{BASE, comment};
use crate::kernel::process::{self, Ended, Environment};
use crate::spec::{Attachment, NetName, parse_cidr};

/// What the two families call things.
struct Tables {
    family: AddressFamily,
    /// `IPPROTO_IP`, `IPPROTO_IPV6`
    level: libc::c_int,
    /// The tables that exist; reading it creates none.
    names: &'static str,
    programs: [&'static str; 4],
}

const TABLES: [Tables; 2] = [
    Tables {
        family: AddressFamily::Inet,
        level: libc::IPPROTO_IP,
        names: "/proc/net/ip_tables_names",
        programs: [
            "/usr/sbin/iptables-legacy",
            "/sbin/iptables-legacy",
            "/usr/sbin/iptables",
            "/sbin/iptables",
        ],
    },
    Tables {
        family: AddressFamily::Inet6,
        level: libc::IPPROTO_IPV6,
        names: "/proc/net/ip6_tables_names",
        programs: [
            "/usr/sbin/ip6tables-legacy",
            "/sbin/ip6tables-legacy",
            "/usr/sbin/ip6tables",
            "/sbin/ip6tables",
        ],
    },
];

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
    for tables in &TABLES {
        let ours = |ip: &&IpAddr| ip.is_ipv4() == (tables.family == AddressFamily::Inet);
        let addresses: Vec<IpAddr> = addresses.iter().filter(ours).copied().collect();
        if addresses.is_empty() || !tables.hold(chain) {
            continue;
        }
        let Some(program) = tables.programs.iter().find(|path| Path::new(path).exists()) else {
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
            program,
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

// === impl Tables ===

impl Tables {
    /// Does the `nat` table exist and have this chain?
    fn hold(&self, chain: &str) -> bool {
        // Asking the socket for a table that does not exist would create it.
        let names = fs::read_to_string(self.names).unwrap_or_default();
        names.lines().any(|name| name == TABLE)
            && self.read().is_ok_and(|table| has_chain(&table, chain))
    }

    /// The table as the kernel keeps it.
    fn read(&self) -> nix::Result<Vec<u8>> {
        /// `struct ipt_getinfo` and `ip6t_getinfo`: char name[32], then 13 times u32, the last one the table's size.
        const INFO_BYTES: usize = 84;
        /// `struct ipt_get_entries`: char name[32], u32 size, padding to 8; then the entries.
        const HEADER_BYTES: usize = 40;
        const NAME_BYTES: usize = 32;
        /// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; the same numbers for IPv6.
        const GET_INFO: libc::c_int = 64;
        const GET_ENTRIES: libc::c_int = 65;

        let any = socket(
            self.family,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let mut name = TABLE.as_bytes().to_vec();
        name.resize(NAME_BYTES, 0);
        loop {
            let mut info = name.clone();
            info.resize(INFO_BYTES, 0);
            self.ask(&any, GET_INFO, &mut info)?;
            let size = *info.last_chunk::<4>().ok_or(Errno::EPROTO)?;
            let length = usize::try_from(u32::from_ne_bytes(size)).map_err(|_| Errno::EOVERFLOW)?;
            let mut entries = [name.as_slice(), &size].concat();
            entries.resize(HEADER_BYTES + length, 0);
            match self.ask(&any, GET_ENTRIES, &mut entries) {
                // It was changed in between.
                Err(Errno::EAGAIN) => {}
                outcome => return outcome.map(|()| entries.split_off(HEADER_BYTES)),
            }
        }
    }

    fn ask(&self, socket: &OwnedFd, option: libc::c_int, buffer: &mut [u8]) -> nix::Result<()> {
        let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: buffer is valid for reads and writes of `length` bytes during the call, and the kernel writes no more
        // than that.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                self.level,
                option,
                buffer.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        Errno::result(outcome).map(drop)
    }
}

/// A chain begins with an entry whose target is `ERROR` and carries the chain's name. Entries and targets are aligned
/// to 8 bytes, and so is the name behind the target's header of 32.
fn has_chain(table: &[u8], chain: &str) -> bool {
    let name = [chain.as_bytes(), &[0]].concat();
    (0..table.len())
        .step_by(8)
        .any(|at| table.get(at..).is_some_and(|rest| rest.starts_with(&name)))
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
        let failed = |reason: &str| [self.program, " ", &args.join(" "), ": ", reason].concat();
        let mut words = vec![self.program, "-w", LOCK_WAIT_S, "-t", TABLE];
        words.extend(args);
        let output = process::run(Path::new(self.program), &words, Environment::Empty, &[])
            .map_err(|e| failed(&e.to_string()))?;
        match output.ended {
            Ended::Exit(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            ended => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.lines().next().unwrap_or_default();
                Err(failed(&[&ended.to_string(), " ", said].concat()))
            }
        }
    }
}

/// The `-s` of a rule as `iptables -S` prints it, if the rule jumps to the chain.
fn jump_source<'a>(line: &'a str, chain: &str) -> Option<&'a str> {
    let rule = line.strip_suffix(chain)?.strip_suffix(" -j ")?;
    let (_, after) = rule.split_once(" -s ")?;
    after.split(' ').next()
}
