//! The records of a file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Record;
use super::file::previous;

/// The records of `file` and of the one before it, oldest first. Torn lines and spans are skipped; files that are not
/// there hold no records.
pub fn read(file: impl AsRef<Path>) -> impl Iterator<Item = Record> {
    let (before, now) = open(file.as_ref());
    let files = [before, now].into_iter().flatten();
    let lines = files.flat_map(|file| BufReader::new(file).split(b'\n').map_while(Result::ok));
    lines.filter_map(|line| Record::parse(&line))
}

/// How often the file may be renamed while both are opened. Twice would be a surprise.
const TRIES: u32 = 4;

/// The previous file and this one. The later one first: should it become the previous one meanwhile, both are the same
/// file, and it is tried again.
fn open(path: &Path) -> (Option<File>, Option<File>) {
    for _ in 0..TRIES {
        let now = File::open(path).ok();
        let before = File::open(previous(path)).ok();
        let inode = |file: &Option<File>| {
            let meta = file.as_ref()?.metadata().ok()?;
            Some((meta.dev(), meta.ino()))
        };
        if now.is_none() || inode(&now) != inode(&before) {
            return (before, now);
        }
    }
    // Two names of one file, which nobody of ours made.
    (None, File::open(path).ok())
}
