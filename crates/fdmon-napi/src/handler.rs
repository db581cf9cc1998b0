//! The predicates and hooks of JavaScript, called from inside the loop.
//!
//! One function a context, `invoke(kind, slot)`, stands for all of them; it never throws. When the
//! call itself fails, the thread is being ended: nothing is called any more, and the turn returns
//! to JavaScript as soon as it can.
#![allow(
    unsafe_code,
    reason = "a call per spin round: plain Node-API, with scopes that close by drop"
)]

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;

use fdmon::{ForeignHooks, Probe, Remote};
use napi::sys;

use crate::memory::Pinned;

const PREDICATE: u32 = 0;
const BEGIN: u32 = 1;
const END: u32 = 2;

/// The answer of a hook that threw.
const THREW: u32 = 2;

/// Closed by drop, so that no early return leaves it open.
pub(crate) struct Scope {
    env: sys::napi_env,
    scope: sys::napi_handle_scope,
}

impl Scope {
    pub(crate) fn open(env: sys::napi_env) -> Option<Self> {
        let mut scope = ptr::null_mut();
        // SAFETY: the caller is in a native call on the thread of `env`.
        let status = unsafe { sys::napi_open_handle_scope(env, &mut scope) };
        (status == sys::Status::napi_ok).then_some(Self { env, scope })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: opened by `open`; scopes nest as Rust's values do.
        let _ = unsafe { sys::napi_close_handle_scope(self.env, self.scope) };
    }
}

/// The one way from the loop into JavaScript.
pub(crate) struct Trampoline {
    invoke: Pinned,
    /// None once the context is closed.
    remote: RefCell<Option<Remote>>,
    /// The context is being collected, or the thread ended: JavaScript is out of reach.
    dead: Cell<bool>,
    /// Hooks ran that may have queued something for JavaScript, or thrown: it must be entered once
    /// more where no turn of JavaScript's is under way.
    owed: Cell<bool>,
}

impl Trampoline {
    pub(crate) fn new(invoke: Pinned, remote: Remote) -> Self {
        Self {
            invoke,
            remote: RefCell::new(Some(remote)),
            dead: Cell::new(false),
            owed: Cell::new(false),
        }
    }

    /// From here on JavaScript is not called.
    pub(crate) fn cut(&self) {
        self.dead.set(true);
    }

    #[cfg(not(target_os = "wasi"))]
    pub(crate) fn is_cut(&self) -> bool {
        self.dead.get()
    }

    /// The context is closed; its wake-up goes with it.
    pub(crate) fn release(&self) {
        self.remote.take();
    }

    /// JavaScript must be entered once more.
    #[cfg(not(target_os = "wasi"))]
    pub(crate) fn owe(&self) {
        self.owed.set(true);
    }

    /// What hooks left to be done since this was last asked.
    #[cfg(not(target_os = "wasi"))]
    pub(crate) fn take_owed(&self) -> bool {
        self.owed.replace(false)
    }

    fn call(&self, kind: u32, slot: u32) -> Option<u32> {
        if self.dead.get() {
            return None;
        }
        let answer = self.try_call(kind, slot);
        if kind != PREDICATE || answer == Some(THREW) {
            self.owed.set(true);
        }
        if answer.is_none() {
            // An exception is pending that nobody can catch: this thread is being terminated. A
            // notified loop does not sleep.
            self.cut();
            if let Some(remote) = &*self.remote.borrow() {
                let _ = remote.notify();
            }
        }
        answer
    }

    fn try_call(&self, kind: u32, slot: u32) -> Option<u32> {
        let env = self.invoke.env();
        let scope = Scope::open(env)?;
        let mut function = ptr::null_mut();
        let mut this = ptr::null_mut();
        let mut arguments = [ptr::null_mut(); 2];
        let mut result = ptr::null_mut();
        let mut answer = 0;
        let ok = |status| (status == sys::Status::napi_ok).then_some(());
        // SAFETY: hooks run inside native calls of this environment, on its thread, and the
        // reference is alive as long as `self`; this holds for each of these calls.
        ok(unsafe { sys::napi_get_reference_value(env, self.invoke.reference(), &mut function) })?;
        // SAFETY: as above.
        ok(unsafe { sys::napi_get_undefined(env, &mut this) })?;
        // SAFETY: as above.
        ok(unsafe { sys::napi_create_uint32(env, kind, &mut arguments[0]) })?;
        // SAFETY: as above.
        ok(unsafe { sys::napi_create_uint32(env, slot, &mut arguments[1]) })?;
        // SAFETY: as above; the handles belong to the scope that is open.
        ok(unsafe {
            sys::napi_call_function(env, this, function, 2, arguments.as_ptr(), &mut result)
        })?;
        // SAFETY: as above.
        ok(unsafe { sys::napi_get_value_uint32(env, result, &mut answer) })?;
        drop(scope);
        Some(answer)
    }
}

/// The hooks of one handler.
pub(crate) struct Hooks {
    trampoline: Rc<Trampoline>,
    /// Known once the handler is registered, which is before anything of it is called.
    slot: Rc<Cell<u32>>,
    begin: bool,
    end: bool,
}

impl Hooks {
    pub(crate) fn new(
        trampoline: Rc<Trampoline>,
        slot: Rc<Cell<u32>>,
        begin: bool,
        end: bool,
    ) -> Self {
        Self { trampoline, slot, begin, end }
    }
}

impl ForeignHooks for Hooks {
    fn poll(&mut self) -> Probe {
        match self.trampoline.call(PREDICATE, self.slot.get()) {
            Some(0) => Probe::Miss,
            Some(1) => Probe::Hit,
            _ => Probe::Failed,
        }
    }

    fn poll_begin(&mut self) {
        if self.begin {
            self.trampoline.call(BEGIN, self.slot.get());
        }
    }

    fn poll_end(&mut self) {
        if self.end {
            self.trampoline.call(END, self.slot.get());
        }
    }
}
