//! One node's file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use fabric::Peer;
use fabric::lease::{self, MAX_VALUE_BYTES, Subnets};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use crate::directory::Lease;

/// A file whose name is a lease's key, as we would write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry(Subnets);

// === impl Entry ===

impl Entry {
    /// `None` for the name of anything else: drafts, notes, what editors leave.
    pub(super) fn of(name: &str) -> Option<Self> {
        let subnets = Subnets::parse(name).ok()?;
        (subnets.key() == name).then_some(Self(subnets))
    }

    pub(super) fn key(&self) -> String {
        self.0.key()
    }

    pub(super) fn lease(&self) -> Lease {
        Lease {
            v4: Some(self.0.v4),
            v6: self.0.v6,
        }
    }

    /// What stands in it; `None` when it is not there.
    pub(super) fn read(&self, dir: &Path) -> Option<Result<Peer, String>> {
        let key = self.key();
        let mut text = Vec::new();
        let limit = MAX_VALUE_BYTES as u64 + 1;
        // Whatever somebody may have put there: no pipe is waited for, no link followed.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
        let file: File = match options.open(dir.join(&key)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return None,
            Err(e) => return Some(Err(e.to_string())),
        };
        match file.metadata() {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => return Some(Err("it is no file".into())),
            Err(e) => return Some(Err(e.to_string())),
        }
        if let Err(e) = file.take(limit).read_to_end(&mut text) {
            return Some(Err(e.to_string()));
        }
        Some(lease::parse(&key, &self.0, &text).map_err(|e| e.to_string()))
    }

    /// Writes it if nobody has it, or the one who has it `is_own`. `false` if it is somebody else's.
    pub(super) fn claim(
        &self,
        dir: &Path,
        text: &[u8],
        is_own: impl Fn(&Peer) -> bool,
    ) -> io::Result<bool> {
        let path = dir.join(self.key());
        let draft = dir.join(format!(".claim.{}", std::process::id()));
        fabric::file::replace(&draft, text, 0o644)?;
        // A link is made by one of all who try.
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft)?;
        match linked {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => match self.read(dir) {
                Some(Ok(there)) if is_own(&there) => {
                    fabric::file::replace(&path, text, 0o644).map(|()| true)
                }
                Some(_) => Ok(false),
                None => Ok(false),
            },
            Err(e) => Err(e),
        }
    }
}

impl From<Subnets> for Entry {
    fn from(subnets: Subnets) -> Self {
        Self(subnets)
    }
}
