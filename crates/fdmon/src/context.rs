//! The context and its turn.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use rustix::io::Errno;

use crate::clock::{Clock, ManualClock};
use crate::config::{AioParams, MonitorKind, PollParams};
use crate::embed::Outer;
use crate::error::{Error, Failures, Result};
use crate::fork::Home;
use crate::handler::Body;
use crate::inbox::Node;
use crate::interest::Events;
use crate::monitor::poll::PollMonitor;
use crate::monitor::{Monitor, MonitorToken, Sink, switch};
use crate::registry::{DueHalf, Hints, Registry};
use crate::remote::{Remote, Shared, lock};
use crate::spin::SpinState;
use crate::stats::ContextStats;
use crate::timer::TimerHeap;

/// An idle bottom half limits the sleep to this.
const IDLE_SLEEP_NS: u64 = 10_000_000;

/// The event loop of one thread. See the crate's documentation for what a turn does.
///
/// Not `Send` and not `Sync`: it belongs to the thread that built it. Other threads hold a
/// [`Remote`].
pub struct AioContext(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    state: RefCell<State>,
    pub shared: Arc<Shared>,
    pub clock: Clock,
    pub home: Home,
}

/// Everything only the home thread touches. Never borrowed over a call into user code.
pub(crate) struct State {
    pub reg: Registry,
    pub monitor: Monitor,
    /// `auto` is on poll and moves to epoll when there are enough fds.
    pub may_move_up: bool,
    pub spin: SpinState,
    pub timers: TimerHeap,
    /// Bottom halves and jobs that arrived, in order; due from the next turn on.
    pub scheduled: VecDeque<Arc<Node>>,
    pub aio: AioParams,
    /// Turns that run now, one inside the other.
    pub depth: u32,
    /// `run` and `poll_until` that go on now.
    pub loops: u32,
    pub closed: bool,
    pub failures: Failures,
    /// The side for an outer loop, once there is one.
    pub outer: Option<Outer>,
    /// The process that made it.
    pub home: Home,
}

impl State {
    /// A callback failed: reported when the turn ends.
    pub fn fail(&mut self, slot: Option<u32>, error: Box<dyn std::error::Error + Send + Sync>) {
        self.failures.errors.push((slot, error));
        self.reg.hints.set(Hints::FAILURES);
    }
}

/// What `close` found alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeakReport {
    /// Handlers that were still registered.
    pub handlers: u32,
    /// Bottom halves that were not deleted.
    pub bottom_halves: u32,
    /// Timers that were not deleted.
    pub timers: u32,
    /// Requests that were in flight.
    pub io: u32,
}

/// Options of a new context; made by [`AioContext::builder`].
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    monitor: MonitorKind,
    poll: PollParams,
    aio: AioParams,
    name: String,
    clock: Option<ManualClock>,
}

impl Builder {
    /// Which monitor. Default [`MonitorKind::Auto`]; any other that cannot be had is an error.
    pub fn monitor(mut self, kind: MonitorKind) -> Self {
        self.monitor = kind;
        self
    }

    /// How to spin. Default: never.
    pub fn poll(mut self, params: PollParams) -> Self {
        self.poll = params;
        self
    }

    /// How to batch file I/O.
    pub fn aio(mut self, params: AioParams) -> Self {
        self.aio = params;
        self
    }

    /// A name for people to read.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Runs on a clock that a test turns by hand.
    pub fn manual_clock(mut self, clock: ManualClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The context, at home in the calling thread.
    ///
    /// # Errors
    /// `InvalidArg` for a parameter out of range, `Unsupported` for a monitor that cannot be had,
    /// `Syscall` when there is no fd left.
    pub fn build(self) -> Result<AioContext> {
        self.poll.validate()?;
        self.aio.validate()?;
        let shared = Shared::new(self.name)?;
        let (monitor, reason, may_move_up) = switch::choose(self.monitor, &shared)?;
        shared.set_monitor(monitor.kind(), reason);
        {
            let mut wanted = lock(&shared.wanted);
            wanted.poll = self.poll.clone();
            wanted.aio = self.aio.clone();
        }
        let mut state = State {
            reg: Registry::new(),
            monitor,
            may_move_up,
            spin: SpinState::new(self.poll),
            timers: TimerHeap::default(),
            scheduled: VecDeque::new(),
            aio: self.aio,
            depth: 0,
            loops: 0,
            closed: false,
            failures: Failures::default(),
            outer: None,
            home: shared.home,
        };
        state.note_spinning();
        Ok(AioContext(Rc::new(Inner {
            state: RefCell::new(state),
            home: shared.home,
            shared,
            clock: self.clock.map_or(Clock::Monotonic, Clock::Manual),
        })))
    }
}

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
    /// Somebody notified, which ends the spin.
    pub notified: bool,
    /// The kernel was asked already, while spinning.
    pub asked: bool,
    /// User code ran since the deadline was computed, and may have changed it.
    pub stale: bool,
    /// The outer loop, if any, does not sleep beyond this.
    pub limit: Option<u64>,
    /// Failures that belong to the turns around this one.
    pub failures_before: usize,
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
            notified: false,
            asked: false,
            stale: false,
            limit: None,
            failures_before: 0,
        }
    }
}

/// The next thing to run.
pub(crate) enum Due {
    Half(u32),
    Job(Arc<Node>),
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
    /// Options for a new context.
    pub fn builder() -> Builder {
        Builder::default()
    }

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
            Way::AllSteps => self.poll_in_full(st, blocking),
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
        st.depth += 1;
        let failures_before = st.failures.errors.len();
        let turn = Turn { ctx: self, failures_before, progress: false };
        let st = self.find(st, blocking)?;
        self.0.shared.stats.batch_max.raise_to(st.reg.due_count());
        turn.run_ready(st)
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
        let failures_before = st.failures.errors.len();
        Ok((Turn { ctx: self, failures_before, progress: false }, st))
    }

    /// Reads the parameters once and computes the timeout.
    #[inline]
    pub(crate) fn plan<'a>(&'a self, mut st: Held<'a>, plan: &mut Plan) -> Held<'a> {
        let shared = &*self.0.shared;
        shared.stats.turns.bump();
        plan.failures_before = st.failures.errors.len();
        st.drain_inbox(shared);
        if st.reg.hints.any(Hints::CHANGED) {
            st.reg.hints.clear(Hints::CHANGED);
            drop(st);
            self.take_wanted();
            st = self.0.state();
        }
        if st.reg.hints.any(Hints::PARKED | Hints::MOVE_UP) {
            st.rearrange(shared);
        }
        plan.counted = plan.blocking && st.spin.params.max_ns != 0;
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
        let shared = &*self.0.shared;
        if plan.stale {
            st.set_deadline(&self.0, plan);
        }
        let may_sleep = !plan.awake;
        if may_sleep {
            self.0.raise_notify_me();
            // The other half of `notify`: one of the two sees the other's word.
            fence(Ordering::SeqCst);
            if shared.notified.load(Ordering::Relaxed) {
                plan.awake = true;
            } else if st.spin.mode {
                drop(st);
                self.leave_spin_mode_before_sleep(plan);
                st = self.0.state();
                plan.awake |= st.spin.mode; // a hook entered it again
            }
        }
        let skip = plan.awake && (plan.asked || !st.kernel_is_due(&self.0, plan));
        let result = if skip { Ok(()) } else { st.ask(&self.0, plan) };
        if may_sleep {
            self.0.lower_notify_me();
        }
        result.map(|()| st)
    }

    /// Hooks and predicates may have scheduled something; so the timeout is computed again.
    #[cold]
    pub(crate) fn leave_spin_mode_before_sleep(&self, plan: &mut Plan) {
        plan.hit |= self.leave_spin_mode();
        self.0.state().set_deadline(&self.0, plan);
    }

    /// After the wait: accept, move the window, put what is due on its lists.
    #[inline]
    pub(crate) fn settle<'a>(&'a self, mut st: Held<'a>, plan: &Plan) -> Held<'a> {
        let shared = &*self.0.shared;
        shared.accept();
        st.drain_inbox(shared);
        let mut now = 0;
        if plan.counted || st.reg.hints.any(Hints::TIMERS) {
            now = self.0.clock.now();
        }
        st.spin.turn_now = 0;
        if plan.counted {
            st.spin.on_turn(shared, plan, now);
        }
        if st.reg.hints.any(Hints::SCHEDULED) {
            st.collect_halves();
        }
        if st.reg.hints.any(Hints::TIMERS) {
            st.collect_timers(now);
        }
        if st.reg.hints.any(Hints::ODD_REPORT) {
            return self.settle_odd_report(st);
        }
        st
    }

    /// The wait reported the notifier, a closed fd, or a registration that is gone.
    #[cold]
    fn settle_odd_report<'a>(&'a self, mut st: Held<'a>) -> Held<'a> {
        st.take_odd_report(&self.0.shared);
        st.reg.hints.clear(Hints::ODD_REPORT);
        if st.reg.bad.is_empty() {
            return st;
        }
        drop(st);
        self.remove_bad();
        self.0.state()
    }

    /// Turns until `stop()`.
    ///
    /// # Errors
    /// As [`AioContext::poll`]; the first error ends the loop.
    pub fn run(&self) -> Result<()> {
        self.run_while(|_| true)
    }

    /// Turns until `stop()` or until this time has passed.
    ///
    /// # Errors
    /// As [`AioContext::run`].
    pub fn run_for(&self, time: Duration) -> Result<()> {
        let over = Rc::new(std::cell::Cell::new(false));
        let flag = Rc::clone(&over);
        let timer = self.timer(move |_| {
            flag.set(true);
            Ok(())
        })?;
        timer.arm(time)?;
        let result = self.run_while(|_| !over.get());
        timer.delete();
        result
    }

    /// Turns until the condition holds, which is looked at after each turn, or until `stop()`.
    ///
    /// # Errors
    /// As [`AioContext::run`].
    pub fn poll_until(&self, mut condition: impl FnMut() -> bool) -> Result<()> {
        self.run_while(move |_| !condition())
    }

    fn run_while(&self, mut go_on: impl FnMut(&Self) -> bool) -> Result<()> {
        self.0.open_state()?.loops += 1;
        let mut result = Ok(());
        while result.is_ok() && go_on(self) && !self.stop_requested() && !self.is_closed() {
            result = self.poll(true).map(drop);
        }
        self.leave_loop();
        result
    }

    /// Leaves a `run` or `poll_until`: out of spin mode, and the outermost takes the stop.
    pub(crate) fn leave_loop(&self) {
        let outermost = {
            let mut st = self.0.state();
            st.loops -= 1;
            st.loops == 0
        };
        if outermost {
            self.0.shared.stop.store(false, Ordering::Relaxed);
        }
        let _ = self.suspend();
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.0.shared.stop.load(Ordering::Acquire)
    }

    /// Ends every `run` and `poll_until` that is going on; with none, the next.
    pub fn stop(&self) {
        self.0.shared.stop.store(true, Ordering::Release);
    }

    /// Leaves spin mode: `poll_end` for all, and one last look, whose hits the next turn runs.
    /// Owed after a bare `poll()` when no further turn follows soon.
    ///
    /// # Errors
    /// `Closed`
    pub fn suspend(&self) -> Result<()> {
        drop(self.0.open_state()?);
        self.leave_spin_mode();
        Ok(())
    }

    /// Ends the loop's sleep, from this thread's own callbacks; other threads use a [`Remote`].
    pub fn notify(&self) {
        self.0.shared.notify();
    }

    /// The side that other threads may hold.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote(Arc::clone(&self.0.shared))
    }

    /// The process-wide id, never used again.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.shared.id
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.shared.name
    }

    /// The monitor that runs now.
    #[must_use]
    pub fn monitor(&self) -> MonitorKind {
        lock(&self.0.shared.monitor).0
    }

    /// Why it is that one, in words.
    #[must_use]
    pub fn monitor_reason(&self) -> String {
        lock(&self.0.shared.monitor).1.clone()
    }

    /// Monotonic time in nanoseconds, on the context's clock.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.0.clock.now()
    }

    /// What the context did so far.
    #[must_use]
    pub fn stats(&self) -> ContextStats {
        self.0.shared.stats()
    }

    /// The spin parameters.
    #[must_use]
    pub fn poll_params(&self) -> PollParams {
        self.0.state().spin.params.clone()
    }

    /// Sets the spin parameters: the spin state starts anew, and `max_ns` 0 leaves spin mode.
    ///
    /// # Errors
    /// `Closed`, `InvalidArg`
    pub fn set_poll_params(&self, params: PollParams) -> Result<()> {
        params.validate()?;
        drop(self.0.open_state()?);
        lock(&self.0.shared.wanted).poll = params.clone();
        self.apply_poll_params(params);
        Ok(())
    }

    pub(crate) fn apply_poll_params(&self, params: PollParams) {
        let off = params.max_ns == 0;
        {
            let mut st = self.0.state();
            st.spin.set_params(params);
            st.note_spinning();
        }
        self.0.shared.stats.window_ns.set(0);
        if off {
            self.leave_spin_mode();
            self.0.state().empty_spin_list();
        }
    }

    /// The I/O parameters.
    #[must_use]
    pub fn aio_params(&self) -> AioParams {
        self.0.state().aio.clone()
    }

    /// Sets the I/O parameters.
    ///
    /// # Errors
    /// `Closed`, `InvalidArg`
    pub fn set_aio_params(&self, params: AioParams) -> Result<()> {
        params.validate()?;
        let mut st = self.0.open_state()?;
        lock(&self.0.shared.wanted).aio = params.clone();
        st.aio = params;
        Ok(())
    }

    /// The context is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.state().closed
    }

    /// Releases everything and says what was still alive. Inside a callback all further
    /// callbacks stop at once; a second call reports nothing.
    pub fn close(&self) -> LeakReport {
        if !self.0.home.is_here() {
            // A forked child: what the kernel holds is the parent's.
            self.0.state().closed = true;
            return LeakReport::default();
        }
        if self.is_closed() {
            return LeakReport::default();
        }
        self.leave_spin_mode();
        let begun: Vec<u32> = {
            // Also those whose spin mode is being left right now, further out.
            let mut st = self.0.state();
            let slots: Vec<u32> = st.reg.handler_slots().collect();
            slots.into_iter().filter(|&s| st.reg.handler(s).is_some_and(|h| h.begun)).collect()
        };
        for slot in begun {
            self.end_one(slot);
        }
        let mut st = self.0.state();
        if st.closed {
            return LeakReport::default(); // by one of the hooks
        }
        let report = LeakReport {
            handlers: st.reg.handlers,
            bottom_halves: st.reg.halves,
            timers: st.reg.timers,
            io: 0,
        };
        st.closed = true;
        st.reg.hints.set(Hints::CLOSED);
        self.0.shared.closed.store(true, Ordering::Release);
        let remains = st.dismantle(&self.0.shared);
        drop(st);
        drop(remains); // users' drop code runs outside the borrow
        report
    }
}

impl Drop for AioContext {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for AioContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AioContext")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("monitor", &self.monitor())
            .field("monitor_reason", &self.monitor_reason())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The state; the borrow must end before any user code runs.
    #[inline]
    pub fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The state, unless this is a forked child. It may be closed.
    #[inline]
    pub fn home_state(&self) -> Result<RefMut<'_, State>> {
        if self.home.is_here() { Ok(self.state.borrow_mut()) } else { Err(closed(false)) }
    }

    /// The state of a context that can be used.
    #[inline]
    pub fn open_state(&self) -> Result<RefMut<'_, State>> {
        let st = self.state.borrow_mut();
        if st.closed || !self.home.is_here() {
            return Err(closed(self.home.is_here()));
        }
        Ok(st)
    }

    #[inline]
    pub fn raise_notify_me(&self) {
        let word = &self.shared.notify_me;
        word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    #[inline]
    pub fn lower_notify_me(&self) {
        let word = &self.shared.notify_me;
        word.store(word.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// Runs user code that must not unwind through the loop; the panic resumes after the turn.
    #[inline]
    pub fn guarded<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(value) => Some(value),
            Err(payload) => {
                let mut st = self.state();
                let depth = st.depth;
                st.failures.panicked(depth, payload);
                st.reg.hints.set(Hints::FAILURES);
                None
            }
        }
    }
}

#[cold]
fn closed(at_home: bool) -> Error {
    if at_home {
        Error::closed()
    } else {
        Error::new(
            crate::ErrorCode::Closed,
            "the context belongs to the parent of this forked process; create a new AioContext",
        )
    }
}

/// Which way a turn takes.
pub(crate) enum Way {
    /// There is only the kernel to ask.
    Kernel,
    /// There is only the spin list to ask, all words in memory.
    SpinList,
    /// Something else may need attention.
    AllSteps,
}

/// What a quick turn found.
pub(crate) enum Quick {
    /// One handler's readiness, not yet on the ready list.
    One(u32, u32),
    /// Handlers are on the ready list.
    Due,
    Nothing,
    /// The turn with all its steps is needed.
    NeedsAll,
}

/// Takes a wait's reports into the registry.
struct Reports<'a> {
    reg: &'a mut Registry,
    /// Something is due now.
    found: bool,
}

impl Sink for Reports<'_> {
    #[inline(always)]
    fn ready(&mut self, token: MonitorToken, events: Events) {
        if let Some((slot, pending)) = self.reg.examine(token, events) {
            self.reg.collect(slot, pending);
            self.found = true;
        }
    }
}

/// …keeping the first one in hand: most of the time it stays alone.
struct FirstReport<'a> {
    reg: &'a mut Registry,
    first: Option<(u32, u32)>,
    several: bool,
}

impl Sink for FirstReport<'_> {
    #[inline(always)]
    fn ready(&mut self, token: MonitorToken, events: Events) {
        let Some((slot, pending)) = self.reg.examine(token, events) else { return };
        match self.first {
            None => self.first = Some((slot, pending)),
            Some((first, its)) => {
                self.reg.collect(first, its);
                self.reg.collect(slot, pending);
                self.several = true;
            }
        }
    }
}

/// Tells the compiler which branch is the rare one.
#[cold]
#[inline(always)]
fn unlikely() {}

#[cold]
fn cannot_wait(monitor: &Monitor, errno: Errno) -> Error {
    let call = if matches!(monitor, Monitor::Poll(_)) { "ppoll" } else { "epoll_wait" };
    Error::syscall(call, errno, "close the context: the kernel refuses to wait for it")
}

impl AioContext {
    /// Parameters that another thread asked for; several requests are taken at once.
    #[cold]
    fn take_wanted(&self) {
        let (poll, aio, poll_changed) = {
            let mut wanted = lock(&self.0.shared.wanted);
            let changed = std::mem::take(&mut wanted.poll_changed);
            (wanted.poll.clone(), wanted.aio.clone(), changed)
        };
        self.0.state().aio = aio;
        if poll_changed {
            self.apply_poll_params(poll);
        }
    }
}

impl State {
    /// The soonest of what is due, bottom halves and timers.
    #[inline]
    pub(crate) fn set_deadline(&mut self, inner: &Inner, plan: &mut Plan) {
        if plan.awake {
            return;
        }
        plan.stale = false;
        self.drain_inbox(&inner.shared);
        let hints = self.reg.hints;
        if hints.any(Hints::DUE | Hints::FAILURES | Hints::CLOSED) && self.must_stay_awake(plan) {
            plan.awake = true;
        } else if hints.any(Hints::SCHEDULED | Hints::TIMERS) {
            self.find_deadline(inner, plan);
        } else {
            plan.deadline = None;
        }
        if let Some(limit) = plan.limit {
            plan.deadline = Some(plan.deadline.map_or(limit, |d| d.min(limit)));
        }
    }

    /// What the hints only suspect: in a nested turn, the lists and failures may be those of the
    /// turns around it.
    #[cold]
    fn must_stay_awake(&self, plan: &Plan) -> bool {
        let new_panic = self.failures.panic.as_ref().is_some_and(|(depth, _)| *depth >= self.depth);
        self.closed
            || new_panic
            || self.failures.errors.len() > plan.failures_before
            || self.reg.has_due()
    }

    #[inline(never)]
    fn find_deadline(&mut self, inner: &Inner, plan: &mut Plan) {
        let mut deadline = self.timers.deadline();
        if !self.scheduled.is_empty() {
            if self.scheduled.iter().any(|node| node.is_scheduled() && !node.is_idle()) {
                plan.awake = true;
                return;
            }
            let limit = inner.clock.now().saturating_add(IDLE_SLEEP_NS);
            deadline = Some(deadline.map_or(limit, |d| d.min(limit)));
        }
        if deadline.is_some_and(|d| d <= plan.start) {
            plan.awake = true;
        }
        plan.deadline = deadline;
    }

    /// Nearly all turns have nothing but handlers that can be due: they take a short way. It has
    /// the same steps in the same order as [`AioContext::find`], less those with nothing to do.
    #[inline]
    pub(crate) fn way(&self, shared: &Shared) -> Way {
        let hints = self.reg.hints;
        if !shared.inbox.is_empty() {
            Way::AllSteps
        } else if hints.only(0) {
            Way::Kernel
        } else if hints.only(Hints::SPINS | Hints::MEMBERS) {
            Way::SpinList
        } else {
            Way::AllSteps
        }
    }

    /// The short way, for who runs the callbacks himself.
    pub(crate) fn find_quickly(&mut self, inner: &Inner, blocking: bool) -> Result<Quick> {
        match self.way(&inner.shared) {
            Way::Kernel if blocking => self.sleep_quickly(inner),
            Way::Kernel => self.glance(inner),
            Way::SpinList => Ok(match self.first_ready() {
                None if !blocking && self.may_end_here(&inner.shared) => Quick::Nothing,
                first => self.look_quickly(inner, first, blocking),
            }),
            Way::AllSteps => Ok(Quick::NeedsAll),
        }
    }

    /// A blocking turn that has nothing but the kernel to ask.
    #[inline(always)]
    fn sleep_quickly(&mut self, inner: &Inner) -> Result<Quick> {
        let shared = &*inner.shared;
        inner.raise_notify_me();
        fence(Ordering::SeqCst); // as in `wait`
        let quick = if shared.notified.load(Ordering::Relaxed) {
            unlikely();
            Ok(Quick::NeedsAll)
        } else {
            self.wait_once(shared)
        };
        inner.lower_notify_me();
        quick
    }

    /// A turn that does not block and has nothing but the kernel to ask.
    #[inline(always)]
    fn glance(&mut self, inner: &Inner) -> Result<Quick> {
        let shared = &*inner.shared;
        let mut quick = Quick::Nothing;
        if self.reg.armed != 0 {
            shared.stats.looks.bump();
            let mut sink = Reports { reg: &mut self.reg, found: false };
            match self.monitor.wait(Some(0), &mut sink) {
                Ok(()) if sink.found => quick = Quick::Due,
                Ok(()) => {}
                Err(Errno::INTR) => return Ok(Quick::NeedsAll),
                Err(errno) => return Err(cannot_wait(&self.monitor, errno)),
            }
            if !self.reg.hints.only(Hints::DUE) {
                return Ok(Quick::NeedsAll);
            }
        }
        shared.stats.turns.bump();
        shared.accept();
        Ok(quick)
    }

    /// The kernel, once and for as long as it takes. Whatever ends the wait but a handler's
    /// readiness is left to the turn with all its steps.
    #[inline(always)]
    fn wait_once(&mut self, shared: &Shared) -> Result<Quick> {
        shared.stats.sleeps.bump();
        let mut sink = FirstReport { reg: &mut self.reg, first: None, several: false };
        let result = self.monitor.wait(None, &mut sink);
        let FirstReport { first, several, .. } = sink;
        if self.reg.hints.any(Hints::PARKED) {
            self.park(shared);
        }
        let Some((slot, pending)) = first else {
            return match result {
                Ok(()) | Err(Errno::INTR) => Ok(Quick::NeedsAll),
                Err(errno) => Err(cannot_wait(&self.monitor, errno)),
            };
        };
        if several || !self.reg.hints.only(0) {
            self.reg.collect(slot, pending);
            return Ok(if several && self.reg.hints.only(Hints::DUE) {
                shared.stats.turns.bump();
                Quick::Due
            } else {
                Quick::NeedsAll
            });
        }
        shared.stats.turns.bump();
        Ok(Quick::One(slot, pending))
    }

    /// A turn that does not sleep skips the kernel where that starves nobody.
    fn kernel_is_due(&mut self, inner: &Inner, plan: &Plan) -> bool {
        if self.reg.armed == 0 {
            return false;
        }
        if self.reg.unspun > 0 && !(plan.hit && plan.blocking && self.spin.mode) {
            return true;
        }
        self.spin.look_is_due(plan, &inner.clock)
    }

    /// Asks the kernel until something is due, the deadline has come or somebody notified.
    #[inline]
    pub(crate) fn ask(&mut self, inner: &Inner, plan: &mut Plan) -> Result<()> {
        let shared = &*inner.shared;
        loop {
            let mut timeout = plan.deadline;
            if plan.awake {
                timeout = Some(0);
            } else if let Some(deadline) = plan.deadline {
                let left = deadline.saturating_sub(inner.clock.now());
                plan.awake = left == 0;
                timeout = Some(left);
            }
            if plan.awake {
                shared.stats.looks.bump();
            } else {
                shared.stats.sleeps.bump();
            }
            let found = match self.ask_kernel(inner, timeout) {
                Ok(found) => found,
                Err(Errno::INTR) => false,
                Err(errno) => return Err(cannot_wait(&self.monitor, errno)),
            };
            // Anything else that ended the wait means nothing: go on with the time that is left.
            if found || plan.awake || shared.notified.load(Ordering::Relaxed) {
                plan.asked = true;
                return Ok(());
            }
        }
    }

    /// Asks the kernel once. `true` = something is due now.
    #[inline(never)]
    pub(crate) fn ask_kernel(
        &mut self,
        inner: &Inner,
        timeout: Option<u64>,
    ) -> std::result::Result<bool, Errno> {
        let mut timeout = timeout;
        // On a manual clock, time passes when nothing else happens.
        let leap = inner.clock.manual().zip(timeout);
        if leap.is_some() {
            timeout = Some(0);
        }
        let mut sink = Reports { reg: &mut self.reg, found: false };
        let result = self.monitor.wait(timeout, &mut sink);
        let found = sink.found || !self.reg.bad.is_empty();
        let signalled = self.reg.notifier_signalled;
        if self.reg.hints.any(Hints::PARKED) {
            self.park(&inner.shared);
        }
        if self.reg.hints.any(Hints::ODD_REPORT) {
            self.take_odd_report(&inner.shared);
        }
        if let Some((clock, ns)) = leap.filter(|(_, ns)| *ns != 0)
            && !found
            && !signalled
            && result.is_ok()
        {
            clock.at_least(clock.now_ns().saturating_add(ns));
        }
        result.map(|()| found)
    }

    #[inline]
    pub(crate) fn drain_inbox(&mut self, shared: &Shared) {
        if shared.inbox.is_empty() {
            return;
        }
        let scheduled = &mut self.scheduled;
        let mut changed = false;
        shared.inbox.drain(|node| {
            if node.is_change() {
                changed = true;
            } else if node.unlink() {
                scheduled.push_back(node);
            }
        });
        self.reg.hints.set(if changed {
            Hints::SCHEDULED | Hints::CHANGED
        } else {
            Hints::SCHEDULED
        });
    }

    /// Takes the reported handlers off the monitor whose callback runs in a turn around this one.
    #[cold]
    fn park(&mut self, shared: &Shared) {
        for slot in self.reg.parked.clone() {
            let _ = self.sync(shared, slot);
        }
    }

    /// What would end the next wait again if it stayed as it is.
    #[cold]
    fn take_odd_report(&mut self, shared: &Shared) {
        if self.reg.notifier_signalled {
            self.clear_notifier(shared);
        }
        if self.reg.orphaned {
            self.shed_orphans(shared);
        }
        if self.reg.bad.is_empty() {
            self.reg.hints.clear(Hints::ODD_REPORT);
        }
    }

    /// Between waits: puts those back whose callback has returned, and moves up to epoll.
    #[cold]
    fn rearrange(&mut self, shared: &Shared) {
        if self.depth == 1 {
            self.reg.hints.clear(Hints::MOVE_UP);
            self.maybe_move_up(shared);
        }
        self.reg.hints.clear(Hints::PARKED);
        for slot in std::mem::take(&mut self.reg.parked) {
            let Some(handler) = self.reg.handler(slot) else { continue };
            if handler.running != 0 {
                self.reg.parked.push(slot);
                self.reg.hints.set(Hints::PARKED);
            } else if handler.parked {
                handler.parked = false;
                let _ = self.sync(shared, slot);
            }
        }
    }

    /// Closes what the kernel holds for a closed context; no turn runs.
    fn release_monitor(&mut self) {
        self.outer = None;
        self.monitor = Monitor::Poll(PollMonitor::default());
    }

    /// What is kept until the borrow of the state has ended, since users' code drops with it.
    fn dismantle(&mut self, shared: &Shared) -> impl Sized + use<> {
        let mut remains = Vec::new();
        for slot in 0..self.reg.slots.len() {
            #[allow(clippy::cast_possible_truncation, reason = "slots are counted by a u32")]
            let slot = slot as u32;
            if let Some(half) = self.reg.half(slot) {
                half.node.kill();
            }
            let mut end_owed = false;
            if let Some(handler) = self.reg.handler(slot) {
                end_owed = handler.end_owed;
                let _ = self.disarm(shared, slot);
            }
            remains.push(self.reg.vacate(slot, end_owed));
        }
        if self.depth == 0 {
            self.release_monitor();
        }
        self.reg.ready.clear();
        self.reg.halves_due.clear();
        self.reg.timers_due.clear();
        self.timers = TimerHeap::default();
        self.drain_inbox(shared);
        lock(&shared.handlers).clear();
        lock(&shared.halves).clear();
        (remains, std::mem::take(&mut self.scheduled))
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

    /// ④ Runs what is due: the handlers that are simple to run here, the rest one by one.
    #[inline(always)]
    fn run_ready(mut self, mut st: Held<'a>) -> Result<bool> {
        let ctx = self.ctx;
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
        if st.reg.hints.any(Hints::GRAVES | Hints::FAILURES | Hints::CLOSED) {
            return ended.clean_up(st);
        }
        Ok(ended.progress)
    }

    #[cold]
    fn clean_up(&self, mut st: Held<'_>) -> Result<bool> {
        let progress = self.progress;
        if st.depth == 0 {
            st.reg.bury();
            if st.closed {
                st.release_monitor();
            }
        }
        let depth = st.depth + 1; // this turn's own
        let mine = self.failures_before.min(st.failures.errors.len());
        let failures = Failures {
            errors: st.failures.errors.split_off(mine),
            panic: st.failures.panic.take_if(|(of, _)| *of >= depth),
        };
        if st.failures.is_empty() {
            st.reg.hints.clear(Hints::FAILURES);
        }
        drop(st);
        if let Some((_, payload)) = failures.panic {
            resume_unwind(payload);
        }
        if failures.errors.is_empty() {
            return Ok(progress);
        }
        Err(Error::callbacks(failures.errors.into_iter().map(|(_, error)| error).collect()))
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
            && let Some(due) = self.next_half()
        {
            return Some(due);
        }
        while let Some(slot) = self.reg.ready.pop() {
            if let Some(due) = self.issue_handler(shared, slot) {
                return Some(due);
            }
        }
        while let Some(slot) = self.reg.timers_due.pop() {
            if let Some(due) = self.issue_timer(slot) {
                return Some(due);
            }
        }
        self.reg.hints.clear(Hints::DUE);
        None
    }

    fn next_half(&mut self) -> Option<Due> {
        loop {
            match self.reg.halves_due.pop_front()? {
                DueHalf::Job(node) => return Some(Due::Job(node)),
                DueHalf::Slot(slot) => {
                    if let Some(due) = self.issue_half(slot) {
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
