//! A context inside Node's own loop: libuv's prepare, check and poll are prepare, check and
//! dispatch of the context.
//!
//! ```text
//! prepare   spin within libuv's timeout; run what was found; then let libuv sleep
//! poll      the context's events, or its timer: take what there is, run it
//! check     libuv woke for something else: take what came meanwhile
//! idle      runs, and so keeps libuv from sleeping, while the context must not sleep
//! ```
//!
//! A batch is one call into JavaScript in one callback scope, so nextTicks and microtasks run after
//! it as after any callback of Node. libuv's handles must be closed before their loop ends, which is
//! later than any finalizer: an async cleanup hook of the environment closes them, and is taken back
//! by the last close callback.
//!
//! <https://docs.libuv.org/en/v1.x/design.html#the-i-o-loop>
#![allow(unsafe_code, reason = "libuv's callbacks carry a pointer, and Node-API is C")]

mod life;
mod phases;
mod scope;

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use fdmon::ErrorCode;
use napi::sys;

use crate::core::Core;
use crate::error::Failure;
use crate::memory::Pinned;
use crate::uv::{Handle, Uv};

thread_local! {
    /// The idle handles of this thread that run: what other contexts do to stay awake.
    static AWAKE: RefCell<Vec<Rc<Handle>>> = const { RefCell::new(Vec::new()) };
    /// How often contexts of this thread have called JavaScript.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// libuv as a context left it when it did not let it sleep.
struct Passed {
    events: u64,
    calls: u64,
    deadline: Option<u64>,
}

/// One context's place in the loop of its environment.
pub(crate) struct Attachment {
    env: sys::napi_env,
    uv: Uv,
    core: Rc<Core>,
    /// `run(answer)`: walks the batch in frame 0, throws what its callbacks threw.
    run: Pinned,
    /// For async_hooks: in whose name batches are called.
    scope: Cell<sys::napi_async_context>,
    cleanup: Cell<sys::napi_async_cleanup_hook_handle>,
    /// The environment has called the hook, and with it given back what the hook holds.
    cleanup_ran: Cell<bool>,
    prepare: Handle,
    check: Handle,
    idle: Rc<Handle>,
    timer: Handle,
    /// On the fd of the monitor that runs, and the duplicate by which libuv knows it.
    events: RefCell<(Handle, OwnedFd)>,
    /// By which a change of that fd is seen.
    version: Cell<u64>,
    /// libuv could not be made to watch that fd.
    blind: Cell<bool>,
    /// Handles that libuv has not closed yet.
    open: Cell<u32>,
    /// Between prepare and check: libuv sleeps, or is about to.
    prepared: Cell<bool>,
    /// libuv was last left without a sleep.
    passed: Cell<Option<Passed>>,
    /// The idle handle is started.
    idling: Cell<bool>,
    /// It has left the loop; libuv may not have closed its handles yet.
    over: Cell<bool>,
    /// `ref()` or `unref()`.
    referenced: Cell<bool>,
    /// A registration wants the process to live.
    kept: Cell<bool>,
    /// What libuv was told last.
    alive: Cell<bool>,
}

impl Attachment {
    /// Whether libuv must come back without sleeping.
    fn stay_awake(&self, awake: bool) {
        if self.over.get() || self.idling.replace(awake) == awake {
            return;
        }
        if awake {
            self.idle.start_idle(phases::on_idle);
            AWAKE.with_borrow_mut(|all| all.push(Rc::clone(&self.idle)));
        } else {
            self.idle.stop_idle();
            AWAKE.with_borrow_mut(|all| all.retain(|idle| !Rc::ptr_eq(idle, &self.idle)));
        }
    }

    /// JavaScript has changed something of the context: the sleep that was prepared may be wrong.
    pub(crate) fn touched(&self) {
        if self.prepared.get() {
            self.stay_awake(true);
        }
        self.refresh();
    }

    /// The loop lives as long as there is something to wait for.
    fn refresh(&self) {
        let ctx = self.core.maybe();
        let waits = ctx.as_ref().is_some_and(|ctx| ctx.has_pending_work());
        // File I/O ends soon, and somebody waits for it: as Node's own it keeps the process alive.
        let alive = (self.referenced.get() && (self.kept.get() || waits))
            || ctx.is_some_and(|ctx| ctx.has_io());
        if !self.over.get() && self.alive.replace(alive) != alive {
            self.prepare.keep_alive(alive);
        }
    }

    pub(crate) fn set_referenced(&self, on: bool) {
        self.referenced.set(on);
        self.refresh();
    }

    pub(crate) fn keep(&self, on: bool) {
        self.kept.set(on);
        self.refresh();
    }
}

fn internal(text: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("{text}; report it with what led to it"))
}

fn ok(status: sys::napi_status) -> Option<()> {
    (status == sys::Status::napi_ok).then_some(())
}
