//! The delegate's configuration as ADD gave it, one file per attachment: DEL must undo what was done then, whatever
//! `subnet.env` says by now.
//!
//! flannel's own plugin names the file by the container alone. Ours are `<container>@<interface>`, which no container's
//! ID can be, so that a container may be on several flannel networks; and the first of them also has flannel's name, for
//! its DEL after going back to it. Either name is read.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use libcni::file::{self, Lasting};
use libcni::spec::error::{CniError, Code};
use libcni::spec::json::Fields;
use libcni::spec::{Attachment, ContainerId, IfName, NetName, Node};

/// The files of one attachment.
#[derive(Debug, Clone)]
pub struct Scratch {
    own: PathBuf,
    flannels: PathBuf,
}

impl Scratch {
    /// Of an attachment; nothing need be there.
    pub fn of(data_dir: &Path, at: &Attachment) -> Self {
        let (id, ifname) = (&at.container_id, &at.ifname);
        Self {
            own: data_dir.join(format!("{id}@{ifname}")),
            flannels: data_dir.join(id.as_str()),
        }
    }

    /// The delegate's configuration on that network; none if there is none, or it is torn.
    pub fn read(&self, net: &NetName) -> Option<Vec<u8>> {
        [&self.own, &self.flannels]
            .into_iter()
            .find_map(|file| read(file, net))
    }

    /// Keeps it, whole or not at all.
    pub fn write(&self, conf: &[u8]) -> Result<(), CniError> {
        let write = || {
            // A pod that outlives a power failure is to be deleted by this. Without a name until it is whole, so that whoever
            // is killed here leaves nothing; a second ADD has to replace.
            let (path, mode, lasting) = (&self.own, 0o600, Lasting::OnDisk);
            if file::make(path, conf, mode, lasting).is_err() {
                file::replace(path, conf, mode, lasting)?;
            }
            // Another network of this container has it, or flannel's plugin made it.
            match fs::hard_link(&self.own, &self.flannels) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
                _ => Ok(()),
            }
        };
        write().map_err(|e| failed("write", &self.own, &e))
    }

    /// Forgets it, under both names unless flannel's is another network's.
    pub fn remove(&self, net: &NetName) -> Result<(), CniError> {
        let torn_or_ours = |file: &Path| match fs::read(file) {
            Ok(bytes) => Ok(name(&bytes).is_none_or(|name| name == net.as_str())),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
                Ok(false)
            }
            // Whose it is cannot be said; another try may tell.
            Err(e) => Err(failed("read", file, &e)),
        };
        if torn_or_ours(&self.flannels)? {
            remove(&self.flannels)?;
        }
        remove(&self.own)
    }
}

/// Every attachment of a network that has a file of ours, and every container that has one under flannel's name. Other
/// files of the directory are none of our business.
///
/// # Errors
/// One cannot be read, so that it cannot be said whose it is: code 5.
pub fn all(
    data_dir: &Path,
    net: &NetName,
) -> Result<(Vec<Attachment>, Vec<ContainerId>), CniError> {
    let (mut ours, mut flannels) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(data_dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok((ours, flannels)),
        entries => entries.map_err(|e| failed("list", data_dir, &e))?,
    };
    for entry in entries {
        let entry = entry.map_err(|e| failed("list", data_dir, &e))?;
        let Ok(file_name) = entry.file_name().into_string() else {
            continue;
        };
        let own = attachment(&file_name);
        let flannel = ContainerId::parse(&file_name).ok();
        if own.is_none() && flannel.is_none() {
            continue;
        }
        let file = entry.path();
        match fs::read(&file) {
            Ok(bytes) if name(&bytes).is_some_and(|name| name == net.as_str()) => {
                ours.extend(own);
                flannels.extend(flannel);
            }
            // Its DEL may be under way.
            Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
                return Err(failed("read", &file, &e));
            }
            _ => {}
        }
    }
    Ok((ours, flannels))
}

/// Forgets what flannel's plugin kept of a container: its interface's name is in no file.
pub fn remove_flannels(data_dir: &Path, id: &ContainerId) -> Result<(), CniError> {
    remove(&data_dir.join(id.as_str()))
}

fn attachment(file_name: &str) -> Option<Attachment> {
    let (id, ifname) = file_name.split_once('@')?;
    Some(Attachment {
        container_id: ContainerId::parse(id).ok()?,
        ifname: IfName::parse(ifname).ok()?,
    })
}

fn read(file: &Path, net: &NetName) -> Option<Vec<u8>> {
    let bytes = fs::read(file).ok()?;
    (name(&bytes)? == net.as_str()).then_some(bytes)
}

/// The network's name in a configuration.
fn name(conf: &[u8]) -> Option<String> {
    let node = Node::parse(conf).ok()?;
    Fields::of(&node, "").ok()?.str("name").ok()?
}

fn remove(file: &Path) -> Result<(), CniError> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", file, &e)),
        _ => Ok(()),
    }
}

fn failed(step: &str, file: &Path, e: &io::Error) -> CniError {
    CniError::new(Code::Io, format!("{step} {}: {e}", file.display()))
        .with_details("`dataDir` of the plugin; is the file system full or read-only?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(id: &str, ifname: &str) -> Attachment {
        Attachment {
            container_id: ContainerId::parse(id).unwrap(),
            ifname: IfName::parse(ifname).unwrap(),
        }
    }

    fn files(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn two_networks_of_a_container() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/flannel");
        let (a, b) = (NetName::parse("a").unwrap(), NetName::parse("b").unwrap());
        let (one, two) = (
            Scratch::of(&data, &at("c1", "eth0")),
            Scratch::of(&data, &at("c1", "net1")),
        );
        assert_eq!(one.read(&a), None);
        one.write(br#"{"name":"a"}"#).unwrap();
        two.write(br#"{"name":"b"}"#).unwrap();
        assert_eq!(files(&data), ["c1", "c1@eth0", "c1@net1"]);
        assert_eq!(one.read(&a).unwrap(), br#"{"name":"a"}"#);
        assert_eq!(two.read(&b).unwrap(), br#"{"name":"b"}"#);
        let c1 = ContainerId::parse("c1").unwrap();
        let all = |net| all(&data, net).unwrap();
        assert_eq!(all(&b), (vec![at("c1", "net1")], vec![]));
        assert_eq!(all(&a), (vec![at("c1", "eth0")], vec![c1]));
        two.remove(&b).unwrap();
        assert_eq!(
            files(&data),
            ["c1", "c1@eth0"],
            "flannel's name is the other network's"
        );
        one.remove(&a).unwrap();
        one.remove(&a).unwrap();
        assert_eq!(files(&data), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let net = NetName::parse("a").unwrap();
        let scratch = Scratch::of(dir.path(), &at("c1", "eth0"));
        scratch.write(br#"{"name":"a"}"#).unwrap();
        // A loop, as even root cannot read one.
        fs::remove_file(dir.path().join("c1")).unwrap();
        std::os::unix::fs::symlink("c1", dir.path().join("c1")).unwrap();
        scratch.remove(&net).unwrap_err();
        assert_eq!(files(dir.path()), ["c1", "c1@eth0"], "for the next try");
    }

    #[test]
    fn flannels_file_is_read_and_a_torn_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let net = NetName::parse("cbr0").unwrap();
        let scratch = Scratch::of(dir.path(), &at("c1", "eth0"));
        fs::write(dir.path().join("c1"), r#"{"name":"cbr0","type":"bridge"}"#).unwrap();
        assert!(scratch.read(&net).is_some());
        for torn in ["", "{\"name\":\"cb", "null", "\0\0"] {
            fs::write(dir.path().join("c1"), torn).unwrap();
            assert_eq!(scratch.read(&net), None, "{torn:?}");
        }
        scratch.remove(&net).unwrap();
        assert_eq!(files(dir.path()), [""; 0], "nobody can use a torn one");
    }
}
