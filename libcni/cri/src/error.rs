//! What can go wrong between here and a container runtime.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tonic::{Code, ConnectError, Status};

/// Why a call has no answer. The text is one line that names the socket and what to look at.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum CriError {
    /// No connection: no such socket, nobody listens at it, no permission.
    #[error("cannot connect to {}: {source}{}", socket.display(), advice(source))]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The path cannot be one of a socket: it is not UTF-8 or has a NUL.
    #[error("{} cannot be the path of a socket", .0.display())]
    Path(PathBuf),
    /// The server took the connection and did not answer in time, or not in gRPC at all.
    #[error("{} did not answer {call} within {after:?}", socket.display())]
    Deadline {
        /// The socket's path.
        socket: PathBuf,
        /// The call, by CRI's name.
        call: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The runtime is too old: a containerd before 1.6, say.
    #[error(
        "{runtime} at {} speaks only CRI v1alpha2; this needs CRI v1, as containerd speaks it from 1.6",
        socket.display()
    )]
    OnlyV1alpha2 {
        /// The socket's path.
        socket: PathBuf,
        /// The runtime's name and version, as it says.
        runtime: String,
    },
    /// A gRPC server without CRI, such as a containerd whose CRI plugin is disabled.
    #[error(
        "{} does not serve CRI: is \"cri\" in disabled_plugins of containerd's config.toml?",
        socket.display()
    )]
    NoCri {
        /// The socket's path.
        socket: PathBuf,
    },
    /// The connection broke in the middle of a call: the runtime ended, or does not speak gRPC.
    #[error("{} broke off {call}: {reason}", socket.display())]
    Broken {
        /// The socket's path.
        socket: PathBuf,
        /// The call, by CRI's name.
        call: &'static str,
        /// What the transport says.
        reason: String,
    },
    /// The runtime answered with an error of its own.
    #[error("{call}: {message} ({code:?})")]
    Refused {
        /// The call, by CRI's name.
        call: &'static str,
        /// gRPC's code.
        code: Code,
        /// The runtime's words.
        message: String,
    },
    /// The answer lacks what it must hold.
    #[error("{call}: the answer has no {what}")]
    Incomplete {
        /// The call, by CRI's name.
        call: &'static str,
        /// The missing field.
        what: &'static str,
    },
    /// This process could not set up what the client runs on.
    #[error("cannot set up a CRI client: {0}")]
    Setup(#[from] io::Error),
}

impl CriError {
    /// The runtime knows no such sandbox. Stop and remove are idempotent and succeed instead.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            CriError::Refused {
                code: Code::NotFound,
                ..
            }
        )
    }

    /// Of a failed call; `UNIMPLEMENTED` is the caller's to explain.
    pub(crate) fn of(status: &Status, call: &'static str, socket: &Path) -> Self {
        // tonic makes statuses of its own for a transport that fails; they alone have a cause.
        if let Some(cause) = status.source() {
            if let Some(refused) = causes(cause).find_map(|e| e.downcast_ref::<ConnectError>())
                && !causes(cause).any(was_open)
            {
                return CriError::connect(socket, refused);
            }
            return CriError::Broken {
                socket: socket.into(),
                call,
                reason: chain(cause),
            };
        }
        CriError::Refused {
            call,
            code: status.code(),
            message: status.message().to_owned(),
        }
    }

    /// Of a connection that could not be made.
    pub(crate) fn connect(socket: &Path, error: &(dyn Error + 'static)) -> Self {
        // The kernel's refusal is somewhere below tonic's and hyper's wrappers.
        let source = match causes(error).find_map(|e| e.downcast_ref::<io::Error>()) {
            Some(io) => match io.raw_os_error() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::new(io.kind(), io.to_string()),
            },
            None => io::Error::other(chain(error)),
        };
        CriError::Connect {
            socket: socket.into(),
            source,
        }
    }
}

/// A connection that was made, and closed by the server before its first word.
fn was_open(error: &(dyn Error + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
    )
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            " (containerd's is /run/containerd/containerd.sock, CRI-O's /run/crio/crio.sock)"
        }
        io::ErrorKind::ConnectionRefused => {
            " (a socket nobody listens at: is the runtime running?)"
        }
        io::ErrorKind::PermissionDenied => " (a runtime's socket is root's)",
        _ => "",
    }
}

/// An error and all that caused it, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let words: Vec<String> = causes(error).map(ToString::to_string).collect();
    words.join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| (*e).source())
}
