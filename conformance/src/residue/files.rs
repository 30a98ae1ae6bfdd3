//! Mounts, and files in the directories plugins keep their state in.

use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::libc::O_NOFOLLOW;

use super::Moment;
use crate::node;

const MOUNTS: &str = "/proc/thread-self/mountinfo";
const ROOTS: [&str; 2] = ["/run", "/var/lib/cni"];
/// Every iptables makes it, also those this program calls.
const LOCK: &str = "/run/xtables.lock";
/// Larger files are known by their size.
const READ_AT_MOST: u64 = 64 << 10;
/// A plugin that leaves more than this has been found out anyway.
const FILES_AT_MOST: usize = 20_000;

/// Each mount by where it is, and what it is of.
pub(super) fn mounts(moment: &mut Moment) -> Result<()> {
    for line in fs::read_to_string(MOUNTS).context(MOUNTS)?.lines() {
        let mut words = line.split(' ').skip(3);
        let (root, point) = (words.next().unwrap_or("?"), words.next().unwrap_or("?"));
        moment.put_content(format!("mount {point}"), root.to_owned());
    }
    Ok(())
}

/// Everything below [`ROOTS`] but the plugins.
pub(super) fn files(moment: &mut Moment) {
    let mut left = FILES_AT_MOST;
    for root in ROOTS {
        walk(Path::new(root), &mut left, moment);
    }
}

/// What goes away meanwhile is not left.
fn walk(directory: &Path, left: &mut usize, moment: &mut Moment) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let (Ok(status), Some(less)) = (fs::symlink_metadata(&path), left.checked_sub(1)) else {
            continue;
        };
        *left = less;
        if [node::PLUGINS, LOCK].iter().any(|p| path == Path::new(p)) {
            continue;
        }
        let line = format!("file {}", path.display());
        if status.is_dir() {
            moment.put(format!("{line}/"));
            walk(&path, left, moment);
        } else if status.is_file() && status.len() <= READ_AT_MOST {
            moment.put_content(line, content(&path).unwrap_or_default());
        } else {
            moment.put_content(line, format!("{:?} {}", status.file_type(), status.len()));
        }
    }
}

/// Its first words, or for a longer one a hash, too.
fn content(path: &Path) -> Option<String> {
    let mut file = OpenOptions::new();
    let file = file.read(true).custom_flags(O_NOFOLLOW).open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(READ_AT_MOST).read_to_end(&mut bytes).ok()?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let head: String = String::from_utf8_lossy(&bytes).chars().take(40).collect();
    Some(match bytes.len() {
        0..=40 => format!("{head:?}"),
        n => format!("{head:?}... {n} bytes, hash {:08x}", hasher.finish()),
    })
}
