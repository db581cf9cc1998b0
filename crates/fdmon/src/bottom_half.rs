//! Bottom halves: work for the next turn, scheduled from any thread.

use std::rc::Weak;

use crate::context::{AioContext, Inner, State};
use crate::error::{Outcome, Result};
use crate::inbox::Node;
use crate::interest::word;
use crate::ops::Ops;
use crate::registry::{Callback, DueHalf, Entry, Half};
use crate::remote::{BottomHalfId, Remote, Shared, lock};
use crate::sync::{Arc, in_order};

/// A callback that runs in the turn after it was scheduled, once however often that was.
///
/// Dropping the handle deletes the bottom half; one that is scheduled runs first.
///
/// ```
/// # use std::{cell::Cell, rc::Rc};
/// let ctx = fdmon::AioContext::builder().build()?;
/// let runs = Rc::new(Cell::new(0));
/// let counter = runs.clone();
/// let half = ctx.bottom_half(move |_| { counter.set(counter.get() + 1); Ok(()) })?;
/// half.schedule();
/// half.schedule();
/// ctx.poll(false)?;
/// assert_eq!(runs.get(), 1);
/// # Ok::<(), fdmon::Error>(())
/// ```
#[derive(Debug)]
pub struct BottomHalf {
    id: BottomHalfId,
    remote: Remote,
    context: Weak<Inner>,
}

impl BottomHalf {
    /// Runs in the next turn. Overrides an earlier `schedule_idle`.
    pub fn schedule(&self) {
        if let Some(inner) = self.context.upgrade() {
            inner.schedule_half(self.node(), false);
        }
    }

    /// Runs in the next turn without being progress; the loop sleeps 10 ms at most until then.
    pub fn schedule_idle(&self) {
        if let Some(inner) = self.context.upgrade() {
            inner.schedule_half(self.node(), true);
        }
    }

    /// It does not run, if it is scheduled.
    pub fn cancel(&self) {
        if let Some(inner) = self.context.upgrade() {
            inner.cancel_half(self.node());
        }
    }

    /// Its name, for [`Remote::schedule`] from other threads.
    #[must_use]
    pub fn id(&self) -> BottomHalfId {
        self.id.clone()
    }

    /// The remote of its context.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Deletes it at once: it does not run. Also from its own callback.
    pub fn delete(self) {
        self.cancel();
    }

    fn node(&self) -> &Arc<Node> {
        &self.id.node
    }
}

impl Drop for BottomHalf {
    fn drop(&mut self) {
        let Some(inner) = self.context.upgrade() else { return };
        let mut st = inner.state();
        let node = &self.id.node;
        let pending = node.is_scheduled();
        let gone = match st.reg.entry(node.slot, node.generation) {
            Some(Entry::Half(half)) if pending => {
                half.orphan = true;
                None
            }
            Some(Entry::Half(_)) => st.delete_half(&inner.shared, node.slot),
            _ => None,
        };
        drop(st);
        drop(gone);
    }
}

impl AioContext {
    /// A bottom half that is not scheduled yet.
    ///
    /// # Errors
    /// `Closed`
    pub fn bottom_half(
        &self,
        f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static,
    ) -> Result<BottomHalf> {
        let node = self.0.add_half(Callback::Repeating(Box::new(f)))?;
        Ok(BottomHalf {
            id: BottomHalfId { node, context: self.id() },
            remote: self.remote(),
            context: std::rc::Rc::downgrade(&self.0),
        })
    }

    /// Runs a closure once, in the next turn.
    ///
    /// # Errors
    /// `Closed`
    pub fn schedule(&self, f: impl FnOnce(&mut Ops<'_>) -> Outcome + 'static) -> Result<()> {
        let node = self.0.add_half(Callback::Once(Box::new(f)))?;
        self.0.schedule_half(&node, false);
        Ok(())
    }
}

impl Inner {
    pub(crate) fn add_half(&self, callback: Callback) -> Result<Arc<Node>> {
        let mut st = self.open_state()?;
        let slot = st.reg.reserve()?.ok_or_else(no_words)?;
        Ok(st.add_half(&self.shared, slot, callback))
    }

    pub(crate) fn schedule_half(&self, node: &Arc<Node>, idle: bool) {
        let st = self.state();
        // Issued to the other side, which has not run it yet: it will, once.
        let pending = st.reg.words.get(node.slot);
        if pending & word::ISSUED != 0 && st.reg.generation(node.slot) == node.generation {
            if !idle {
                st.reg.words.set(node.slot, pending & !word::IDLE);
            }
            return;
        }
        drop(st);
        if node.schedule(idle) {
            self.shared.inbox.push(Arc::clone(node));
        }
    }

    pub(crate) fn cancel_half(&self, node: &Arc<Node>) {
        let mut st = self.state();
        if st.reg.entry(node.slot, node.generation).is_none() {
            return;
        }
        st.reg.words.set(node.slot, 0);
        if node.is_scheduled() {
            // Scheduled anew, it goes behind what was scheduled meanwhile.
            let forget = || {
                st.drain_inbox(&self.shared);
                st.scheduled.retain(|other| !Arc::ptr_eq(other, node));
                let due = |due: &DueHalf| matches!(due, DueHalf::Slot(slot) if *slot == node.slot);
                st.reg.halves_due.retain(|half| !due(half));
            };
            // As long as it counts as scheduled, nobody else pushes it: it would be forgotten too,
            // and then count as on its way for ever.
            in_order("cancel: order", forget, || node.cancel());
        }
    }
}

impl State {
    pub(crate) fn add_half(&mut self, shared: &Shared, slot: u32, callback: Callback) -> Arc<Node> {
        let generation = self.reg.next_generation(slot);
        let node = Node::bottom_half(slot, generation);
        let half = Half { node: Arc::clone(&node), callback, orphan: false };
        self.reg.fill(slot, Entry::Half(half));
        let mut halves = lock(&shared.halves);
        let index = slot as usize;
        if index >= halves.len() {
            halves.resize(index + 1, None);
        }
        halves[index] = Some(Arc::clone(&node));
        node
    }

    /// Takes the bottom half out; what is returned is to be dropped outside the borrow.
    pub(crate) fn delete_half(&mut self, shared: &Shared, slot: u32) -> Option<Entry> {
        let half = self.reg.half(slot)?;
        half.node.kill();
        if let Some(place) = lock(&shared.halves).get_mut(slot as usize) {
            *place = None;
        }
        Some(self.give_up(slot))
    }

    /// Empties a slot; between turns its number is free at once.
    pub(crate) fn give_up(&mut self, slot: u32) -> Entry {
        let entry = self.reg.vacate(slot, false);
        if self.depth == 0 {
            self.reg.bury();
        }
        entry
    }
}

/// The embedder did not supply enough words; its own calls check first.
pub(crate) fn no_words() -> crate::Error {
    crate::Error::new(
        crate::ErrorCode::Internal,
        "the pending words are full; report this with what led to it",
    )
}
