//! The kernel's old iptables tables (`iptables-legacy`), as they are without nf_tables: read only.
//!
//! They can be changed only by replacing a whole table in the binary format of the `iptables` program, so whoever has
//! to change one runs that program ([`Family::program`]). Reading is a system call or two. Sources:
//! `include/uapi/linux/netfilter/x_tables.h`, `netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h`.
#![allow(unsafe_code)]

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// One of the two sets of tables; the structures differ by their addresses' size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `ip_tables`
    V4,
    /// `ip6_tables`
    V6,
}

/// A table as the kernel keeps it.
#[derive(Debug)]
pub struct Table {
    family: Family,
    /// For each hook where its chain begins, and where its policy is.
    hooks: [(usize, usize); HOOKS],
    entries: Vec<u8>,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its policy is DROP.
    pub drops: bool,
    /// In order.
    pub rules: Vec<Rule>,
}

/// As much of a rule as is of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `-s`, if there is one and it is not inverted.
    pub from: Option<IpNetwork>,
    /// `-d`, likewise.
    pub to: Option<IpNetwork>,
    /// It looks at nothing but these two addresses.
    pub plain: bool,
    /// `-m comment`, `""` without.
    pub comment: String,
    /// What becomes of the packet.
    pub target: Target,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `-j ACCEPT`
    Accept,
    /// `-j DROP`
    Drop,
    /// `-j RETURN`, or a jump to a chain.
    Elsewhere,
    /// A target that is a module's, `REJECT`.
    Module(String),
}

/// `NF_INET_FORWARD`
pub const FORWARD: usize = 2;

const HOOKS: usize = 5;
const NAME_BYTES: usize = 32;
/// `XT_EXTENSION_MAXNAMELEN`
const MODULE_NAME_BYTES: usize = 29;
/// `struct xt_entry_match` and `_target`: u16 size, name, u8 revision; aligned.
const EXTENSION_BYTES: usize = 32;

/// Where things are in `struct ipt_entry` and `ip6t_entry`.
struct Layout {
    address: usize,
    /// The bytes of what a packet is compared with by itself, behind the four addresses and masks.
    rest: std::ops::Range<usize>,
    inverted: usize,
    /// u16 `target_offset`, u16 `next_offset`
    offsets: usize,
    bytes: usize,
}

/// `IPT_INV_SRCIP`, `IPT_INV_DSTIP`
const INVERTED_SOURCE: u8 = 8;
const INVERTED_DESTINATION: u8 = 16;

// === impl Family ===

impl Family {
    const fn layout(self) -> Layout {
        match self {
            Family::V4 => Layout {
                address: 4,
                rest: 16..84,
                inverted: 83,
                offsets: 88,
                bytes: 112,
            },
            Family::V6 => Layout {
                address: 16,
                rest: 64..133,
                inverted: 132,
                offsets: 140,
                bytes: 168,
            },
        }
    }

    /// The table, or `None` if nobody uses it. Does not bring it into being, which asking the socket would.
    ///
    /// # Errors
    /// Not root of the machine's own user namespace, mostly.
    pub fn table(self, name: &str) -> nix::Result<Option<Table>> {
        // Of the thread, whose namespace need not be the process's.
        let names = match self {
            Family::V4 => "/proc/thread-self/net/ip_tables_names",
            Family::V6 => "/proc/thread-self/net/ip6_tables_names",
        };
        let names = fs::read_to_string(names).unwrap_or_default();
        if !names.lines().any(|line| line == name) {
            return Ok(None);
        }
        self.read(name).map(Some)
    }

    /// The path of a program for these tables, if one is installed; `suffix` is `""`, `-save` or `-restore`.
    pub fn program(self, suffix: &str) -> Option<String> {
        let name = match self {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        ["-legacy", ""]
            .into_iter()
            .flat_map(|flavour| {
                ["/usr/sbin/", "/sbin/"].map(|dir| [dir, name, flavour, suffix].concat())
            })
            .find(|path| Path::new(path).exists())
    }

    fn read(self, name: &str) -> nix::Result<Table> {
        /// `struct ipt_getinfo` and `ip6t_getinfo`: char name[32]; u32 valid_hooks, hook_entry[5], underflow[5],
        /// num_entries, size.
        const INFO_BYTES: usize = 84;
        /// `struct ipt_get_entries`: char name[32], u32 size, padding to 8; then the entries.
        const HEADER_BYTES: usize = 40;
        /// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; the same numbers for IPv6.
        const GET_INFO: libc::c_int = 64;
        const GET_ENTRIES: libc::c_int = 65;

        let address_family = match self {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let any = socket(
            address_family,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let mut request = name.as_bytes().to_vec();
        request.resize(NAME_BYTES, 0);
        loop {
            let mut info = request.clone();
            info.resize(INFO_BYTES, 0);
            self.ask(&any, GET_INFO, &mut info)?;
            let number = |at| length(&info, NAME_BYTES + 4 * at).ok_or(Errno::EPROTO);
            let mut hooks = [(0, 0); HOOKS];
            for (hook, edges) in hooks.iter_mut().enumerate() {
                *edges = (number(1 + hook)?, number(1 + HOOKS + hook)?);
            }
            let size = *info.last_chunk::<4>().ok_or(Errno::EPROTO)?;
            let bytes = usize::try_from(u32::from_ne_bytes(size)).map_err(|_| Errno::EOVERFLOW)?;
            let mut entries = [request.as_slice(), &size].concat();
            entries.resize(HEADER_BYTES + bytes, 0);
            match self.ask(&any, GET_ENTRIES, &mut entries) {
                // It was changed in between.
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
                Ok(()) => {
                    return Ok(Table {
                        family: self,
                        hooks,
                        entries: entries.split_off(HEADER_BYTES),
                    });
                }
            }
        }
    }

    fn ask(self, socket: &OwnedFd, option: libc::c_int, buffer: &mut [u8]) -> nix::Result<()> {
        let level = match self {
            Family::V4 => libc::IPPROTO_IP,
            Family::V6 => libc::IPPROTO_IPV6,
        };
        let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: buffer is valid for reads and writes of `length` bytes during the call, and the kernel writes no more
        // than that.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                level,
                option,
                buffer.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        Errno::result(outcome).map(drop)
    }
}

// === impl Table ===

impl Table {
    /// Is there a chain of this name? It begins with an entry whose target is `ERROR` and carries it. Entries and targets
    /// are aligned to 8 bytes, and so is the name behind the target's header of 32.
    pub fn has_chain(&self, name: &str) -> bool {
        let name = [name.as_bytes(), &[0]].concat();
        (0..self.entries.len()).step_by(8).any(|at| {
            self.entries
                .get(at..)
                .is_some_and(|rest| rest.starts_with(&name))
        })
    }

    /// The base chain of a hook.
    pub fn base_chain(&self, hook: usize) -> Option<Chain> {
        let (mut at, policy) = *self.hooks.get(hook)?;
        let layout = self.family.layout();
        let mut rules = Vec::new();
        while at < policy {
            let entry = self.entries.get(at..)?;
            rules.push(self.rule(&layout, entry)?);
            let next = usize::from(u16::from_ne_bytes(bytes(entry, layout.offsets + 2)?));
            at += next.max(layout.bytes);
        }
        let policy = self.rule(&layout, self.entries.get(policy..)?)?;
        Some(Chain {
            drops: policy.target == Target::Drop,
            rules,
        })
    }

    fn rule(&self, layout: &Layout, entry: &[u8]) -> Option<Rule> {
        let target = usize::from(u16::from_ne_bytes(bytes(entry, layout.offsets)?));
        let inverted = *entry.get(layout.inverted)?;
        let mut rule = Rule {
            from: self
                .prefix(layout, entry, 0)
                .filter(|_| inverted & INVERTED_SOURCE == 0),
            to: self
                .prefix(layout, entry, 1)
                .filter(|_| inverted & INVERTED_DESTINATION == 0),
            plain: entry
                .get(layout.rest.clone())?
                .iter()
                .all(|byte| *byte == 0),
            comment: String::new(),
            target: verdict(entry.get(target..)?)?,
        };
        let mut at = layout.bytes;
        while at < target {
            let extension = entry.get(at..target)?;
            match (module(extension)?, extension.get(EXTENSION_BYTES..)?) {
                (name, text) if name == "comment" => rule.comment = until_nul(text),
                _ => rule.plain = false,
            }
            at += usize::from(u16::from_ne_bytes(bytes(extension, 0)?)).max(EXTENSION_BYTES);
        }
        Some(rule)
    }

    /// The first (source) or second of the addresses, with its mask two places behind it; `None` for any.
    fn prefix(&self, layout: &Layout, entry: &[u8], which: usize) -> Option<IpNetwork> {
        let part = |n: usize| entry.get(n * layout.address..(n + 1) * layout.address);
        let (address, mask) = (part(which)?, part(which + 2)?);
        let ip = |octets: &[u8]| match self.family {
            Family::V4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
            Family::V6 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        };
        let prefix = IpNetwork::with_netmask(ip(address)?, ip(mask)?).ok()?;
        (prefix.prefix() > 0).then_some(prefix)
    }
}

/// From `struct xt_entry_target`; of the standard one, which has no name, an int follows.
fn verdict(target: &[u8]) -> Option<Target> {
    let name = module(target)?;
    if !name.is_empty() {
        return Some(Target::Module(name));
    }
    // -NF_DROP - 1, -NF_ACCEPT - 1; others return or jump.
    Some(match i32::from_ne_bytes(bytes(target, EXTENSION_BYTES)?) {
        -1 => Target::Drop,
        -2 => Target::Accept,
        _ => Target::Elsewhere,
    })
}

fn module(extension: &[u8]) -> Option<String> {
    extension.get(2..2 + MODULE_NAME_BYTES).map(until_nul)
}

fn until_nul(text: &[u8]) -> String {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn length(buffer: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_ne_bytes(bytes(buffer, at)?)).ok()
}

fn bytes<const N: usize>(buffer: &[u8], at: usize) -> Option<[u8; N]> {
    buffer.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests;
