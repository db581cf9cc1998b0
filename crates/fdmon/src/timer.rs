//! Timers: the handle, and a 4-ary heap over slots, ordered by deadline and then by the order of arming.
//!
//! Arm, cancel and expire are O(log n). The heap knows where each slot sits, so a timer is moved
//! or taken out without a search.

use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::bottom_half::no_words;
use crate::context::{AioContext, Inner, State};
use crate::error::{Outcome, Result};
use crate::interest::word;
use crate::ops::Ops;
use crate::registry::{Callback, Entry, Hints, TimerEntry};

/// A callback at a time: one-shot, on the monotonic clock, never early.
///
/// Dropping the handle deletes the timer; one that is armed fires first.
///
/// ```
/// # use std::{cell::Cell, rc::Rc, time::Duration};
/// let ctx = fdmon::AioContext::builder().build()?;
/// let fired = Rc::new(Cell::new(false));
/// let flag = fired.clone();
/// let timer = ctx.timer(move |_| { flag.set(true); Ok(()) })?;
/// timer.arm(Duration::from_micros(50))?;
/// ctx.poll(true)?;
/// assert!(fired.get() && !timer.is_pending());
/// # Ok::<(), fdmon::Error>(())
/// ```
#[derive(Debug)]
pub struct Timer {
    slot: u32,
    generation: u32,
    context: Weak<Inner>,
}

impl Timer {
    /// Fires this long from now. One that is armed already is moved.
    ///
    /// # Errors
    /// `Closed`
    pub fn arm(&self, delay: Duration) -> Result<()> {
        let inner = self.context.upgrade().ok_or_else(crate::Error::closed)?;
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        let deadline = inner.clock.now().saturating_add(delay);
        inner.open_state()?.arm(self.slot, self.generation, deadline);
        Ok(())
    }

    /// Fires at this time on the context's clock ([`AioContext::now_ns`]).
    ///
    /// # Errors
    /// `Closed`
    pub fn arm_at(&self, deadline_ns: u64) -> Result<()> {
        let inner = self.context.upgrade().ok_or_else(crate::Error::closed)?;
        inner.open_state()?.arm(self.slot, self.generation, deadline_ns);
        Ok(())
    }

    /// It does not fire, if it is armed.
    pub fn cancel(&self) {
        if let Some(inner) = self.context.upgrade() {
            inner.state().disarm_timer(self.slot, self.generation);
        }
    }

    /// It is armed, or has expired and runs later in this turn.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.context
            .upgrade()
            .is_some_and(|inner| inner.state().timer_is_pending(self.slot, self.generation))
    }

    /// Deletes it at once: it does not fire.
    pub fn delete(self) {
        self.cancel();
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(inner) = self.context.upgrade() else { return };
        let mut st = inner.state();
        let pending = st.timer_is_pending(self.slot, self.generation);
        let gone = match st.reg.entry(self.slot, self.generation) {
            Some(Entry::Timer(timer)) if pending => {
                timer.orphan = true;
                None
            }
            Some(Entry::Timer(_)) => Some(st.give_up(self.slot)),
            _ => None,
        };
        drop(st);
        drop(gone);
    }
}

impl AioContext {
    /// A timer that is not armed yet.
    ///
    /// # Errors
    /// `Closed`
    pub fn timer(&self, f: impl FnMut(&mut Ops<'_>) -> Outcome + 'static) -> Result<Timer> {
        let mut st = self.0.open_state()?;
        let slot = st.reg.reserve()?.ok_or_else(no_words)?;
        let callback = Callback::Repeating(Box::new(f));
        let timer = TimerEntry { callback, orphan: false, rearmed: None };
        let generation = st.reg.fill(slot, Entry::Timer(timer));
        Ok(Timer { slot, generation, context: Rc::downgrade(&self.0) })
    }
}

impl State {
    pub(crate) fn arm(&mut self, slot: u32, generation: u32, deadline: u64) {
        let Some(Entry::Timer(timer)) = self.reg.entry(slot, generation) else { return };
        let order = self.timers.next_order();
        if matches!(timer.callback, Callback::Running) {
            timer.rearmed = Some((deadline, order)); // no nested turn can run it
            return;
        }
        self.reg.words.set(slot, 0);
        self.timers.arm(slot, deadline, order);
        self.reg.hints.set(Hints::TIMERS);
    }

    pub(crate) fn disarm_timer(&mut self, slot: u32, generation: u32) {
        if let Some(Entry::Timer(timer)) = self.reg.entry(slot, generation) {
            timer.rearmed = None;
            self.reg.words.set(slot, 0);
            self.timers.cancel(slot);
        }
    }

    pub(crate) fn timer_is_pending(&mut self, slot: u32, generation: u32) -> bool {
        let Some(Entry::Timer(timer)) = self.reg.entry(slot, generation) else { return false };
        timer.rearmed.is_some()
            || self.timers.is_armed(slot)
            || self.reg.words.get(slot) & word::TIMER != 0
    }
}

const NONE: u32 = u32::MAX;
const ARITY: usize = 4;

#[derive(Clone, Copy)]
struct Armed {
    deadline: u64,
    /// Order of arming, which breaks ties between equal deadlines.
    order: u64,
    slot: u32,
}

impl Armed {
    /// One number, which is compared without a branch.
    fn key(&self) -> u128 {
        u128::from(self.deadline) << 64 | u128::from(self.order)
    }
}

#[derive(Default)]
pub(crate) struct TimerHeap {
    heap: Vec<Armed>,
    /// Where each slot's timer sits in `heap`, or `NONE`.
    position: Vec<u32>,
    armed_so_far: u64,
}

impl TimerHeap {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The soonest deadline.
    #[inline]
    pub fn deadline(&self) -> Option<u64> {
        self.heap.first().map(|t| t.deadline)
    }

    pub fn is_armed(&self, slot: u32) -> bool {
        self.position.get(slot as usize).is_some_and(|&p| p != NONE)
    }

    /// The place of a timer that is armed now among those of the same deadline.
    pub fn next_order(&mut self) -> u64 {
        self.armed_so_far += 1;
        self.armed_so_far
    }

    /// Arms the slot's timer; one that is armed already is moved.
    pub fn arm(&mut self, slot: u32, deadline: u64, order: u64) {
        self.cancel(slot);
        let index = slot as usize;
        if index >= self.position.len() {
            self.position.resize(index + 1, NONE);
        }
        self.heap.push(Armed { deadline, order, slot });
        self.sift_up(self.heap.len() - 1);
    }

    /// `true` = it was armed.
    pub fn cancel(&mut self, slot: u32) -> bool {
        let Some(at) = self.position.get(slot as usize).copied().filter(|&p| p != NONE) else {
            return false;
        };
        let at = at as usize;
        self.position[slot as usize] = NONE;
        let last = self.heap.len() - 1;
        self.heap.swap_remove(at);
        if at < last {
            // The one that filled the gap may belong above or below it.
            let at = self.sift_up(at);
            self.sift_down(at);
        }
        true
    }

    /// Takes the next timer that is due at `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<u32> {
        let first = self.heap.first().filter(|t| t.deadline <= now)?;
        let slot = first.slot;
        self.cancel(slot);
        Some(slot)
    }

    #[allow(clippy::cast_possible_truncation, reason = "there are fewer timers than slots, a u32")]
    fn place(&mut self, at: usize, timer: Armed) {
        self.heap[at] = timer;
        self.position[timer.slot as usize] = at as u32;
    }

    fn sift_up(&mut self, mut at: usize) -> usize {
        let timer = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.heap[parent].key() <= timer.key() {
                break;
            }
            self.place(at, self.heap[parent]);
            at = parent;
        }
        self.place(at, timer);
        at
    }

    /// The gap goes down to a leaf, always to the least child, and the timer up again from there: it
    /// comes from the end of the heap and nearly always belongs that far down.
    fn sift_down(&mut self, mut at: usize) {
        let timer = self.heap[at];
        while let Some((least, child)) = self.least_child(at) {
            self.place(at, child);
            at = least;
        }
        self.heap[at] = timer;
        self.sift_up(at);
    }

    fn least_child(&self, at: usize) -> Option<(usize, Armed)> {
        let first = at * ARITY + 1;
        if let Some(&[a, b, c, d]) = self.heap.get(first..first + ARITY) {
            let left = if b.key() < a.key() { (1, b) } else { (0, a) };
            let right = if d.key() < c.key() { (3, d) } else { (2, c) };
            let (nth, least) = if right.1.key() < left.1.key() { right } else { left };
            return Some((first + nth, least));
        }
        let rest = self.heap.get(first..)?.iter().enumerate();
        rest.min_by_key(|(_, timer)| timer.key()).map(|(nth, timer)| (first + nth, *timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC 39
    #[test]
    fn timers_expire_by_deadline_and_then_in_the_order_of_arming() {
        let mut heap = TimerHeap::default();
        for slot in 0..100_u32 {
            let order = heap.next_order();
            heap.arm(slot, u64::from(slot % 7), order);
        }
        heap.cancel(14);
        heap.arm(0, 3, 101);
        let mut got = Vec::new();
        while let Some(slot) = heap.pop_due(10) {
            got.push(slot);
        }
        let mut want: Vec<u32> = (1..100).filter(|s| *s != 14).collect();
        want.sort_by_key(|s| s % 7);
        let after_threes = want.iter().rposition(|s| s % 7 == 3).unwrap() + 1;
        want.insert(after_threes, 0);
        assert_eq!(got, want);
    }

    /// SPEC 39
    #[test]
    fn a_million_timers_cost_the_logarithm() {
        let mut heap = TimerHeap::default();
        let mut seed = 1_u64;
        for slot in 0..1_000_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            heap.arm(slot, seed >> 20, slot.into());
        }
        for slot in (0..1_000_000).step_by(2) {
            assert!(heap.cancel(slot));
        }
        let mut last = 0;
        let mut count = 0;
        while let Some(deadline) = heap.deadline() {
            assert!(deadline >= last);
            last = deadline;
            assert!(heap.pop_due(deadline).is_some());
            count += 1;
        }
        assert_eq!(count, 500_000);
    }
}
