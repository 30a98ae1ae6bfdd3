//! Where records go.

use std::io;
use std::path::{Path, PathBuf};

use super::{Record, file, journal};

/// Largest file; the one before it is kept as `<file>.1`, so twice this is what records take of a disk.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// The journal of this node's systemd.
    Journald,
    /// A file, and the one before it under the same name with `.1`.
    File(PathBuf),
}

/// What names a sink, for messages.
pub(super) const ALLOWED: &str = "\"journald\", or the absolute path of a file";

/// A text names no sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither \"journald\" nor the absolute path of a file")]
pub struct SinkError(String);

impl Sink {
    /// What the environment says.
    ///
    /// # Errors
    /// As [`Sink::parse`], or text that is not UTF-8.
    pub fn of_process() -> Result<Option<Self>, SinkError> {
        let Some(switch) = std::env::var_os(super::SWITCH) else {
            return Ok(None);
        };
        match switch.to_str() {
            Some(text) => Self::parse(text),
            None => Err(SinkError(super::clipped(&switch.to_string_lossy()))),
        }
    }

    /// `journald` or an absolute path; an empty text is none.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Option<Self>, SinkError> {
        match text {
            "" => Ok(None),
            "journald" => Ok(Some(Self::Journald)),
            path if path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') => {
                Ok(Some(Self::File(path.into())))
            }
            other => Err(SinkError(super::clipped(other))),
        }
    }

    /// Writes a record, and into a file what `spans` appends as well.
    pub(super) fn write(
        &self,
        record: &Record,
        spans: impl FnOnce(String) -> String,
    ) -> io::Result<()> {
        let mut line = record.to_line();
        match self {
            Self::Journald => journal::send(Path::new(journal::SOCKET), record, &line),
            Self::File(path) => {
                line.push('\n');
                let lines = spans(line);
                file::append(path, lines.as_bytes(), MAX_FILE_BYTES)
                    .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
            }
        }
    }
}
