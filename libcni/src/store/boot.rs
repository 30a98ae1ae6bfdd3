//! Which boot this is.
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where the kernel says it: random(4).
pub(super) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A boot of a machine, as the kernel's random UUID of it. Never all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BootId(pub(super) [u8; 16]);

impl BootId {
    /// `None` if it cannot be read or is no UUID; then nothing about earlier boots may be concluded.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut text = [0u8; 64];
        let n = File::open(path).ok()?.read(&mut text).ok()?;
        let mut digits = text.get(..n)?.iter().filter(|b| b.is_ascii_hexdigit());
        let mut id = [0u8; 16];
        for byte in &mut id {
            let hex = |b: &u8| {
                char::from(*b)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            *byte = hex(digits.next()?)? << 4 | hex(digits.next()?)?;
        }
        (digits.next().is_none() && id != [0; 16]).then_some(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn this_boot_has_an_id() {
        let id = BootId::read(Path::new(BOOT_ID)).unwrap();
        assert_eq!(BootId::read(Path::new(BOOT_ID)), Some(id));
    }

    #[test]
    fn anything_else_is_no_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot_id");
        for text in ["", "00000000-0000-0000-0000-000000000000\n", "1234", "x"] {
            fs::write(&path, text).unwrap();
            assert_eq!(BootId::read(&path), None, "{text:?}");
        }
        assert_eq!(BootId::read(&dir.path().join("missing")), None);
    }
}
