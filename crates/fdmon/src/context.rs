//! The context: its state, its options, its end, and what it says of itself.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::ack;
use crate::aio::Aio;
use crate::clock::{Clock, ManualClock};
use crate::config::{AioParams, IoEngine, MonitorKind, PollParams, RingParams};
use crate::error::{Error, Failures, Result};
use crate::fork::Home;
use crate::inbox::Node;
use crate::monitor::{Monitor, switch};
use crate::outer::Outer;
use crate::record::Recorder;
use crate::registry::{DueHalf, Hints, Registry};
use crate::remote::{Remote, Shared, lock};
use crate::remote_handlers::Claim;
use crate::reserve::Reserved;
use crate::spin::SpinState;
use crate::stats::ContextStats;
#[cfg(not(wasi))]
use crate::stats_page;
use crate::sync::{Arc, Ordering, kept, ordered};
use crate::timer::TimerHeap;
use crate::trace::Points;

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
    /// A trace is written: of interest to turns that take all their steps.
    pub recording: Cell<bool>,
}

/// Everything only the home thread touches. Never borrowed over a call into user code.
pub(crate) struct State {
    pub reg: Registry,
    pub monitor: Monitor,
    /// Nobody asked for the monitor: another may take its place.
    pub auto: bool,
    /// `auto` is on poll and moves to epoll when there are enough fds.
    pub may_move_up: bool,
    /// …these many.
    pub move_up_at: u32,
    /// What kind of ring io_uring is to have.
    pub ring: RingParams,
    /// Why `auto` has no ring.
    pub ring_refused: String,
    pub spin: SpinState,
    pub timers: TimerHeap,
    /// Bottom halves and jobs that arrived, in order; due from the next turn on.
    pub scheduled: VecDeque<Arc<Node>>,
    /// File I/O.
    pub io: Aio,
    /// Turns that run now, one inside the other.
    pub depth: u32,
    /// `run` and `poll_until` that go on now.
    pub loops: u32,
    pub closed: bool,
    pub failures: Failures,
    /// Who gets the bodies of handlers that were taken away while one of their functions ran.
    pub claims: Vec<Claim>,
    /// The side for an outer loop, once there is one.
    pub outer: Option<Outer>,
    pub trace: Points,
    /// Where it is written down what the context does, if it is.
    pub recorder: Option<Box<Recorder>>,
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
    by_environment: bool,
    poll: PollParams,
    aio: AioParams,
    ring: RingParams,
    name: String,
    clock: Option<ManualClock>,
    reserved: Option<Reserved>,
    /// What FDMON_TRACE is, where the caller has an environment of its own.
    trace: Option<Option<PathBuf>>,
}

impl Builder {
    /// Which monitor. Default [`MonitorKind::Auto`]; any other that cannot be had is an error.
    pub fn monitor(mut self, kind: MonitorKind) -> Self {
        self.monitor = kind;
        self
    }

    /// The monitor stands in FDMON_MONITOR, of an environment that only the caller sees.
    #[doc(hidden)]
    pub fn monitor_by_environment(mut self, by_environment: bool) -> Self {
        self.by_environment = by_environment;
        self
    }

    /// What stands in FDMON_TRACE of an environment that only the caller sees.
    #[doc(hidden)]
    pub fn trace_by_environment(mut self, file: Option<PathBuf>) -> Self {
        self.trace = Some(file);
        self
    }

    /// How to spin. Default: never.
    pub fn poll(mut self, params: PollParams) -> Self {
        self.poll = params;
        self
    }

    /// What kind of ring, where the monitor is io_uring.
    pub fn ring(mut self, params: RingParams) -> Self {
        self.ring = params;
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

    /// The id, the name and the parameters were settled before; those given here do not count.
    #[doc(hidden)]
    pub fn reserved(mut self, reserved: Reserved) -> Self {
        self.reserved = Some(reserved);
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
    /// `InvalidArg` for a parameter out of range, `Unsupported` for a monitor or for kernel busy
    /// polling that cannot be had, `Syscall` when there is no fd left.
    pub fn build(self) -> Result<AioContext> {
        let reserved = match self.reserved {
            Some(reserved) => reserved,
            None => Reserved::new(self.name, self.poll, self.aio)?,
        };
        let (shared, poll, aio) = reserved.move_in()?;
        let chosen = switch::choose(self.monitor, self.by_environment, &self.ring, &shared)?;
        shared.set_monitor(chosen.monitor.kind(), chosen.reason);
        let busy_poll = poll.kernel_busy_poll;
        let poll = PollParams { kernel_busy_poll: None, ..poll };
        let clock = self.clock.map_or(Clock::Monotonic, Clock::Manual);
        let mut state = State {
            reg: Registry::new(),
            move_up_at: switch::EPOLL_AT,
            may_move_up: chosen.auto && matches!(chosen.monitor, Monitor::Poll(_)),
            monitor: chosen.monitor,
            auto: chosen.auto,
            ring: self.ring,
            ring_refused: chosen.ring_refused,
            spin: SpinState::new(poll),
            timers: TimerHeap::default(),
            scheduled: VecDeque::new(),
            io: Aio::new(aio),
            depth: 0,
            loops: 0,
            closed: false,
            failures: Failures::default(),
            claims: Vec::new(),
            outer: None,
            trace: Points::new(clock.clone()),
            recorder: None,
            home: shared.home,
        };
        state.note_spinning();
        shared.stats.window_ns.set(state.spin.first_window());
        state.set_busy_poll(&shared, busy_poll)?;
        if state.io.params.engine == IoEngine::IoUring {
            state.make_engine(&shared, IoEngine::IoUring)?;
        }
        #[cfg(not(wasi))]
        stats_page::by_environment()?;
        ack::came_home();
        reserved.built();
        let ctx = AioContext(Rc::new(Inner {
            state: RefCell::new(state),
            home: shared.home,
            shared,
            clock,
            recording: Cell::new(false),
        }));
        let by_environment = || std::env::var_os("FDMON_TRACE").map(PathBuf::from);
        if let Some(file) = self.trace.unwrap_or_else(by_environment)
            && !file.as_os_str().is_empty()
        {
            ctx.trace_by_environment(&file)?;
        }
        Ok(ctx)
    }
}

impl AioContext {
    /// Options for a new context.
    pub fn builder() -> Builder {
        Builder::default()
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
        let over = Rc::new(Cell::new(false));
        let flag = Rc::clone(&over);
        let timer = self.timer(move |_| {
            flag.set(true);
            Ok(())
        })?;
        timer.arm(time)?;
        let _deleted = AtTheEnd(Some(|| timer.delete()));
        self.run_while(|_| !over.get())
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
        let left = AtTheEnd(Some(|| self.leave_loop()));
        let mut result = Ok(());
        while result.is_ok() && go_on(self) && !self.stop_requested() && !self.is_closed() {
            result = self.poll(true).map(drop);
        }
        drop(left);
        if result.is_ok() {
            self.resume_panic(); // else it waits, so that the error is not lost
        }
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
        let open = self.0.open_state().is_ok();
        if open {
            self.leave_spin_mode_by_call();
        }
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.0.shared.stop.load(ordered("stop: acquire", Ordering::Acquire))
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
    ///
    /// # Panics
    /// Resumes the first panic of a hook or predicate, once all of them ran, unless a turn does. So
    /// do the other calls that end spinning for a handler or the context.
    pub fn suspend(&self) -> Result<()> {
        drop(self.0.open_state()?);
        self.leave_spin_mode_by_call();
        self.resume_panic();
        Ok(())
    }

    /// Outside a turn nobody else hears of a panic of a hook: it goes on from the call that ran the
    /// hook, once that has done its work.
    #[inline]
    pub(crate) fn resume_panic(&self) {
        let mut st = self.0.state();
        if st.depth != 0 || !st.reg.hints.any(Hints::FAILURES) {
            return;
        }
        // What `prepare` left is for `dispatch`.
        let panic = st.failures.panics.pop_if(|(depth, _)| *depth == 0);
        if st.failures.is_empty() {
            st.reg.hints.clear(Hints::FAILURES);
        }
        drop(st);
        if let Some((_, payload)) = panic
            && !std::thread::panicking()
        {
            resume_unwind(payload);
        }
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
    /// `Closed`, `InvalidArg`; `Unsupported` for kernel busy polling that cannot be had, after which
    /// the old parameters are in force.
    pub fn set_poll_params(&self, params: PollParams) -> Result<()> {
        params.validate()?;
        self.0.open_state()?.set_busy_poll(&self.0.shared, params.kernel_busy_poll)?;
        lock(&self.0.shared.wanted).poll = params.clone();
        self.apply_poll_params(params, true);
        self.resume_panic();
        Ok(())
    }

    /// After [`State::set_busy_poll`], the one part that can be refused.
    pub(crate) fn apply_poll_params(&self, params: PollParams, by_call: bool) {
        let off = params.max_ns == 0;
        {
            let mut st = self.0.state();
            st.spin.set_params(params);
            st.spin.forget_hits(&self.0.shared);
            st.note_spinning();
            let from_ns = self.0.shared.stats.window_ns.get();
            let to_ns = st.spin.first_window();
            self.0.shared.stats.window_ns.set(to_ns);
            st.note_window(from_ns, to_ns);
        }
        if off {
            if by_call {
                self.leave_spin_mode_by_call();
            } else {
                self.leave_spin_mode();
            }
            self.0.state().empty_spin_list();
        }
        self.tell();
    }

    /// The I/O parameters.
    #[must_use]
    pub fn aio_params(&self) -> AioParams {
        self.0.state().io.params.clone()
    }

    /// Sets the I/O parameters. Another engine takes over when the one before has nothing in flight.
    ///
    /// # Errors
    /// `Closed`, `InvalidArg`; `Unsupported` for an engine that cannot be had, after which the old
    /// parameters are in force.
    pub fn set_aio_params(&self, params: AioParams) -> Result<()> {
        params.validate()?;
        let mut st = self.0.open_state()?;
        st.set_io_params(&self.0.shared, params.clone())?;
        lock(&self.0.shared.wanted).aio = params;
        Ok(())
    }

    /// The context is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.state().closed
    }

    /// Releases everything and says what was still alive. Inside a callback all further
    /// callbacks stop at once; a second call reports nothing. Requests of file I/O are cancelled or
    /// waited for, and hear of their end in this call: the context does nothing for them any more.
    pub fn close(&self) -> LeakReport {
        if self.is_closed() {
            return LeakReport::default();
        }
        let report = self.release();
        self.resume_panic();
        report
    }

    /// [`AioContext::close`] for who looks for failures of hooks himself.
    pub(crate) fn release(&self) -> LeakReport {
        if !self.0.home.is_here() {
            // A forked child: what the kernel holds is the parent's.
            if !std::mem::replace(&mut self.0.state().closed, true) {
                ack::left_home();
            }
            return LeakReport::default();
        }
        if self.is_closed() {
            return LeakReport::default();
        }
        self.leave_spin_mode_by_call();
        self.let_leave();
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
        let io = st.finish_io(&self.0.shared);
        let report = LeakReport {
            handlers: st.reg.handlers,
            bottom_halves: st.reg.halves,
            timers: st.reg.timers,
            io,
        };
        st.closed = true;
        st.reg.hints.set(Hints::CLOSED);
        ack::left_home();
        self.0.shared.close();
        let completions = st.take_ended();
        let remains = st.dismantle(&self.0.shared);
        drop(st);
        for (complete, outcome) in completions {
            self.0.guarded(|| complete.complete(self, outcome)); // no completion is lost
        }
        drop(remains); // users' drop code runs outside the borrow
        self.tell();
        self.end_trace();
        report
    }
}

impl AioContext {
    /// Serves the requests that take handlers away and came before the end.
    fn let_leave(&self) {
        loop {
            let leaving = self.0.state().next_leaving(&self.0.shared);
            let Some(node) = leaving else { return };
            if let Some(job) = node.take_job() {
                self.0.guarded(|| job(&mut self.ops()));
            }
        }
    }
}

/// Done when it goes out of scope, also by a panic.
pub(crate) struct AtTheEnd<F: FnOnce()>(pub Option<F>);

impl<F: FnOnce()> Drop for AtTheEnd<F> {
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            what();
        }
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

impl AioContext {
    /// Parameters that another thread asked for; several requests are taken at once.
    #[cold]
    pub(crate) fn take_wanted(&self) {
        let (poll, aio, poll_changed) = {
            let mut wanted = lock(&self.0.shared.wanted);
            let changed = std::mem::take(&mut wanted.poll_changed);
            (wanted.poll.clone(), wanted.aio.clone(), changed)
        };
        {
            let mut st = self.0.state();
            if st.io.params != aio
                && let Err(refusal) = st.set_io_params(&self.0.shared, aio.clone())
            {
                st.fail(None, Box::new(refusal)); // as of kernel busy polling, below
                let mut wanted = lock(&self.0.shared.wanted);
                if wanted.aio == aio {
                    wanted.aio = st.io.params.clone(); // else somebody has asked for others since
                }
            }
        }
        if !poll_changed {
            return;
        }
        let result = self.0.state().set_busy_poll(&self.0.shared, poll.kernel_busy_poll);
        match result {
            Ok(()) => self.apply_poll_params(poll, false),
            Err(refusal) => self.keep_poll_params(refusal),
        }
    }

    /// The old parameters stay; who asked for others is not there to be told, so the turn reports.
    #[cold]
    fn keep_poll_params(&self, refusal: Error) {
        let mut st = self.0.state();
        st.fail(None, Box::new(refusal));
        let mut wanted = lock(&self.0.shared.wanted);
        if !wanted.poll_changed || !kept("parameters: re-check") {
            wanted.poll = st.spin.params.clone();
        }
    }
}

impl State {
    /// Closes what the kernel holds for a closed context; no turn runs.
    pub(crate) fn release_monitor(&mut self) {
        self.outer = None;
        self.monitor = Monitor::none();
    }

    /// The next request in line that takes a handler away.
    fn next_leaving(&mut self, shared: &Shared) -> Option<Arc<Node>> {
        self.drain_inbox(shared);
        let due = |half: &DueHalf| matches!(half, DueHalf::Job(node) if node.is_leaving());
        if let Some(at) = self.reg.halves_due.iter().position(due)
            && let Some(DueHalf::Job(node)) = self.reg.halves_due.remove(at)
        {
            return Some(node);
        }
        let at = self.scheduled.iter().position(|node| node.is_leaving())?;
        self.scheduled.remove(at)
    }

    /// What is kept until the borrow of the state has ended, since users' code drops with it.
    pub(crate) fn dismantle(&mut self, shared: &Shared) -> impl Sized + use<> {
        if matches!(self.monitor, Monitor::IoUring(_)) {
            self.release_monitor(); // takes all its polls back at once
        }
        self.empty_spin_list();
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
                self.disarm(shared, slot);
            }
            remains.push(self.reg.vacate(slot, end_owed));
        }
        if self.depth == 0 {
            self.release_monitor();
        }
        self.spin.forget_members(); // and with them their suppress words
        self.reg.ready.clear();
        let jobs = std::mem::take(&mut self.reg.halves_due);
        self.reg.timers_due.clear();
        self.timers = TimerHeap::default();
        self.drain_inbox(shared);
        lock(&shared.handlers).clear();
        lock(&shared.halves).clear();
        (remains, jobs, std::mem::take(&mut self.scheduled))
    }
}
