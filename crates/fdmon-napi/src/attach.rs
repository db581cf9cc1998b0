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

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fdmon::{AioContext, ErrorCode, OuterLoop, WakeFds};
use napi::bindgen_prelude::{Function, Unknown};
use napi::{Env, JsValue, sys};
use rustix::event::epoll;
use rustix::io::Errno;

use crate::context::Core;
use crate::error::{Failure, Result};
use crate::handler::Scope;
use crate::memory::Pinned;
use crate::uv::{self, Handle, Kind, RawHandle, Uv};

/// While events come one after the other, libuv gets its turn this often.
const LOOK: Duration = Duration::from_micros(5);

thread_local! {
    /// The idle handles of this thread that run: what other contexts do to stay awake.
    static AWAKE: RefCell<Vec<Rc<Handle>>> = const { RefCell::new(Vec::new()) };
    /// How many batches the contexts of this thread have run.
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
    /// On the fd of the monitor that runs.
    events: RefCell<Handle>,
    /// By which a change of that fd is seen.
    version: Cell<u64>,
    /// Handles that libuv has not closed yet.
    open: Cell<u32>,
    /// Between prepare and check: libuv sleeps, or is about to.
    prepared: Cell<bool>,
    /// libuv was last left without a sleep.
    passed: Cell<Option<Passed>>,
    idling: Cell<bool>,
    over: Cell<bool>,
    /// `ref()` or `unref()`.
    referenced: Cell<bool>,
    /// A registration wants the process to live.
    kept: Cell<bool>,
    alive: Cell<bool>,
}

impl Attachment {
    /// Joins the loop of this environment.
    pub(crate) fn new(
        env: &Env,
        core: &Rc<Core>,
        run: &Function<'_, Unknown<'static>, Unknown<'static>>,
    ) -> Result<Rc<Self>> {
        let raw = env.raw();
        let uv = loop_of(raw).ok_or_else(|| {
            let message = "attach() needs libuv, which this runtime does not offer to addons; \
                           run the context with poll() or run(), or use Node";
            Failure::new(ErrorCode::Unsupported, message)
        })?;
        let ctx = core.open()?;
        // SAFETY: libuv's own epoll fd, which is open as long as its loop; used for this one call.
        let backend = unsafe { BorrowedFd::borrow_raw(uv.backend_fd()) };
        let fd = rustix::io::fcntl_dupfd_cloexec(backend, 0).map_err(|errno| {
            Failure::syscall("fcntl", errno, "watch Node's own loop", "see fcntl(2)")
        })?;
        ctx.set_outer_loop(OuterLoop { fd: Some(fd), keeps_no_time: true })?;
        let fds = ctx.wake_fds()?;
        let [prepare, check, idle, timer, events] = handles(uv, &fds)?;
        // SAFETY: `run` came with this call; the pin is dropped on this thread, before the
        // environment ends, since the cleanup hook waits for it.
        let run = unsafe { Pinned::new(raw, run.raw()) }.map_err(|error| internal(&error.reason));
        let run = match run {
            Ok(run) => run,
            Err(failure) => {
                [prepare, check, idle, timer, events].into_iter().for_each(Handle::discard);
                return Err(failure);
            }
        };
        let attachment = Rc::new(Self {
            env: raw,
            uv,
            core: Rc::clone(core),
            run,
            scope: Cell::new(ptr::null_mut()),
            cleanup: Cell::new(ptr::null_mut()),
            cleanup_ran: Cell::new(false),
            prepare,
            check,
            idle: Rc::new(idle),
            timer,
            events: RefCell::new(events),
            version: Cell::new(fds.version),
            open: Cell::new(0),
            prepared: Cell::new(false),
            passed: Cell::new(None),
            idling: Cell::new(false),
            over: Cell::new(false),
            referenced: Cell::new(true),
            kept: Cell::new(false),
            alive: Cell::new(false),
        });
        attachment.start(&fds)?;
        Ok(attachment)
    }

    fn start(self: &Rc<Self>, fds: &WakeFds<'_>) -> Result<()> {
        self.each_handle(|handle| {
            handle.set_data(Rc::into_raw(Rc::clone(self)).cast());
            self.open.set(self.open.get() + 1);
        });
        let started = self.prepare.start_prepare(on_prepare) == 0
            && self.check.start_check(on_check) == 0
            && self.timer.start_poll(on_timer) == 0
            && self.events.borrow().start_poll(on_events) == 0
            && self.init_scope().is_some()
            && self.add_cleanup_hook().is_some();
        if !started {
            self.leave();
            return Err(internal("Node refused a place in its loop"));
        }
        if let Err(failure) = self.be_watched(fds.events).and_then(|()| self.be_watched(fds.timer))
        {
            self.leave();
            return Err(failure);
        }
        // Prepare may have been run already in this pass of the loop.
        self.stay_awake(true);
        Ok(())
    }

    fn each_handle(&self, mut what: impl FnMut(&Handle)) {
        what(&self.prepare);
        what(&self.check);
        what(&self.idle);
        what(&self.timer);
        what(&self.events.borrow());
    }

    /// The context has moved to another monitor, or its set was filled anew.
    #[cold]
    fn follow(&self, ctx: &AioContext) -> Result<()> {
        let fds = ctx.wake_fds()?;
        let mut events = self.events.borrow_mut();
        // First, since the number may be the same one.
        events.stop_poll();
        let fresh = new_handle(self.uv, Kind::Poll, fds.events.as_raw_fd())?;
        fresh.set_data(events.data());
        let watched = match fresh.start_poll(on_events) {
            0 => self.be_watched(fds.events),
            _ => Err(internal("Node refused to watch the context")),
        };
        if watched.is_err() {
            fresh.discard();
            return watched;
        }
        std::mem::replace(&mut *events, fresh).discard();
        self.version.set(fds.version);
        Ok(())
    }

    /// Puts an fd of the context into libuv's epoll set. libuv does that before it polls next, and
    /// aborts the process if the kernel refuses: a file may be watched through so many nested sets
    /// only. Done now, it is the handler that is one too many that is refused. libuv takes an fd
    /// that is in its set already.
    fn be_watched(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let number = u64::from(fd.as_raw_fd().cast_unsigned());
        // SAFETY: as in `new`.
        let set = unsafe { BorrowedFd::borrow_raw(self.uv.backend_fd()) };
        match epoll::add(set, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => {
                let help = "attach fewer contexts that watch the same descriptors";
                Err(Failure::syscall("epoll_ctl", errno, "join Node's own loop", help))
            }
        }
    }

    fn init_scope(&self) -> Option<()> {
        let mut name = ptr::null_mut();
        let mut scope = ptr::null_mut();
        let text = c"FDMON_CONTEXT";
        // SAFETY: in a call of this environment; the text ends with a zero.
        ok(unsafe { sys::napi_create_string_utf8(self.env, text.as_ptr(), -1, &mut name) })?;
        let resource = ptr::null_mut(); // Node makes one and keeps it; a given one it only knows
        // SAFETY: as above.
        ok(unsafe { sys::napi_async_init(self.env, resource, name, &mut scope) })?;
        self.scope.set(scope);
        Some(())
    }

    fn add_cleanup_hook(self: &Rc<Self>) -> Option<()> {
        let mut handle = ptr::null_mut();
        let data = Rc::into_raw(Rc::clone(self)).cast_mut().cast::<c_void>();
        // SAFETY: in a call of this environment; `finish` or the hook gives the pointer back.
        let status = unsafe {
            sys::napi_add_async_cleanup_hook(self.env, Some(on_cleanup), data, &mut handle)
        };
        if ok(status).is_none() {
            // SAFETY: made above, and nobody took it.
            drop(unsafe { Rc::from_raw(data.cast_const().cast::<Self>()) });
            return None;
        }
        self.cleanup.set(handle);
        Some(())
    }

    // --- The phases of libuv ----------------------------------------------------------------------

    fn on_prepare(&self) {
        let mut limit = if self.nothing_ran_since() { None } else { Some(LOOK) };
        let mut since = None;
        while let Some(ctx) = self.context() {
            match self.ask(&ctx, limit) {
                Ok(true) => {}
                Ok(false) => return self.let_sleep(&ctx),
                // A hook has closed the context, or left the loop.
                Err(_) if self.over.get() => return self.call_if_owed(),
                Err(failure) => return self.fail(&failure),
            }
            // The turn that found something, or that libuv's own work has ended.
            if !self.take(&ctx, false) || self.over.get() {
                break;
            }
            let now = Instant::now();
            self.uv.update_time();
            if now - *since.get_or_insert(now) >= LOOK || self.uv.deadline() == Some(0) {
                break;
            }
            limit = Some(LOOK);
        }
        if !self.over.get() {
            self.passed.set(Some(self.pass()));
            self.refresh();
            self.stay_awake(true);
        }
    }

    fn let_sleep(&self, ctx: &AioContext) {
        self.prepared.set(true);
        if ctx.wake_version() != self.version.get()
            && let Err(failure) = self.follow(ctx)
        {
            return self.fail(&failure);
        }
        self.call_if_owed();
        self.refresh();
    }

    /// libuv has polled without sleeping, and as far as can be told nothing ran then. What ran
    /// before may have made sockets that libuv watches only once it polls: a spin could not see
    /// them, so a long one comes after such a pass.
    fn nothing_ran_since(&self) -> bool {
        let Some(passed) = self.passed.take() else { return false };
        self.uv.update_time();
        let due = passed.deadline.is_some_and(|at| self.uv.is_due(at));
        !due && self.uv.events() == passed.events && CALLS.get() == passed.calls
    }

    /// That other contexts stay awake too is no work of libuv's: taken for that, each would have
    /// the other look again, and neither would come to its spin or its sleep.
    fn pass(&self) -> Passed {
        let deadline = AWAKE.with_borrow(|awake| {
            awake.iter().for_each(|idle| idle.stop_idle());
            let deadline = self.uv.deadline();
            awake.iter().for_each(|idle| idle.start_idle(on_idle));
            deadline
        });
        Passed { events: self.uv.events(), calls: CALLS.get(), deadline }
    }

    /// Prepares the context, spinning if it does, not longer than `limit`. `false` = libuv may
    /// sleep.
    fn ask(&self, ctx: &AioContext, limit: Option<Duration>) -> Result<bool> {
        // The handle that kept libuv awake would have it say that it does not sleep.
        self.stay_awake(false);
        if !ctx.spins() {
            return Ok(ctx.prepare_until(None)? == Some(0));
        }
        self.uv.update_time();
        let mut until = self.uv.deadline();
        if let Some(limit) = limit {
            let at = ctx.now_ns().saturating_add(nanoseconds(limit));
            until = Some(until.map_or(at, |deadline| deadline.min(at)));
        }
        let left = ctx.prepare_until(until)?;
        self.uv.update_time(); // libuv computes its timeout from it
        Ok(left == Some(0))
    }

    fn on_events(&self) {
        if let Some(ctx) = self.context() {
            self.prepared.set(false);
            self.take(&ctx, true);
        }
    }

    /// libuv says so as long as nobody has set the timer anew: at the next prepare.
    fn on_timer(&self) {
        if let Some(ctx) = self.context()
            && self.prepared.replace(false)
        {
            self.take(&ctx, false);
        }
    }

    fn on_check(&self) {
        // It has done its work when libuv has polled. Until the next prepare it would only have
        // other contexts say that libuv does not sleep, and them this one.
        self.stay_awake(false);
        if let Some(ctx) = self.context()
            && self.prepared.replace(false)
        {
            self.take(&ctx, false);
        }
    }

    fn context(&self) -> Option<Rc<AioContext>> {
        if self.over.get() { None } else { self.core.maybe() }
    }

    /// Takes what there is and runs it. `true` = JavaScript ran.
    fn take(&self, ctx: &AioContext, readable: bool) -> bool {
        let answer = match ctx.check_if(readable) {
            Ok(true) => self.batch(ctx),
            Ok(false) => Ok(0),
            Err(error) => Err(error.into()),
        };
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

    fn batch(&self, ctx: &AioContext) -> Result<u32> {
        let frames = &self.core.frames;
        let found = ctx.foreign_dispatch(&[], &mut std::iter::empty(), frames.batch(0)?)?;
        Ok(frames.answer(0, found, ctx.foreign_stop_requested()))
    }

    /// What hooks queued or threw, where no batch follows.
    fn call_if_owed(&self) {
        if self.core.trampoline.take_owed() {
            self.call(0);
        }
    }

    /// One batch, in a callback scope.
    fn call(&self, answer: u32) {
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
    fn forget_exception(&self) {
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
    fn fail(&self, failure: &Failure) {
        self.core.detach();
        let Some(_handles) = Scope::open(self.env) else { return };
        let env = Env::from_raw(self.env);
        if let Ok(error) = failure.to_js(&env) {
            self.uncaught(error.raw());
        }
    }

    // --- Whether the loop sleeps, and whether it lives -----------------------------------------

    fn stay_awake(&self, awake: bool) {
        if self.over.get() || self.idling.replace(awake) == awake {
            return;
        }
        if awake {
            self.idle.start_idle(on_idle);
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
        let alive = self.referenced.get()
            && (self.kept.get() || self.core.maybe().is_some_and(|ctx| ctx.has_pending_work()));
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

    // --- The end ----------------------------------------------------------------------------------

    /// Leaves the loop. What libuv holds goes when its handles are closed. `true` = it was between
    /// prepare and check.
    pub(crate) fn leave(&self) -> bool {
        self.stay_awake(false);
        if !self.over.replace(true) {
            self.each_handle(|handle| handle.close(on_close));
        }
        self.prepared.replace(false)
    }

    /// libuv has closed the last handle.
    fn finish(&self) {
        let scope = self.scope.replace(ptr::null_mut());
        if !scope.is_null() {
            // SAFETY: made by `init_scope`, destroyed once, on the environment's thread.
            let _ = unsafe { sys::napi_async_destroy(self.env, scope) };
        }
        let cleanup = self.cleanup.replace(ptr::null_mut());
        if cleanup.is_null() {
            return;
        }
        // SAFETY: made by `add_cleanup_hook`, removed once; from here on the environment may end.
        let _ = unsafe { sys::napi_remove_async_cleanup_hook(cleanup) };
        if !self.cleanup_ran.get() {
            // SAFETY: the pointer that the hook got, which now never runs.
            drop(unsafe { Rc::from_raw(ptr::from_ref(self)) });
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: each handle holds the attachment until libuv has closed it.
        self.each_handle(|handle| unsafe { handle.free() });
    }
}

/// The loop of an environment, if its runtime has one.
fn loop_of(env: sys::napi_env) -> Option<Uv> {
    let mut of = ptr::null_mut();
    // SAFETY: in a call of this environment.
    ok(unsafe { sys::napi_get_uv_event_loop(env, &mut of) })?;
    // SAFETY: the loop of this environment, which ends after all its handles.
    unsafe { Uv::new(NonNull::new(of)?.cast()) }
}

/// All of them or none.
fn handles(uv: Uv, fds: &WakeFds<'_>) -> Result<[Handle; 5]> {
    let kinds = [
        (Kind::Prepare, -1),
        (Kind::Check, -1),
        (Kind::Idle, -1),
        (Kind::Poll, fds.timer.as_raw_fd()),
        (Kind::Poll, fds.events.as_raw_fd()),
    ];
    let mut made = Vec::new();
    for (kind, fd) in kinds {
        match new_handle(uv, kind, fd) {
            Ok(handle) => made.push(handle),
            Err(failure) => {
                made.into_iter().for_each(Handle::discard);
                return Err(failure);
            }
        }
    }
    made.try_into().map_err(|_| internal("libuv made no five handles"))
}

fn new_handle(uv: Uv, kind: Kind, fd: c_int) -> Result<Handle> {
    uv.handle(kind, fd).map_err(|status| {
        let errno = Errno::from_raw_os_error(-status);
        let advice = "close descriptors that are no longer used";
        Failure::syscall("uv_poll_init", errno, &format!("make a {kind:?} handle"), advice)
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn internal(text: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("{text}; report it with what led to it"))
}

fn ok(status: sys::napi_status) -> Option<()> {
    (status == sys::Status::napi_ok).then_some(())
}

// --- What libuv and the environment call ----------------------------------------------------------

/// Runs a step with the attachment of a handle. A panic closes the context.
fn with(handle: *mut RawHandle, step: impl FnOnce(&Attachment)) {
    // SAFETY: libuv passes the handle that it was given, and frees none before it is closed.
    let data = unsafe { uv::data_of(handle) }.cast_const().cast::<Attachment>();
    // SAFETY: `start` stored it, one count a handle, which is given back in `on_close`.
    unsafe { Rc::increment_strong_count(data) };
    // SAFETY: the count that was just taken.
    let attachment = unsafe { Rc::from_raw(data) };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| step(&attachment))) {
        attachment.core.close();
        attachment.fail(&Failure::panic(&*payload));
    }
    if attachment.core.trampoline.is_cut() {
        attachment.forget_exception();
    }
}

unsafe extern "C" fn on_prepare(handle: *mut RawHandle) {
    with(handle, Attachment::on_prepare);
}

unsafe extern "C" fn on_check(handle: *mut RawHandle) {
    with(handle, Attachment::on_check);
}

unsafe extern "C" fn on_events(handle: *mut RawHandle, _status: c_int, _events: c_int) {
    with(handle, Attachment::on_events);
}

unsafe extern "C" fn on_timer(handle: *mut RawHandle, _status: c_int, _events: c_int) {
    with(handle, Attachment::on_timer);
}

unsafe extern "C" fn on_idle(_handle: *mut RawHandle) {}

unsafe extern "C" fn on_close(handle: *mut RawHandle) {
    with(handle, |attachment| {
        let left = attachment.open.get() - 1;
        attachment.open.set(left);
        // SAFETY: the handle's own count, which nobody uses after this.
        unsafe { Rc::decrement_strong_count(ptr::from_ref(attachment)) };
        if left == 0 {
            attachment.finish();
        }
    });
}

/// The environment ends: nothing of JavaScript is called any more.
unsafe extern "C" fn on_cleanup(_: sys::napi_async_cleanup_hook_handle, data: *mut c_void) {
    // SAFETY: the pointer of `add_cleanup_hook`; the environment calls this once.
    let attachment = unsafe { Rc::from_raw(data.cast_const().cast::<Attachment>()) };
    attachment.cleanup_ran.set(true);
    attachment.core.trampoline.cut();
    let closed = catch_unwind(AssertUnwindSafe(|| attachment.core.close()));
    if closed.is_err() {
        attachment.leave();
    }
}
