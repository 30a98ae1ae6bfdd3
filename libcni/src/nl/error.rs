//! What a failed request says.

use std::fmt;

use nix::errno::Errno;

use crate::spec::error::{CniError, Code};

/// A request the kernel refused, or a socket that failed.
///
/// Shown as `set eth0 up: ENODEV (No such device): text of the kernel`. Decide on [`NlError::errno`],
/// never on text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NlError {
    /// What was being done, in the words of the message's builder.
    pub step: String,
    /// The errno, positive.
    pub errno: i32,
    /// The kernel's explanation (extended ack), or ours where the failure is not the kernel's verdict.
    pub ext_ack: Option<String>,
    /// Where in the message the offending attribute starts, in bytes from the netlink header.
    pub attr_offset: Option<u32>,
}

/// The errno's C name, `ENODEV`; `errno 524` for those without one in user space.
pub fn errno_name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("errno {errno}"),
        known => format!("{known:?}"),
    }
}

// === impl NlError ===

impl NlError {
    /// An error without a word from the kernel.
    pub fn new(step: impl Into<String>, errno: i32) -> Self {
        Self {
            step: step.into(),
            errno,
            ext_ack: None,
            attr_offset: None,
        }
    }

    /// The same with an explanation.
    pub fn because(step: impl Into<String>, errno: i32, why: impl Into<String>) -> Self {
        Self {
            ext_ack: Some(why.into()),
            ..Self::new(step, errno)
        }
    }

    pub(crate) fn io(step: impl Into<String>, source: &std::io::Error) -> Self {
        Self::new(step, source.raw_os_error().unwrap_or(Errno::EIO as i32))
    }

    /// Is this errno the reason? `e.is(Errno::EEXIST)`.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno == errno as i32
    }

    /// Did it fail because the process was asked to stop ([`super::STOP`])?
    pub fn interrupted(&self) -> bool {
        self.is(Errno::EINTR)
    }
}

impl fmt::Display for NlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let desc = Errno::from_raw(self.errno).desc();
        write!(f, "{}: {} ({desc})", self.step, errno_name(self.errno))?;
        if let Some(text) = &self.ext_ack {
            write!(f, ": {text}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NlError {}

impl From<NlError> for CniError {
    fn from(error: NlError) -> Self {
        let errno = Errno::from_raw(error.errno);
        // Only these pass by themselves.
        let code = match errno {
            Errno::EAGAIN
            | Errno::EBUSY
            | Errno::EINTR
            | Errno::ENOBUFS
            | Errno::ENOMEM
            | Errno::ETIMEDOUT => Code::TryAgain,
            _ => Code::Internal,
        };
        let mut details = errno_name(error.errno);
        if let Some(text) = &error.ext_ack {
            details = format!("{details}: {text}");
        }
        let remedy = match errno {
            Errno::EPERM | Errno::EACCES => {
                "; the plugin needs CAP_NET_ADMIN in that network namespace"
            }
            Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => {
                "; this kernel lacks the feature, or its module is not loaded"
            }
            _ => "",
        };
        details.push_str(remedy);
        Self::new(code, format!("{}: {}", error.step, errno.desc())).with_details(details)
    }
}
