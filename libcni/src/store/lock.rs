//! The network directory's lock: flock(2) on its file `lock`, as the reference takes it, with an end to waiting.
#![allow(unsafe_code)]
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::unistd::gettid;

use super::error::StoreError;
use crate::nl::STOP;

/// Its default action is to be ignored, so one that comes late harms nobody. (SIGALRM is the plugin's deadline.)
const WAKE: Signal = Signal::SIGURG;
/// After the first, more wake-ups at this distance: the first may come just before flock(2) starts to wait.
const AGAIN: TimeSpec = TimeSpec::new(0, 20_000_000);

/// Takes the lock; released when `file` is closed. `path` is only for the error.
///
/// Blocks in flock(2) itself, woken by a timer, instead of trying in turns: waiters are served in the order
/// they came, and a pod that waits behind a hundred others is not the one that always looks at the wrong moment.
pub(super) fn lock(file: &File, path: &Path, wait: Duration) -> Result<(), StoreError> {
    match file.try_lock() {
        Ok(()) => return Ok(()),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", path, source)),
    }
    let start = Instant::now();
    let _timer = wake_after(wait).map_err(|e| StoreError::io("set a timer to lock", path, e))?;
    loop {
        match file.lock() {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(StoreError::io("lock", path, source)),
        }
        if STOP.load(Ordering::Relaxed) {
            return Err(StoreError::Stopped {
                path: path.to_owned(),
            });
        }
        if start.elapsed() >= wait {
            return Err(StoreError::Locked {
                path: path.to_owned(),
                holder: holder(file)
                    .unwrap_or_else(|| "an unknown process (not visible from here)".to_owned()),
                waited_s: wait.as_secs(),
            });
        }
    }
}

/// A timer that interrupts this thread's system calls from `wait` on, until it is dropped.
fn wake_after(wait: Duration) -> nix::Result<Timer> {
    static HANDLER: Once = Once::new();
    extern "C" fn woken(_: i32) {}
    HANDLER.call_once(|| {
        let action = SigAction::new(
            SigHandler::Handler(woken),
            SaFlags::empty(), // no SA_RESTART: flock must come back with EINTR
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing, so it is async-signal-safe.
        let _ = unsafe { sigaction(WAKE, &action) };
    });
    Timer::interrupting(WAKE, wait)
}

/// A timer of the kernel's, by the bare system calls: glibc's `timer_create` brings threads along, for a way of
/// notifying that nobody here wants (8 KB of each plugin).
struct Timer(libc::c_int);

impl Timer {
    fn interrupting(signal: Signal, wait: Duration) -> nix::Result<Self> {
        // SAFETY: plain data, for which all zero bits are a valid value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal as libc::c_int;
        event.sigev_notify_thread_id = gettid().as_raw();
        let mut id: libc::c_int = 0;
        let clock = libc::CLOCK_MONOTONIC;
        // SAFETY: timer_create(2) reads `event` and writes `id`, a 32-bit `timer_t` of the kernel's.
        Errno::result(unsafe { libc::syscall(libc::SYS_timer_create, clock, &event, &mut id) })?;
        let timer = Self(id);
        // Zero would disarm it.
        let first = TimeSpec::from_duration(wait.max(Duration::from_millis(1)));
        let times = libc::itimerspec {
            it_interval: *AGAIN.as_ref(),
            it_value: *first.as_ref(),
        };
        let old: *mut libc::itimerspec = std::ptr::null_mut();
        // SAFETY: timer_settime(2) reads `times`; a null pointer says that the old times are not wanted.
        Errno::result(unsafe { libc::syscall(libc::SYS_timer_settime, id, 0, &times, old) })?;
        Ok(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: timer_delete(2) takes the number of a timer that is ours.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

/// Who holds a lock on `file`, from /proc/locks (proc(5)): `process 1234 (host-local)`.
fn holder(file: &File) -> Option<String> {
    let meta = file.metadata().ok()?;
    let (major, minor) = (
        nix::sys::stat::major(meta.dev()),
        nix::sys::stat::minor(meta.dev()),
    );
    let wanted = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    // A page of that file is consistent in itself, but not with the next: when a lock in an earlier page goes, a
    // line slips through between the two.
    let pid = (0..3).find_map(|_| holding_pid(&wanted))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_else(|_| "gone by now".to_owned());
    Some(format!("process {pid} ({})", name.trim_end()))
}

fn holding_pid(wanted: &str) -> Option<u32> {
    let mut locks = String::with_capacity(64 * 1024); // whole pages are read, then, not a line each
    File::open("/proc/locks")
        .and_then(|mut file| file.read_to_string(&mut locks))
        .ok()?;
    // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; a waiter has "->" as its second word.
    let pid = locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, pid) = (words.next()?, words.nth(2)?);
        (kind == "FLOCK" && words.next()? == wanted).then_some(pid)
    })?;
    // 0: a process in another PID namespace.
    pid.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let file = File::open(&path).unwrap();
        let start = Instant::now();
        let error = lock(&file, &path, Duration::from_millis(150)).unwrap_err();
        assert!(start.elapsed() >= Duration::from_millis(150));
        assert!(start.elapsed() < Duration::from_secs(5));
        let me = format!("process {} (", std::process::id());
        assert!(error.to_string().contains(&me), "{error}");
        held.unlock().unwrap(); // closing alone waits for children just being started by other tests
        lock(&file, &path, Duration::from_millis(150)).unwrap();
    }

    #[test]
    fn a_lock_given_up_in_time_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let file = File::open(&path).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lock(&file, &path, Duration::from_secs(20)));
            while !fs::read_to_string("/proc/locks")
                .unwrap()
                .contains(&format!(":{} ", file.metadata().unwrap().ino()))
            {
                std::thread::yield_now();
            }
            held.unlock().unwrap();
            waiter.join().unwrap().unwrap();
        });
    }
}
