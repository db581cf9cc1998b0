//! What a context is made of on this side, for the methods of `NativeContext`, the hot functions and
//! the attachment to Node's loop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use fdmon::{AioContext, ErrorCode, Trace, TraceBuffer};
use napi::Env;
use napi::bindgen_prelude::{Function, Unknown};

use crate::attach::Attachment;
use crate::batch::Frames;
use crate::error::{Failure, Result, guard_or};
use crate::handler::Trampoline;

/// What a context is made of; the hot functions hold it too.
pub(crate) struct Core {
    /// None once closed: what the kernel holds goes with the turn that unwinds last, not with the
    /// garbage.
    ctx: RefCell<Option<Rc<AioContext>>>,
    pub(crate) id: u64,
    pub(crate) frames: Frames,
    pub(crate) trampoline: Rc<Trampoline>,
    /// Its place in Node's loop.
    attachment: RefCell<Option<Rc<Attachment>>>,
    /// The address of the suppress word by slot; a slot that was given up may still be in it.
    pub(crate) suppressed: RefCell<BTreeMap<u32, usize>>,
    /// Points of tracing that JavaScript asked for and has not taken yet.
    pub(crate) points: TraceBuffer,
    /// The trace that JavaScript asked for last.
    pub(crate) file_trace: RefCell<Option<Trace>>,
}

impl Core {
    pub(crate) fn new(ctx: AioContext, trampoline: Rc<Trampoline>) -> Self {
        Self {
            id: ctx.id(),
            ctx: RefCell::new(Some(Rc::new(ctx))),
            frames: Frames::default(),
            trampoline,
            attachment: RefCell::default(),
            suppressed: RefCell::default(),
            points: TraceBuffer::new(),
            file_trace: RefCell::default(),
        }
    }

    /// The context, if it is open.
    #[inline]
    pub(crate) fn maybe(&self) -> Option<Rc<AioContext>> {
        self.ctx.borrow().clone()
    }

    /// The context, or the error of one that is closed.
    #[inline]
    pub(crate) fn open(&self) -> Result<Rc<AioContext>> {
        self.maybe().ok_or_else(|| {
            let message = "the context is closed; create a new AioContext";
            Failure::new(ErrorCode::Closed, message)
        })
    }

    /// Joins Node's own loop, if it has not.
    pub(crate) fn attach(
        self: &Rc<Self>,
        env: &Env,
        run: &Function<'_, Unknown<'static>, Unknown<'static>>,
    ) -> Result<()> {
        if self.attached().is_none() {
            let attachment =
                Attachment::new(env, self, run).inspect_err(|_| self.leave_outer_loop())?;
            *self.attachment.borrow_mut() = Some(attachment);
        }
        Ok(())
    }

    /// Its place in Node's loop, if it has one.
    #[inline]
    pub(crate) fn attached(&self) -> Option<Rc<Attachment>> {
        self.attachment.borrow().clone()
    }

    /// Something of the context was changed from outside its turns.
    #[inline]
    pub(crate) fn touched(&self) {
        if let Some(attachment) = self.attached() {
            attachment.touched();
        }
    }

    /// Arms a timer for a time on the context's clock.
    pub(crate) fn arm(&self, slot: u32, deadline: u64) -> Result<()> {
        self.open()?.foreign_timer_arm(slot, deadline)?;
        self.touched();
        Ok(())
    }

    /// Leaves Node's loop: nobody else runs turns from here on, so spin mode is left, and what was
    /// found is kept for the next turn.
    pub(crate) fn detach(&self) {
        let Some(attachment) = self.attachment.take() else { return };
        let prepared = attachment.leave();
        if let Some(ctx) = self.maybe() {
            if prepared {
                let _ = ctx.check_if(false);
            }
            let _ = ctx.suspend();
        }
        self.leave_outer_loop();
    }

    /// Who prepares and checks it from here on is not libuv.
    fn leave_outer_loop(&self) {
        if let Some(ctx) = self.maybe() {
            let _ = ctx.set_outer_loop(fdmon::OuterLoop::default());
        }
    }

    /// Closes the context and lets it go; turns that are under way hold it until they unwind.
    pub(crate) fn close(&self) -> fdmon::LeakReport {
        // Before the fd that libuv watches is closed.
        if let Some(attachment) = self.attachment.take() {
            attachment.leave();
        }
        let report = self.maybe().map(|ctx| ctx.close()).unwrap_or_default();
        // Not before: hooks that ran just now may have asked for it.
        drop(self.ctx.take());
        self.trampoline.release();
        report
    }

    /// A suppress word belongs to one handler. The handler that is about to be replaced lets go of
    /// it first when it is to have the same one.
    pub(crate) fn free_suppress(&self, suppress: Option<usize>, replaces: i32) {
        let (Some(address), Ok(old)) = (suppress, u32::try_from(replaces)) else { return };
        // Nothing is borrowed over the removal, which may run `pollEnd`.
        let same = self.suppressed.borrow().get(&old) == Some(&address);
        if same && let Some(ctx) = self.maybe() {
            ctx.foreign_remove(old);
        }
    }

    /// Runs a step of a turn and puts what is due into the frame.
    #[inline]
    pub(crate) fn fill(
        &self,
        env: &Env,
        depth: u32,
        step: impl FnOnce(
            &AioContext,
            &[u32],
            &mut dyn Iterator<Item = u32>,
            &mut [i32],
        ) -> fdmon::Result<fdmon::ForeignBatch>,
    ) -> napi::Result<u32> {
        self.guard(env, || {
            let ctx = self.open()?;
            let batch = self.frames.batch(depth)?;
            let found = if depth == 0 {
                step(&ctx, &[], &mut std::iter::empty(), batch)?
            } else {
                let (running, waiting) = self.frames.around(depth);
                step(&ctx, &running, &mut waiting.into_iter(), batch)?
            };
            Ok(self.frames.answer(depth, found, ctx.foreign_stop_requested()))
        })
    }

    /// As [`guard`](crate::error::guard); a panic besides closes the context, whose state nobody can
    /// vouch for.
    #[inline]
    pub(crate) fn guard<T>(&self, env: &Env, body: impl FnOnce() -> Result<T>) -> napi::Result<T> {
        guard_or(env, body, || self.close_after_panic())
    }

    /// …for what does nothing to a context that is closed.
    pub(crate) fn with<T: Default>(
        &self,
        env: &Env,
        body: impl FnOnce(&AioContext) -> T,
    ) -> napi::Result<T> {
        self.guard(env, || Ok(self.maybe().map(|ctx| body(&ctx)).unwrap_or_default()))
    }

    /// Closes a context in which there was a panic, and lets it go even if closing it panics too.
    #[cold]
    pub(crate) fn close_after_panic(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.close())).is_err() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(self.ctx.take())));
            self.trampoline.release();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // In a finalizer, which no panic may leave.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.ctx.take())));
    }
}
