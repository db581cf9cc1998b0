//! An ArrayBuffer over a mapping, which keeps it mapped for as long as somebody may touch it.
//!
//! The finalizer runs when the engine has freed the buffer, or when the environment ends, whichever
//! is first. The second is a trap: `buffer.transfer()` (Node 22) makes a copy of the buffer that can
//! be sent to another thread, which then has the memory when this worker is gone, and nothing tells
//! so. At the end of an environment the range is therefore retired, not unmapped: see [`Mapping`].
//! In Deno the finalizer runs when the memory itself has no user left, in whichever isolate: in the
//! middle of a collection, on a thread of the collector, or when the environment and the engine are
//! gone. There any call of Node-API aborts the process, and none is needed: the range is unmapped.
#![allow(unsafe_code, reason = "an ArrayBuffer over foreign memory is unsafe by nature")]

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fdmon::ErrorCode;
use napi::bindgen_prelude::{ArrayBuffer, FromNapiValue};
use napi::{Env, check_status, sys};
use napi_derive::napi;

use super::mapping::Mapping;
use super::owned::Descriptors;
use crate::error::{Failure, guard, with_descriptors};

/// What the engine holds of a mapping.
struct Hold {
    mapping: Arc<Mapping>,
    /// The environment has ended.
    over: Arc<AtomicBool>,
    /// The finalizer is that of the memory, not of the ArrayBuffer.
    of_memory: bool,
}

/// A new MAP_SHARED mapping of the first `length` bytes as an ArrayBuffer. `of_memory`: this runtime
/// calls its finalizer when the memory has no user left, as Deno does.
#[napi]
pub fn memfd_map(
    env: Env,
    fd: i32,
    length: i64,
    of_memory: bool,
) -> napi::Result<ArrayBuffer<'static>> {
    let mapping = guard(&env, || {
        let length = usize::try_from(length).ok().filter(|&length| length > 0);
        let Some(length) = length else {
            let message = "size is not valid; pass at least 1 byte";
            return Err(Failure::new(ErrorCode::InvalidArg, message));
        };
        Mapping::new(fd, length)
    })?;
    array_buffer(&env, mapping, of_memory)
}

fn array_buffer(
    env: &Env,
    mapping: Arc<Mapping>,
    of_memory: bool,
) -> napi::Result<ArrayBuffer<'static>> {
    let data = ptr::with_exposed_provenance_mut::<c_void>(mapping.address());
    let length = mapping.length();
    let over = with_descriptors(env, Descriptors::over).unwrap_or_default();
    let hold = Box::into_raw(Box::new(Hold { mapping, over, of_memory })).cast::<c_void>();
    let mut value = ptr::null_mut();
    // SAFETY: the range stays mapped until `release`, which the engine calls once with `hold`.
    let status = unsafe {
        sys::napi_create_external_arraybuffer(
            env.raw(),
            data,
            length,
            Some(release),
            hold,
            &mut value,
        )
    };
    if status == sys::Status::napi_no_external_buffers_allowed {
        // SAFETY: with this status the engine took nothing; the box is still ours.
        drop(unsafe { Box::from_raw(hold.cast::<Hold>()) });
        let message = "this runtime allows no ArrayBuffer over foreign memory, so map() cannot \
                       work in it; use a SharedArrayBuffer, or run under Node";
        return Err(Failure::new(ErrorCode::Unsupported, message).throw(env));
    }
    // After any other failure the engine may have called `release` or not: `hold` is left alone.
    check_status!(status, "could not make an ArrayBuffer over {length} mapped bytes; map less")?;
    // SAFETY: `value` is the ArrayBuffer that was just made in this environment.
    unsafe { ArrayBuffer::from_napi_value(env.raw(), value) }
}

/// The finalizer: the engine has freed the buffer or its memory, or the environment ends.
unsafe extern "C" fn release(env: sys::napi_env, _data: *mut c_void, hold: *mut c_void) {
    // SAFETY: the pointer that `array_buffer` made by `Box::into_raw`; the engine calls this once.
    let hold = unsafe { Box::from_raw(hold.cast::<Hold>()) };
    if !hold.of_memory && (hold.over.load(Ordering::Relaxed) || !runs_javascript(env)) {
        hold.mapping.retire();
    }
}

/// False while the environment ends, and in doubt: then Node-API refuses what could run JavaScript.
fn runs_javascript(env: sys::napi_env) -> bool {
    let mut scope = ptr::null_mut();
    // SAFETY: the environment is not over, and finalizers run on its thread.
    if unsafe { sys::napi_open_handle_scope(env, &mut scope) } != sys::Status::napi_ok {
        return false;
    }
    let mut global = ptr::null_mut();
    let mut present = false;
    // SAFETY: as above, with a scope open for the handle.
    let found = unsafe { sys::napi_get_global(env, &mut global) } == sys::Status::napi_ok;
    let runs = found && {
        // SAFETY: `global` is an object. It has no such property, so no getter runs.
        let asked = unsafe {
            sys::napi_has_named_property(env, global, c"fdmon:ending".as_ptr(), &mut present)
        };
        asked == sys::Status::napi_ok
    };
    // SAFETY: the scope that was opened above; a failure leaves one handle to an environment that
    // ends.
    let _ = unsafe { sys::napi_close_handle_scope(env, scope) };
    runs
}
