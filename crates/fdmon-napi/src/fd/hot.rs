//! The calls on descriptors that are made once an event, as plain functions that allocate nothing:
//! what a generated one costs around its system call is more than that call (see [`crate::hot`]).
#![allow(unsafe_code, reason = "plain Node-API functions")]

use std::ptr;

use napi::bindgen_prelude::{FromNapiValue, Object, Unknown};
use napi::{Env, check_status, sys};
use napi_derive::napi;
use rustix::io::Errno;

use super::raw::Bytes;
use super::{eventfd, fd_read, fd_write};
use crate::error::guard;

type Callback = unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value;

/// `{ read, write, set, testAndClear }`: each answers a number, or the negative errno.
#[napi(
    ts_return_type = "{ read(fd: number, buffer: Uint8Array): number; write(fd: number, buffer: Uint8Array): number; set(fd: number): number; testAndClear(fd: number): number }"
)]
pub fn fd_hot(env: &Env) -> napi::Result<Object<'_>> {
    let mut object = Object::new(env)?;
    object.set("read", function(env, read)?)?;
    object.set("write", function(env, write)?)?;
    object.set("set", function(env, set)?)?;
    object.set("testAndClear", function(env, test_and_clear)?)?;
    Ok(object)
}

fn function(env: &Env, callback: Callback) -> napi::Result<Unknown<'_>> {
    let mut function = ptr::null_mut();
    let (name, data) = (ptr::null(), ptr::null_mut());
    // SAFETY: `env` is this call's; the function carries nothing.
    let status = unsafe {
        sys::napi_create_function(env.raw(), name, 0, Some(callback), data, &mut function)
    };
    check_status!(status, "could not make a function")?;
    // SAFETY: `function` is a value of this environment, in the scope of the call.
    Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), function) })
}

/// Runs `body` with the descriptor and the second argument of a call, and answers its number.
///
/// # Safety
/// `env` and `info` are those of the call that is running.
unsafe fn answer(
    env: sys::napi_env,
    info: sys::napi_callback_info,
    body: impl FnOnce(i32, sys::napi_value) -> i32,
) -> sys::napi_value {
    let mut arguments = [ptr::null_mut(); 2];
    let (mut count, this, data) = (2, ptr::null_mut(), ptr::null_mut());
    let mut fd = -1;
    let mut result = ptr::null_mut();
    let into = arguments.as_mut_ptr();
    // SAFETY: by this function's contract; missing arguments become `undefined`.
    let _ = unsafe { sys::napi_get_cb_info(env, info, &mut count, into, this, data) };
    // SAFETY: as above. Anything but a number leaves -1, which is no descriptor.
    let _ = unsafe { sys::napi_get_value_int32(env, arguments[0], &mut fd) };
    // After an error the result is null: the exception is pending.
    if let Ok(number) = guard(&Env::from_raw(env), || Ok(body(fd, arguments[1]))) {
        // SAFETY: in the scope of the call.
        let _ = unsafe { sys::napi_create_int32(env, number, &mut result) };
    }
    result
}

/// TypeScript has checked that it is a Uint8Array.
fn bytes(env: sys::napi_env, value: sys::napi_value) -> Result<Bytes, i32> {
    // SAFETY: the value is an argument of the call that is running.
    unsafe { Bytes::from_napi_value(env, value) }.map_err(|_| -Errno::INVAL.raw_os_error())
}

unsafe extern "C" fn read(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    let body = |fd, buffer| bytes(env, buffer).map_or_else(|errno| errno, |into| fd_read(fd, into));
    // SAFETY: passed on.
    unsafe { answer(env, info, body) }
}

unsafe extern "C" fn write(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    let body =
        |fd, buffer| bytes(env, buffer).map_or_else(|errno| errno, |from| fd_write(fd, &from));
    // SAFETY: passed on.
    unsafe { answer(env, info, body) }
}

unsafe extern "C" fn set(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: passed on.
    unsafe { answer(env, info, |fd, _| eventfd::set(fd)) }
}

unsafe extern "C" fn test_and_clear(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: passed on.
    unsafe { answer(env, info, |fd, _| eventfd::test_and_clear(fd)) }
}
