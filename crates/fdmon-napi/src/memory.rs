//! Memory that belongs to JavaScript and that native code reads and writes in place: the pending
//! words and frames of a context, and the shared words that a handler polls.
//!
//! A typed array is kept alive by a strong reference, dropped on the thread of its environment. Its
//! memory does not move: it lies over an ArrayBuffer of its own, a SharedArrayBuffer or a mapping.
#![allow(unsafe_code, reason = "Node-API hands out memory and references as raw pointers")]

use std::ptr;

use napi::{check_status, sys};

#[cfg(target_os = "wasi")]
#[path = "wasi/integers.rs"]
mod integers;
#[cfg(not(target_os = "wasi"))]
mod typed_array;

#[cfg(target_os = "wasi")]
pub(crate) use integers::{Kept, Memory};
#[cfg(not(target_os = "wasi"))]
pub(crate) use typed_array::{Kept, Memory, TypedArray};

/// A strong reference to a JavaScript value; released on drop, on the thread that made it.
#[derive(Debug)]
pub(crate) struct Pinned {
    env: sys::napi_env,
    reference: sys::napi_ref,
}

impl Pinned {
    /// # Safety
    /// `value` is a live object or function of `env`, on the thread of `env`; what is returned is
    /// dropped on that thread, before the environment is gone.
    pub(crate) unsafe fn new(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        let mut reference = ptr::null_mut();
        // SAFETY: by this function's contract.
        let status = unsafe { sys::napi_create_reference(env, value, 1, &mut reference) };
        check_status!(status, "could not keep a value alive")?;
        Ok(Self { env, reference })
    }

    pub(crate) fn env(&self) -> sys::napi_env {
        self.env
    }

    pub(crate) fn reference(&self) -> sys::napi_ref {
        self.reference
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the reference is this value's own, and by `new`'s contract this is its thread.
        // That it fails while the environment ends does no harm: the reference ends with it.
        let _ = unsafe { sys::napi_delete_reference(self.env, self.reference) };
    }
}
