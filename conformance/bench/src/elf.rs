//! Whether an executable is static: the one question asked of an ELF file here.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Reads the program headers of a 64-bit little-endian ELF file: dynamic programs name their loader in a `PT_INTERP`.
pub fn is_static(path: &Path) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let image = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let headers = || -> Option<bool> {
        let at = usize::try_from(u64::from_le_bytes(image.get(32..40)?.try_into().ok()?)).ok()?;
        let size = usize::from(u16::from_le_bytes(image.get(54..56)?.try_into().ok()?));
        let count = usize::from(u16::from_le_bytes(image.get(56..58)?.try_into().ok()?));
        for number in 0..count {
            let start = at + number * size;
            if u32::from_le_bytes(image.get(start..start + 4)?.try_into().ok()?) == PT_INTERP {
                return Some(false);
            }
        }
        image.starts_with(b"\x7fELF").then_some(true)
    };
    headers().with_context(|| format!("{} is not an ELF executable", path.display()))
}

#[cfg(test)]
mod tests {
    use super::is_static;

    #[test]
    fn a_shell_is_dynamic_and_a_text_is_an_error() {
        assert!(!is_static("/usr/bin/env".as_ref()).unwrap());
        assert!(is_static("/etc/passwd".as_ref()).is_err());
    }
}
