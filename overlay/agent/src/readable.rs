//! Waiting until a descriptor that is not one of tokio's can be read.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use tokio::io::unix::AsyncFd;

/// Something with a descriptor in non-blocking mode, waited for by the runtime.
#[derive(Debug)]
pub struct Readable<T: AsFd>(AsyncFd<Raw<T>>);

#[derive(Debug)]
struct Raw<T>(T);

impl<T: AsFd> AsRawFd for Raw<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

// === impl Readable ===

impl<T: AsFd> Readable<T> {
    /// Of an open descriptor, which stays the same for as long as `T` lives.
    ///
    /// # Errors
    /// The runtime cannot watch it: a file, or too many are watched.
    pub fn of(inner: T) -> io::Result<Self> {
        // SAFETY: `AsFd` lends a descriptor that is open for as long as the value; nobody can take `T` out of here, and
        // the types this is used with never exchange their descriptor.
        let fd = unsafe { AsyncFd::register(Raw(inner)) };
        fd.map(Self).map_err(|e| io::Error::other(e.to_string()))
    }

    /// What it is.
    pub fn get(&self) -> &T {
        &self.0.get_ref().0
    }

    /// Waits until `read` finds something. It answers `None` when it would block.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn read<R>(&mut self, mut read: impl FnMut(&mut T) -> Option<R>) -> io::Result<R> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            match read(&mut ready.get_inner_mut().0) {
                Some(found) => return Ok(found),
                None => ready.clear_ready(),
            }
        }
    }
}
