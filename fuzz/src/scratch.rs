//! A directory of this thread's own, in memory where there is such a place, gone when the thread ends.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

thread_local! {
    static DIR: TempDir = make();
}

#[expect(
    clippy::expect_used,
    reason = "without a directory there is nothing to do"
)]
fn make() -> TempDir {
    let memory = Path::new("/dev/shm");
    let given = std::env::var_os("TMPDIR").map(PathBuf::from);
    let parent = given.unwrap_or_else(|| match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    });
    tempfile::tempdir_in(parent).expect("a directory for temporary files")
}

/// Its path.
pub(crate) fn dir() -> PathBuf {
    DIR.with(|dir| dir.path().to_owned())
}

/// A file in it with this content.
pub(crate) fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = dir().join(name);
    std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path
}
