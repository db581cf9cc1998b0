//! What is done when the process ends in good order: `exit(3)` calls no destructors, neither in Rust
//! nor in Node.
#![allow(unsafe_code, reason = "atexit(3) is C")]

use std::sync::Once;

/// Has this called at the end of the process; `once` keeps it from being called twice. It must not
/// unwind. Where there is no room for it, it is not called.
#[cfg(not(any(wasi, loom, miri)))]
pub(crate) fn at_exit(once: &Once, call: extern "C" fn()) {
    // SAFETY: the function stays where it is: the program, or a library that runs it before it is
    // unloaded; and it never unwinds, being `extern "C"`.
    once.call_once(|| _ = unsafe { libc::atexit(call) });
}

#[cfg(any(wasi, loom, miri))]
pub(crate) fn at_exit(_: &Once, _: extern "C" fn()) {}
