//! The calls that are made all the time: a turn, a scheduled bottom half, an armed timer.
//!
//! A generated method looks up its object, checks its type and allocates: 330 ns a call measured,
//! against 60 for these. They are plain functions that hold their context, and take and give small
//! numbers only.
#![allow(unsafe_code, reason = "plain Node-API functions over a pointer that they own")]

use std::ffi::{c_char, c_void};
use std::ptr;
use std::rc::Rc;

use fdmon::AioContext;
#[cfg(not(target_os = "wasi"))]
use fdmon::{ErrorCode, ForeignMemory};
use napi::bindgen_prelude::{Object, Unknown};
use napi::{Env, check_status, sys};

use crate::core::Core;
#[cfg(not(target_os = "wasi"))]
use crate::error::Failure;
#[cfg(not(target_os = "wasi"))]
use crate::memory::TypedArray;

type Callback = unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value;

/// `NativeHot`
pub(crate) fn functions<'env>(env: &'env Env, core: &Rc<Core>) -> napi::Result<Object<'env>> {
    let mut object = Object::new(env)?;
    object.set("turn", function(env, core, c"turn".to_bytes(), turn)?)?;
    object.set("stepBegins", function(env, core, c"stepBegins".to_bytes(), step_begins)?)?;
    object.set("stepEnds", function(env, core, c"stepEnds".to_bytes(), step_ends)?)?;
    let begins = c"callbackBegins".to_bytes();
    object.set("callbackBegins", function(env, core, begins, callback_begins)?)?;
    object.set("callbackEnds", function(env, core, c"callbackEnds".to_bytes(), callback_ends)?)?;
    object.set("schedule", function(env, core, c"schedule".to_bytes(), schedule)?)?;
    object.set("arm", function(env, core, c"arm".to_bytes(), arm)?)?;
    #[cfg(not(target_os = "wasi"))]
    object.set("transfer", function(env, core, c"transfer".to_bytes(), transfer)?)?;
    Ok(object)
}

/// A function that keeps the context until it is collected.
fn function<'env>(
    env: &'env Env,
    core: &Rc<Core>,
    name: &[u8],
    callback: Callback,
) -> napi::Result<Unknown<'env>> {
    let length = isize::try_from(name.len()).unwrap_or(-1);
    let name = name.as_ptr().cast::<c_char>();
    let data = Rc::into_raw(Rc::clone(core)).cast_mut().cast::<c_void>();
    let mut function = ptr::null_mut();
    // SAFETY: `env` is this call's; `data` is released by the finalizer below, or here on failure.
    let mut status = unsafe {
        sys::napi_create_function(env.raw(), name, length, Some(callback), data, &mut function)
    };
    if status == sys::Status::napi_ok {
        let (hint, reference) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as above; `function` was just made.
        status = unsafe {
            sys::napi_add_finalizer(env.raw(), function, data, Some(release), hint, reference)
        };
    }
    if status != sys::Status::napi_ok {
        // SAFETY: nobody else took the pointer that `into_raw` made above.
        drop(unsafe { Rc::from_raw(data.cast_const().cast::<Core>()) });
    }
    check_status!(status, "could not make a function")?;
    // SAFETY: `function` is a value of this environment, in the scope of the call.
    Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), function) })
}

unsafe extern "C" fn release(_env: sys::napi_env, data: *mut c_void, _hint: *mut c_void) {
    // SAFETY: `data` is the pointer that `function` made; the engine calls this once for it.
    drop(unsafe { Rc::from_raw(data.cast_const().cast::<Core>()) });
}

/// One call: its context and its arguments.
struct Call<'call, const N: usize> {
    env: Env,
    core: &'call Core,
    arguments: [sys::napi_value; N],
}

impl<const N: usize> Call<'_, N> {
    /// # Safety
    /// `env` and `info` are those of a call of a function made by [`function`].
    unsafe fn new<'call>(
        env: sys::napi_env,
        info: sys::napi_callback_info,
    ) -> Option<Call<'call, N>> {
        let mut data = ptr::null_mut();
        let mut count = N;
        let mut arguments = [ptr::null_mut(); N];
        let this = ptr::null_mut();
        let into = arguments.as_mut_ptr();
        // SAFETY: by this function's contract; missing arguments become `undefined`.
        let status = unsafe { sys::napi_get_cb_info(env, info, &mut count, into, this, &mut data) };
        if status != sys::Status::napi_ok {
            return None;
        }
        // SAFETY: `function` made the pointer, and the function that is running keeps it.
        let core = unsafe { data.cast::<Core>().as_ref() }?;
        Some(Call { env: Env::from_raw(env), core, arguments })
    }

    /// An argument that TypeScript passes as a small number.
    fn small(&self, index: usize) -> u32 {
        let mut value = 0;
        let argument = self.arguments[index];
        // SAFETY: the argument belongs to the call that is running. Anything but a number is 0.
        let _ = unsafe { sys::napi_get_value_uint32(self.env.raw(), argument, &mut value) };
        value
    }

    fn number(&self, index: usize) -> f64 {
        let mut value = 0.0;
        let argument = self.arguments[index];
        // SAFETY: as in `small`.
        let _ = unsafe { sys::napi_get_value_double(self.env.raw(), argument, &mut value) };
        value
    }
}

/// `turn(depth * 2 + blocking)`: one turn up to its first batch. The one native call of most turns.
unsafe extern "C" fn turn(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: made by `function`.
    let Some(call) = (unsafe { Call::<1>::new(env, info) }) else { return ptr::null_mut() };
    let request = call.small(0);
    let core = call.core;
    let answer = core.fill(&call.env, request >> 1, |ctx, running, waiting, batch| {
        ctx.foreign_turn(request & 1 != 0, running, waiting, batch)
    });
    core.touched();
    let mut result = ptr::null_mut();
    if let Ok(answer) = answer {
        // SAFETY: in the scope of the call that is running.
        let _ = unsafe { sys::napi_create_uint32(env, answer, &mut result) };
    }
    result // null after an error: the exception is pending
}

/// `stepBegins(what)`, of a context that is traced: 0 a turn that does not wait, 1 one that does, 2 a
/// dispatch.
unsafe extern "C" fn step_begins(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: made by `function`.
    if let Some(call) = unsafe { Call::<1>::new(env, info) } {
        let what = call.small(0);
        let _ = call.core.with(&call.env, |ctx| match what {
            2 => ctx.foreign_dispatch_begins(),
            blocking => ctx.foreign_turn_begins(blocking != 0),
        });
    }
    ptr::null_mut()
}

/// `stepEnds(progress)`
unsafe extern "C" fn step_ends(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: made by `function`.
    if let Some(call) = unsafe { Call::<1>::new(env, info) } {
        let progress = call.small(0) != 0;
        let _ = call.core.with(&call.env, |ctx| ctx.foreign_turn_ends(progress));
    }
    ptr::null_mut()
}

/// `callbackBegins(slot, word)`: of a context that is traced, with what is due of the slot.
unsafe extern "C" fn callback_begins(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: made by `function`.
    if let Some(call) = unsafe { Call::<2>::new(env, info) } {
        let (slot, word) = (call.small(0), call.small(1));
        let _ = call.core.with(&call.env, |ctx| ctx.foreign_callback_begins(slot, word));
    }
    ptr::null_mut()
}

/// `callbackEnds()`
unsafe extern "C" fn callback_ends(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: made by `function`.
    if let Some(call) = unsafe { Call::<0>::new(env, info) } {
        let _ = call.core.with(&call.env, AioContext::foreign_callback_ends);
    }
    ptr::null_mut()
}

/// `schedule(slot)`: of a bottom half.
unsafe extern "C" fn schedule(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: made by `function`.
    if let Some(call) = unsafe { Call::<1>::new(env, info) } {
        let slot = call.small(0);
        let _ = call.core.guard(&call.env, || {
            call.core.open()?.foreign_schedule(slot, false);
            call.core.touched();
            Ok(())
        });
    }
    ptr::null_mut()
}

/// `arm(slot, delayNs)`: of a timer, for a delay that is a number.
unsafe extern "C" fn arm(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: made by `function`.
    if let Some(call) = unsafe { Call::<2>::new(env, info) } {
        let (slot, delay) = (call.small(0), crate::options::whole(call.number(1)));
        let _ = call.core.guard(&call.env, || {
            let deadline = call.core.open()?.now_ns().saturating_add(delay);
            call.core.arm(slot, deadline)
        });
    }
    ptr::null_mut()
}

/// `transfer(slot, op, fd, view, position)`: asks for file I/O; a sync has no view.
#[cfg(not(target_os = "wasi"))]
unsafe extern "C" fn transfer(
    env: sys::napi_env,
    info: sys::napi_callback_info,
) -> sys::napi_value {
    // SAFETY: made by `function`.
    if let Some(call) = unsafe { Call::<5>::new(env, info) } {
        let (slot, op, fd) = (call.small(0), call.small(1), call.small(2).cast_signed());
        let position = crate::options::whole(call.number(4));
        let _ = call.core.guard(&call.env, || {
            let op = crate::aio::op(op);
            let memory = if crate::aio::is_sync(op) {
                ForeignMemory::None
            } else {
                // SAFETY: the argument belongs to the call that is running.
                let bytes = unsafe { TypedArray::of(call.env.raw(), call.arguments[3]) }
                    .map_err(|error| Failure::new(ErrorCode::InvalidArg, error.reason.clone()))?;
                ForeignMemory::One(bytes.data.cast(), bytes.length)
            };
            // SAFETY: TypeScript keeps the view until the request has ended, and by the contract
            // that users are told nobody touches its bytes or closes the fd.
            let first =
                unsafe { call.core.open()?.foreign_transfer(slot, op, fd, memory, position) }?;
            if first {
                call.core.touched();
            }
            Ok(())
        });
    }
    ptr::null_mut()
}
