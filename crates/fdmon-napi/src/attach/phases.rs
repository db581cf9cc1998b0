//! The phases of libuv, as a context sees them.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fdmon::AioContext;

use super::{AWAKE, Attachment, CALLS, Passed};
use crate::error::{Failure, Result};
use crate::uv::{self, RawHandle};

/// While events come one after the other, libuv gets its turn this often.
const LOOK: Duration = Duration::from_micros(5);

impl Attachment {
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

    pub(super) fn let_sleep(&self, ctx: &AioContext) {
        self.prepared.set(true);
        if ctx.wake_version() != self.version.get() {
            // Where libuv cannot watch the new fd, the kernel is asked in each pass.
            self.blind.set(self.follow(ctx).is_err());
            self.stay_awake(self.blind.get());
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
            let left = ctx.prepare_until(None)?;
            self.owe_points();
            return Ok(left == Some(0));
        }
        self.uv.update_time();
        let mut until = self.uv.deadline();
        if let Some(limit) = limit {
            let at = ctx.now_ns().saturating_add(nanoseconds(limit));
            until = Some(until.map_or(at, |deadline| deadline.min(at)));
        }
        let left = ctx.prepare_until(until)?;
        self.owe_points();
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
            self.take(&ctx, self.blind.get());
        }
    }

    fn context(&self) -> Option<Rc<AioContext>> {
        if self.over.get() { None } else { self.core.maybe() }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
/// Runs a step with the attachment of a handle. A panic closes the context.
pub(super) fn with(handle: *mut RawHandle, step: impl FnOnce(&Attachment)) {
    // SAFETY: libuv passes the handle that it was given, and frees none before it is closed.
    let data = unsafe { uv::data_of(handle) }.cast_const().cast::<Attachment>();
    // SAFETY: `start` stored it, one count a handle, which is given back in `on_close`.
    unsafe { Rc::increment_strong_count(data) };
    // SAFETY: the count that was just taken.
    let attachment = unsafe { Rc::from_raw(data) };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| step(&attachment))) {
        attachment.core.close_after_panic();
        attachment.fail(&Failure::panic(&*payload));
    }
    if attachment.core.trampoline.is_cut() {
        attachment.forget_exception();
    }
}

pub(super) unsafe extern "C" fn on_prepare(handle: *mut RawHandle) {
    with(handle, Attachment::on_prepare);
}

pub(super) unsafe extern "C" fn on_check(handle: *mut RawHandle) {
    with(handle, Attachment::on_check);
}

pub(super) unsafe extern "C" fn on_events(handle: *mut RawHandle, _status: c_int, _events: c_int) {
    with(handle, Attachment::on_events);
}

pub(super) unsafe extern "C" fn on_timer(handle: *mut RawHandle, _status: c_int, _events: c_int) {
    with(handle, Attachment::on_timer);
}

pub(super) unsafe extern "C" fn on_idle(_handle: *mut RawHandle) {}
