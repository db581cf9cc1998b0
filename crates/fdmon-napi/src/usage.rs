//! What the child processes of this one have used, for `fdmon tune -- COMMAND`: Node tells it of no
//! child, and /proc in hundredths of a second only.
#![allow(unsafe_code)] // getrusage(2), which rustix does not have

use napi_derive::napi;

/// CPU time, in nanoseconds, of all children that have ended and were waited for.
#[napi]
#[allow(clippy::cast_precision_loss, reason = "microseconds of CPU time fit")]
pub fn children_cpu_ns() -> f64 {
    // SAFETY: plain numbers, for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is written and nothing else. With these arguments it cannot fail.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let ns = |time: libc::timeval| (time.tv_sec as f64 * 1e6 + time.tv_usec as f64) * 1e3;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}
