//! From a turn into JavaScript: one batch in one callback scope, and what it threw.

use std::ptr;

use fdmon::AioContext;
use napi::bindgen_prelude::Unknown;
use napi::{Env, JsValue, sys};
use napi_derive::napi;

use super::{Attachment, CALLS, ok};
use crate::batch::LEFT;
use crate::error::{Failure, Result};
use crate::handler::Scope;

impl Attachment {
    /// Takes what there is and runs it. `true` = JavaScript ran.
    pub(super) fn take(&self, ctx: &AioContext, readable: bool) -> bool {
        let answer = match ctx.check_if(readable) {
            Ok(true) => self.batch(ctx),
            Ok(false) => Ok(0),
            Err(error) => Err(error.into()),
        };
        self.owe_points();
        match answer {
            // Not if hooks ran, outside any scope: what they queued or threw is due now.
            Ok(0) if !self.core.trampoline.take_owed() => return false,
            Ok(answer) => self.call(answer),
            Err(_) if self.over.get() => self.call_if_owed(),
            Err(failure) => self.fail(&failure),
        }
        if !self.over.get() {
            self.refresh();
        }
        true
    }

    /// Points of tracing are published by JavaScript.
    #[inline]
    pub(super) fn owe_points(&self) {
        if !self.core.points.is_empty() {
            self.core.trampoline.owe();
        }
    }

    fn batch(&self, ctx: &AioContext) -> Result<u32> {
        let frames = &self.core.frames;
        let found = ctx.foreign_dispatch(&[], &mut std::iter::empty(), frames.batch(0)?)?;
        Ok(frames.answer(0, found, ctx.foreign_stop_requested()))
    }

    /// What hooks queued or threw, where no batch follows.
    pub(super) fn call_if_owed(&self) {
        if self.core.trampoline.take_owed() {
            self.call(0);
        }
    }

    /// One batch, in a callback scope.
    pub(super) fn call(&self, answer: u32) {
        let _ = self.core.trampoline.take_owed();
        // What hooks want is not counted: they run again whenever the other contexts look again.
        CALLS.set(CALLS.get() + u64::from(answer != 0));
        let Some(_handles) = Scope::open(self.env) else { return };
        if self.try_call(answer).is_some() {
            return;
        }
        let mut thrown = ptr::null_mut();
        // SAFETY: on the environment's thread, in a handle scope.
        if ok(unsafe { sys::napi_get_and_clear_last_exception(self.env, &mut thrown) }).is_some() {
            self.uncaught(thrown);
        }
    }

    fn try_call(&self, answer: u32) -> Option<()> {
        let env = self.env;
        let (mut run, mut this, mut result) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let mut argument = ptr::null_mut();
        // SAFETY: on the environment's thread, in a handle scope, with a reference that is alive;
        // this holds for each of these calls.
        ok(unsafe { sys::napi_get_reference_value(env, self.run.reference(), &mut run) })?;
        // SAFETY: as above.
        ok(unsafe { sys::napi_get_global(env, &mut this) })?;
        // SAFETY: as above.
        ok(unsafe { sys::napi_create_uint32(env, answer, &mut argument) })?;
        let scope = self.scope.get();
        // SAFETY: as above; the scope was made by `init_scope` and is destroyed by `finish`.
        ok(unsafe { sys::napi_make_callback(env, scope, this, run, 1, &argument, &mut result) })
    }

    /// As Node does for its own handles. In an environment that is ending it does nothing.
    fn uncaught(&self, error: sys::napi_value) {
        // SAFETY: on the environment's thread, in a handle scope.
        let _ = unsafe { sys::napi_fatal_exception(self.env, error) };
    }

    /// What ended a hook together with its thread. Below a callback of libuv's there is no frame of
    /// JavaScript that would take it, and what runs when the environment ends stumbles over it.
    #[cold]
    pub(super) fn forget_exception(&self) {
        let Some(_handles) = Scope::open(self.env) else { return };
        let mut pending = false;
        // SAFETY: on the environment's thread.
        let _ = unsafe { sys::napi_is_exception_pending(self.env, &mut pending) };
        if pending {
            let mut thrown = ptr::null_mut();
            // SAFETY: as above, in a handle scope.
            let _ = unsafe { sys::napi_get_and_clear_last_exception(self.env, &mut thrown) };
        }
    }

    /// The loop itself cannot go on: reported once, and the context leaves.
    #[cold]
    pub(super) fn fail(&self, failure: &Failure) {
        self.core.detach();
        self.call(LEFT);
        let Some(_handles) = Scope::open(self.env) else { return };
        let env = Env::from_raw(self.env);
        if let Ok(error) = failure.to_js(&env) {
            self.uncaught(error.raw());
        }
    }
}

/// Reports an uncaught exception now, in the asynchronous context that is entered.
#[napi]
pub fn uncaught_exception(env: Env, error: Unknown<'_>) {
    // SAFETY: in a call of this environment. In one that is ending it does nothing.
    let _ = unsafe { sys::napi_fatal_exception(env.raw(), error.raw()) };
}
