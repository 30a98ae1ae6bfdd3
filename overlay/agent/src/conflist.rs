//! The node's CNI configuration, written when pods would have a network, and not before: a runtime that sees it starts
//! pods.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Bridge and address by flannel's plugin, ports by `portmap` where it is installed.
const USUAL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}}
  ]
}
"#;

/// Writes the configuration to `file` unless there is one: whoever put it there knows better. Says whether it wrote.
///
/// # Errors
/// As the file system's.
pub fn ensure(file: &Path, template: Option<&Path>) -> io::Result<bool> {
    if file.as_os_str().is_empty() {
        return Ok(false);
    }
    match fs::metadata(file) {
        Ok(_) => return Ok(false),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        Err(_) => {}
    }
    let text = match template {
        Some(template) => fs::read(template)?,
        None => USUAL.into(),
    };
    fabric::file::replace(file, &text, 0o644)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("net.d/10-flannel.conflist");
        assert!(ensure(&file, None).unwrap());
        assert!(libcni::runtime::NetworkList::parse(&fs::read(&file).unwrap(), None).is_ok());
        fs::write(&file, "mine").unwrap();
        assert!(!ensure(&file, None).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert!(!ensure(Path::new(""), None).unwrap(), "none is wanted");

        let template = dir.path().join("template");
        let other = dir.path().join("other");
        assert!(ensure(&other, Some(&template)).is_err());
        fs::write(&template, "{}").unwrap();
        assert!(ensure(&other, Some(&template)).unwrap());
        assert_eq!(fs::read_to_string(&other).unwrap(), "{}");
    }
}
