//! Changes of a directory, as the kernel tells them.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::readable::Readable;

/// A watch on the names in one directory.
#[derive(Debug)]
pub(super) struct Watch(Option<Readable<Inotify>>);

// === impl Watch ===

impl Watch {
    /// Begins to watch. If that is not possible (too many watches, the directory is gone), nothing is ever told.
    pub(super) fn of(dir: &Path) -> Self {
        let begin = || {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
            inotify.add_watch(dir, flags()).ok()?;
            Readable::of(inotify).ok()
        };
        Self(begin())
    }

    /// Watches the directory that has the name by now. The kernel knows one that it watches already.
    pub(super) fn renew(&mut self, dir: &Path) {
        let watched = match &self.0 {
            Some(fd) => fd.get().add_watch(dir, flags()).is_ok(),
            None => false,
        };
        if !watched {
            *self = Self::of(dir);
        }
    }

    /// Waits for changes. The names that changed; `None` when some were lost.
    pub(super) async fn changed(&mut self) -> Option<Vec<String>> {
        let Some(fd) = &mut self.0 else {
            return std::future::pending().await;
        };
        let read = fd.read(|inotify| match inotify.read_events() {
            Err(Errno::EAGAIN) => None,
            read => Some(read),
        });
        let events = read.await.ok()?.ok()?;
        let lost = AddWatchFlags::IN_Q_OVERFLOW | AddWatchFlags::IN_IGNORED;
        if events.iter().any(|event| event.mask.intersects(lost)) {
            return None;
        }
        let names = events.into_iter().filter_map(|event| event.name);
        Some(
            names
                .map(|name| name.to_string_lossy().into_owned())
                .collect(),
        )
    }
}

fn flags() -> AddWatchFlags {
    AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_ONLYDIR
}
