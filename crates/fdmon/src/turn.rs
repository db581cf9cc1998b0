//! The turn: from the parameters to the callbacks. `find` has its steps, in their order.

use std::cell::{Cell, RefMut};
use std::mem::ManuallyDrop;
use std::panic::resume_unwind;

use crate::context::{AioContext, AtTheEnd, State};
use crate::dispatch::SimpleHalf;
use crate::error::{Error, Result};
use crate::handler::Body;
use crate::inbox::Node;
use crate::interest::Events;
use crate::record::Kind;
use crate::registry::{DueHalf, Hints};
use crate::remote::Shared;
use crate::sync::{Arc, in_order, kept};
use crate::trace::has_subscriber;
use crate::wait::{Quick, Way};

/// What a turn knows before it waits.
pub(crate) struct Plan {
    pub blocking: bool,
    /// The parameters say that this turn may spin and moves the window.
    pub counted: bool,
    /// When the turn began, if anything needs to know.
    pub start: u64,
    /// When it must be over: `None` = no deadline. At or before `start` = it does not sleep.
    pub deadline: Option<u64>,
    /// It does not sleep: something was found or is due.
    pub awake: bool,
    /// A predicate said yes.
    pub hit: bool,
    /// The kernel was asked already, while spinning.
    pub asked: bool,
    /// Time spent spinning.
    pub spun: u64,
    /// It slept, or the outer loop did.
    pub slept: bool,
    /// User code ran since the deadline was computed, and may have changed it.
    pub stale: bool,
    /// The deadline of the context's own, when an outer loop's may be sooner.
    pub own: Option<u64>,
    /// The outer loop, if any, does not sleep beyond this.
    pub limit: Option<u64>,
    /// The outer loop has something else to do: the spin was ended for it.
    pub interrupted: bool,
    /// The outer loop woke for something else: no event of this context.
    pub foreign: bool,
    /// Failures that belong to the turns around this one.
    pub failures_before: usize,
    /// How many turns had taken a notification when it began.
    pub accepted: u64,
    /// Rounds of its spin, where somebody wants to know.
    pub rounds: u64,
}

impl Plan {
    pub fn new(blocking: bool) -> Self {
        Self {
            blocking,
            counted: false,
            start: 0,
            deadline: None,
            awake: !blocking,
            hit: false,
            asked: false,
            spun: 0,
            slept: false,
            stale: false,
            own: None,
            limit: None,
            interrupted: false,
            foreign: false,
            failures_before: 0,
            accepted: 0,
            rounds: 0,
        }
    }
}

/// The next thing to run.
pub(crate) enum Due {
    Half(u32),
    Job(Arc<Node>),
    /// A request of file I/O that has ended.
    Io(u32),
    /// With its body, taken out for the call.
    Handler {
        slot: u32,
        generation: u32,
        word: u32,
        body: Box<dyn Body>,
    },
    Timer(u32),
    /// Its callback lives in another language; the word stays for the other side to take.
    Foreign(u32),
}

/// The borrowed state on its way through a turn; given up around every call into user code.
pub(crate) type Held<'a> = RefMut<'a, State>;

/// One turn between its begin and its end.
pub(crate) struct Turn<'a> {
    ctx: &'a AioContext,
    /// Failures reported before this turn belong to the turn around it.
    failures_before: usize,
    progress: bool,
}

impl AioContext {
    /// One turn: finds what is ready, sleeping for it if `blocking`, and runs its callbacks.
    /// `true` = something visible ran (a handler, a timer, a bottom half that is not idle).
    ///
    /// ```
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// assert!(!ctx.poll(false)?);
    /// ctx.schedule(|_| Ok(()))?;
    /// assert!(ctx.poll(true)?);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`; `Callback` with what the callbacks of the turn returned, after all of them ran;
    /// `Syscall` when the kernel refuses to wait.
    ///
    /// # Panics
    /// Resumes the first panic of a callback of the turn, after the others ran.
    #[inline]
    pub fn poll(&self, blocking: bool) -> Result<bool> {
        let st = self.0.home_state()?;
        match st.way(&self.0.shared) {
            Way::Kernel if blocking => self.poll_kernel(st),
            Way::Kernel => self.poll_glance(st),
            Way::SpinList if blocking => self.poll_spin_list(st),
            Way::SpinList => self.poll_peek(st),
            Way::AllSteps => self.poll_otherwise(st, blocking),
        }
    }

    // The ways are functions of their own so that each has its registers to itself.

    #[inline(never)]
    fn poll_kernel(&self, mut st: Held<'_>) -> Result<bool> {
        let quick = st.sleep_quickly(&self.0)?;
        self.poll_quickly(st, quick, true)
    }

    #[inline(never)]
    fn poll_glance(&self, mut st: Held<'_>) -> Result<bool> {
        let quick = st.glance(&self.0)?;
        self.poll_quickly(st, quick, false)
    }

    /// Something else needs attention: mostly, only the inbox does.
    #[inline(never)]
    fn poll_otherwise(&self, mut st: Held<'_>, blocking: bool) -> Result<bool> {
        if !st.has_only_inbox() {
            return self.poll_in_full(st, blocking);
        }
        let mut quick = st.take_in(&self.0, blocking)?;
        if let Quick::Nothing = quick
            && let Some(half) = st.only_half(&self.0.shared)
        {
            st.depth += 1;
            return self.quick_turn().run_half(st, half);
        }
        if let Quick::Nothing | Quick::Due = quick {
            st.collect_halves();
            quick = Quick::Due;
        }
        self.poll_quickly(st, quick, blocking)
    }

    #[inline(never)]
    fn poll_spin_list(&self, mut st: Held<'_>) -> Result<bool> {
        let first = st.first_ready();
        let quick = st.look_quickly(&self.0, first, true);
        self.poll_quickly(st, quick, true)
    }

    #[inline(never)]
    fn poll_peek(&self, mut st: Held<'_>) -> Result<bool> {
        match st.first_ready() {
            None if st.may_end_here(&self.0.shared) => Ok(false),
            first => self.poll_peeked(st, first),
        }
    }

    #[inline(never)]
    fn poll_peeked(&self, mut st: Held<'_>, first: Option<usize>) -> Result<bool> {
        let quick = st.look_quickly(&self.0, first, false);
        self.poll_quickly(st, quick, false)
    }

    #[inline(always)]
    fn poll_quickly(&self, mut st: Held<'_>, quick: Quick, blocking: bool) -> Result<bool> {
        if let Quick::One(slot, pending) = quick {
            st.depth += 1;
            return self.quick_turn().run_one(st, slot, pending);
        }
        match quick {
            Quick::One(..) | Quick::Nothing => Ok(false),
            Quick::Due => self.poll_due(st),
            Quick::NeedsAll => self.poll_in_full(st, blocking),
        }
    }

    #[inline(never)]
    fn poll_due(&self, mut st: Held<'_>) -> Result<bool> {
        self.0.shared.stats.batch_max.raise_to(st.reg.due_count());
        st.depth += 1;
        self.quick_turn().run_ready(st)
    }

    /// A turn that began with no failure of turns around it.
    #[inline(always)]
    fn quick_turn(&self) -> Turn<'_> {
        Turn { ctx: self, failures_before: 0, progress: false }
    }

    /// The turn with all its steps.
    #[inline(never)] // keeps the quick turn small
    fn poll_in_full(&self, mut st: Held<'_>, blocking: bool) -> Result<bool> {
        if st.closed {
            return Err(Error::closed());
        }
        if self.0.recording.get() {
            return self.poll_recorded(st, blocking);
        }
        st.depth += 1;
        let failures_before = st.failures.of_others(st.depth);
        let turn = Turn { ctx: self, failures_before, progress: false };
        let st = self.find(st, blocking)?;
        self.0.shared.stats.batch_max.raise_to(st.reg.due_count());
        turn.run_ready(st)
    }

    /// …of which somebody writes down the steps: callbacks are run one by one, none on a short way.
    #[cold]
    fn poll_recorded(&self, mut st: Held<'_>, blocking: bool) -> Result<bool> {
        st.step_begins(Kind::Turn, [blocking.into(), 0, 0]);
        drop(st);
        self.turn_ends_with(|| {
            let (turn, st) = self.enter()?;
            let st = self.find(st, blocking)?;
            self.0.shared.stats.batch_max.raise_to(st.reg.due_count());
            drop(st);
            turn.run_all()
        })
    }

    /// The step that has begun ends with these others, also by a panic.
    pub(crate) fn turn_ends_with(&self, rest: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let progress = Cell::new(false);
        let _ended = AtTheEnd(Some(|| self.foreign_turn_ends(progress.get())));
        let result = rest();
        progress.set(matches!(result, Ok(true)));
        result
    }

    /// The turn up to what is due: parameters, timeout, spin, sleep, accept, window, lists.
    #[inline]
    pub(crate) fn find<'a>(&'a self, st: Held<'a>, blocking: bool) -> Result<Held<'a>> {
        let mut plan = Plan::new(blocking);
        let st = self.plan(st, &mut plan);
        let st = self.spin(st, &mut plan);
        let st = self.wait(st, &mut plan)?;
        Ok(self.settle(st, &plan))
    }

    #[inline]
    pub(crate) fn enter(&self) -> Result<(Turn<'_>, Held<'_>)> {
        let mut st = self.0.open_state()?;
        st.depth += 1;
        let failures_before = st.failures.of_others(st.depth);
        Ok((Turn { ctx: self, failures_before, progress: false }, st))
    }

    /// Reads the parameters once and computes the timeout.
    #[inline]
    pub(crate) fn plan<'a>(&'a self, mut st: Held<'a>, plan: &mut Plan) -> Held<'a> {
        let shared = &self.0.shared;
        shared.stats.turns.bump();
        plan.failures_before = st.failures.of_others(st.depth);
        plan.accepted = shared.stats.accepted.get();
        st.drain_inbox(shared);
        if st.reg.hints.any(Hints::CHANGED) {
            st.reg.hints.clear(Hints::CHANGED);
            drop(st);
            self.take_wanted();
            plan.stale = true;
            st = self.0.state();
        }
        if st.reg.hints.any(Hints::DUE) {
            st.reg.forget_stale();
        }
        if st.reg.hints.any(Hints::IO) {
            st.drive_io(shared);
        }
        if st.reg.hints.any(Hints::PARKED | Hints::MOVE_UP | Hints::TRACED) || has_subscriber() {
            st.rearrange(shared);
        }
        plan.counted = plan.blocking && st.spin.params.max_ns != 0;
        if plan.counted {
            st.spin.get_ready(&self.0.clock);
        }
        if plan.counted || st.reg.hints.any(Hints::TIMERS) {
            plan.start = self.0.clock.now();
        }
        if plan.counted {
            shared.stats.counted_since(plan.start);
        }
        st.set_deadline(&self.0, plan);
        st
    }

    /// Asks the kernel: sleeps if there is nothing yet, or looks if it must be looked at.
    #[inline]
    fn wait<'a>(&'a self, mut st: Held<'a>, plan: &mut Plan) -> Result<Held<'a>> {
        let shared = &self.0.shared;
        if plan.stale {
            st.set_deadline_again(&self.0, plan);
        }
        let may_sleep = !plan.awake;
        if may_sleep {
            if !shared.about_to_sleep() && kept("turn: re-check") {
                plan.awake = true;
            } else if st.spin.mode && kept("turn: leave") {
                drop(st);
                self.leave_spin_mode_before_sleep(plan);
                st = self.0.state();
            }
            plan.awake = plan.awake || !st.io_lets_sleep(shared);
        }
        let skip = plan.awake && (plan.asked || !st.kernel_is_due(&self.0, plan));
        if may_sleep {
            shared.lower_early("turn: lower");
        }
        let result = if skip { Ok(()) } else { st.ask(&self.0, plan) };
        if may_sleep {
            shared.has_slept();
            st.io_has_slept();
        }
        result.map(|()| st)
    }

    /// Hooks and predicates may have scheduled something; so the timeout is computed again.
    #[cold]
    pub(crate) fn leave_spin_mode_before_sleep(&self, plan: &mut Plan) {
        plan.hit |= self.leave_spin_mode();
        let mut st = self.0.state();
        st.set_deadline_again(&self.0, plan);
        plan.awake |= st.spin.mode && kept("leave: re-check"); // a hook entered it again
        plan.awake |= self.0.shared.is_notified(); // …or took the signal of somebody else
    }

    /// After the wait: accept, move the window, put what is due on its lists.
    #[inline]
    pub(crate) fn settle<'a>(&'a self, mut st: Held<'a>, plan: &Plan) -> Held<'a> {
        let shared = &self.0.shared;
        in_order("settle: order", || shared.accept(), || st.drain_inbox(shared));
        let mut now = 0;
        if plan.counted || st.reg.hints.any(Hints::TIMERS) {
            now = self.0.clock.now();
        }
        st.spin.turn_now = 0;
        if st.reg.hints.any(Hints::IO) {
            st.drive_io(shared);
        }
        if plan.counted {
            st.count_turn(shared, plan, now);
        }
        if st.reg.hints.any(Hints::SCHEDULED) {
            st.collect_halves();
        }
        if st.reg.hints.any(Hints::TIMERS) {
            st.collect_timers(now);
        }
        if st.reg.hints.any(Hints::ODD_REPORT | Hints::TRACED) || has_subscriber() {
            return self.settle_rare(st);
        }
        st
    }

    /// The wait reported the notifier, a closed fd, or a registration that is gone; or somebody
    /// wants to know of the window.
    #[cold]
    fn settle_rare<'a>(&'a self, mut st: Held<'a>) -> Held<'a> {
        if st.reg.hints.any(Hints::ODD_REPORT) {
            st.take_odd_report(&self.0.shared);
            st.reg.hints.clear(Hints::ODD_REPORT);
        }
        st.note_turn(&self.0.shared);
        let bad = !st.reg.bad.is_empty();
        drop(st);
        if bad {
            self.remove_bad();
        }
        self.tell();
        self.0.state()
    }
}

impl<'a> Turn<'a> {
    /// ④ Runs the one handler that is due, without the detour over the ready list.
    #[inline(always)]
    fn run_one(mut self, mut st: Held<'a>, slot: u32, pending: u32) -> Result<bool> {
        let ctx = self.ctx;
        let Some(simple) = st.take_simple(&ctx.0.shared, slot, pending) else {
            st.reg.collect(slot, pending);
            drop(st);
            return self.run_all();
        };
        drop(st);
        let st = ctx.run_simple(simple);
        self.progress = true;
        self.tidy_up(st)
    }

    /// ④ Runs the one bottom half that is due, without that detour.
    #[inline(always)]
    fn run_half(mut self, st: Held<'a>, half: SimpleHalf) -> Result<bool> {
        drop(st);
        self.progress = !half.idle;
        let st = self.ctx.run_simple_half(half);
        self.tidy_up(st)
    }

    /// ④ Runs what is due: what is simple to run here, the rest one by one.
    #[inline(always)]
    fn run_ready(mut self, mut st: Held<'a>) -> Result<bool> {
        let ctx = self.ctx;
        while let Some(half) = st.next_simple_half(&ctx.0.shared) {
            drop(st);
            self.progress |= !half.idle;
            st = ctx.run_simple_half(half);
        }
        while let Some(simple) = st.next_simple(&ctx.0.shared) {
            drop(st);
            st = ctx.run_simple(simple);
            self.progress = true;
        }
        self.tidy_up(st)
    }

    #[inline(always)]
    fn tidy_up(self, mut st: Held<'a>) -> Result<bool> {
        if st.reg.hints.only(Hints::QUIET) {
            st.depth -= 1;
            let turn = ManuallyDrop::new(self);
            return Ok(turn.progress);
        }
        drop(st);
        self.run_all()
    }

    /// …one by one.
    #[inline(never)]
    pub fn run_all(mut self) -> Result<bool> {
        while let Some(due) = self.next() {
            self.progress |= self.ctx.dispatch_one(due);
        }
        self.end()
    }

    /// ④ The next callback that is due; `None` = the turn is over.
    #[inline]
    fn next(&mut self) -> Option<Due> {
        self.ctx.0.state().next_due(&self.ctx.0.shared)
    }

    /// Frees what was removed and reports what failed.
    #[inline]
    fn end(self) -> Result<bool> {
        let ended = ManuallyDrop::new(self);
        let mut st = ended.ctx.0.state();
        st.depth -= 1;
        if st.reg.hints.any(Hints::GRAVES | Hints::FAILURES | Hints::CLOSED | Hints::UNTOLD) {
            return ended.clean_up(st);
        }
        Ok(ended.progress)
    }

    #[cold]
    fn clean_up(&self, st: Held<'_>) -> Result<bool> {
        let progress = self.progress;
        drop(st);
        self.ctx.tell();
        let mut st = self.ctx.0.state();
        if st.depth == 0 {
            st.reg.bury();
            if st.closed {
                st.release_monitor();
            }
        }
        let depth = st.depth + 1; // this turn's own
        if let Some(payload) = st.failures.take_panic(depth) {
            // Errors stay, and are reported by the turn around this one, or by the next.
            if st.failures.is_empty() {
                st.reg.hints.clear(Hints::FAILURES);
            }
            drop(st);
            resume_unwind(payload);
        }
        let mine = self.failures_before.min(st.failures.errors.len());
        let errors = st.failures.errors.split_off(mine);
        if st.failures.is_empty() {
            st.reg.hints.clear(Hints::FAILURES);
        }
        drop(st);
        if errors.is_empty() {
            return Ok(progress);
        }
        Err(Error::callbacks(errors.into_iter().map(|(_, error)| error).collect()))
    }

    /// Reports what failed before this turn as well: in `prepare` and `check`.
    pub fn adopt_failures(&mut self) {
        self.failures_before = 0;
    }
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        let mut st = self.ctx.0.state();
        st.depth -= 1;
        if st.depth == 0 && st.closed {
            st.release_monitor();
        }
    }
}

impl State {
    /// Bottom halves, then handlers, then timers; a stale entry's word is 0.
    #[inline]
    pub(crate) fn next_due(&mut self, shared: &Shared) -> Option<Due> {
        if !self.reg.halves_due.is_empty()
            && let Some(due) = self.next_half(shared)
        {
            return Some(due);
        }
        while let Some(slot) = self.reg.ready.pop() {
            if let Some(due) = self.issue_handler(shared, slot) {
                return Some(due);
            }
        }
        while let Some(slot) = self.reg.timers_due.pop() {
            if let Some(due) = self.issue_timer(shared, slot) {
                return Some(due);
            }
        }
        self.reg.hints.clear(Hints::DUE);
        None
    }

    fn next_half(&mut self, shared: &Shared) -> Option<Due> {
        loop {
            match self.reg.halves_due.pop_front()? {
                DueHalf::Job(node) => return Some(Due::Job(node)),
                DueHalf::Slot(slot) => {
                    if let Some(due) = self.issue_half(shared, slot) {
                        return Some(due);
                    }
                }
            }
        }
    }
}

/// The events part of a word.
#[inline]
pub(crate) fn events_of(word: u32) -> Events {
    Events::from_bits_truncate(word & crate::interest::word::EVENTS)
}
