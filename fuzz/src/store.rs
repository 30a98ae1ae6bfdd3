//! The address store: a directory that others write into as well, a crash may have torn, and an index that is a file
//! like any other. The bytes are a sequence of steps: verbs of ours, and what happens to the files between them.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use libcni::spec::{Attachment, ContainerId, IfName, Node, Version};
use libcni::store::IpamConf;

use crate::input::Input;
use crate::scratch;

const STEPS: usize = 24;
/// Where the index says which boot it is of.
const BOOT: std::ops::Range<u64> = 8..24;
/// Beside the network's directory: nobody's business here.
const CANARY: &str = "canary";

struct Bed {
    parent: PathBuf,
    dir: PathBuf,
    conf: IpamConf,
    /// Something was written where only we write: what the index says cannot be trusted to be complete.
    index_touched: bool,
}

/// Steps; see there.
pub fn store(bytes: &[u8]) {
    let parent = scratch::dir().join("data");
    let _ = fs::remove_dir_all(&parent);
    must(fs::create_dir_all(&parent));
    must(fs::write(parent.join(CANARY), CANARY));
    let text = format!(
        r#"{{"cniVersion": "1.0.0", "name": "n", "type": "bridge", "ipam": {{"type": "host-local", "dataDir": {:?},
            "ranges": [[{{"subnet": "10.1.0.0/28"}}], [{{"subnet": "fd00:1::/64"}}]]}}}}"#,
        parent.display().to_string()
    );
    let node = Node::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    let conf = IpamConf::parse(&node, "", Version::V1_0_0).unwrap_or_else(|e| panic!("{e}"));
    let mut bed = Bed {
        dir: parent.join("n"),
        parent,
        conf,
        index_touched: false,
    };
    let mut input = Input::new(bytes);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        bed.step(&mut input);
    }
    bed.nothing_outside();
    must(fs::remove_dir_all(&bed.parent));
}

fn must<T, E: std::fmt::Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|e| panic!("{e}"))
}

fn attachment(n: u8) -> Attachment {
    Attachment {
        container_id: must(ContainerId::parse(&format!("c{}", n % 4))),
        ifname: must(IfName::parse(if n & 4 == 0 { "eth0" } else { "net1" })),
    }
}

// === impl Bed ===

impl Bed {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=2 => self.add(&attachment(input.byte())),
            3 | 4 => self.release(&attachment(input.byte())),
            5 => self.gc(input.byte()),
            6 => {
                let _ = self.conf.dir.check(&attachment(input.byte()));
                let _ = self.conf.status();
            }
            7 => {
                let held = self.conf.dir.reservations();
                let addresses: Vec<_> = held.iter().flatten().map(|r| r.ip).collect();
                assert!(addresses.len() <= self.owners().len());
            }
            // A reservation by somebody else, or what is left of one.
            8 => {
                let last = input.byte() % 16;
                self.put(&format!("10.1.0.{last}"), input.chunk());
            }
            9 => {
                let last = input.byte();
                self.put(&format!("fd00:1::{last:x}"), input.chunk());
            }
            10 => {
                let set = input.byte() % 3;
                self.put(&format!("last_reserved_ip.{set}"), input.chunk());
            }
            11 => {
                let name = String::from_utf8_lossy(input.chunk()).replace(['/', '\0'], "_");
                if !matches!(name.as_str(), "" | "." | "..") {
                    self.put(&name, input.chunk());
                }
            }
            // The index: a word of its head, any bytes of it, its length. Not the boot it is of: what an earlier one
            // lists may be cleared away, after a look into every namespace of the machine.
            12 => {
                let at = BOOT.end + u64::from(input.byte() % 10) * 8;
                let word = input.word().to_le_bytes();
                self.damage(|index| index.write_all_at(&word, at));
            }
            13 => {
                let at = BOOT.end + input.word() % (1 << 18);
                let bytes = input.chunk();
                self.damage(|index| index.write_all_at(bytes, at));
            }
            14 => {
                let length = input.word() % (1 << 20);
                self.damage(|index| index.set_len(length));
            }
            _ => self.strange(input.byte()),
        }
    }

    /// It may fail. If not, the addresses are of the ranges, named in files of their own, and nobody else's.
    fn add(&self, attachment: &Attachment) {
        let before = self.owners();
        let Ok(lease) = self.conf.add(attachment) else {
            // What it took is given back; what was nobody's may have gone with that.
            assert_eq!(
                somebodys(&before),
                somebodys(&self.owners()),
                "a failed ADD"
            );
            return;
        };
        let after = self.owners();
        assert_eq!(lease.result.ips.len(), 2);
        let mut given = Vec::new();
        for (set, ip) in self.conf.sets.iter().zip(&lease.result.ips) {
            let ip = ip.address.ip();
            assert!(set.range_of(ip).is_some(), "{ip}");
            let owner = format!("{}\r\n{}", attachment.container_id, attachment.ifname);
            assert_eq!(after.get(&ip), Some(&owner.into_bytes()), "{ip}");
            if let Some(before) = before.get(&ip) {
                assert!(
                    is_torn(before),
                    "{ip} was {:?}'s",
                    String::from_utf8_lossy(before)
                );
            }
            given.push(ip);
        }
        let rest = |owners: &BTreeMap<IpAddr, Vec<u8>>| -> Vec<_> {
            let rest = owners
                .iter()
                .filter(|(ip, owner)| !given.contains(ip) && !is_torn(owner));
            rest.map(|(ip, owner)| (*ip, owner.clone())).collect()
        };
        assert_eq!(rest(&before), rest(&after), "others");
        if !self.index_touched {
            let held = must(self.conf.dir.held(attachment));
            assert!(
                given.iter().all(|ip| held.contains(ip)),
                "{given:?}, {held:?}"
            );
        }
    }

    fn release(&self, attachment: &Attachment) {
        let before = self.owners();
        let Ok(freed) = self.conf.dir.release(attachment, || ()) else {
            return;
        };
        let after = self.owners();
        for (ip, owner) in &before {
            let is_its = owner.starts_with(attachment.container_id.as_str().as_bytes())
                || owner
                    .trim_ascii_start()
                    .starts_with(attachment.container_id.as_str().as_bytes());
            assert!(
                after.get(ip) == Some(owner) || is_its && freed.contains(ip),
                "{ip}"
            );
        }
        assert!(after.keys().all(|ip| before.contains_key(ip)));
        if !self.index_touched {
            let held = must(self.conf.dir.held(attachment));
            let legacy = |ip: &IpAddr| {
                let owner = after.get(ip).map(|owner| owner.trim_ascii());
                owner.is_some_and(|o| !o.windows(2).any(|w| w == b"\r\n"))
            };
            assert!(held.iter().all(legacy), "{held:?} after DEL");
        }
    }

    /// Who is valid keeps what he has; who is not, and what is torn, goes.
    fn gc(&self, valid: u8) {
        let valid: Vec<_> = (0..8)
            .filter(|n| valid >> n & 1 == 1)
            .map(attachment)
            .collect();
        let before = self.owners();
        if self.conf.dir.gc(&valid, |_| (), || ()).is_err() {
            return;
        }
        let after = self.owners();
        for (ip, owner) in &before {
            let text = String::from_utf8_lossy(owner);
            let (id, ifname) = match text.trim().split_once("\r\n") {
                Some((id, ifname)) => (id, Some(ifname)),
                None => (text.trim(), None),
            };
            let stays = valid.iter().any(|a| {
                a.container_id.as_str() == id && ifname.is_none_or(|name| name == a.ifname.as_str())
            });
            assert_eq!(
                after.get(ip),
                Some(owner).filter(|_| stays),
                "{ip} of {text:?}"
            );
        }
    }

    /// The content of every file named like an address.
    fn owners(&self) -> BTreeMap<IpAddr, Vec<u8>> {
        let mut owners = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if let Ok(ip) = name.parse::<IpAddr>()
                && ip.to_string() == name
                && is_file
            {
                owners.insert(ip, must(fs::read(entry.path())));
            }
        }
        owners
    }

    /// Over what is there, so that a file which is there already does not change the directory's time.
    fn put(&mut self, name: &str, content: &[u8]) {
        must(fs::create_dir_all(&self.dir));
        let path = self.dir.join(name);
        if path.is_symlink() {
            return;
        }
        // In the same tick of the clock as the last change of ours, it can be seen by its length or not at all.
        self.index_touched |= path.exists();
        let _ = fs::write(path, content);
    }

    fn damage(&mut self, change: impl FnOnce(&fs::File) -> std::io::Result<()>) {
        let index = self.dir.join(".podwire/index");
        if let Ok(file) = fs::File::options().write(true).open(index) {
            must(change(&file));
            self.index_touched = true;
        }
    }

    /// What nobody expects under a name.
    fn strange(&mut self, which: u8) {
        must(fs::create_dir_all(&self.dir));
        let away = self.parent.join(CANARY);
        let name = match which >> 4 & 3 {
            0 => "10.1.0.2",
            1 => "last_reserved_ip.0",
            2 => ".podwire",
            _ => "fd00:1::2",
        };
        let path = self.dir.join(name);
        self.index_touched = true;
        let _ = match which & 3 {
            0 => fs::create_dir(path),
            1 => symlink(away, path),
            2 => fs::remove_file(path),
            _ => fs::remove_dir_all(self.dir.join(".podwire")),
        };
    }

    fn nothing_outside(&self) {
        let mut names: Vec<_> = must(fs::read_dir(&self.parent))
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.retain(|name| Path::new(name) != Path::new("n"));
        assert_eq!(names, [CANARY], "beside the network's directory");
        assert_eq!(must(fs::read(self.parent.join(CANARY))), CANARY.as_bytes());
    }
}

fn somebodys(owners: &BTreeMap<IpAddr, Vec<u8>>) -> BTreeMap<IpAddr, Vec<u8>> {
    let all = owners.iter().filter(|(_, owner)| !is_torn(owner));
    all.map(|(ip, owner)| (*ip, owner.clone())).collect()
}

/// Nobody's: as a crash leaves it.
fn is_torn(content: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content) else {
        return true;
    };
    let id = text.trim().split("\r\n").next().unwrap_or_default();
    ContainerId::parse(id).is_err()
}
