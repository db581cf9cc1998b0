//! `fdmon/fd`: Linux descriptors that Node cannot make, close-on-exec and non-blocking, closed by
//! the caller.
//!
//! One function is one system call (or one and its set-up). TypeScript has checked the types and
//! ranges of what arrives here; what only the kernel can know is answered by it.

mod array_buffer;
mod can;
mod eventfd;
mod hot;
mod mapping;
mod owned;
mod raw;
mod rights;
mod siginfo;
mod signal;
mod unix;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fdmon::ErrorCode;
use napi::Env;
use napi_derive::napi;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, inotify};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::error::{Failure, Result, guard};
use owned::give;
pub(crate) use raw::Bytes;

pub(crate) use eventfd::set as ring_bell;
pub(crate) use mapping::mapping_of;
pub(crate) use owned::Descriptors;

/// A count, or the negative errno: the two hottest functions neither throw nor allocate.
fn count(result: std::result::Result<usize, Errno>) -> i32 {
    match result {
        // Linux transfers at most 0x7ffff000 bytes a call.
        Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
        Err(errno) => -errno.raw_os_error(),
    }
}

/// read(2) into the whole view: the number of bytes, or the negative errno.
fn fd_read(fd: i32, mut buffer: Bytes) -> i32 {
    let Some(fd) = raw::borrow(fd) else {
        return -Errno::BADF.raw_os_error();
    };
    count(retry_on_intr(|| rustix::io::read(fd, buffer.writable()).map(|(bytes, _)| bytes.len())))
}

/// write(2) of the whole view: the number of bytes, or the negative errno.
fn fd_write(fd: i32, buffer: &Bytes) -> i32 {
    let Some(fd) = raw::borrow(fd) else {
        return -Errno::BADF.raw_os_error();
    };
    count(retry_on_intr(|| rustix::io::write(fd, buffer.readable())))
}

/// close(2): 0, or the negative errno. The number is free again either way.
#[napi]
pub fn fd_close(env: Env, fd: i32) -> napi::Result<i32> {
    guard(&env, || {
        // Before: once closed, the number may be given out again by another thread.
        owned::release(&env, fd);
        match raw::close(fd) {
            // Linux has released the number when close(2) is interrupted.
            Ok(()) | Err(Errno::INTR) => Ok(0),
            Err(errno) => Ok(-errno.raw_os_error()),
        }
    })
}

/// ioctl(FIONREAD): the bytes that wait to be read, or the negative errno.
#[napi]
pub fn fd_pending(fd: i32) -> i32 {
    let Some(fd) = raw::borrow(fd) else {
        return -Errno::BADF.raw_os_error();
    };
    count(rustix::io::ioctl_fionread(fd).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)))
}

/// Sets or clears O_NONBLOCK of the open file, where that changes anything.
fn set_nonblock(fd: BorrowedFd<'_>, on: bool) -> std::result::Result<(), Errno> {
    let old = fcntl_getfl(fd)?;
    let new = if on { old | OFlags::NONBLOCK } else { old - OFlags::NONBLOCK };
    if new == old { Ok(()) } else { fcntl_setfl(fd, new) }
}

/// [`set_nonblock`]
#[napi]
pub fn fd_set_nonblock(env: Env, fd: i32, on: bool) -> napi::Result<()> {
    guard(&env, || {
        let file = raw::require(fd)?;
        set_nonblock(file, on).map_err(|errno| {
            let advice = "pass a descriptor whose mode may be changed (not one opened with O_PATH)";
            Failure::syscall("fcntl", errno, &format!("change the mode of fd = {fd}"), advice)
        })
    })
}

/// timerfd_create(2), disarmed.
#[napi]
pub fn timerfd_create(env: Env, realtime: bool) -> napi::Result<i32> {
    guard(&env, || {
        let clock = if realtime { TimerfdClockId::Realtime } else { TimerfdClockId::Monotonic };
        rustix::time::timerfd_create(clock, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map(|fd| give(&env, fd))
            .map_err(|errno| {
                Failure::syscall("timerfd_create", errno, "make a timer", "see timerfd_create(2)")
            })
    })
}

/// timerfd_settime(2), relative; all four 0 disarm.
#[napi]
pub fn timerfd_settime(
    env: Env,
    fd: i32,
    delay_sec: i64,
    delay_nsec: i64,
    interval_sec: i64,
    interval_nsec: i64,
) -> napi::Result<()> {
    guard(&env, || {
        let timer = raw::require(fd)?;
        let value = Itimerspec {
            it_interval: Timespec { tv_sec: interval_sec, tv_nsec: interval_nsec as _ },
            it_value: Timespec { tv_sec: delay_sec, tv_nsec: delay_nsec as _ },
        };
        rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &value)
            .map(drop)
            .map_err(|errno| {
                Failure::syscall(
                    "timerfd_settime",
                    errno,
                    &format!(
                        "arm fd = {fd} in {delay_sec}.{delay_nsec:09} s, then every {interval_sec}.{interval_nsec:09} s"
                    ),
                    "pass the fd of a timer and times of at most 292 years",
                )
            })
    })
}

/// inotify_init1(2).
#[napi]
pub fn inotify_create(env: Env) -> napi::Result<i32> {
    guard(&env, || {
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map(|fd| give(&env, fd))
            .map_err(|errno| {
                let what = match errno {
                    Errno::MFILE => "make a watcher (see also fs.inotify.max_user_instances)",
                    _ => "make a watcher",
                };
                Failure::syscall("inotify_init1", errno, what, "see inotify(7)")
            })
    })
}

/// inotify_add_watch(2): the watch descriptor.
#[napi]
pub fn inotify_add_watch(env: Env, fd: i32, path: String, events: u32) -> napi::Result<i32> {
    guard(&env, || {
        let watcher = raw::require(fd)?;
        let flags = inotify::WatchFlags::from_bits_retain(events);
        inotify::add_watch(watcher, path.as_str(), flags).map_err(|errno| {
            let advice = match errno {
                Errno::NOENT => "pass the path of a file or directory that exists",
                Errno::ACCESS => "pass a path that this user may read",
                Errno::NOSPC => {
                    "the user is out of watches: remove some, or raise fs.inotify.max_user_watches"
                }
                Errno::NOTDIR => "pass a directory, or leave ONLYDIR out",
                Errno::EXIST => {
                    "the path is watched already: change that watch, or leave MASK_CREATE out"
                }
                Errno::INVAL => "pass the fd of an inotify and at least one event of InotifyEvents",
                Errno::NAMETOOLONG => "pass a shorter path",
                _ => "see inotify_add_watch(2)",
            };
            Failure::syscall(
                "inotify_add_watch",
                errno,
                &format!("watch path = {path:?} for events = {events:#x}"),
                advice,
            )
        })
    })
}

/// inotify_rm_watch(2).
#[napi]
pub fn inotify_remove_watch(env: Env, fd: i32, wd: i32) -> napi::Result<()> {
    guard(&env, || {
        let watcher = raw::require(fd)?;
        inotify::remove_watch(watcher, wd).map_err(|errno| {
            let advice = "pass a number that addWatch() returned and whose watch is not gone yet (event IGNORED)";
            Failure::syscall(
                "inotify_rm_watch",
                errno,
                &format!("remove the watch wd = {wd}"),
                advice,
            )
        })
    })
}

/// pidfd_open(2).
#[napi]
pub fn pidfd_open(env: Env, pid: i32) -> napi::Result<i32> {
    guard(&env, || {
        let Some(process) = (if pid > 0 { Pid::from_raw(pid) } else { None }) else {
            return Err(Failure::new(
                ErrorCode::InvalidArg,
                format!("pid = {pid} is not valid; pass a process id"),
            ));
        };
        let opened = match rustix::process::pidfd_open(process, PidfdFlags::NONBLOCK) {
            // Before Linux 5.10 there is no PIDFD_NONBLOCK.
            Err(Errno::INVAL) => rustix::process::pidfd_open(process, PidfdFlags::empty())
                .and_then(|fd| {
                    set_nonblock(fd.as_fd(), true)?;
                    Ok(fd)
                }),
            other => other,
        };
        opened.map(|fd| give(&env, fd)).map_err(|errno| {
            let advice = match errno {
                Errno::SRCH => "pass the id of a process that has not been waited for yet",
                Errno::INVAL => "pass the id of a process, not of one of its threads",
                _ => "see pidfd_open(2)",
            };
            Failure::syscall("pidfd_open", errno, &format!("open the process pid = {pid}"), advice)
        })
    })
}

/// socketpair(2): two connected stream sockets.
#[napi]
pub fn socket_pair(env: Env) -> napi::Result<Vec<i32>> {
    guard(&env, || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map(|(one, other)| vec![give(&env, one), give(&env, other)])
            .map_err(|errno| {
                Failure::syscall("socketpair", errno, "make two sockets", "see socketpair(2)")
            })
    })
}

/// fcntl(F_DUPFD_CLOEXEC).
fn duplicate(fd: i32) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(raw::require(fd)?, 0).map_err(|errno| {
        Failure::syscall(
            "fcntl",
            errno,
            &format!("duplicate fd = {fd}"),
            "see fcntl(2), F_DUPFD_CLOEXEC",
        )
    })
}
