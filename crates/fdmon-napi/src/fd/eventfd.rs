//! The natives of `EventNotifier`: an eventfd, and the proof that a number that arrived in a
//! message is still the same one.

use std::fs;
use std::os::fd::AsRawFd;

use fdmon::ErrorCode;
use napi::Env;
use napi_derive::napi;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, retry_on_intr};

use super::owned::give;
use super::{duplicate, raw};
use crate::error::{Failure, guard};

/// eventfd2(2) with a first value.
#[napi]
pub fn eventfd_create(env: Env, value: u32) -> napi::Result<i32> {
    guard(&env, || {
        eventfd(value, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(|fd| give(&env, fd))
            .map_err(|errno| {
                Failure::syscall("eventfd2", errno, "make an event notifier", "see eventfd(2)")
            })
    })
}

/// Adds 1: 0, or the negative errno. A counter at its maximum is set already, as is a socket that
/// is full, whose other end this makes readable.
pub(crate) fn set(fd: i32) -> i32 {
    let Some(fd) = raw::borrow(fd) else {
        return -Errno::BADF.raw_os_error();
    };
    match retry_on_intr(|| rustix::io::write(fd, &1_u64.to_ne_bytes())) {
        Ok(_) | Err(Errno::AGAIN) => 0,
        Err(errno) => -errno.raw_os_error(),
    }
}

/// Takes the counter: 1 if it was not 0, 0 if it was, or the negative errno.
pub(super) fn test_and_clear(fd: i32) -> i32 {
    let Some(fd) = raw::borrow(fd) else {
        return -Errno::BADF.raw_os_error();
    };
    let mut counter = [0_u8; 8];
    match retry_on_intr(|| rustix::io::read(fd, &mut counter)) {
        Ok(_) => 1,
        Err(Errno::AGAIN) => 0,
        Err(errno) => -errno.raw_os_error(),
    }
}

/// The kernel's number of this eventfd (Linux 5.2), by which a closed and reused descriptor is told
/// apart; -1 where the kernel does not say.
#[napi]
pub fn eventfd_id(fd: i32) -> i32 {
    identity(fd).unwrap_or(-1)
}

/// Duplicates the eventfd of a handle, close-on-exec; an error when it is not that eventfd any
/// more.
#[napi]
pub fn eventfd_duplicate(env: Env, fd: i32, id: i32) -> napi::Result<i32> {
    guard(&env, || {
        let advice = "keep the sender's notifier open until EventNotifier.from() has run";
        let own = duplicate(fd).map_err(|mut failure| {
            if failure.code == ErrorCode::BadFd {
                failure.message =
                    format!("handle.fd = {fd} is not an open file descriptor; {advice}");
            }
            failure
        })?;
        // Looked at after duplicating: from here on nobody else can close or reuse it.
        let other_kind = fs::read_link(format!("/proc/self/fd/{}", own.as_raw_fd()))
            .is_ok_and(|target| target.as_os_str() != "anon_inode:[eventfd]");
        if other_kind || (id >= 0 && identity(own.as_raw_fd()).is_some_and(|now| now != id)) {
            let message = format!(
                "handle.fd = {fd} was closed, and its number is another file now; {advice}"
            );
            return Err(Failure::new(ErrorCode::BadFd, message));
        }
        Ok(give(&env, own))
    })
}

pub(super) fn identity(fd: i32) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("eventfd-id:"))?.trim().parse().ok()
}
