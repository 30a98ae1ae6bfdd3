//! System calls: their names, and the errors they may return.

use std::fs;

use clap::ValueEnum;
use nix::libc::{self, c_int, c_long};
use nix::unistd::Pid;

use super::stop::Begun;

/// An error put in the place of a system call's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Fault {
    /// The disk is full.
    Enospc,
    /// The disk is broken.
    Eio,
    /// Somebody else uses it.
    Ebusy,
    /// The kernel has no memory for messages.
    Enobufs,
    /// A signal came first.
    Eintr,
}

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Read,
    Write,
    /// Makes a name, or room.
    Make,
    Remove,
    Look,
    Mount,
    Lock,
    Socket,
    Send,
    Receive,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 5] = [
        Fault::Enospc,
        Fault::Eio,
        Fault::Ebusy,
        Fault::Enobufs,
        Fault::Eintr,
    ];

    pub(super) fn errno(self) -> c_int {
        match self {
            Fault::Enospc => libc::ENOSPC,
            Fault::Eio => libc::EIO,
            Fault::Ebusy => libc::EBUSY,
            Fault::Enobufs => libc::ENOBUFS,
            Fault::Eintr => libc::EINTR,
        }
    }

    /// `ENOSPC`
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::Enospc => "ENOSPC",
            Fault::Eio => "EIO",
            Fault::Ebusy => "EBUSY",
            Fault::Enobufs => "ENOBUFS",
            Fault::Eintr => "EINTR",
        }
    }

    /// Whether this call of this process may return it.
    pub(super) fn may_come_of(self, call: &Begun, pid: Pid) -> bool {
        let [first, second, third, ..] = call.args;
        let Some(kind) = kind(call.number) else {
            return false;
        };
        let creates = |flags: u64| flags & u64::from(libc::O_CREAT.unsigned_abs()) != 0;
        // Whoever cannot write its answer cannot say so; nor is there anything to do about stderr.
        if kind == Kind::Write && [1, 2].contains(&first) {
            return self == Fault::Eintr;
        }
        match self {
            Fault::Enospc => match kind {
                Kind::Open => creates(if call.number == libc::SYS_openat {
                    third
                } else {
                    second
                }),
                kind => [Kind::Write, Kind::Make].contains(&kind),
            },
            Fault::Eio => [
                Kind::Open,
                Kind::Read,
                Kind::Write,
                Kind::Make,
                Kind::Remove,
                Kind::Look,
                Kind::Mount,
            ]
            .contains(&kind),
            Fault::Ebusy => [Kind::Remove, Kind::Mount, Kind::Send].contains(&kind),
            Fault::Enobufs => [Kind::Socket, Kind::Send, Kind::Receive].contains(&kind),
            // Files on a disk are waited for whatever comes.
            Fault::Eintr => match kind {
                Kind::Read | Kind::Write => is_slow(pid, first),
                Kind::Lock => second & u64::from(libc::LOCK_NB.unsigned_abs()) == 0,
                kind => [Kind::Send, Kind::Receive].contains(&kind),
            },
        }
    }
}

/// A pipe, a socket or a terminal: what a signal may come before.
fn is_slow(pid: Pid, fd: u64) -> bool {
    let target = fs::read_link(format!("/proc/{pid}/fd/{fd}"));
    target.is_ok_and(|t| {
        ["pipe:", "socket:", "/dev/"]
            .iter()
            .any(|p| t.to_string_lossy().starts_with(p))
    })
}

fn kind(number: c_long) -> Option<Kind> {
    Some(match number {
        libc::SYS_openat => Kind::Open,
        libc::SYS_read | libc::SYS_pread64 | libc::SYS_readv | libc::SYS_getdents64 => Kind::Read,
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev => Kind::Write,
        libc::SYS_linkat
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_mkdirat
        | libc::SYS_symlinkat
        | libc::SYS_ftruncate
        | libc::SYS_fallocate
        | libc::SYS_fsync
        | libc::SYS_fdatasync => Kind::Make,
        libc::SYS_unlinkat => Kind::Remove,
        libc::SYS_newfstatat | libc::SYS_fstat | libc::SYS_statx | libc::SYS_readlinkat => {
            Kind::Look
        }
        libc::SYS_mount | libc::SYS_umount2 => Kind::Mount,
        libc::SYS_flock => Kind::Lock,
        libc::SYS_socket | libc::SYS_bind => Kind::Socket,
        libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg => Kind::Send,
        libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => Kind::Receive,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => Kind::Open,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link
        | libc::SYS_rename
        | libc::SYS_mkdir
        | libc::SYS_symlink
        | libc::SYS_creat => Kind::Make,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink | libc::SYS_rmdir => Kind::Remove,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_stat | libc::SYS_lstat | libc::SYS_readlink => Kind::Look,
        _ => return None,
    })
}

macro_rules! names {
    ($number:expr; $($name:ident)*; $($x86:ident)*) => {
        match $number {
            $(libc::$name => Some(stringify!($name)),)*
            $(#[cfg(target_arch = "x86_64")] libc::$x86 => Some(stringify!($x86)),)*
            _ => None,
        }
    };
}

/// `openat`, or its number if it is a rare one.
pub(super) fn name(number: c_long) -> String {
    let known = names!(number;
        SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_openat SYS_close SYS_fstat SYS_newfstatat
        SYS_statx SYS_lseek SYS_mmap SYS_mprotect SYS_munmap SYS_brk SYS_madvise SYS_mremap SYS_rt_sigaction
        SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack SYS_ioctl SYS_fcntl SYS_flock SYS_fsync SYS_fdatasync
        SYS_ftruncate SYS_fallocate SYS_fchmod SYS_fchmodat SYS_fchown SYS_linkat SYS_unlinkat SYS_renameat SYS_renameat2
        SYS_mkdirat SYS_symlinkat SYS_readlinkat SYS_faccessat SYS_faccessat2 SYS_getdents64 SYS_getcwd SYS_chdir
        SYS_fchdir SYS_mount SYS_umount2 SYS_fstatfs SYS_statfs SYS_utimensat SYS_socket SYS_socketpair SYS_bind SYS_connect
        SYS_listen SYS_accept4 SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_setsockopt
        SYS_getsockopt SYS_getsockname SYS_getpeername SYS_shutdown SYS_setns SYS_unshare SYS_clone SYS_clone3 SYS_execve
        SYS_wait4 SYS_waitid SYS_exit SYS_exit_group SYS_kill SYS_tgkill SYS_getpid SYS_getppid SYS_gettid SYS_getuid
        SYS_geteuid SYS_getgid SYS_getegid SYS_uname SYS_sysinfo SYS_prctl SYS_prlimit64 SYS_getrlimit SYS_setrlimit
        SYS_set_tid_address SYS_set_robust_list SYS_rseq SYS_futex SYS_sched_yield SYS_sched_getaffinity SYS_nanosleep
        SYS_clock_nanosleep SYS_clock_gettime SYS_gettimeofday SYS_getrandom SYS_pipe2 SYS_dup SYS_dup3 SYS_ppoll
        SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_eventfd2 SYS_timerfd_create SYS_timerfd_settime
        SYS_signalfd4 SYS_setitimer SYS_setpgid SYS_setsid SYS_umask SYS_memfd_create SYS_pidfd_open
        SYS_pidfd_send_signal SYS_close_range SYS_restart_syscall SYS_capget SYS_capset SYS_mincore SYS_membarrier
        SYS_sched_setaffinity SYS_getpriority SYS_setpriority SYS_tkill SYS_timer_create SYS_timer_settime SYS_timer_delete;
        SYS_open SYS_stat SYS_lstat SYS_access SYS_pipe SYS_dup2 SYS_poll SYS_select SYS_epoll_wait SYS_fork SYS_vfork
        SYS_arch_prctl SYS_link SYS_unlink SYS_rename SYS_mkdir SYS_rmdir SYS_symlink SYS_readlink SYS_creat SYS_alarm
        SYS_chmod SYS_chown SYS_getpgrp SYS_time SYS_inotify_init1
    );
    match known {
        Some(name) => name.trim_start_matches("SYS_").to_owned(),
        None => format!("system call {number}"),
    }
}
