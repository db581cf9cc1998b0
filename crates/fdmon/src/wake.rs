//! The wake-up protocol, a function a step: what a notifier does, and what the loop does around its
//! sleep. The models in `models` run these, through whole turns, in every order.
//!
//! ```text
//! notifier                              loop
//! publish                               notify_me up
//! notified = true                       full barrier
//! full barrier                          notified? then no sleep
//! notify_me up, and nobody has          sleep, notify_me down
//! signalled that sleep? then signal
//!                                       accept: notified = false, then read what was published
//! ```
//!
//! Whichever comes second of the two barriers sees the other side's word, so either the notifier
//! signals or the loop does not sleep.

use crate::inbox::Node;
use crate::notifier;
use crate::remote::Shared;
use crate::sync::{Arc, Ordering, fence, in_order, kept, ordered};

use rustix::fd::AsFd;

/// Set in `notify_me` by an outer loop between prepare and check. The bits below [`NOTED`] count turns,
/// those from [`SLEEP`] on number the sleeps, so that `notify_me` never says the same of two of them.
const EMBEDDED: u64 = 1 << 17;
/// Set in `notify_me` while a trace is to know who notifies: he looks more closely then, as he does at
/// a sleeper, so that nobody else pays for it.
const NOTED: u64 = 1 << 16;
/// One sleep more: after 2^46 of them the numbers begin anew.
const SLEEP: u64 = 1 << 18;
/// Whether a turn or an outer loop sleeps, or is about to.
const ASLEEP: u64 = (SLEEP - 1) & !NOTED;

impl Shared {
    /// Wakes the loop if it sleeps or is about to. What was written before is seen by the turn.
    #[inline]
    pub fn notify(&self) {
        let tell = || {
            // A swap, although what was there is of no interest: a chain of swaps carries to
            // `accept` what each of several notifiers has published, not only the last. And who
            // finds it set does not leave the signal to who has set it, who may have been killed.
            let order = ordered("notify: release", Ordering::Release);
            let was_told = kept("notify: at once") && self.notified.swap(true, order);
            if !kept("notify: at once") {
                self.notified.store(true, order);
            }
            if kept("notify: barrier") {
                fence(Ordering::SeqCst);
            }
            was_told && !kept("notify: again")
        };
        let asleep = || self.notify_me.load(Ordering::Relaxed);
        let (left_to_another, asleep) = in_order("notify: order", tell, asleep);
        let concerned = asleep & (ASLEEP | NOTED) != 0 && !left_to_another && self.home.is_here();
        if !concerned || !self.end_sleep(asleep) {
            self.stats.notifies_elided.bump_shared();
        }
    }

    /// Signals, once `notify_me` says anything. `false` = nobody sleeps, or this sleep was ended.
    #[inline(never)]
    fn end_sleep(&self, notify_me: u64) -> bool {
        if notify_me & NOTED != 0 {
            self.caller.note();
        }
        if notify_me & ASLEEP == 0 {
            return false;
        }
        // A turn's sleep is ended by one signal, however long its thread then waits for a CPU. Who finds
        // this set knows that the signal is out, and needs nobody for it. What an outer loop makes of
        // one is not known.
        if notify_me & EMBEDDED == 0 {
            let ended = self.signalled.load(Ordering::Relaxed);
            if ended == notify_me || (ended != 0 && !kept("signal: which")) {
                return false;
            }
        }
        self.stats.notifies_sent.bump_shared();
        let signal = || notifier::wake(self.notifier.as_fd()); // it lives as long as `self`
        in_order("signal: order", signal, || self.signalled.store(notify_me, Ordering::Release));
        true
    }

    /// Home thread: the signal was taken, while a turn or an outer loop goes on to sleep for which it was
    /// perhaps meant, and on which others count. From here on it is another sleep; a turn looks whether
    /// somebody notified before it goes on, and an outer loop gets the signal back.
    pub fn signal_taken(&self) {
        let asleep = self.notify_me.load(Ordering::Relaxed);
        if asleep & ASLEEP == 0 {
            return;
        }
        if kept("taken: another") {
            self.notify_me.store(asleep.wrapping_add(SLEEP), Ordering::Relaxed);
        }
        if kept("taken: barrier") {
            fence(Ordering::SeqCst);
        }
        if asleep & EMBEDDED != 0 && self.is_notified() && kept("taken: back") {
            notifier::wake(self.notifier.as_fd());
        }
    }

    /// A turn or an outer loop sleeps, or is about to.
    #[cfg(all(test, loom))]
    pub fn is_asleep(&self) -> bool {
        self.notify_me.load(Ordering::Relaxed) & ASLEEP != 0
    }

    /// Home thread: whether who notifies notes that from now on.
    pub fn note_callers(&self, on: bool) {
        let others = self.notify_me.load(Ordering::Relaxed) & !NOTED;
        self.notify_me.store(if on { others | NOTED } else { others }, Ordering::Relaxed);
    }

    /// Hands a node to the loop and wakes it.
    pub fn deliver(&self, node: Arc<Node>) {
        in_order("deliver: order", || self.inbox.push(node), || self.notify());
        self.delivered();
    }

    /// A loop that is closed takes nothing: who has put something in after that takes it out again,
    /// or what it holds would live on, a [`Remote`](crate::Remote) of this context perhaps. Between
    /// the push and this there is the barrier of `notify`; `close` has the other one.
    pub fn delivered(&self) {
        if kept("deliver: closed") && self.closed.load(Ordering::Relaxed) {
            self.inbox.drain(drop);
        }
    }

    /// From here on nothing is delivered: either the last drain, which follows, sees what was pushed,
    /// or who pushed sees this.
    pub fn close(&self) {
        if kept("close: told") {
            self.closed.store(true, Ordering::Relaxed);
        }
        if kept("close: barrier") {
            fence(Ordering::SeqCst);
        }
    }

    /// Takes what was published: the caller reads the inbox and the timers after this.
    #[inline]
    pub fn accept(&self) -> bool {
        if !self.notified.load(Ordering::Relaxed) {
            return false; // published later = seen by the next turn before it sleeps
        }
        // Whose flag this clears may have seen an awake loop, and signals nothing: what it has
        // published must be seen from here on, hence acquire.
        let order = ordered("accept: acquire", Ordering::Acquire);
        if kept("accept: at once") {
            self.notified.swap(false, order);
        } else {
            self.notified.load(order);
            self.notified.store(false, Ordering::Relaxed);
        }
        self.stats.accepted.bump();
        true
    }

    /// Somebody has published work since the loop last accepted.
    #[inline]
    pub fn is_notified(&self) -> bool {
        self.notified.load(Ordering::Relaxed)
    }

    /// A turn is about to sleep. `false` = it must not; either way it calls [`Shared::has_slept`].
    #[inline(always)]
    pub fn about_to_sleep(&self) -> bool {
        let ((), notified) = in_order(
            "sleep: order",
            || {
                if kept("sleep: raise") {
                    let turns = self.notify_me.load(Ordering::Relaxed);
                    self.notify_me.store(turns.wrapping_add(SLEEP + 1), Ordering::Relaxed);
                }
                if kept("sleep: barrier") {
                    fence(Ordering::SeqCst);
                }
            },
            || self.is_notified(),
        );
        !notified
    }

    #[inline(always)]
    pub fn has_slept(&self) {
        let turns = self.notify_me.load(Ordering::Relaxed);
        let left = if kept("sleep: count") { turns.wrapping_sub(1) } else { 0 };
        self.notify_me.store(left, Ordering::Relaxed);
    }

    /// The mutation that lowers `notify_me` before the sleep; else nothing.
    #[inline(always)]
    pub fn lower_early(&self, step: &str) {
        if !kept(step) {
            self.notify_me.store(0, Ordering::Relaxed);
        }
    }

    /// An outer loop is about to sleep. `false` = it must not; either way it calls
    /// [`Shared::outer_has_slept`].
    pub fn outer_about_to_sleep(&self) -> bool {
        let ((), notified) = in_order(
            "prepare: order",
            || {
                if kept("prepare: raise") {
                    let turns = self.notify_me.load(Ordering::Relaxed);
                    let asleep = turns.wrapping_add(SLEEP) | EMBEDDED;
                    self.notify_me.store(asleep, Ordering::Relaxed);
                }
                if kept("prepare: barrier") {
                    fence(Ordering::SeqCst);
                }
            },
            || self.is_notified(),
        );
        !notified
    }

    pub fn outer_has_slept(&self) {
        if kept("check: lower") {
            let turns = self.notify_me.load(Ordering::Relaxed);
            self.notify_me.store(turns & !EMBEDDED, Ordering::Relaxed);
        }
    }
}
