//! The peers file: one JSON object, flannel's lease keys to flannel's lease values.
//!
//! ```json
//! { "10.244.1.0-24": {"PublicIP": "192.0.2.11", "BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": "2a:..."}} }
//! ```
//! An entry that is none changes nothing for the others.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use fabric::lease::{self, Subnets};
use fabric::{Peer, Peers};
use libcni::spec::IpNetwork;
use libcni::spec::error::{CniError, Code};
use libcni::spec::json::Node;

/// Ten times what the largest fleet has.
const MAX_BYTES: u64 = 16 << 20;
/// Longest part of a wrong key that is shown.
const SHOWN_CHARS: usize = 64;

/// All nodes.
#[derive(Debug, Default)]
pub struct Fleet {
    /// By their keys.
    pub peers: Peers,
    /// What is wrong with the entries that are none.
    pub notes: Vec<String>,
}

/// Reads the file.
///
/// # Errors
/// Code 50: it is not there. Code 5, 7: it cannot be read, or is no object.
pub fn read(file: &Path) -> Result<Fleet, CniError> {
    let shown = file.display();
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|e| {
        let code = if e.kind() == ErrorKind::NotFound {
            Code::NotAvailable
        } else {
            Code::Io
        };
        CniError::new(code, format!("read the peers file {shown}: {e}"))
            .with_details("`peersFile`: all nodes, as docs/overlay.md has it")
    })?;
    let invalid = |why: String| {
        CniError::new(Code::InvalidConfig, format!("the peers file {shown} {why}")).with_details(
            "an object of leases is wanted: write a new file and rename it into place",
        )
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(invalid(format!("has more than {MAX_BYTES} bytes")));
    }
    let node = Node::parse(&bytes).map_err(|e| invalid(format!("is not JSON: {e}")))?;
    let Node::Object(entries) = &node else {
        return Err(invalid(format!("is {}, no object", node.kind())));
    };
    let mut fleet = Fleet::default();
    // Of equal keys the last entry counts; told by the map, for there may be many.
    for (key, value) in entries {
        match entry(key, value) {
            Ok(peer) => drop(fleet.peers.insert(key.clone(), Arc::new(peer))),
            Err(why) => {
                let key: String = key
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(SHOWN_CHARS)
                    .collect();
                fleet.notes.push(format!("{key:?}: {why}"));
            }
        }
    }
    Ok(fleet)
}

fn entry(key: &str, value: &Node) -> Result<Peer, lease::LeaseError> {
    let subnets = Subnets::parse(key)?;
    lease::from_node(key, &subnets, value)
}

// === impl Fleet ===

impl Fleet {
    /// The node with this subnet.
    pub fn of_subnet(&self, subnet: &IpNetwork) -> Option<(String, Arc<Peer>)> {
        self.find(|peer| peer.v4.is_some_and(|site| site.subnet == *subnet))
    }

    /// The node at this address of the underlay.
    pub fn of_address(&self, ip: IpAddr) -> Option<(String, Arc<Peer>)> {
        self.find(|peer| peer.v4.is_some_and(|site| site.public_ip == ip))
    }

    fn find(&self, is: impl Fn(&Peer) -> bool) -> Option<(String, Arc<Peer>)> {
        let mut peers = self.peers.iter();
        let (key, peer) = peers.find(|(_, peer)| is(peer))?;
        Some((key.clone(), Arc::clone(peer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &[u8]) -> Result<Fleet, CniError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("peers");
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn what_is_no_entry_changes_nothing_for_the_others() {
        let text = br#"{
            "10.1.1.0-24": {"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"2a:00:00:00:00:01"}},
            "10.1.2.0-24": {"PublicIP":""},
            "10.1.3.0-24": "text",
            "10.1.4.0/24": {"PublicIP":"192.0.2.4"},
            "\u001b[2J": null,
            "10.1.5.0-24&fd00:5::-64": {"PublicIP":"192.0.2.5","PublicIPv6":"2001:db8::5","BackendType":"host-gw"}
        }"#;
        let fleet = read_text(text).unwrap();
        let keys: Vec<&str> = fleet.peers.keys().map(String::as_str).collect();
        assert_eq!(keys, ["10.1.1.0-24", "10.1.5.0-24&fd00:5::-64"]);
        assert_eq!(fleet.notes.len(), 4, "{:?}", fleet.notes);
        assert!(fleet.notes.iter().all(|note| !note.contains('\x1b')));
        let (key, _) = fleet.of_address("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(key, "10.1.1.0-24");
        let subnet = "10.1.5.0/24".parse().unwrap();
        assert_eq!(
            fleet.of_subnet(&subnet).unwrap().0,
            "10.1.5.0-24&fd00:5::-64"
        );
    }

    #[test]
    fn a_file_that_is_none_says_so() {
        assert_eq!(
            read(Path::new("/nowhere/peers")).unwrap_err().code,
            Code::NotAvailable
        );
        for text in [&b""[..], b"{", b"[]", b"null", b"{\"a\":1}x"] {
            let error = read_text(text).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig, "{error}");
        }
        // As many entries as it may hold are read in a time that grows with their number.
        let many: Vec<String> = (0..300_000).map(|n| format!("\"{n}\":0")).collect();
        let many = format!("{{{}}}", many.join(","));
        assert_eq!(read_text(many.as_bytes()).unwrap().notes.len(), 300_000);
        let huge = vec![b' '; 17 << 20];
        assert!(read_text(&huge).unwrap_err().msg.contains("more than"));
    }
}
