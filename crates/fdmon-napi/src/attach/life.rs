//! How an attachment begins, follows its context to another monitor, and ends.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use fdmon::{AioContext, ErrorCode, OuterLoop};
use napi::bindgen_prelude::{Function, Unknown};
use napi::{Env, JsValue, sys};
use rustix::event::epoll;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::phases::{on_check, on_events, on_prepare, on_timer, with};
use super::{Attachment, internal, ok};
use crate::core::Core;
use crate::error::{Failure, Result};
use crate::memory::Pinned;
use crate::uv::{Handle, Kind, RawHandle, Uv};

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
        let fd = Some(duplicate(backend)?);
        ctx.set_outer_loop(OuterLoop { fd, keeps_no_time: true })?;
        let fds = ctx.wake_fds()?;
        let own = duplicate(fds.events)?;
        let [prepare, check, idle, timer, events] = handles(uv, own.as_fd(), fds.timer)?;
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
            events: RefCell::new((events, own)),
            version: Cell::new(fds.version),
            blind: Cell::new(false),
            open: Cell::new(0),
            prepared: Cell::new(false),
            passed: Cell::new(None),
            idling: Cell::new(false),
            over: Cell::new(false),
            referenced: Cell::new(true),
            kept: Cell::new(false),
            alive: Cell::new(false),
        });
        attachment.start(fds.timer)?;
        Ok(attachment)
    }

    pub(super) fn start(self: &Rc<Self>, timer: BorrowedFd<'_>) -> Result<()> {
        self.each_handle(|handle| {
            handle.set_data(Rc::into_raw(Rc::clone(self)).cast());
            self.open.set(self.open.get() + 1);
        });
        let started = self.prepare.start_prepare(on_prepare) == 0
            && self.check.start_check(on_check) == 0
            && self.timer.start_poll(on_timer) == 0
            && self.events.borrow().0.start_poll(on_events) == 0
            && self.init_scope().is_some()
            && self.add_cleanup_hook().is_some();
        if !started {
            self.leave();
            return Err(internal("Node refused a place in its loop"));
        }
        let events = self.events.borrow();
        if let Err(failure) =
            self.be_watched(events.1.as_fd()).and_then(|()| self.be_watched(timer))
        {
            drop(events);
            self.leave();
            return Err(failure);
        }
        // Prepare may have been run already in this pass of the loop.
        self.stay_awake(true);
        Ok(())
    }

    pub(super) fn each_handle(&self, mut what: impl FnMut(&Handle)) {
        what(&self.prepare);
        what(&self.check);
        what(&self.idle);
        what(&self.timer);
        what(&self.events.borrow().0);
    }

    /// The context has moved to another monitor, or its set was filled anew.
    #[cold]
    pub(super) fn follow(&self, ctx: &AioContext) -> Result<()> {
        let fds = ctx.wake_fds()?;
        let own = duplicate(fds.events)?;
        let fresh = new_handle(self.uv, Kind::Poll, own.as_raw_fd())?;
        let mut events = self.events.borrow_mut();
        fresh.set_data(events.0.data());
        let watched = match fresh.start_poll(on_events) {
            0 => self.be_watched(own.as_fd()),
            _ => Err(internal("Node refused to watch the context")),
        };
        if watched.is_err() {
            fresh.discard();
            return watched;
        }
        let (old, old_fd) = std::mem::replace(&mut *events, (fresh, own));
        old.discard();
        drop(old_fd); // not before libuv has forgotten it
        self.version.set(fds.version);
        Ok(())
    }

    /// Puts an fd of the context into libuv's epoll set. libuv does that before it polls next, and
    /// aborts the process if the kernel refuses: a file may be watched through so many nested sets
    /// only. Done now, it is the handler that is one too many that is refused. libuv takes an fd
    /// that is in its set already.
    pub(super) fn be_watched(&self, fd: BorrowedFd<'_>) -> Result<()> {
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

/// libuv knows fds by number. This one stays taken for as long as libuv does, though the context may
/// close its own at any time.
fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fcntl_dupfd_cloexec(fd, 0).map_err(|errno| {
        Failure::syscall("fcntl", errno, "join Node's own loop", "see fcntl(2), F_DUPFD_CLOEXEC")
    })
}

/// All of them or none.
fn handles(uv: Uv, events: BorrowedFd<'_>, timer: BorrowedFd<'_>) -> Result<[Handle; 5]> {
    let kinds = [
        (Kind::Prepare, -1),
        (Kind::Check, -1),
        (Kind::Idle, -1),
        (Kind::Poll, timer.as_raw_fd()),
        (Kind::Poll, events.as_raw_fd()),
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
        attachment.core.close_after_panic();
    }
}
