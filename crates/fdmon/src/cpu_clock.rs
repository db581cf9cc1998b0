//! The CPU time of another thread, read from outside: clock_gettime(2) on the clock that
//! pthread_getcpuclockid(3) names.
#![allow(unsafe_code)] // three calls of the C library, which rustix does not have

use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

/// The CPU clock of one thread. It means nothing any more once the thread has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// `None` = the C library does not know it.
    pub fn of<T>(thread: &JoinHandle<T>) -> Option<Self> {
        // A number for the standard library everywhere; for musl a pointer in the crate libc.
        let thread = thread.as_pthread_t() as libc::pthread_t;
        let mut id = 0;
        // SAFETY: a thread that is not joined yet has a valid pthread_t, also when it has ended;
        // `id` is written and nothing else.
        let refusal = unsafe { libc::pthread_getcpuclockid(thread, &raw mut id) };
        (refusal == 0).then_some(Self(id))
    }

    /// That of the calling thread, for others to read.
    pub fn here() -> Option<Self> {
        // SAFETY: it has no preconditions, and the calling thread exists.
        let this = unsafe { libc::pthread_self() };
        let mut id = 0;
        // SAFETY: as above.
        let refusal = unsafe { libc::pthread_getcpuclockid(this, &raw mut id) };
        (refusal == 0).then_some(Self(id))
    }

    /// Nanoseconds of CPU time so far; `None` = the thread has ended.
    #[allow(clippy::cast_sign_loss, reason = "CPU time is never negative")]
    pub fn now_ns(self) -> Option<u64> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is written and nothing else; of a clock that is gone it is an error.
        let result = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        (result == 0).then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}
