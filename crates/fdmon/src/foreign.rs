//! For bindings: contexts whose callbacks live in another language.
//!
//! The other side keeps a table of callbacks by slot and shares one array of pending words with
//! the core ([`AioContext::adopt_words`]). A turn is then: [`AioContext::foreign_turn`] finds what
//! is due, runs what is native, and fills a batch with the slots of the rest; the other side walks
//! the batch, takes each word (reads it, sets 0, skips 0) and runs the callbacks it names. See
//! [`crate::word`] for the bits.
//!
//! Slots are handed out by the `foreign_*` calls below, one index space for handlers, bottom
//! halves and timers. A slot's number is used again only when no turn is running.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use rustix::fd::RawFd;

use crate::context::AioContext;
use crate::error::{Outcome, Result};
use crate::handler::{Body, Handler, Probe};
use crate::inbox::Node;
use crate::interest::{Callbacks, Events, Interest, word};
use crate::registry::{Callback, DueHalf, Entry, Hints, TimerEntry};
use crate::remote::BottomHalfId;
use crate::sync::Arc;
use crate::turn::Due;
use crate::wait::Quick;
use crate::word_source::WordSource;

/// A predicate and hooks that live in another language. Called with nothing borrowed.
pub trait ForeignHooks: 'static {
    /// Runs the predicate.
    fn poll(&mut self) -> Probe;
    /// Spinning begins.
    fn poll_begin(&mut self);
    /// Spinning ends.
    fn poll_end(&mut self);
}

/// A handler whose callbacks live in another language.
#[derive(Default)]
pub struct ForeignHandler {
    /// What to watch at first; only what there are callbacks for.
    pub interest: Interest,
    /// The callbacks there are.
    pub callbacks: Callbacks,
    /// `disable_external` holds it back.
    pub external: bool,
    /// A predicate over shared memory, asked natively. It wins over that of `hooks`.
    pub word: Option<WordSource>,
    /// `hooks` has a predicate.
    pub predicate: bool,
    /// A predicate or hooks on the other side.
    pub hooks: Option<Box<dyn ForeignHooks>>,
    /// Spin on the kernel's readiness.
    pub kernel: bool,
    /// What traces call it.
    pub name: Option<Box<str>>,
}

impl std::fmt::Debug for ForeignHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForeignHandler")
            .field("interest", &self.interest)
            .field("callbacks", &self.callbacks)
            .finish_non_exhaustive()
    }
}

/// What [`AioContext::foreign_turn`] found.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForeignBatch {
    /// Slots written to the batch.
    pub count: usize,
    /// The batch was too small: call [`AioContext::foreign_more`] when it has run.
    pub more: bool,
    /// Something native and visible ran.
    pub progress: bool,
    /// [`AioContext::foreign_failures`] has something.
    pub failed: bool,
    /// Removed slots wait for [`AioContext::foreign_end`].
    pub cleanup: bool,
}

struct ForeignBody(Box<dyn ForeignHooks>);

impl Body for ForeignBody {
    // Its callbacks run from the batch.
    fn ready(&mut self, _: &AioContext, _: Events) -> Outcome {
        Ok(())
    }

    fn read(&mut self, _: &AioContext, _: Events) -> Outcome {
        Ok(())
    }

    fn write(&mut self, _: &AioContext, _: Events) -> Outcome {
        Ok(())
    }

    fn priority(&mut self, _: &AioContext, _: Events) -> Outcome {
        Ok(())
    }

    fn poll(&mut self) -> Probe {
        self.0.poll()
    }

    fn poll_begin(&mut self) {
        self.0.poll_begin();
    }

    fn poll_end(&mut self) {
        self.0.poll_end();
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl AioContext {
    /// Uses the embedder's memory for the pending words. To be called before the first slot is
    /// made, and again with more memory (what is pending is copied) when a `foreign_*` call that
    /// makes a slot returns `None`.
    ///
    /// # Safety
    /// `base` points at `len` aligned 32-bit words that live and stay in place until `owner` is
    /// dropped, and that only this thread writes.
    #[allow(unsafe_code)]
    pub unsafe fn adopt_words(&self, base: NonNull<u32>, len: usize, owner: Box<dyn Any>) {
        // SAFETY: passed on; AtomicU32 has the layout of u32.
        unsafe { self.0.state().reg.words.adopt(base.cast::<AtomicU32>(), len, owner) }
    }

    /// Registers a handler, replacing the one that the fd may have. `None` = more words are
    /// needed first.
    ///
    /// # Errors
    /// `BadFd`, `Closed`, `Syscall` when the kernel refuses the fd.
    pub fn foreign_handler(&self, fd: RawFd, foreign: ForeignHandler) -> Result<Option<u32>> {
        self.check_fd(fd)?;
        if self.0.state().reg.reserve()?.is_none() {
            return Ok(None);
        }
        let handler = Handler {
            callbacks: foreign.callbacks,
            wanted: foreign.interest & Interest::of(foreign.callbacks),
            external: foreign.external,
            has_poll: foreign.word.is_some() || foreign.predicate,
            kernel: foreign.kernel,
            name: foreign.name,
            word: foreign.word.map(Arc::new),
            hooked: foreign.hooks.is_some(),
            body: foreign.hooks.map(|hooks| Box::new(ForeignBody(hooks)) as Box<dyn Body>),
            foreign: true,
            ..Handler::new(fd)
        };
        let added = self.add_handler(handler);
        self.resume_panic();
        let (slot, _) = added.map_err(|(error, _)| error)?;
        Ok(Some(slot))
    }

    /// The slot that the next `foreign_*` call will hand out, unless that call replaces a handler
    /// and with it frees another. `None` = more words are needed first.
    ///
    /// # Errors
    /// `Closed`, `InvalidArg` when all slots are in use.
    pub fn foreign_next_slot(&self) -> Result<Option<u32>> {
        self.0.open_state()?.reg.reserve()
    }

    /// Changes what the handler in this slot hears.
    ///
    /// # Errors
    /// As [`crate::Token::set_interest`].
    pub fn foreign_set_interest(&self, slot: u32, interest: Interest) -> Result<bool> {
        let generation = self.0.state().reg.next_generation(slot);
        self.0.set_interest(slot, generation, interest)
    }

    /// Removes the handler in this slot, if it is one.
    pub fn foreign_remove(&self, slot: u32) {
        self.remove_slot(slot);
        self.resume_panic();
    }

    /// A bottom half; `None` = more words are needed first.
    ///
    /// # Errors
    /// `Closed`
    pub fn foreign_bottom_half(&self) -> Result<Option<u32>> {
        let mut st = self.0.open_state()?;
        let Some(slot) = st.reg.reserve()? else { return Ok(None) };
        st.add_half(&self.0.shared, slot, Callback::Foreign);
        Ok(Some(slot))
    }

    /// The bottom half in this slot, for any thread.
    #[must_use]
    pub fn foreign_bottom_half_id(&self, slot: u32) -> Option<BottomHalfId> {
        self.half_node(slot).map(|node| BottomHalfId { node, context: self.id() })
    }

    fn half_node(&self, slot: u32) -> Option<Arc<Node>> {
        self.0.state().reg.half(slot).map(|half| Arc::clone(&half.node))
    }

    /// Schedules the bottom half in this slot.
    pub fn foreign_schedule(&self, slot: u32, idle: bool) {
        if let Some(node) = self.half_node(slot) {
            self.0.schedule_half(&node, idle);
        }
    }

    /// Cancels the bottom half in this slot.
    pub fn foreign_cancel(&self, slot: u32) {
        if let Some(node) = self.half_node(slot) {
            self.0.cancel_half(&node);
        }
    }

    /// Deletes the bottom half in this slot.
    pub fn foreign_delete(&self, slot: u32) {
        self.foreign_cancel(slot);
        drop(self.0.state().delete_half(&self.0.shared, slot));
    }

    /// A timer; `None` = more words are needed first.
    ///
    /// # Errors
    /// `Closed`
    pub fn foreign_timer(&self) -> Result<Option<u32>> {
        let mut st = self.0.open_state()?;
        let Some(slot) = st.reg.reserve()? else { return Ok(None) };
        let timer = TimerEntry { callback: Callback::Foreign, orphan: false, rearmed: None };
        st.reg.fill(slot, Entry::Timer(timer));
        Ok(Some(slot))
    }

    /// Arms the timer in this slot for a time on the context's clock.
    ///
    /// # Errors
    /// `Closed`
    pub fn foreign_timer_arm(&self, slot: u32, deadline_ns: u64) -> Result<()> {
        let mut st = self.0.open_state()?;
        let generation = st.reg.next_generation(slot);
        st.arm(slot, generation, deadline_ns);
        Ok(())
    }

    /// Disarms the timer in this slot.
    pub fn foreign_timer_cancel(&self, slot: u32) {
        let mut st = self.0.state();
        let generation = st.reg.next_generation(slot);
        st.disarm_timer(slot, generation);
    }

    /// The timer in this slot is armed, or has expired and was not taken yet.
    #[must_use]
    pub fn foreign_timer_pending(&self, slot: u32) -> bool {
        let mut st = self.0.state();
        let generation = st.reg.next_generation(slot);
        st.timer_is_pending(slot, generation)
    }

    /// Deletes the timer in this slot.
    pub fn foreign_timer_delete(&self, slot: u32) {
        self.foreign_timer_cancel(slot);
        let mut st = self.0.state();
        if st.reg.timer(slot).is_some() {
            st.give_up(slot);
        }
    }

    /// One turn up to the batch.
    ///
    /// `running` are the slots whose callbacks run right now in the turns around this one, and
    /// `issued` the slots of those turns' batches that have not been walked yet: this turn may
    /// run them.
    ///
    /// # Errors
    /// `Closed`; `Syscall` when the kernel refuses to wait.
    pub fn foreign_turn(
        &self,
        blocking: bool,
        running: &[u32],
        issued: &mut dyn Iterator<Item = u32>,
        batch: &mut [i32],
    ) -> Result<ForeignBatch> {
        self.foreign_enter(running, issued)?;
        let found = self.foreign_find(blocking);
        self.foreign_leave(running);
        found?;
        Ok(self.foreign_more(running.len(), batch))
    }

    fn foreign_find(&self, blocking: bool) -> Result<()> {
        let mut st = self.0.open_state()?;
        match st.find_quickly(&self.0, blocking)? {
            Quick::One(slot, pending) => st.reg.collect(slot, pending),
            Quick::Due | Quick::Nothing => {}
            Quick::NeedsAll => {
                drop(st);
                let (turn, st) = self.enter()?;
                drop(self.find(st, blocking)?);
                drop(turn);
            }
        }
        Ok(())
    }

    /// The batch of what [`AioContext::check`] found, as [`AioContext::foreign_turn`].
    ///
    /// # Errors
    /// `Closed`
    pub fn foreign_dispatch(
        &self,
        running: &[u32],
        issued: &mut dyn Iterator<Item = u32>,
        batch: &mut [i32],
    ) -> Result<ForeignBatch> {
        self.foreign_enter(running, issued)?;
        self.foreign_leave(running);
        Ok(self.foreign_more(running.len(), batch))
    }

    fn foreign_enter(&self, running: &[u32], issued: &mut dyn Iterator<Item = u32>) -> Result<()> {
        let mut st = self.0.open_state()?;
        if running.is_empty() {
            st.reg.bury();
        } else {
            #[allow(clippy::cast_possible_truncation, reason = "nesting is far below 2^32")]
            let outer = running.len() as u32;
            st.depth += outer;
            for &slot in running {
                if let Some(handler) = st.reg.handler(slot) {
                    handler.running += 1;
                }
            }
            for slot in issued {
                st.reissue(slot);
            }
        }
        Ok(())
    }

    fn foreign_leave(&self, running: &[u32]) {
        if running.is_empty() {
            return;
        }
        let mut st = self.0.state();
        #[allow(clippy::cast_possible_truncation, reason = "nesting is far below 2^32")]
        let outer = running.len() as u32;
        st.depth -= outer;
        for &slot in running {
            if let Some(handler) = st.reg.handler(slot) {
                handler.running = handler.running.saturating_sub(1);
            }
        }
    }

    /// Fills a batch with what is due and runs what is native. `depth` counts the turns around
    /// this one.
    #[allow(clippy::cast_possible_wrap, reason = "slots are below 2^21")]
    pub fn foreign_more(&self, depth: usize, batch: &mut [i32]) -> ForeignBatch {
        let mut found = ForeignBatch::default();
        loop {
            let native = {
                let mut st = self.0.state();
                let mut native = None;
                while found.count < batch.len() {
                    match st.next_due(&self.0.shared) {
                        Some(Due::Foreign(slot)) => {
                            batch[found.count] = slot as i32;
                            found.count += 1;
                        }
                        due => {
                            native = due;
                            break;
                        }
                    }
                }
                if native.is_none() {
                    found.more = found.count == batch.len() && st.reg.hints.any(Hints::DUE);
                    found.failed = st.reg.hints.any(Hints::FAILURES);
                    found.cleanup = depth == 0 && !st.reg.graves.is_empty();
                    self.0.shared.stats.batch_max.raise_to(found.count as u64);
                    return found;
                }
                st.depth += 1;
                native
            };
            if let Some(due) = native {
                found.progress |= self.dispatch_one(due);
            }
            self.0.state().depth -= 1;
        }
    }

    /// The outermost batch has run: frees what was removed.
    pub fn foreign_end(&self) {
        let mut st = self.0.state();
        if st.depth == 0 {
            st.reg.bury();
        }
    }

    /// What failed since this was last asked: handlers removed because their fd was closed (with
    /// their slots), native callbacks that failed, and a panic, as text.
    #[must_use]
    #[allow(clippy::type_complexity)]
    pub fn foreign_failures(
        &self,
    ) -> (Vec<(Option<u32>, Box<dyn std::error::Error + Send + Sync>)>, Option<String>) {
        let failures = {
            let mut st = self.0.state();
            st.reg.hints.clear(Hints::FAILURES);
            std::mem::take(&mut st.failures)
        };
        let panic = failures.panics.into_iter().next().map(|(_, payload)| {
            payload
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a message".into())
        });
        (failures.errors, panic)
    }

    /// A `run` on the other side begins.
    ///
    /// # Errors
    /// `Closed`
    pub fn foreign_loop_begin(&self) -> Result<()> {
        self.0.open_state()?.loops += 1;
        Ok(())
    }

    /// …and ends: spin mode is left, and the outermost loop takes the stop.
    pub fn foreign_loop_end(&self) {
        self.leave_loop();
        self.resume_panic();
    }

    /// A stop is requested that no outermost loop has taken.
    #[must_use]
    pub fn foreign_stop_requested(&self) -> bool {
        self.stop_requested()
    }
}

impl crate::context::State {
    /// A slot of an outer batch that has not been walked yet goes back on its list.
    fn reissue(&mut self, slot: u32) {
        let pending = self.reg.words.get(slot);
        if pending & word::ISSUED == 0 {
            return;
        }
        if pending & (word::BOTTOM_HALF | word::IO) != 0 {
            self.reg.halves_due.push_back(DueHalf::Slot(slot));
        } else if pending & word::TIMER != 0 {
            self.reg.timers_due.push(slot);
        } else {
            self.reg.ready.push(slot);
        }
        self.reg.hints.set(Hints::DUE);
    }
}
