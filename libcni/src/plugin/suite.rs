//! Recognising this suite's own executables.
//!
//! An interface plugin calls `host-local` in-process when the executable that `CNI_PATH` names is this
//! suite's own, of this very version; anything else by that name is run. Each executable carries an ELF note
//! for that. The linker puts notes right behind the program headers, so one read of the first page tells.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::spec::error::{CniError, Code};

/// The ELF note: header, owner, and `<plugin>/<version>` padded with NUL.
#[repr(C, align(4))]
#[derive(Debug)]
pub struct Note {
    owner_size: u32,
    text_size: u32,
    kind: u32,
    owner: [u8; 8],
    text: [u8; TEXT_SIZE],
}

const TEXT_SIZE: usize = 32;
const OWNER: [u8; 8] = *b"podwire\0";
const KIND: u32 = 1;
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How much of a file is searched; notes of our executables lie within the first page.
const SEARCHED_BYTES: usize = 4096;

impl Note {
    /// The note of the plugin called `name`.
    #[must_use]
    pub const fn new(name: &str) -> Self {
        Self {
            owner_size: 8,
            text_size: 32,
            kind: KIND,
            owner: OWNER,
            text: text(name),
        }
    }
}

#[allow(clippy::indexing_slicing)] // an index out of range does not compile, and `is_own` looks at the length
const fn text(name: &str) -> [u8; TEXT_SIZE] {
    let (name, version) = (name.as_bytes(), VERSION.as_bytes());
    let mut out = [0; TEXT_SIZE];
    let mut at = 0;
    while at < name.len() {
        out[at] = name[at];
        at += 1;
    }
    out[at] = b'/';
    let mut i = 0;
    while i < version.len() {
        out[at + 1 + i] = version[i];
        i += 1;
    }
    out
}

/// Whether `file` is this suite's executable of that name and of this version.
///
/// # Errors
/// It cannot be read: code 5. Taken for a foreign one, it would not free what only ours knows of.
pub fn is_own(file: &Path, name: &str) -> Result<bool, CniError> {
    if name.len() + 1 + VERSION.len() > TEXT_SIZE {
        return Ok(false); // none of ours is called so
    }
    has_note(file, &text(name)).map_err(|e| {
        CniError::new(Code::Io, format!("failed to read {}: {e}", file.display()))
            .with_details("the disk may be failing (see the kernel's log); or install it again")
    })
}

/// Whether `file` is an executable of this suite, whichever and of whatever version.
#[must_use]
pub fn is_of_suite(file: &Path) -> bool {
    has_note(file, &[]).unwrap_or_default()
}

fn has_note(file: &Path, text: &[u8]) -> io::Result<bool> {
    let mut file = match File::open(file) {
        // Who may run it may still not read it.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(false),
        opened => opened?,
    };
    let mut page = [0; SEARCHED_BYTES];
    let len = loop {
        match file.read(&mut page) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    let page = page.get(..len).unwrap_or_default();
    // Notes are aligned to four bytes.
    let (words, _) = page.as_chunks::<4>();
    let kind = KIND.to_ne_bytes();
    let mut texts = (4..)
        .step_by(4)
        .zip(words)
        .filter(|(_, word)| **word == kind)
        .filter_map(|(after, _)| page.get(after..)?.strip_prefix(&OWNER));
    Ok(page.starts_with(b"\x7fELF") && texts.any(|rest| rest.starts_with(text)))
}

/// What makes a plugin an executable of this suite: the note, and the C entry point. In its `main.rs`:
///
/// ```text
/// #![cfg_attr(not(test), no_main)]
/// libcni::plugin_main!(HostLocal, "host-local");
/// ```
///
/// Rust's own entry point prepares for threads and tells a stack overflow from other faults, for which the C library
/// reads `/proc/self/maps`: 16 system calls, 3 % of an ADD, 130 KB. Plugins have one thread and bounded recursion.
///
/// The C library's start-up asks procfs where the executable lies, for `$ORIGIN` in paths of libraries to load at run
/// time: 1 % of an ADD. A static executable that loads none is better off as if there were no `/proc`.
#[macro_export]
macro_rules! plugin_main {
    ($plugin:ty, $name:literal) => {
        #[used]
        #[allow(unsafe_code)]
        // SAFETY: a section of plain data that nothing but the note's reader looks at.
        #[unsafe(link_section = ".note.podwire")]
        static SUITE_NOTE: $crate::plugin::suite::Note = $crate::plugin::suite::Note::new($name);

        #[allow(unsafe_code)]
        // SAFETY: the C library calls the one function of this name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        extern "C" fn main() -> i32 {
            $crate::plugin::run::<$plugin>()
        }

        #[allow(unsafe_code)]
        // SAFETY: the C library's own answer where there is no /proc (`sysdeps/unix/sysv/linux/dl-origin.c`).
        #[cfg_attr(not(test), unsafe(no_mangle))]
        extern "C" fn _dl_get_origin() -> *const ::std::ffi::c_char {
            ::std::ptr::without_provenance(usize::MAX)
        }
    };
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn own_foreign_and_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plugin");
        let note = [&KIND.to_ne_bytes()[..], &OWNER, &text("host-local")].concat();
        fs::write(&file, [b"\x7fELF".as_slice(), &note].concat()).unwrap();
        assert!(is_own(&file, "host-local").unwrap() && is_of_suite(&file));
        assert!(!is_own(&file, "bridge").unwrap());
        assert!(!is_own(&file, &"n".repeat(300)).unwrap());
        for foreign in [[b"#!/b".as_slice(), &note].concat(), b"\x7fELF".to_vec()] {
            fs::write(&file, foreign).unwrap();
            assert!(!is_own(&file, "host-local").unwrap() && !is_of_suite(&file));
        }
        let error = is_own(dir.path(), "host-local").unwrap_err();
        assert_eq!(error.code, Code::Io, "{error}");
        assert!(!is_of_suite(dir.path()));
    }
}
